"""A vault behind DVC's HTTP remote: what plain ``dvc push``, ``dvc pull`` and ``dvc status -c`` ask for.

A request is refused before its body is read wherever that can be known. A file that is sent is spooled and hashed while
it comes, put with others that come at the same time, and acknowledged when the segment that names it is in the bucket.
"""

import asyncio
import contextlib
import errno
import ssl
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from aiohttp import hdrs, web

from holdfast.errors import HoldfastError
from holdfast.vault.repository import Vault
from holdfast.vault.server_access import Access, Right
from holdfast.vault.server_commits import Committer
from holdfast.vault.server_http import (
    CONTINUE,
    PROCESSING,
    SERVER,
    Answer,
    SilenceServer,
    answer_to,
    busy,
    interim,
    make_logger,
    plain,
    short,
    shown,
    taken,
)
from holdfast.vault.server_metrics import CONTENT_TYPE, Metrics
from holdfast.vault.server_paths import MAX_LINE_BYTES, RUNS, is_twisted, oid_of_path
from holdfast.vault.server_reading import FRESH_SECONDS, Catalogue, RangeError, Span, Whole, cut, parse_range, read_span
from holdfast.vault.server_spool import Spool

MAX_HEADER_BYTES = 8192
WRITE_BYTES = 256 << 10
THREADS, AHEAD_REQUESTS = 16, 8
# for the last answers to be written
LAST_SECONDS = 2.0
# a client that says nothing more is sent away
KEEPALIVE_SECONDS = 75.0
# to ask whether a large file is there, DVC begins to read it, and hangs up
PATIENCE_SECONDS, PATIENCE_BYTES = 0.025, 1 << 20
CLIENT_LEFT = 499
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
METHODS = ("GET", "HEAD", "PUT")

Result = TypeVar("Result")
Log: TypeAlias = Callable[[str, bool], None]


@dataclass(frozen=True)
class Limits:
    """What a server takes upon itself.

    Attributes:
        max_bytes: of one file that is sent.
        max_requests: that are worked on at a time; the others wait.
        max_waiting: that wait; the others are sent away.
        wait_seconds: that a request waits for its turn.
        idle_seconds: that a client may pause before its first request, and in the middle of one.
        fresh_seconds: within which what others put is found.
        pulse_seconds: after which a client that waits is told that the answer will come; DVC gives up after sixty.
    """

    max_bytes: int = 1 << 40
    max_requests: int = 64
    max_waiting: int = 1024
    wait_seconds: float = 30.0
    idle_seconds: float = 60.0
    pulse_seconds: float = 15.0
    fresh_seconds: float = FRESH_SECONDS


@dataclass
class _Sent:
    """How much of a file went to a client; None where the answer is none of a file."""

    nbytes: int | None = None


