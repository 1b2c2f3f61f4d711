"""Processes that encode: the same bytes, whether they are there, not yet, or not any more."""

import hashlib
import io
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from holdfast.errors import HoldfastError
from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.vault import coders, encoding, session, small_files
from holdfast.vault.codec import decode, encode
from holdfast.vault.codec_elements import CODES, Array, Element
from holdfast.vault.codec_loops import Order
from holdfast.vault.codec_numpy import NumpyLoops
from holdfast.vault.coders import Coders, serve
from holdfast.vault.reading import blob_id
from holdfast.vault.recent import RecentFiles
from holdfast.vault.records import ConflictError
from holdfast.vault.repository import init_vault
from holdfast.vault.segment import CONDEMNED, write_condemned
from holdfast.vault.session import FileToPut, Session
from holdfast.vault.small_files import (
    BUNDLE_BYTES,
    SMALL_BYTES,
    Answer,
    Asked,
    answer_of,
    answer_to,
    request_of,
)
from holdfast.vault.split import Piece
from vaults import all_is_well, bf16_history, keys, noise, oid_of, session_name

NUMBERS = np.random.default_rng(1).normal(0, 0.02, 50_000).astype(np.float32)
DATA, BASE = NUMBERS.tobytes(), (NUMBERS + np.float32(1e-5)).tobytes()
HALF = NUMBERS.astype(np.float16).tobytes()
RUN = f"runs:{'a' * 64}/{'b' * 64}"


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


def asked_of(folder: Path, contents: Mapping[str, bytes]) -> list[Asked]:
    """The contents as files, and what asks for them."""
    for name, data in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return [(oid_of(data), b"", folder / name) for name, data in contents.items()]


def test_small_files_are_read_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {
        "empty": b"",
        "one\nline": b"text",
        "images/\udce4\udcff": noise(4096, 1),
        "largest": noise(SMALL_BYTES, 2),
        "too large": noise(SMALL_BYTES + 1, 3),
        "known": b"of which the digest is known",
        "damaged": b"is not what its name says",
        "after": b"after the others",
    }
    asked = asked_of(tmp_path, contents)
    asked[5] = (asked[5][0], blake3(contents["known"]).digest(), str(asked[5][2]))
    asked[6] = (oid_of(b"something else"), b"", asked[6][2])
    (tmp_path / "lines").write_bytes(b"two\r\nlines")
    lines = f"md5-dos2unix:{hashlib.md5(b'two' + bytes([10]) + b'lines').hexdigest()}"
    asked += [
        (oid_of(b""), b"", tmp_path / "nowhere"),
        (oid_of(b""), b"", tmp_path / "images"),
        (lines, b"", tmp_path / "lines"),
        (lines, blake3(b"two" + bytes([10]) + b"lines").digest(), tmp_path / "lines"),
        (RUN, b"", tmp_path / "after"),
    ]
    taken = [data for name, data in contents.items() if name not in ("too large", "damaged")]
    taken += [b"two\r\nlines", contents["after"]]
    made = ready(Coders(1), 1)
    try:
        files, groups = made.read(asked, 0)
        assert [number for number, found in enumerate(files) if found is None] == [4, 6, 8, 9, 11]
        assert [found for found in files if found] == [(len(data), blake3(data).digest()) for data in taken]
        assert [group[:3] for group in groups] == [(13, sum(map(len, taken)), b"")]
        assert groups[0].data == b"".join(taken)
        assert made._free.qsize() == 1
        nobody = Answer([None] * len(asked), [])
        made._all[0].process.kill()
        assert made.read(asked, 0) == nobody  # and nobody else is there
        monkeypatch.setattr(coders, "_SOON_SECONDS", 0.01)
        assert made.read(asked, 0) == nobody
    finally:
        made.close()


def answer_about(asked: list[Asked], begun: int = 0) -> Answer:
    return answer_of(memoryview(b"".join(answer_to(request_of(asked, begun)))))


