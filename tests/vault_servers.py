"""Servers of vaults for tests: a process of ``holdfast serve``, and a client that sends what DVC would not."""

import asyncio
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults import FaultyStore
from holdfast.objectstore.opening import open_store
from holdfast.vault.repository import Vault, init_vault, open_vault
from holdfast.vault.segment import INDEX, read_segment
from holdfast.vault.server import Limits, VaultServer
from holdfast.vault.server_access import Access
from vaults import SMALL_BLOCK, SMALL_PACK, keys
from worlds import TOOLS, environment

START_SECONDS = 60
READ_TOKEN, WRITE_TOKEN = "read-" + "r" * 32, "write-" + "w" * 32


def path_of(data: bytes, *, legacy: bool = False, suffix: str = "") -> str:
    """Where DVC keeps a file on its HTTP remote."""
    oid = hashlib.md5(data).hexdigest() + suffix
    return f"{'' if legacy else '/files/md5'}/{oid[:2]}/{oid[2:]}"


@dataclass(frozen=True)
class Reply:
    """An answer.

    Args:
        status: its code.
        headers: in lower case.
        body: all of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    *,
    host: str = "127.0.0.1",
    **headers: str,
) -> Reply:
    """One request over a connection of its own; an iterator is sent in chunks, without a length."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named, encode_chunked=not isinstance(body, bytes | None))
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def say(port: int, text: bytes, *, seconds: float = 20) -> bytes:
    """Send bytes as they are; all that comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(text)
        found = b""
        while part := connection.recv(1 << 16):
            found += part
    return found


def until(true: Callable[[], object], *, seconds: float = 30) -> None:
    """Wait for something that happens soon."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def metric(port: int, line: str) -> float:
    """What a server counted."""
    text = ask(port, "GET", "/metrics").body.decode()
    return float(next(found for found in text.splitlines() if found.startswith(f"{line} ")).rpartition(" ")[2])


@contextmanager
def half_sent(port: int, data: bytes) -> Iterator[socket.socket]:
    """An upload that stays in the middle, the first half of which has arrived."""
    before = metric(port, "holdfast_spooled_bytes")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = f"PUT {path_of(data)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[: len(data) // 2])
        until(lambda: metric(port, "holdfast_spooled_bytes") > before)
        yield connection


@dataclass(frozen=True)
class ServerProcess:
    """A process of ``holdfast serve``.

    Args:
        process: it.
        port: where it listens.
        log: the file of its standard error.
    """

    process: "subprocess.Popen[str]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self, number: int = signal.SIGTERM, *, seconds: float = 40) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def resident_bytes(self) -> int:
        """Memory that it has now."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(
    vault: str, folder: Path, home: Path, *options: str, file_blocks: int = 0, **variables: str
) -> Iterator[ServerProcess]:
    """A server on a free port, started in ``folder`` and ended by its process id.

    With ``file_blocks`` it can write no file that has more blocks of 512 bytes.
    """
    limited = ["sh", "-c", f'ulimit -f {file_blocks} && exec "$@"', "sh"] if file_blocks else []
    log = home / f"serve-{time.monotonic_ns()}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*limited, str(TOOLS / "holdfast"), "serve", vault, "--port", "0", *options],
            cwd=folder,
            env=environment(home) | variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Serving "), log.read_text()
            port = int(line.partition(" at http")[2].split()[0].rpartition(":")[2])
            yield ServerProcess(process, port, log)
        finally:
            if process.poll() is None:
                process.kill()


@dataclass
class Running:
    """A server in a thread of this process, over a store that goes wrong when it is told to."""

    vault: Vault
    store: FaultyStore
    folder: Path
    access: Access
    limits: Limits
    lines: list[str] = field(default_factory=list)
    port: int = 0
    done: bool | None = None

    @contextmanager
    def running(self) -> Iterator["Running"]:
        ready, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

        async def serve() -> None:
            server = VaultServer(
                self.vault,
                self.folder / "spool",
                self.access,
                self.limits,
                log=lambda line, _failure: self.lines.append(line),
                now=lambda: 0.0,
            )
            self.port = await server.start("127.0.0.1", 0)
            ready.set()
            await ended.wait()
            self.done = await server.stop(20)

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        try:
            assert ready.wait(20)
            yield self
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join(60)
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            self.vault.close()
            assert not thread.is_alive()

    def put(self, data: bytes, path: str = "", **headers: str) -> Reply:
        return ask(self.port, "PUT", path or path_of(data), data, **headers)

    def get(self, data: bytes, **headers: str) -> Reply:
        return ask(self.port, "GET", path_of(data), **headers)

    def segments(self) -> list[str]:
        return keys(self.store.inner, INDEX)

    def claims(self) -> list[str]:
        """All that any segment claims, as often as it does."""
        found: list[str] = []
        for key in self.segments():
            rows = read_segment(key.removeprefix(f"{INDEX}/"), self.store.inner.get(key)).rows
            found += [*rows.claims, *(oid for oid, claimed in zip(rows.oids, rows.claimed, strict=True) if claimed)]
        return found

    def metric(self, line: str) -> float:
        return metric(self.port, line)


@contextmanager
def in_process(
    folder: Path, access: Access | None = None, limits: Limits | None = None, **sizes: int
) -> Iterator[Running]:
    """A server in a thread of this process, before a vault in memory."""
    store = FaultyStore(open_store("memory://"))
    init_vault(store, None, **{"block_bytes": SMALL_BLOCK, "pack_bytes": SMALL_PACK} | sizes).close()
    vault = open_vault(store, folder / "cache", jobs=2)
    with Running(vault, store, folder, access or Access(), limits or Limits(fresh_seconds=0)).running() as running:
        yield running
