"""Nothing that was acknowledged is lost, whoever is killed when; and many push at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.vault.repository import init_vault, open_vault
from servers import ACCESS_KEY, SECRET_KEY, S3Server
from vaults import SMALL_BLOCK, SMALL_PACK, all_is_well, bf16_history, noise, oid_of, png_like, read_all

VERSIONS = bf16_history(3, elements=60_000)


@dataclass
class Pusher:
    """A process that pushes in processes of its own; see `vault_child`."""

    process: "subprocess.Popen[str]"

    def start(self, task: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait(self) -> float | None:
        """How many seconds the push took; None where it did not end well."""
        word, _, seconds = self._line().partition(" ")
        return float(seconds) if word == "done" else None

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the pushing process ended"
        return line


@pytest.fixture
def start_pusher() -> Iterator[Callable[[], Pusher]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> Pusher:
        child = Path(__file__).with_name("vault_child.py")
        environment = os.environ | {"PYTHONPATH": str(child.parent)}
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen([sys.executable, str(child)], stdin=pipe, stdout=pipe, text=True, env=environment)
        )
        return Pusher(started[-1])

    yield start
    for process in started:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def tasks(folder: Path, url: str, rounds: list[list[bytes]], **more: Any) -> list[dict[str, Any]]:
    (folder / "files").mkdir(exist_ok=True)
    found = []
    for files in rounds:
        listed, base = [], None
        for data in files:
            path = folder / "files" / oid_of(data)[4:]
            path.write_bytes(data)
            listed.append((oid_of(data), str(path), base))
            base = oid_of(data) if len(data) > 100_000 else None
        found.append({"url": url, "cache": str(folder / "cache"), "files": listed, **more})
    return found


def killed(pusher: Pusher, folder: Path, times: int, seed: int) -> int:
    """Kill pushes at random moments; whatever was acknowledged reads back, and the next push completes."""
    random_numbers = random.Random(seed)
    store = open_store(str(folder / "store"))
    init_vault(store, None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK).close()
    acknowledged: list[bytes] = []
    seconds, ended = 0.0, 0
    for number in range(times):
        files = [noise(random_numbers.randrange(300_000), number * 10 + place) for place in range(4)]
        files += [png_like(number * 50 + place) for place in range(20)] + list(VERSIONS)
        (task,) = tasks(folder, str(folder / "store"), [files])
        child = pusher.start(task)
        time.sleep(random_numbers.random() * seconds)
        if number:
            os.kill(child, signal.SIGKILL)  # it is not reaped before the next task
        took = pusher.wait()
        if took is None:
            ended += 1
        else:
            seconds = took if not number else min(seconds, took)
            acknowledged += files
        with open_vault(store, None, jobs=2) as vault:
            there = vault.exists([oid_of(data) for data in files[:24]])
            read_all(vault, [data for data in files[:24] if took is not None or oid_of(data) in there])
            assert len(there) in (0, 24), "half a push counts"
        if number % 3 == 2:
            pusher.start(task)
            assert pusher.wait(), "the next push did not complete"
            acknowledged += files
    all_is_well(store, acknowledged)
    return ended


def test_killed_at_random_moments(start_pusher: Callable[[], Pusher], tmp_path: Path) -> None:
    assert killed(start_pusher(), tmp_path, 20, seed=1) > 4


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_killed_at_random_moments_in_full(start_pusher: Callable[[], Pusher], tmp_path: Path, seed: int) -> None:
    assert killed(start_pusher(), tmp_path, 20, seed=seed) > 4


def test_killed_before_every_call_of_the_store(start_pusher: Callable[[], Pusher], tmp_path: Path) -> None:
    pusher = start_pusher()
    files = [noise(500_000, 1), *VERSIONS[:2], b"small"]
    reached = []
    for number in range(1, 40):
        folder = tmp_path / str(number)
        folder.mkdir()
        store = open_store(str(folder / "store"))
        init_vault(store, None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK).close()
        (task,) = tasks(folder, str(folder / "store"), [files], die_at=number)
        pusher.start(task)
        if pusher.wait():
            break
        reached.append(number)
        with open_vault(store, None, jobs=2) as vault:
            there = vault.exists([oid_of(data) for data in files])
            assert len(there) in (0, len(files)), "half a push counts"
        (task,) = tasks(folder, str(folder / "store"), [files])
        pusher.start(task)
        assert pusher.wait()
        all_is_well(store, files)
    assert len(reached) >= 10
    assert reached[-1] < 39


@pytest.mark.parametrize("kind", [pytest.param("folder", marks=pytest.mark.soak), "s3"])
def test_eight_processes_push_overlapping_data(
    start_pusher: Callable[[], Pusher], tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url, options = str(tmp_path / "store"), {}
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        url = request.getfixturevalue("s3_folder")
        options = {"endpoint": server.endpoint, "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
        store = open_store(url, server.options())
    else:
        store = open_store(url)
    init_vault(store, None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK).close()
    shared = [noise(300_000, 100), *VERSIONS, *(png_like(number) for number in range(30))]
    rounds = [[*shared[number % 3 :], noise(100_000, number), *shared[: number % 3]] for number in range(8)]
    pushers = [start_pusher() for _ in rounds]
    given = [
        task | {"cache": str(tmp_path / f"cache{number % 3}")}  # some share a machine
        for number, task in enumerate(tasks(tmp_path, url, rounds, options=options))
    ]
    for pusher, task in zip(pushers, given, strict=True):
        pusher.start(task)
    ended = [pusher.wait() for pusher in pushers]
    assert None not in ended
    everything = [*shared, *(noise(100_000, number) for number in range(8))]
    report = tmp_path / "report"
    (ninth,) = tasks(tmp_path, url, [everything], options=options, report=str(report))
    pushers[0].start(ninth)
    assert pushers[0].wait()
    assert json.loads(report.read_text())["new_blobs"] == 0
    all_is_well(store, everything)
