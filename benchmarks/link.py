"""A network link before a server of this machine: as slow as is wanted, in each direction, and counted.

Bytes are passed on as they come, so that a transfer takes as long as the slower of link and server, and not as both
together, and one connection alone may have all of it. The proxy of the tests collects a body before it passes it on.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 128 * 1024
HEAD_LIMIT = 64 * 1024
# timers are late by about a millisecond; what was not used so long ago may still be used
CREDIT_SECONDS = 0.01


@dataclass
class Link:
    """A link that is up.

    Attributes:
        port: where it listens.
        megabytes_per_second: in each direction, for all connections together; None for as fast as it can.
        requests: how many, by method.
        bytes_up: from the clients, heads of requests included.
        bytes_down: to them.
    """

    port: int = 0
    megabytes_per_second: float | None = None
    requests: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0
    _free: dict[str, float] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """Where clients find the server."""
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Count from nothing."""
        self.requests.clear()
        self.bytes_up = self.bytes_down = 0

    async def wait(self, direction: str, count: int) -> None:
        """Wait until so many bytes have gone over in a direction."""
        if self.megabytes_per_second:
            now = time.monotonic()
            free = max(now - CREDIT_SECONDS, self._free.get(direction, 0.0)) + count / (self.megabytes_per_second * 1e6)
            self._free[direction] = free
            if free > now:
                await asyncio.sleep(free - now)


@dataclass
class RequestCounter:
    """Finds the heads of HTTP requests in what a client sends on one connection.

    Args:
        found: is given each method.
    """

    found: Counter[str]
    _head: bytes = b""
    _body_left: int = 0

    def feed(self, data: bytes) -> None:
        """The next bytes.

        Raises:
            ValueError: a request whose length is not said, or that is none.
        """
        while data:
            if self._body_left:
                passed = min(self._body_left, len(data))
                self._body_left -= passed
                data = data[passed:]
                continue
            known = len(self._head)
            self._head += data[:HEAD_LIMIT]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > HEAD_LIMIT:
                    raise ValueError("a head without an end")
                return
            data = data[end + 4 - known :]
            first, *lines = self._head[:end].decode("latin-1").split("\r\n")
            fields = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in fields}
            if "transfer-encoding" in headers:
                raise ValueError("a request without a length")
            self.found[first.split(" ", 1)[0]] += 1
            self._body_left = int(headers.get("content-length", 0))
            self._head = b""


@contextmanager
def link_to(port: int) -> Iterator[Link]:
    """A link before the server at a port of 127.0.0.1; it runs in a thread."""
    state = Link()
    loop = asyncio.new_event_loop()
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = loop.create_task(_quietly(_connection(state, port, reader, writer)))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", 0, limit=PIECE))
    state.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="link", daemon=True)
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


async def _quietly(talk: Coroutine[object, object, None]) -> None:
    with suppress(ConnectionError, asyncio.CancelledError):  # one of the two went away
        await talk


async def _connection(
    state: Link, port: int, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
) -> None:
    from_server, to_server = await asyncio.open_connection("127.0.0.1", port, limit=PIECE)
    counter = RequestCounter(state.requests)

    async def up() -> None:
        while data := await from_client.read(PIECE):
            counter.feed(data)
            state.bytes_up += len(data)
            await state.wait("up", len(data))
            to_server.write(data)
            await to_server.drain()
        to_server.write_eof()

    async def down() -> None:
        while data := await from_server.read(PIECE):
            state.bytes_down += len(data)
            await state.wait("down", len(data))
            to_client.write(data)
            await to_client.drain()
        to_client.write_eof()

    ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
    try:
        await asyncio.gather(*ways)
    finally:
        for way in ways:
            way.cancel()
        to_server.transport.abort()
        to_client.transport.abort()