def test_small_files_are_put_together_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [noise(40_000, number) for number in range(60)]
    asked = asked_of(tmp_path, {str(number): data for number, data in enumerate(files)})
    full = -(-BUNDLE_BYTES // 40_000)
    whole = b"".join(files[10 : 10 + full])
    found, groups = answer = answer_about(asked, BUNDLE_BYTES - 400_000)
    assert len(found) == 60
    assert [group[:3] for group in groups] == [
        (10, 400_000, b""),
        (10 + full, len(whole), blob_id(whole)),
        (60, (50 - full) * 40_000, b""),
    ]
    assert groups[0].data == b"".join(files[:10])
    assert groups[1].data == encode(whole)
    assert groups[2].data == b"".join(files[10 + full :])
    assert answer.begun(BUNDLE_BYTES - 400_000) == groups[2].nbytes
    assert answer_about(asked[:10], BUNDLE_BYTES - 400_000).begun(BUNDLE_BYTES - 400_000) == 0
    assert answer_about(asked[:10], 7).begun(7) == 400_007
    assert answer_about(asked[:full]).begun(0) == 0
    assert answer_about([(oid_of(b"x"), b"", tmp_path / "0")], 7) == Answer([None], [])
    assert Answer([None], []).begun(7) == 7
    # the blob that makes an answer so long is the last one in it
    monkeypatch.setattr(small_files, "ANSWER_BYTES", BUNDLE_BYTES)
    found, groups = answer_about(asked)
    assert (len(found), [group.stop for group in groups]) == (full, [full])


@pytest.mark.parametrize("how", ["all together", "some at a time", "until they die"])
def test_many_small_files_are_the_same_packs(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WORTH_BYTES", 0)
    monkeypatch.setattr(coders.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(session, "FILES_A_LOOK", {"all together": 4000, "some at a time": 307}.get(how, 1000))
    files = [noise(1000 + number, number) for number in range(2500)]
    files += [noise(60_000, number) for number in range(300)]  # more than is answered at a time
    files[1200] = noise(SMALL_BYTES + 1, 1200)
    files[1300] = b""
    wanted = [FileToPut(oid_of(data), tmp_path / str(number)) for number, data in enumerate(files)]
    for file, data in zip(wanted, files, strict=True):
        Path(file.path).write_bytes(data)
    (tmp_path / "again").write_bytes(files[7])
    Path(wanted[7].path).write_bytes(files[7][:-1] + b"?")  # is not what its name says, but the next one of it is
    wanted.append(FileToPut(oid_of(files[7]), tmp_path / "again"))
    (tmp_path / "run").write_bytes(b"has no md5 in its name")
    wanted.insert(2450, FileToPut(RUN, tmp_path / "run"))
    Path(wanted[2400].path).unlink()
    found = []
    for expected in (False, True):
        failed: dict[str, str] = {}
        told: list[tuple[str, int]] = []
        store = open_store("memory://")
        with init_vault(store, None, vault_id="ab" * 16, jobs=2) as vault, vault.session(session_name(1)) as visit:
            if expected:
                visit.expect(sum(map(len, files)), len(files))
                assert visit._encoder._coders is not None
                ready(visit._encoder._coders, 2)

            def put(oid: str, size: int, into: list[tuple[str, int]] = told, visit: Session = visit) -> None:
                into.append((oid, size))
                if how == "until they die" and len(into) == 800 and visit._encoder._coders is not None:
                    for coder in visit._encoder._coders._all:
                        coder.process.kill()

            fail = lambda oid, error, into=failed: into.update({oid: str(error)})  # noqa: E731
            assert visit.put_many([*wanted, wanted[3]], fail, put) == len(files)
            statistics = visit.commit()
        assert failed.keys() == {wanted[7].oid, wanted[2400].oid}
        assert "has the md5" in failed[wanted[7].oid]
        assert "No such file" in failed[wanted[2400].oid]
        there = [data for number, data in enumerate(files) if number != 2400]
        assert sorted(told) == sorted([*((oid_of(data), len(data)) for data in there), (RUN, 22), (wanted[3].oid, 0)])
        assert (statistics.files, statistics.skipped) == (len(there) + 1, 1)
        all_is_well(store, there[::20])
        found.append(keys(store, "packs"))
    assert found[0] == found[1]


def test_small_files_have_one_content_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was condemned is put again, with the same content alone, whoever reads it."""
    monkeypatch.setattr(encoding, "WORTH_BYTES", 0)
    monkeypatch.setattr(coders.os, "cpu_count", lambda: 2)
    name = f"md5-dos2unix:{hashlib.md5(b'two' + bytes([10]) + b'lines').hexdigest()}"
    files = [FileToPut(name, tmp_path / "lines"), FileToPut(oid_of(b"more"), tmp_path / "more")]
    (tmp_path / "lines").write_bytes(b"two\r\nlines")
    (tmp_path / "more").write_bytes(b"more")
    store = open_store("memory://")
    with init_vault(store, None, jobs=2) as vault:
        with vault.session(session_name(1)) as visit:
            assert visit.put_many(files) == 2
            visit.commit()
        with vault.session() as visit:
            assert visit.put_many(files) == 0
        store.put(f"{CONDEMNED}/1", write_condemned(keys(store, "packs"), [session_name(1)]))
        for content, put in ((b"two\nlines", 1), (b"two\r\nlines", 2)):
            (tmp_path / "lines").write_bytes(content)
            for read_elsewhere in (False, True):
                failed: list[HoldfastError] = []
                with vault.session(resume=False) as visit:
                    if read_elsewhere:
                        visit.expect(20, 2)
                        assert visit._encoder._coders is not None
                        ready(visit._encoder._coders, 2)
                    assert visit.put_many(files, lambda _, error, into=failed: into.append(error)) == put
                assert [type(error) for error in failed] == [ConflictError] * (2 - put)
        (tmp_path / "lines").write_bytes(b"two\nlines")
        with vault.session() as visit, pytest.raises(ConflictError):
            visit.put_many(files)


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
