"""A server that is killed in the middle of an epoch, and comes back after five seconds with its data."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import servers
from holdfast.data.stream_fetch import patience
from holdfast.objectstore.store import NotConnectedError
from servers import PORTS, S3Server
from stream_world import Streamed, answer, each_once, make_streamed, many

AWAY_SECONDS = 5.0


class MortalServer:
    """A server of this test's own, at one place and with one folder for all of its lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        numbers = servers._free_ports(len(PORTS))
        self._folder = folder
        self.server = S3Server(f"http://127.0.0.1:{numbers[0]}")
        self._process = servers._start_server(folder, folder / "data", dict(zip(PORTS, numbers, strict=True)))
        assert servers._ready(self._process, self.server.endpoint)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def start_again(self) -> None:
        self._process = subprocess.Popen(
            self._process.args,
            cwd=self._folder / "data",
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"GOMEMLIMIT": servers.MEMORY},
            preexec_fn=servers._die_with_parent,
        )


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MortalServer]:
    server = MortalServer(tmp_path / "server")
    try:
        yield server
    finally:
        server.kill()


PROGRAM = """
import hashlib, json, time
import holdfast.data

def decode(name, data):
    return name, hashlib.md5(data).hexdigest()

stream = holdfast.data.stream("data", decode=decode, shuffle=True, batch_size=4, jobs=3, ahead_bytes=100_000, cache_bytes=0)
found = []
for batch in READ:
    found += BATCH
    print(len(found), flush=True)
    time.sleep(0.01)
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("read", "batch"),
    [
        pytest.param("stream.loader(num_workers=2)", "list(zip(*batch))", marks=pytest.mark.soak),
        ("stream", "[batch]"),
    ],
    ids=["workers", "plain"],
)
def test_a_server_that_is_killed_for_five_seconds(tmp_path: Path, mortal: MortalServer, read: str, batch: str) -> None:
    streamed: Streamed = make_streamed(tmp_path / "project", mortal.server, many(160, 20_000))
    process = streamed.start(PROGRAM.replace("READ", read).replace("BATCH", batch))
    assert process.stdout is not None
    lines: list[tuple[float, str]] = []
    seen = threading.Event()

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic(), line))
            if not line.startswith("[") and int(line) >= 20:
                seen.set()

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        assert seen.wait(60)
        mortal.kill()
        killed = time.monotonic()
        time.sleep(AWAY_SECONDS)
        mortal.start_again()
        reader.join(90)
        assert process.wait(30) == 0, process.stderr.read() if process.stderr else ""
    finally:
        process.kill()
        reader.join()
        process.communicate()
    each_once([tuple(sample) for sample in json.loads(lines[-1][1])], streamed.files)
    # it was away in the middle: something came before, and the rest only afterwards
    before = max(int(line) for when, line in lines[:-1] if when < killed + AWAY_SECONDS)
    assert 20 <= before < 160


def test_a_server_that_stays_away_is_an_error(tmp_path: Path, mortal: MortalServer) -> None:
    streamed = make_streamed(tmp_path / "project", mortal.server, many(60, 20_000))
    program = """
import json, time
import holdfast.data
stream = holdfast.data.stream("data", jobs=2, ahead_bytes=50_000, cache_bytes=0, outage_seconds=2)
samples = iter(stream)
print(next(samples)[0], flush=True)
input()
try:
    list(samples)
except Exception as error:
    print(json.dumps([type(error).__name__, str(error), time.monotonic()]))
"""
    started = streamed.start(program)
    assert started.stdout is not None
    assert started.stdin is not None
    started.stdout.readline()
    # what is fetched ahead may find the server gone before the program asks for the next sample
    killed = time.monotonic()
    mortal.kill()
    started.stdin.write("\n")
    kind, said, given_up = answer(started)
    assert kind == "NotConnectedError"
    assert "connection was refused" in said
    assert 2 <= given_up - killed < 10


@pytest.mark.parametrize("seconds", [1.0, 6.0, 120.0, 10_000.0])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_patience_is_what_was_asked_for(seconds: float, jitter: float) -> None:
    """With a clock of its own: a server that comes back in time is there, one that is away for longer is given up."""
    now = [0.0]

    def wait(time_: float) -> None:
        now[0] += time_

    def away(until: float) -> str:
        if now[0] < until:
            raise NotConnectedError("away")
        return "there"

    patient = replace(patience(seconds), sleep=wait, clock=lambda: now[0], jitter=lambda: jitter)
    assert patient.run(lambda: away(seconds * 0.99)) == "there"
    now[0] = 0.0
    with pytest.raises(NotConnectedError):
        patient.run(lambda: away(1e9))
    assert seconds <= now[0] <= max(1.25 * seconds, seconds + 1)
    now[0] = 0.0
    with pytest.raises(NotConnectedError):
        patient.run(lambda: away(1e9), known=False)
    assert 0.6 * min(seconds, 12) <= now[0] <= max(2.0 * min(seconds, 12), 60 * (seconds > 3600))
