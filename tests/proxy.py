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
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from servers import ACCESS_KEY

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


LISTED = frozenset(  # what may be asked of a listing
    {"list-type", "prefix", "delimiter", "continuation-token", "start-after", "marker", "max-keys", "encoding-type",
     "fetch-owner", "x-id"}
)  # fmt: skip
ACCESS_KEY_LENGTH = 32
PART_BYTES, PARTS = 5 * 1024 * 1024, 10_000  # the shortest part but for the last, and how many there may be
SKEW = timedelta(minutes=15)


@dataclass(frozen=True)
class R2Refusal(Refusal):
    """An answer of R2, by its clock.

    Args:
        now: what time it has.
    """

    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def encoded(self, head_only: bool) -> bytes:
        first, rest = super().encoded(head_only).split(b"\r\n", 1)
        return first + b"\r\nDate: " + format_datetime(self.now, usegmt=True).encode() + b"\r\n" + rest


@dataclass
class R2Rules:
    """Refuses what Cloudflare R2 refuses and SeaweedFS takes, in R2's words.

    Keys that it does not know (401), or of another length than R2's, requests that are not signed, or by another clock;
    what a key may not; checksum headers and trailers, ACLs, server-side encryption, tags, versions, the listing of parts
    and conditions on the copy of one; parts that are not all as long but the last; a second write of one key within a
    second; more than 1,000 keys a deletion; regions. A wrong secret is what SeaweedFS says no to, in the same words.

    Args:
        bulk_delete: take DeleteObjects with a checksum, which R2 at times has refused.
        second: how long a key rests after a write.
        key_id: the access key that it knows.
        read_only: the key may list and read alone.
        ahead: how far its clock is ahead of this machine's.
    """

    bulk_delete: bool = False
    second: float = 1.0
    key_id: str = ACCESS_KEY
    read_only: bool = False
    ahead: timedelta = timedelta(0)
    refused: list[str] = field(default_factory=list)
    _written: dict[str, float] = field(default_factory=dict)
    _parts: dict[str, dict[int, int]] = field(default_factory=dict)

    def __call__(self, request: Request, body: bytes) -> Refusal | None:
        said = self._stranger(request) or self._denied(request) or self._refused(request, body)
        if said is None:
            return None
        status, code, message = said
        self.refused.append(f"{code}: {message}")
        return R2Refusal(status, code, message, now=self._now())

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

    def _now(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def _stranger(self, request: Request) -> tuple[int, str, str] | None:
        """What is wrong with who asks, before it is looked at what is asked."""
        signed = request.headers.get("authorization")
        if signed is None:
            return 400, "InvalidArgument", "Authorization"
        written = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        if abs(self._now() - written) > SKEW:
            return 403, "RequestTimeTooSkewed", "the difference between the request time and the server's is too large"
        scope = re.search(r"Credential=([^,]+)/\d+/([^/,]+)/s3/aws4_request", signed)
        if scope is None:
            return 400, "InvalidRequest", "Please use AWS4-HMAC-SHA256"
        key_id, region = scope[1], scope[2]
        if len(key_id) != ACCESS_KEY_LENGTH:
            says = f"Credential access key has length {len(key_id)}, should be {ACCESS_KEY_LENGTH}"
            return 400, "InvalidArgument", says
        if key_id != self.key_id:
            return 401, "Unauthorized", "Unauthorized"
        if region not in ("auto", "us-east-1"):
            return 400, "InvalidRegionName", "the region must be auto"
        return None

    def _denied(self, request: Request) -> tuple[int, str, str] | None:
        """What a key for the objects of one bucket may not."""
        lists_buckets = request.path == "/"
        writes = request.method not in ("GET", "HEAD")
        return (403, "AccessDenied", "Access Denied") if lists_buckets or (self.read_only and writes) else None

    def _refused(self, request: Request, body: bytes) -> tuple[int, str, str] | None:
        query, method = request.query, request.method
        if wants := self._unknown(request):
            return 501, "NotImplemented", f"{wants} not implemented"
        if "delete" in query and body.count(b"<Key>") > 1000:
            return 400, "MalformedXML", "more than 1000 keys"
        if int(query.get("partNumber") or 1) > PARTS:
            return 400, "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive."
        ends_upload = method == "POST" and "uploadId" in query
        if ends_upload:
            sizes = [size for _, size in sorted(self._parts.get(query["uploadId"], {}).items())]
            if any(size < PART_BYTES for size in sizes[:-1]):
                return 400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed object size."
            if len(set(sizes[:-1])) > 1 or (len(sizes) > 1 and sizes[-1] > sizes[0]):
                return 400, "InvalidPart", "All non-trailing parts must have the same length."
        writes = ends_upload or (method == "PUT" and "partNumber" not in query)
        if writes and time.monotonic() - self._written.get(request.path, -9e9) < self.second:
            return 429, "TooManyRequests", "Reduce your concurrent request rate for the same object."
        return None

    def _unknown(self, request: Request) -> str:
        """What of the request is none of R2's, or nothing."""
        headers, query, method = request.headers, request.query, request.method
        bulk = "delete" in query and self.bulk_delete
        for name in headers:
            checksum = name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer")) and not bulk
            refused = ("x-amz-acl", "x-amz-grant", "x-amz-server-side-encryption", "x-amz-tagging")
            if checksum or name.startswith(refused):
                return f"Header '{name}' with value '{headers[name]}'"
            if "partNumber" in query and name.startswith("x-amz-copy-source-if-"):
                return f"Header '{name}' with value '{headers[name]}'"
        if "TRAILER" in headers.get("x-amz-content-sha256", "") or "aws-chunked" in headers.get("content-encoding", ""):
            return "STREAMING-TRAILER"
        of_object = request.path.strip("/").count("/") > 0
        for name in ("acl", "policy", "versions", *(("tagging",) if of_object or method == "PUT" else ())):
            if name in query:
                return name
        if method == "GET" and "uploadId" in query:
            return "ListParts"
        if method == "GET" and not of_object and "list-type" in query and (strange := query.keys() - LISTED):
            return f"ListObjectsV2 search parameter {min(strange)}"
        return ""
