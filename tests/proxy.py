"""A proxy before an S3 server, in a thread of its own: it counts, shapes the link, injects faults, and can be R2.

Requests pass through as they came, Host header included, because it is signed.
"""

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 64 * 1024
HEAD_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Request:
    """The head of a request.

    Args:
        method: ``GET``, ``PUT``, …
        target: path and query, as sent.
        headers: names in lower case.
        raw: the head's bytes.
    """

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {
            name: values[0] for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()
        }

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))


@dataclass(frozen=True)
class Refusal:
    """An answer that the server behind never gave."""

    status: int
    code: str
    message: str = "no"
    details: str = ""

    def encoded(self, head_only: bool) -> bytes:
        said = f"<Code>{self.code}</Code><Message>{self.message}</Message>{self.details}"
        body = f"<Error>{said}</Error>".encode()
        head = f"HTTP/1.1 {self.status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + (b"" if head_only else body)


@dataclass
class Fault:
    """What is to go wrong with the requests that fit.

    Args:
        kind: ``status`` answers with ``status`` and does not ask the server; ``reset`` breaks the connection instead of
            asking it; ``silence`` takes the request and says nothing; ``lost`` asks the server and breaks the connection
            where the answer should come; ``cut`` breaks it in the middle of the answer's body.
        status: for ``status``.
        code: S3's word for it.
        message: what it says besides.
        details: XML behind that.
        method: only these; empty for all.
        path: a regular expression for the decoded path and query.
        skip: so many that fit go well before.
        times: so many go wrong.
        every: only each n-th of them.
    """

    kind: Literal["status", "reset", "silence", "lost", "cut"]
    status: int = 500
    code: str = "InternalError"
    message: str = "no"
    details: str = ""
    method: str = ""
    path: str = ""
    skip: int = 0
    times: int = 1
    every: int = 1
    seen: int = 0
    done: int = 0

    def strikes(self, request: Request) -> bool:
        if self.method not in ("", request.method) or not re.search(self.path, unquote(request.target)):
            return False
        self.seen += 1
        strikes = self.seen > self.skip and self.done < self.times and (self.seen - self.skip - 1) % self.every == 0
        self.done += strikes
        return strikes


Rules = Callable[[Request, bytes], Refusal | None]


@dataclass
class Proxy:
    """A proxy that is running; what it counts may be read at any time.

    Attributes:
        port: where it listens.
        requests: all that came, in order.
        bytes_up: of requests' bodies.
        bytes_down: of answers' bodies.
        faults: what is to go wrong.
        rules: refuses requests; sees the bodies of POSTs.
        noted: is told of each answer's status.
        megabytes_per_second: of the link, in each direction; None for no limit.
        latency_seconds: before each answer.
    """

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    bytes_up: int = 0
    bytes_down: int = 0
    faults: list[Fault] = field(default_factory=list)
    rules: Rules | None = None
    noted: Callable[[Request, int], None] | None = None
    megabytes_per_second: float | None = None
    latency_seconds: float = 0.0
    _free: dict[str, float] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str = "", path: str = "") -> int:
        """How many requests fit."""
        fitting = (item for item in self.requests if method in ("", item.method))
        return sum(bool(re.search(path, unquote(item.target))) for item in fitting)

    def methods(self) -> Counter[str]:
        return Counter(request.method for request in self.requests)

    def inject(self, *faults: Fault) -> None:
        """Let these go wrong, and nothing else."""
        self.faults[:] = faults

    def forget(self) -> None:
        """Count from nothing."""
        self.requests.clear()
        self.bytes_up = self.bytes_down = 0

    async def shape(self, direction: str, count: int) -> None:
        if self.megabytes_per_second:
            now = time.monotonic()
            free = max(now, self._free.get(direction, 0.0)) + count / (self.megabytes_per_second * 1e6)
            self._free[direction] = free
            await asyncio.sleep(free - now)


