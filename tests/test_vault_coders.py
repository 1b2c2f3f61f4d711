"""Processes that encode: the same bytes, whether they are there, not yet, or not any more."""

import hashlib
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.vault import coders, encoding, small_files
from holdfast.vault.codec import decode, encode
from holdfast.vault.codec_elements import CODES, Array, Element
from holdfast.vault.codec_loops import Order
from holdfast.vault.codec_numpy import NumpyLoops
from holdfast.vault.coders import Coders, serve
from holdfast.vault.recent import RecentFiles
from holdfast.vault.repository import init_vault
from holdfast.vault.session import FileToPut
from holdfast.vault.small_files import SMALL_BYTES
from holdfast.vault.split import Piece
from vaults import all_is_well, bf16_history, keys, noise, oid_of, session_name

NUMBERS = np.random.default_rng(1).normal(0, 0.02, 50_000).astype(np.float32)
DATA, BASE = NUMBERS.tobytes(), (NUMBERS + np.float32(1e-5)).tobytes()
HALF = NUMBERS.astype(np.float16).tobytes()


def ready(made: Coders, count: int) -> Coders:
    made.begin(0)
    until = time.monotonic() + 60
    while made._free.qsize() < count and time.monotonic() < until:
        time.sleep(0.01)
    assert made._free.qsize() == count
    return made


def test_they_give_the_same_bytes() -> None:
    made = ready(Coders(2), 2)
    try:
        for _ in range(2):
            assert made.encode(DATA, "F32") == encode(DATA, "F32")
            assert made.encode(DATA, "F32", BASE) == encode(DATA, "F32", BASE)
            assert made.encode(HALF, "F16", DATA, "F32") == encode(HALF, "F16", DATA, base_dtype="F32")
            assert made.encode(b"", "bytes") == encode(b"", "bytes")
            assert made.encode(DATA, "F32", b"") == encode(DATA, "F32", b"")
        assert made._free.qsize() == 2
    finally:
        made.close()


def test_one_that_has_died_is_done_without() -> None:
    made = ready(Coders(1), 1)
    try:
        made._all[0].process.kill()
        made._all[0].process.wait()
        assert decode(made.encode(DATA, "F32", BASE), BASE) == DATA
        assert made._free.qsize() == 0
        assert decode(made.encode(DATA, "F32", BASE), BASE) == DATA
    finally:
        made.close()


def test_one_that_never_begins_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coders.sys, "executable", "/bin/false")
    made = Coders(2)
    made.begin(0)
    assert decode(made.encode(DATA, "F32")) == DATA
    made.close()


