"""Processes that encode: the same bytes, whether they are there, not yet, or not any more."""

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.vault import coders, encoding
from holdfast.vault.codec import decode, encode
from holdfast.vault.codec_elements import CODES, Array, Element
from holdfast.vault.codec_loops import Order
from holdfast.vault.codec_numpy import NumpyLoops
from holdfast.vault.coders import Coders, serve
from holdfast.vault.recent import RecentFiles
from holdfast.vault.repository import init_vault
from holdfast.vault.split import Piece
from vaults import all_is_well, bf16_history, keys, noise, oid_of, session_name

NUMBERS = np.random.default_rng(1).normal(0, 0.02, 50_000).astype(np.float32)
DATA, BASE = NUMBERS.tobytes(), (NUMBERS + np.float32(1e-5)).tobytes()
HALF = NUMBERS.astype(np.float16).tobytes()


def ready(made: Coders, count: int) -> Coders:
    until = time.monotonic() + 60
    while made._free.qsize() < count and time.monotonic() < until:
        time.sleep(0.01)
    assert made._free.qsize() == count
    return made


def test_they_give_the_same_bytes() -> None:
    made = ready(Coders(2, 0), 2)
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
    made = ready(Coders(1, 0), 1)
    try:
        made._all[0]._process.kill()
        made._all[0]._process.wait()
        assert decode(made.encode(DATA, "F32", BASE), BASE) == DATA
        assert made._free.qsize() == 0
        assert decode(made.encode(DATA, "F32", BASE), BASE) == DATA
    finally:
        made.close()


def test_one_that_never_begins_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coders.sys, "executable", "/bin/false")
    made = Coders(2, 0)
    assert decode(made.encode(DATA, "F32")) == DATA
    made.close()


def test_they_end_with_their_parent() -> None:
    program = (
        "import os, time; from holdfast.vault.coders import Coders\n"
        "made = Coders(1, 0)\n"
        "while not made._free.qsize(): time.sleep(0.01)\n"
        "print(made._all[0]._process.pid, flush=True); os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid, until = int(done.stdout), time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break  # nobody there to take note of its end
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()


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
    monkeypatch.setattr(encoding.os, "cpu_count", lambda: 2)
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