@contextmanager
def proxy(port: int, listen: int = 0) -> Iterator[Proxy]:
    """A proxy before the server at a port of 127.0.0.1, listening at ``listen`` or any free one."""
    state = Proxy()
    loop = asyncio.new_event_loop()
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = loop.create_task(_quietly(_connection(state, port, reader, writer), writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", listen, limit=HEAD_LIMIT))
    state.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="proxy", daemon=True)
    thread.start()

    async def stop() -> None:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    try:
        yield state
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


async def _quietly(talk: Coroutine[Any, Any, None], writer: asyncio.StreamWriter) -> None:
    try:
        await talk
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
        pass  # one of the two went away
    finally:
        writer.transport.abort()


async def _connection(state: Proxy, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    behind: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    try:
        while True:
            request = await _head(reader)
            if request is None:
                return
            state.requests.append(request)
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            fault = next((fault for fault in state.faults if fault.strikes(request)), None)
            if fault is not None and fault.kind == "reset":
                return
            body = await _body(state, reader, request)
            refusal = state.rules(request, body) if state.rules else None
            if fault is not None and fault.kind == "status":
                refusal = Refusal(fault.status, fault.code, fault.message, fault.details)
            if refusal is not None:
                writer.write(refusal.encoded(request.method == "HEAD"))
                await writer.drain()
                continue
            if fault is not None and fault.kind == "silence":
                await reader.read()  # until the client has enough
                return
            if behind is None:
                behind = await asyncio.open_connection("127.0.0.1", port, limit=HEAD_LIMIT)
            if not await _answer(state, request, body, behind, writer, fault):
                return
    finally:
        if behind is not None:
            behind[1].transport.abort()


async def _head(reader: asyncio.StreamReader) -> Request | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, target, headers, raw)


async def _body(state: Proxy, reader: asyncio.StreamReader, request: Request) -> bytes:
    if "chunked" in request.headers.get("transfer-encoding", ""):
        raise ConnectionError("S3 wants a length")
    pieces = []
    left = request.length
    while left:
        piece = await reader.read(min(left, PIECE))
        if not piece:
            raise ConnectionError("the client went away")
        await state.shape("up", len(piece))
        state.bytes_up += len(piece)
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


async def _answer(
    state: Proxy,
    request: Request,
    body: bytes,
    behind: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    writer: asyncio.StreamWriter,
    fault: Fault | None,
) -> bool:
    """Ask the server and pass its answer on; whether the connection is still good."""
    reader, server = behind
    server.write(re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", request.raw))
    server.write(body)
    await server.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if state.noted is not None:
        state.noted(request, status)
    data = b"" if request.method == "HEAD" or status in (204, 304) else await _answer_body(head, reader)
    await asyncio.sleep(state.latency_seconds)
    if fault is not None and fault.kind == "lost":
        return False
    end = len(data) // 2 if fault is not None and fault.kind == "cut" else len(data)
    writer.write(head)
    for start in range(0, end, PIECE):
        piece = data[start : min(start + PIECE, end)]
        await state.shape("down", len(piece))
        state.bytes_down += len(piece)
        writer.write(piece)
        await writer.drain()
    await writer.drain()
    if fault is not None:
        await asyncio.sleep(0.05)  # so that the client has what was sent before the connection breaks
    return fault is None


async def _answer_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """The body as it is on the wire, chunks and all."""
    if match := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
        return await reader.readexactly(int(match[1]))
    pieces = []
    while re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        size = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(size, 16) + 2)
        pieces += [size, chunk]
        if int(size, 16) == 0:
            break
    return b"".join(pieces)


@dataclass
class R2Rules:
    """Refuses what Cloudflare R2 refuses and SeaweedFS takes.

    Checksum headers and trailers, ACLs, server-side encryption, tags, versions and the listing of parts; parts that are
    not all as long but the last; a second write of one key within a second; more than 1,000 keys a deletion; regions.

    Args:
        bulk_delete: take DeleteObjects with a checksum, which R2 at times has refused.
        second: how long a key rests after a write.
    """

    bulk_delete: bool = False
    second: float = 1.0
    refused: list[str] = field(default_factory=list)
    _written: dict[str, float] = field(default_factory=dict)
    _parts: dict[str, dict[int, int]] = field(default_factory=dict)

    def __call__(self, request: Request, body: bytes) -> Refusal | None:
        refusal = self._refusal(request, body)
        if refusal is not None:
            self.refused.append(f"{refusal.code}: {refusal.message}")
        return refusal

    def noted(self, request: Request, status: int) -> None:
        query = request.query
        if status != 200 or request.method not in ("PUT", "POST") or "delete" in query or "uploads" in query:
            return
        if "partNumber" in query:
            copied = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("x-amz-copy-source-range", ""))
            length = int(copied[2]) - int(copied[1]) + 1 if copied else request.length
            self._parts.setdefault(query["uploadId"], {})[int(query["partNumber"])] = length
        else:
            self._written[request.path] = time.monotonic()

    def _refusal(self, request: Request, body: bytes) -> Refusal | None:
        headers, query = request.headers, request.query
        bulk = "delete" in query and self.bulk_delete
        for name in headers:
            if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer")) and not bulk:
                return Refusal(501, "NotImplemented", f"header {name} is not implemented")
            if name.startswith(("x-amz-acl", "x-amz-grant", "x-amz-server-side-encryption", "x-amz-tagging")):
                return Refusal(501, "NotImplemented", f"header {name} is not implemented")
        if "TRAILER" in headers.get("x-amz-content-sha256", "") or "aws-chunked" in headers.get("content-encoding", ""):
            return Refusal(501, "NotImplemented", "trailers are not implemented")
        for name in ("acl", "tagging", "versioning", "versions", "policy"):
            if name in query:
                return Refusal(501, "NotImplemented", f"{name} is not implemented")
        if request.method == "GET" and "uploadId" in query:
            return Refusal(501, "NotImplemented", "ListParts is not implemented")
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/s3/", headers.get("authorization", ""))
        if scope and scope[1] not in ("auto", "us-east-1"):
            return Refusal(400, "InvalidRegionName", "the region must be auto")
        if "delete" in query and body.count(b"<Key>") > 1000:
            return Refusal(400, "MalformedXML", "more than 1000 keys")
        if request.method == "POST" and "uploadId" in query:
            sizes = [size for _, size in sorted(self._parts.get(query["uploadId"], {}).items())]
            if len(set(sizes[:-1])) > 1 or (len(sizes) > 1 and sizes[-1] > sizes[0]):
                return Refusal(400, "InvalidPart", "all non-trailing parts must have the same length")
        writes = request.method == "PUT" and "partNumber" not in query
        if writes and time.monotonic() - self._written.get(request.path, -9e9) < self.second:
            return Refusal(429, "TooManyRequests", "reduce your concurrent request rate for the same object")
        return None