@pytest.mark.parametrize("how", ["Coders(2)", "Coders(2, forked=True)"])
def test_they_end_with_their_parent(how: str) -> None:
    program = (
        "import os, time; from holdfast.vault.coders import Coders\n"
        f"made = {how}; made.begin(0)\n"
        "while made._free.qsize() < 2: time.sleep(0.01)\n"
        "print(*(coder.process.pid for coder in made._all), flush=True); os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    until = time.monotonic() + 20
    for pid in map(int, done.stdout.split()):
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break  # nobody there to take note of its end
            time.sleep(0.05)
        else:
            assert not Path(f"/proc/{pid}").exists()


FORKED = """
import os, sys, threading
import numpy as np
from holdfast.vault.codec import encode
from holdfast.vault.coders import forked_coders

data = np.random.default_rng(1).normal(0, 0.02, 50_000).astype(np.float32)
base = (data + np.float32(1e-5)).tobytes()
data = data.tobytes()
with forked_coders(2) as made:
    made.begin(int(sys.argv[1]))
    while made._free.qsize() < 2: pass
    assert made.encode(data, "F32", base) == encode(data, "F32", base)
    assert made._free.qsize() == 2
    pids = [coder.process.pid for coder in made._all]
    assert all(os.getsid(pid) == pid for pid in pids)  # Ctrl-C reaches the parent alone
for pid in pids:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        continue
    raise SystemExit(f"{pid} is still there")
wait = threading.Event()
threading.Thread(target=wait.wait, daemon=True).start()
with forked_coders(2) as made:
    assert made is None  # a copy of a process with threads may hold a lock that nobody opens
with forked_coders(1) as made:
    assert made is None
print("all of it")
"""


@pytest.mark.parametrize("nbytes", [0, coders.FAST_BYTES])
def test_copies_of_a_process_give_the_same_bytes(nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # as the command line has it
    done = subprocess.run([sys.executable, "-c", FORKED, str(nbytes)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "all of it\n"), done.stderr


class WrongLoops(NumpyLoops):
    """Those of a faulty processor."""

    def differences(
        self, values: Array, base: Array, element: Element, lowest: int, buckets: int
    ) -> tuple[Array, list[int], Order]:
        out, counts, order = super().differences(values, base, element, lowest, buckets)
        out[77] ^= 1
        return out, counts, order


def test_what_cannot_be_encoded_is_told() -> None:
    request = coders._HEAD.pack(CODES["F32"], 0, len(DATA), 1 + len(BASE)) + DATA + BASE
    answers = io.BytesIO()
    serve(io.BytesIO(request), answers, WrongLoops())
    assert answers.getvalue()[:1] == b"\1"
    failed, length = coders._ANSWER.unpack(answers.getvalue()[1:][: coders._ANSWER.size])
    assert failed == 1
    assert answers.getvalue()[-length:] == b"A block did not decode to what it was"


def test_a_session_puts_the_same_packs_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WORTH_BYTES", 0)
    monkeypatch.setattr(coders.os, "cpu_count", lambda: 2)
    files = [*bf16_history(3), noise(400_000, 1)]
    found = []
    for expected in (None, 1):
        store = open_store("memory://")
        with init_vault(store, None, vault_id="ab" * 16, jobs=2) as vault, vault.session(session_name(1)) as session:
            if expected is not None:
                session.expect(expected)
                assert session._encoder._coders is not None
                ready(session._encoder._coders, 2)
            before = None
            for data in files:
                session.put(oid_of(data), MemorySource(data), base_oid=before)
                before = oid_of(data)
            session.commit()
        all_is_well(store, files)
        found.append(keys(store, "packs"))
    assert found[0] == found[1]


def test_small_files_are_read_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {
        "empty": b"",
        "one\nline": b"text",
        "images/ä": noise(4096, 1),
        "largest": noise(SMALL_BYTES, 2),
        "too large": noise(SMALL_BYTES + 1, 3),
        "after": b"after the limit of an answer",
    }
    (tmp_path / "images").mkdir()
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    names = [*contents, "nowhere", "images"]
    paths: list[str | Path] = [tmp_path / name if name != "empty" else str(tmp_path / name) for name in names]
    made = ready(Coders(1), 1)
    try:
        found = dict(zip(names, made.read(paths), strict=True))
        assert [name for name in names if found[name] is None] == ["too large", "nowhere", "images"]
        for name, small in found.items():
            if small is not None:
                assert small.data == contents[name]
                assert small.hexdigest() == hashlib.md5(contents[name]).hexdigest()
                assert small.digest == blake3(contents[name]).digest()
        assert made._free.qsize() == 1
        made._all[0].process.kill()
        assert made.read(paths) == [None] * len(paths)  # and nobody else is there
        monkeypatch.setattr(coders, "_SOON_SECONDS", 0.01)
        assert made.read(paths) == [None] * len(paths)
    finally:
        made.close()
    monkeypatch.setattr(small_files, "ANSWER_BYTES", SMALL_BYTES)
    told = small_files.files_in(small_files.answer_to(small_files.request_of(paths)), len(paths))
    assert [name for name, small in zip(names, told, strict=True) if small is None][0:2] == ["too large", "after"]


def test_many_small_files_are_the_same_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WORTH_BYTES", 0)
    monkeypatch.setattr(coders.os, "cpu_count", lambda: 2)
    files = [noise(1000 + number, number) for number in range(2500)]
    wanted = [FileToPut(oid_of(data), tmp_path / str(number)) for number, data in enumerate(files)]
    for file, data in zip(wanted, files, strict=True):
        Path(file.path).write_bytes(data)
    Path(wanted[7].path).write_bytes(files[7][:-1] + b"?")  # is not what its name says
    Path(wanted[2400].path).unlink()
    found = []
    for expected in (False, True):
        failed: dict[str, str] = {}
        store = open_store("memory://")
        with init_vault(store, None, vault_id="ab" * 16, jobs=2) as vault, vault.session(session_name(1)) as session:
            if expected:
                session.expect(sum(map(len, files)), len(files))
                assert session._encoder._coders is not None
                ready(session._encoder._coders, 2)
            put = session.put_many([*wanted, wanted[3]], lambda oid, error, into=failed: into.update({oid: str(error)}))
            assert put == len(files) - 2
            session.commit()
        assert failed.keys() == {wanted[7].oid, wanted[2400].oid}
        assert "has the md5" in failed[wanted[7].oid]
        assert "No such file" in failed[wanted[2400].oid]
        all_is_well(store, [data for number, data in enumerate(files) if number not in (7, 2400)])
        found.append(keys(store, "packs"))
    assert found[0] == found[1]


def test_the_last_files_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.vault.recent.RECENT_BYTES", 25)
    recent = RecentFiles()
    for number in range(4):
        data = bytes([number]) * 10
        recent.add(MemorySource(data), [b"shared", bytes([number])], [Piece(0, 4), Piece(4, 6)])
    assert recent.plain(b"\3") == b"\3" * 6
    assert recent.plain(b"\2") == b"\2" * 6
    assert recent.plain(b"\1") is None
    assert b"\1" not in recent
    assert recent.plain(b"shared") == b"\3" * 4
