"""The page on loopback, as the project changes: one page, one stream of events, nothing else.

Whoever is on this machine may read it. A page of another site may not: neither by a name that its owner has pointed
here, nor in a frame, nor through the reader's browser.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import hdrs, web

from holdfast.errors import HoldfastError
from holdfast.vault.server_access import Access
from holdfast.vault.server_http import SERVER

HOST = "127.0.0.1"
POLL_SECONDS = 0.5
COST_SHARE = 20  # looking for changes takes at most a twentieth of the time
CALM_SECONDS = 5.0  # what goes on changing is shown as often as this
PING_SECONDS = 15.0
STREAMS_MAX = 64
LAST_SECONDS = 1.0

Result = TypeVar("Result")
_HEADERS = {
    hdrs.SERVER: SERVER,
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # what the page itself says besides cannot be said in it
    "Content-Security-Policy": "frame-ancestors 'none'",
}


class PageServer:
    """Serves the page, and says when it is another one.

    Args:
        render: the page of a state; takes its time, and is called in a thread, once for each state.
        look: names the state of the project now; likewise.
        log: is told what went wrong.
        poll_seconds: after which it looks again, at the least.
    """

    def __init__(
        self,
        render: Callable[[str], str],
        look: Callable[[], str],
        *,
        log: Callable[[str], None] = lambda _: None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._render, self._look, self._log, self._poll = render, look, log, poll_seconds
        self._access = Access(read_only=True)
        self._threads = ThreadPoolExecutor(2, "holdfast-ui")
        self._state = ""
        self._page: tuple[str, asyncio.Task[str]] | None = None
        self._streams: set[asyncio.Queue[str | None]] = set()
        self._runner: web.ServerRunner | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, port: int) -> int:
        """Listen on loopback; the port, which was chosen where ``port`` is 0.

        Raises:
            OSError: nobody can listen there.
            HoldfastError: the project cannot be looked at.
        """
        self._state = await self._in_thread(self._look)
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=LAST_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, port).start()
        self._watcher = asyncio.ensure_future(self._watch())
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """End all streams and stop listening."""
        if self._watcher is not None:
            self._watcher.cancel()
        for stream in self._streams:
            stream.put_nowait(None)
        if self._runner is not None:
            await self._runner.cleanup()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._access.answers_to(request.headers.get(hdrs.HOST)):
            return _short(421, "This server has no such name; it is http://127.0.0.1")
        if request.method not in ("GET", "HEAD"):
            return _short(405, "Only reading is possible here", {hdrs.ALLOW: "GET, HEAD"})
        mode, site = request.headers.get("Sec-Fetch-Mode", ""), request.headers.get("Sec-Fetch-Site", "")
        if site in ("cross-site", "same-site") and mode != "navigate":
            return _short(403, "Pages of other sites read nothing here")
        if request.path == "/":
            return await self._answer(request)
        if request.path == "/events":
            return await self._stream(request)
        return _short(404, "There is nothing of that name")

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        try:
            text = await self._current()
        except HoldfastError as error:
            self._log(str(error))
            return _short(500, str(error))
        response = web.Response(text=text, content_type="text/html", charset="utf-8", headers=_HEADERS)
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "") and request.method == "GET":
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _current(self) -> str:
        """The page of the state; all who ask at once wait for the same one."""
        if self._page is None or self._page[0] != self._state:
            self._page = (self._state, asyncio.ensure_future(self._in_thread(self._render, self._state)))
        state, task = self._page
        try:
            return await asyncio.shield(task)
        except HoldfastError:
            if self._page is not None and self._page[0] == state:
                self._page = None  # the next one tries again
            raise

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        if len(self._streams) >= STREAMS_MAX:
            return _short(503, "Too many pages are open")
        response = web.StreamResponse(headers={**_HEADERS, hdrs.CONTENT_TYPE: "text/event-stream"})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._streams.add(queue)
        try:
            state: str | None = self._state
            while state is not None:
                await response.write(f"event: state\ndata: {state}\n\n".encode() if state else b": here\n\n")
                try:
                    state = await asyncio.wait_for(queue.get(), PING_SECONDS)
                except asyncio.TimeoutError:
                    state = ""  # tells a browser that has gone from one that waits
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._streams.discard(queue)
        return response

    async def _watch(self) -> None:
        """Tell all pages of a new state, once it has come to rest."""
        loop = asyncio.get_running_loop()
        pause, found, since = self._poll, self._state, loop.time()
        while True:
            await asyncio.sleep(pause)
            began = loop.time()
            try:
                seen = await self._in_thread(self._look)
            except (HoldfastError, OSError) as error:
                self._log(str(error))
                pause = max(pause, CALM_SECONDS)
                continue
            pause = max(self._poll, COST_SHARE * (loop.time() - began))
            if found == self._state and seen != found:
                since = began
            rested, found = seen == found, seen
            if found != self._state and (rested or began - since > CALM_SECONDS):
                self._state = found
                for stream in self._streams:
                    stream.put_nowait(found)

    async def _in_thread(self, function: Callable[..., Result], *arguments: str) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _short(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers={**_HEADERS, **(headers or {})})
