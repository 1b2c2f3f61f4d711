"""Hostile files: no code runs, nothing crashes, memory stays small, and the outcome has a reason."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attacks.files import FILES, GOOD, hostile, pickled, torch_zip
from attacks.pickles import BROKEN, MARKER, RUNS_CODE
from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Checkpoint
from holdfast.formats.content import NoDigestError, checkpoint_weights_digest, tensor_chunks
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import MemorySource

HERE = Path(__file__).parent
HOLDFAST = Path(sys.executable).parent / "holdfast"
SLOW_MACHINES = [HealthCheck.too_slow, HealthCheck.data_too_large]
# odd, and nothing wrong with them but what they hold
SOUND = {"onnx many tensors", "onnx long names", "npy objects"}
MAX_PEAK_KB = 200_000
MAX_SECONDS = 20.0
# thrown away before it reaches a value (hooks, a factory, attributes of a dict); the foreign names are noted still
QUIET = ("hooks", "defaultdict factory", "build an ordered dict")
# what Python's own unpickler runs, none of it through torch, which would take long to import
REAL = [name for name in RUNS_CODE if b"torch" not in RUNS_CODE[name] and b"numpy" not in RUNS_CODE[name]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float]]:
    """What came of every hostile file, opened and read one after another in one process."""
    folder = tmp_path_factory.mktemp("hostile")
    working = tmp_path_factory.mktemp("working")
    names = {}
    for number, (name, data) in enumerate(hostile()):
        names[f"{number:04}"] = name
        (folder / f"{number:04}").write_bytes(data)
    child = subprocess.run(
        [sys.executable, "-m", "attacks.child", str(folder)],
        cwd=working,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout)
    assert not list(working.iterdir()), "a file ran its code"
    assert answer["peak"] <= MAX_PEAK_KB
    return {names[number]: tuple(found) for number, found in answer["outcomes"].items()}


def test_nothing_crashes_or_takes_for_ever(outcomes: dict[str, tuple[str, float]]) -> None:
    assert len(outcomes) > 4 * len(RUNS_CODE)
    for name, (outcome, seconds) in outcomes.items():
        assert not outcome.startswith("crashed"), (name, outcome)
        assert seconds < MAX_SECONDS, name


def test_what_would_run_code_is_opaque_or_damaged(outcomes: dict[str, tuple[str, float]]) -> None:
    for name, (outcome, _) in outcomes.items():
        if name.startswith("code: ") and not any(word in name for word in QUIET):
            assert outcome.startswith(("opaque: ", "damaged: ")), (name, outcome)


@pytest.mark.parametrize("name", RUNS_CODE)
def test_foreign_names_are_noted(name: str) -> None:
    try:
        checkpoint = read_checkpoint(MemorySource(torch_zip(pickled(RUNS_CODE[name]))))
    except IntegrityError:
        return
    assert checkpoint.pickles[0].foreign or name in ("buffer", "persistent text", "numpy object array", "codecs"), name


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Python's own unpickler does run them: what the other tests show is no accident of a typing error."""
    program = (
        "import json, os, pickle, sys\nran = []\n"
        "for name, body in json.load(sys.stdin).items():\n"
        "    try: pickle.loads(bytes.fromhex(body))\n"
        "    except BaseException: pass\n"
        f"    if os.path.exists({MARKER!r}): os.rmdir({MARKER!r}); ran.append(name)\n"
        "json.dump(ran, open('ran', 'w'))\n"
    )
    bodies = json.dumps({name: pickled(RUNS_CODE[name]).hex() for name in REAL})
    subprocess.run(
        [sys.executable, "-c", program], input=bodies, text=True, cwd=tmp_path, capture_output=True, check=True
    )
    ran = set(json.loads((tmp_path / "ran").read_text()))
    assert {
        "reduce",
        "reduce eval",
        "reduce system",
        "inst",
        "obj",
        "stack global",
        "stack global from the memo",
    } <= ran
    assert len(ran) >= 12, ran


@pytest.mark.parametrize(
    "name",
    [
        *BROKEN,
        *(
            name
            for name in FILES
            if name.startswith(("zip", "safetensors", "legacy", "npy", "onnx")) and name not in SOUND
        ),
    ],
)
def test_damage_is_said(outcomes: dict[str, tuple[str, float]], name: str) -> None:
    found = {key: outcome for key, (outcome, _) in outcomes.items() if name in key and "(bare)" not in key}
    assert found
    for key, outcome in found.items():
        assert outcome.startswith("damaged: ") or "bomb" in key, (key, outcome)


@pytest.mark.parametrize(
    "name",
    [
        "out of range",
        "huge shape",
        "huge storage",
        "negative",
        "negative stride",
        "many dimensions",
        "path in a storage key",
    ],
)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_tensors_that_lead_out_of_their_storage(outcomes: dict[str, tuple[str, float]], name: str, kind: str) -> None:
    if (name, kind) != ("path in a storage key", "legacy"):  # there, a key is no name of a member
        assert outcomes[f"much: {name} ({kind})"][0].startswith("damaged: ")


@pytest.mark.parametrize("name", ["memo bomb", "dup bomb", "dict of shared dicts", "itself", "deep lists"])
def test_too_much_is_opaque(outcomes: dict[str, tuple[str, float]], name: str) -> None:
    assert outcomes[f"much: {name} (zip)"][0].startswith("opaque: ")