class VaultServer:
    """A vault behind HTTP.

    Args:
        vault: open, and used by nobody else as long as the server runs; it is left open.
        folder: of this machine, for what is being sent.
        access: who may do what.
        limits: what it takes upon itself.
        forwarded: whether the client's address is what a proxy says it is.
        log: is given a line about each request, and about what fails, and whether it is about that; no token is in it.
        now: the time for these, in seconds since 1970.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        vault: Vault,
        folder: Path,
        access: Access,
        limits: Limits | None = None,
        *,
        forwarded: bool = False,
        log: Log = lambda _line, _failure: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._vault, self._access, self._limits = vault, access, limits or Limits()
        self._forwarded, self._log, self._now = forwarded, log, now
        self.metrics = Metrics()
        self._spool = Spool(folder)
        self._committer = Committer(vault, self.metrics, self._say)
        self._catalogue = Catalogue(vault, self._committer.forget_claims, self._limits.fresh_seconds)
        self._threads = ThreadPoolExecutor(THREADS, "holdfast-serve")
        self._active = self._waiting = 0
        self._stopping = False
        self._turns = asyncio.Semaphore(self._limits.max_requests)
        self._runner: web.ServerRunner | None = None
        self.metrics.gauge("requests_active", lambda: self._active)
        self.metrics.gauge("requests_waiting", lambda: self._waiting)
        self.metrics.gauge("spooled_bytes", lambda: self._spool.nbytes)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; the port, which was chosen where ``port`` is 0.

        Raises:
            OSError: nobody can listen there.
            StoreError: the vault cannot be reached.
        """
        await self._in_thread(self._catalogue.look)
        server = SilenceServer(
            self._handle,
            self._limits.idle_seconds,
            access_log=None,
            logger=make_logger(self._say),
            keepalive_timeout=KEEPALIVE_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=LAST_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls, backlog=1024)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self, seconds: float) -> bool:
        """Take no more requests, and end those under way; whether they ended by themselves in time.

        What did not is given up: it was not acknowledged, and what was sent of it is gone on with.
        """
        until = time.monotonic() + seconds
        self._stopping = True
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
            while self._active + self._waiting and time.monotonic() < until:
                await asyncio.sleep(0.02)
            await self._runner.cleanup()
        left = max(0.0, until - time.monotonic())
        done = await asyncio.get_running_loop().run_in_executor(None, self._committer.stop, left)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if done:
            self._spool.close()
        return done

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        began, sent = time.monotonic(), _Sent()
        response: web.StreamResponse | None = None
        status = CLIENT_LEFT
        try:
            try:
                response = await self._answer(request, sent)
            except Answer as answer:
                response = short(request, answer)
            except HoldfastError as error:
                response = short(request, answer_to(error))
                if response.status >= 500:
                    self._say(f"{request.method} {shown(request)}: {error}")
            except OSError as error:
                if isinstance(error, ConnectionError) or error.errno not in FULL:
                    raise
                self._say(f"{request.method} {shown(request)}: {error}")
                response = short(request, Answer(507, "There is no room on the server for what was sent"))
            status = response.status
            return response
        except (ConnectionError, web.RequestPayloadError):
            return short(request, Answer(400, "What was sent ended too early"))
        except Exception as error:
            status = 500
            self._say(f"{request.method} {shown(request)}: unexpected {type(error).__name__}: {error}")
            return short(request, Answer(500, "The server failed; its log says why"))
        finally:
            seconds = time.monotonic() - began
            self.metrics.count(
                "requests_total", method=request.method if request.method in METHODS else "other", code=str(status)
            )
            self.metrics.observe("request_seconds", seconds)
            if sent.nbytes is None:
                sent.nbytes = (response.content_length or 0) if response is not None and request.method != "HEAD" else 0
            what = f"{plain(request.method)} {shown(request)}"
            self._say(f"{self._client(request)} {what} {status} {sent.nbytes} {seconds:.3f}s", failure=False)

    async def _answer(self, request: web.BaseRequest, sent: "_Sent") -> web.StreamResponse:
        path, method = request.raw_path, request.method
        if len(request.headers.getall(hdrs.HOST, [])) != 1 or not self._access.answers_to(request.headers[hdrs.HOST]):
            raise Answer(421, "This server is not called that; `holdfast serve --allow-host NAME` lets it be")
        if path == "/health":
            self._only(method, ("GET", "HEAD"))
            return short(request, Answer(200, "ok"))
        right = self._access.right(request.headers.get(hdrs.AUTHORIZATION))
        if right is Right.NOTHING:
            raise Answer(401, "A token is missing, or wrong", {hdrs.WWW_AUTHENTICATE: 'Basic realm="holdfast"'})
        if path == "/metrics":
            self._only(method, ("GET", "HEAD"))
            return web.Response(
                text=self.metrics.as_text(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE, hdrs.SERVER: SERVER}
            )
        if is_twisted(path):
            raise Answer(400, "No path of a file is written like that")
        oid = oid_of_path(path)
        if oid is None:
            raise Answer(404, "No file has a path like that")
        self._only(method, METHODS)
        async with self._turn():
            if method == "PUT":
                return await self._take(request, oid, right)
            return await self._give(request, oid, right, sent)

    def _only(self, method: str, allowed: tuple[str, ...]) -> None:
        if method not in allowed:
            hint = ": `dvc remote modify NAME method PUT`" if method == "POST" else ""
            raise Answer(405, f"{plain(method)} is not understood here{hint}", {hdrs.ALLOW: ", ".join(allowed)})

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until few enough requests are under way."""
        if self._stopping or (self._turns.locked() and self._waiting >= self._limits.max_waiting):
            raise busy()
        self._waiting += 1
        try:
            await asyncio.wait_for(self._turns.acquire(), self._limits.wait_seconds)
        except asyncio.TimeoutError as error:
            raise busy() from error
        finally:
            self._waiting -= 1
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._turns.release()

    async def _take(self, request: web.BaseRequest, oid: str, right: Right) -> web.StreamResponse:
        if right < Right.WRITE:
            raise Answer(403, "This server, or this token, lets nobody write")
        if oid.startswith(RUNS):
            raise Answer(403, "Nothing tells whether an entry of the run cache is right: `holdfast push --run-cache`")
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise Answer(415, "Files are taken as they are, not compressed")
        if (request.content_length or 0) > self._limits.max_bytes:
            raise Answer(413, f"This server takes files of up to {self._limits.max_bytes} bytes")
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            interim(request, CONTINUE)
        self._committer.arrives(1)
        try:
            upload = await self._spool.receive(
                oid,
                request.content.readany,
                self._threads,
                max_bytes=self._limits.max_bytes,
                idle_seconds=self._limits.idle_seconds,
            )
            self.metrics.count("received_bytes_total", upload.size)
            done = self._committer.put(upload)
        finally:
            self._committer.arrives(-1)
        new = await self._pulsing(request, done)
        return short(request, Answer(201, "stored") if new else Answer(200, "known"))

    async def _give(self, request: web.BaseRequest, oid: str, right: Right, sent: "_Sent") -> web.StreamResponse:
        size = await self._in_thread(self._catalogue.size, oid)
        if size is None or not (right < Right.WRITE or await self._pulsing(request, self._committer.claim(oid))):
            raise Answer(404, "There is no such file")
        etag = f'"{oid}"'
        headers = {
            hdrs.ETAG: etag,
            hdrs.ACCEPT_RANGES: "bytes",
            hdrs.CACHE_CONTROL: "private",
            hdrs.SERVER: SERVER,
            "X-Content-Type-Options": "nosniff",
        }
        if etag in [tag.strip() for tag in request.headers.get(hdrs.IF_NONE_MATCH, "").split(",")]:
            return web.Response(status=304, headers=headers)
        span: Span | None = None
        if request.method == "GET" and request.headers.get(hdrs.IF_RANGE, etag) == etag:
            try:
                span = parse_range(request.headers.get(hdrs.RANGE), size)
            except RangeError as error:
                headers[hdrs.CONTENT_RANGE] = f"bytes */{size}"
                raise Answer(416, "The file has nothing there", headers) from error
        headers[hdrs.CONTENT_TYPE] = "application/octet-stream"
        if span is not None:
            headers[hdrs.CONTENT_RANGE] = f"bytes {span.offset}-{span.offset + span.count - 1}/{size}"
        response = web.StreamResponse(status=200 if span is None else 206, headers=headers)
        response.content_length = size if span is None else span.count
        if request.method == "GET":
            await self._stream(request, response, oid, span or Span(0, size), sent)
        else:
            await response.prepare(request)
            await response.write_eof()
        return response

    async def _stream(
        self, request: web.BaseRequest, response: web.StreamResponse, oid: str, wanted: Span, sent: "_Sent"
    ) -> None:
        recipe = await self._in_thread(self._vault.recipe, oid)
        small = wanted.count <= PATIENCE_BYTES
        spans = cut(recipe, wanted)
        whole = Whole(recipe) if wanted.count == recipe.size else None

        def read() -> bytes:
            span = next(spans, None)
            data = b"" if span is None else read_span(self._vault, recipe, span)
            if whole is not None:
                whole.add(data)
            return data

        # of a small file the answer begins when all of it is here, and so can still be that it is damaged
        data = await self._in_thread(read) if small else b""
        sent.nbytes = 0
        ahead: asyncio.Future[bytes] | None = None
        try:
            await response.prepare(request)
            if not small:
                await asyncio.sleep(PATIENCE_SECONDS)
                data = await self._read(request, read)
            while data:
                # each answer holds a span in memory, and a second one only where there are few
                ahead = self._read(request, read) if not small and self._active <= AHEAD_REQUESTS else None
                for start in range(0, len(data), WRITE_BYTES):
                    part = memoryview(data)[start : start + WRITE_BYTES]
                    await asyncio.wait_for(response.write(part), self._limits.idle_seconds)
                    sent.nbytes += len(part)
                    self.metrics.count("sent_bytes_total", len(part))
                data = b"" if small else await (ahead or self._read(request, read))
            await response.write_eof()
        except (HoldfastError, ConnectionError, asyncio.TimeoutError) as error:
            # too late for another status: an answer that is shorter than it said is one that nobody takes for whole
            if not isinstance(error, ConnectionError):
                self._say(f"GET {shown(request)} was cut off: {str(error) or 'the client does not read'}")
            response.force_close()
            if request.transport is not None:
                request.transport.abort()
        finally:
            if ahead is not None:
                ahead.add_done_callback(taken)

    def _read(self, request: web.BaseRequest, function: Callable[[], bytes]) -> "asyncio.Future[bytes]":
        if request.transport is None:
            raise ConnectionResetError("the client left")
        return asyncio.ensure_future(self._in_thread(function))

    async def _pulsing(self, request: web.BaseRequest, done: "Future[Result]") -> Result:
        """Wait for what may take longer than a client is patient."""
        waited = asyncio.wrap_future(done)
        waited.add_done_callback(taken)
        while not waited.done():
            # which does not cancel what it waits for, when the client leaves: others may wait for it, too
            await asyncio.wait({waited}, timeout=self._limits.pulse_seconds)
            if not waited.done():
                interim(request, PROCESSING)
        return waited.result()

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _client(self, request: web.BaseRequest) -> str:
        if self._forwarded and (names := request.headers.getall("X-Forwarded-For", [])):
            return plain(names[-1].rpartition(",")[2].strip())  # what stands before it, the client may have made up
        return request.remote or "-"

    def _say(self, text: str, *, failure: bool = True) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now()))
        self._log(f"{at} {' '.join(text.split())}", failure)
