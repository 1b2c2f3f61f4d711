"""`holdfast remote doctor` that is interrupted leaves nothing behind."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.probe import DOCTOR_FOLDER, StoppedError, Trial, clear_old_trials
from remote_world import QUICK, Remote, faults, strict_remote
from servers import S3Server

SECONDS = 60


@pytest.fixture
def remote(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with strict_remote(tmp_path, s3_server, monkeypatch) as found:
        yield found


def until(true: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("method", "path", "count", "number"),
    [
        pytest.param("PUT", r"round-0003", 1, signal.SIGINT, marks=pytest.mark.soak),
        ("GET", r"round-0002", 2, signal.SIGTERM),
        pytest.param("PUT", r"speed-1000000-2", 1, signal.SIGINT, marks=pytest.mark.soak),
        ("PUT", r"partNumber=2", 1, signal.SIGINT),
        pytest.param("PUT", r"/dvc/object", 1, signal.SIGINT, marks=pytest.mark.soak),
    ],
)
def test_interrupted_it_leaves_nothing(
    remote: Remote, method: str, path: str, count: int, number: signal.Signals
) -> None:
    remote.store.put("files/md5/ab/cdef", b"somebody's")
    remote.link.megabytes_per_second = 20.0
    with remote.start_doctor("--rounds", "8", "--sizes", "1MB") as process:
        until(lambda: remote.link.count(method, path) >= count, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert errors == "holdfast: interrupted\n"
    assert remote.left() == ["files/md5/ab/cdef"]
    # what was under way when it ended would arrive now
    time.sleep(0.5)
    assert remote.left() == ["files/md5/ab/cdef"]


def test_an_answer_that_is_late_does_not_leave_an_object(remote: Remote) -> None:
    """The put is at the server when the signal comes: it is waited for, and then deleted."""
    remote.link.latency_seconds = 0.5
    with remote.start_doctor("--rounds", "3", "--sizes", "1KB") as process:
        until(lambda: remote.link.count("PUT", "round-0000"), process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    remote.link.latency_seconds = 0
    assert remote.left() == []
    assert remote.link.count("PUT", "round-0001") == 0


def test_what_a_killed_one_left_goes_a_day_later(remote: Remote) -> None:
    with remote.start_doctor("--rounds", "500", "--sizes", "1KB") as process:
        until(lambda: remote.link.count("PUT", "round-0002"), process)
        process.kill()
        process.communicate(timeout=SECONDS)
    # at least what it put last may be there; one that surely is
    remote.store.put(f"{DOCTOR_FOLDER}/20261119-0123/round-0000/object", b"left")
    now = datetime.now(timezone.utc)
    assert clear_old_trials(remote.store, now + timedelta(hours=23)) == 0
    assert remote.left() != []
    assert clear_old_trials(remote.store, now + timedelta(hours=25)) >= 1
    assert remote.left() == []


def test_nothing_is_asked_after_the_end() -> None:
    trial = Trial(f"{DOCTOR_FOLDER}/x")
    store = open_store("memory://")
    trial.ask("put", lambda: store.put("a", b""), key="a")
    assert trial.stop()
    with pytest.raises(StoppedError):
        trial.ask("put", lambda: store.put("b", b""), key="b")
    assert [info.key for info in store.list_objects()] == ["a"]
    assert trial.written == {"a"}


def test_an_interrupted_one_is_healthy_the_next_time(remote: Remote) -> None:
    with remote.start_doctor("--rounds", "8", "--sizes", "1KB") as process:
        until(lambda: remote.link.count("PUT", "round-0001"), process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    payload = remote.doctor(*QUICK, code=0)
    assert faults(payload) == set()
    assert not re.search("earlier examinations", json.dumps(payload))