@pytest.mark.parametrize(
    "body", [b"](" + b"]" * 1_500_000 + b"e", b"](" + b"}N0" * 500_000 + b"e", b"]q\0" + b"h\0" * 5_100_000]
)
def test_a_long_pickle_is_opaque(body: bytes) -> None:
    found = _read(torch_zip(pickled(body)))
    assert isinstance(found, tuple)
    assert re.search("wants more than 100 MB of memory|more than 5,000,000 opcodes", found[0].opaque[0].reason)


@pytest.mark.parametrize("kind", GOOD)
def test_truncated_at_200_points(kind: str) -> None:
    data = GOOD[kind]()
    whole = _read(data)
    assert isinstance(whole, tuple)
    assert whole[1], "the sound file is read"
    for point in range(200):
        length = len(data) * point // 200
        found = _read(data[:length])
        assert not isinstance(found, tuple) or found[0].opaque, (kind, length)


@pytest.mark.parametrize("kind", GOOD)
def test_a_byte_more_or_less(kind: str) -> None:
    data = GOOD[kind]()
    for other in (data[1:], data[:-1], data + b"\0", b"\0" + data):
        found = _read(other)
        assert not isinstance(found, tuple) or found[0].opaque or kind == "onnx", kind


def _read(data: bytes) -> tuple[Checkpoint, Any] | str:
    """The checkpoint and its digest (None where it has none), or the error's words; any other failure is raised."""
    try:
        checkpoint = read_checkpoint(MemorySource(data))
        try:
            return checkpoint, checkpoint_weights_digest(checkpoint)
        except NoDigestError:
            for tensor in checkpoint.tensors:
                if tensor.nbytes < 100_000:
                    b"".join(tensor_chunks(checkpoint, tensor))
            return checkpoint, None
    except IntegrityError as error:
        return str(error)


@settings(
    max_examples=int(os.environ.get("HOLDFAST_FUZZ_EXAMPLES", "250")),
    deadline=None,
    derandomize=True,
    suppress_health_check=SLOW_MACHINES,
)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_mutated_files(kind: str, data: st.DataObject) -> None:
    """Sound files with bytes changed, cut out, doubled: what comes out is a checkpoint or an `IntegrityError`."""
    sound = bytearray(GOOD[kind]())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(sound) - 1)))
        way = data.draw(st.sampled_from(["flip", "set", "cut", "double", "insert", "number"]))
        length = data.draw(st.integers(1, 12))
        if way == "flip" and sound:
            sound[place] ^= 1 << data.draw(st.integers(0, 7))
        elif way == "set":
            sound[place : place + length] = data.draw(st.binary(min_size=length, max_size=length))
        elif way == "cut":
            del sound[place : place + length]
        elif way == "double":
            sound[place:place] = sound[place : place + length]
        elif way == "insert":
            sound[place:place] = data.draw(st.binary(max_size=12))
        else:
            value = data.draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1]))
            width = data.draw(st.sampled_from([2, 4, 8]))
            sound[place : place + width] = (value % 256**width).to_bytes(width, "little")
    _read(bytes(sound))


OPCODES = [bytes([code]) for code in range(256)]
PIECES = [
    *RUNS_CODE.values(),
    *BROKEN.values(),
    b"]",
    b"}",
    b")",
    b"(",
    b"N",
    b"K\1",
    b"h\0",
    b"q\0",
    b"t",
    b"s",
    b"u",
    b"a",
    b"R",
]


@settings(
    max_examples=int(os.environ.get("HOLDFAST_FUZZ_EXAMPLES", "250")),
    deadline=None,
    derandomize=True,
    suppress_health_check=SLOW_MACHINES,
)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(OPCODES), st.binary(max_size=6)), max_size=30))
def test_pickles_of_any_opcodes(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    for data in (torch_zip(pickled(body)), GOOD["torch legacy"]()[:26] + pickled(body) + pickled(b"]"), pickled(body)):
        _read(data)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=SLOW_MACHINES)
@given(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(), st.binary(max_size=90)
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4), st.tuples(inner, inner)
        ),
        max_leaves=15,
    ),
    st.integers(0, 5),
)
def test_plain_values_of_every_protocol(value: Any, protocol: int) -> None:
    """What Python pickles of plain values is read, never opaque, in every protocol."""
    found = _read(torch_zip(pickle.dumps(value, protocol)))
    assert isinstance(found, tuple)
    assert found[0].opaque == ()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("code: reduce (zip)", 0),
        ("code: inst (legacy)", 0),
        ("code: stack global (bare)", 0),
        ("much: memo bomb (zip)", 0),
        ("much: dup bomb (bare)", 0),
        ("broken: empty stack (zip)", 13),
        ("zip with a path", 13),
        ("safetensors overlapping", 13),
        ("onnx nested", 13),
        ("empty", 0),
        ("text", 0),
    ],
)
def test_the_command_line_says_so(tmp_path: Path, name: str, code: int) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(dict(hostile())[name])
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    result = subprocess.run(
        [str(HOLDFAST), "show", "model.pt"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result.stderr
    assert not (tmp_path / MARKER).exists()
    if code:
        assert result.stdout == ""
        assert result.stderr.startswith("holdfast: model.pt")
        assert result.stderr.count("\n") == 1
    else:
        assert result.stderr == ""
        assert "opaque" in result.stdout or "Not read" in result.stdout
