"""Files of the registry: the quick reader against YAML's, and edits that leave alone what they do not mean."""

import math
import random
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.registry.document import EntryError, read_canonical, read_yaml
from holdfast.registry.entries import Deprecation, Version, parse_model, parse_version
from holdfast.registry.writing import dump_model, dump_version, edit_fields, plain_deprecations

OID, DIGEST = "0" * 31 + "1", f"blake3:{'a' * 64}"
VERSION = Version("v1", "models/a/b.safetensors", OID, 17, DIGEST, "2026-11-20")

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_./-]{0,12}", fullmatch=True)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.sampled_from(
        ["yes", "No", "null", "~", "1e5", "1_000", "0x1f", "012", "1:30", "2026-11-20", "a: b", "a #b", "-", "="]
    )
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=12
)


def same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(names, values, max_size=4))
def test_what_the_quick_reader_reads_is_what_yaml_reads(params: dict[str, object]) -> None:
    try:
        text = dump_version(replace(VERSION, params=params))
        slow = read_yaml(text, "f")
    except EntryError:
        return  # the registry does not keep it, so that it is never written
    quick = read_canonical(text)
    assert quick is None or same(quick, slow)


LINES = [
    "a: 1", "b:", "  c: true", "  d: yes", "  - 1", "- 2", "e: [1, 2]", "f: {}", "  g: {}", "    h: 'x y'", 'i: "p\\"q"',
    "j: 1.5", "k: 1e3", "l: 2.5e+3", "m: .5", "n: text, with (more) × 8", "o: a # b", "a: 2", "  a: 3", "p: null", "q: ~", "",
    " r: 1", "s : 1", "t:  2", "u: |", "  word", "v: &x 1", "w: *x", "<<: 3", "x: 012", "y: 1_0", "z: -0", "aa: - b", "---",
    "\tb: 1", "c: 2026-11-20", "d: '2026-11-20'", "e: 10:20", "f: 'it''s'", "g: off", "h: +1", "i: 0x1f", "j: NULL", "k: 1.", "l: !!str 3",
]  # fmt: skip


def test_lines_in_any_order_are_read_alike_or_not_at_all() -> None:
    """Twenty thousand files of lines that look right: where the quick reader answers, YAML says the same."""
    picks = random.Random(5)
    read = 0
    for _ in range(20_000):
        text = "\n".join(picks.choices(LINES, k=picks.randint(1, 6))) + "\n"
        quick = read_canonical(text)
        if quick is not None:
            read += 1
            assert same(quick, read_yaml(text, "f")), text
    assert read > 800


@pytest.mark.parametrize(
    "text",
    [
        "b:\n- 2\n  - 1\n", "b:\n  - 1\n", "a:\n  b:\n- 1\n", "a:\n  b: 1\n c: 2\n", "a: 1\n  b: 2\n", "- 1\na: 2\n", "a:\n- 1\nb: 2\n",
        "a:\n  b:\n  - 1\n  c: 2\n", "a:\n\n  b: 1\n", "a: {}\n  b: 1\n", "a:\n    b: 1\n", "a:\n  b:\n    c: 1\n  d:\ne: 1\n", "a: x\n- 1\n",
    ],
)  # fmt: skip
def test_levels_are_those_of_yaml(text: str) -> None:
    quick = read_canonical(text)
    if quick is not None:
        assert same(quick, read_yaml(text, "f"))


def test_files_that_holdfast_writes_are_read_quickly() -> None:
    version = replace(
        VERSION,
        source={"run": "outputs/train", "rev": "2" * 40},
        params={"train": {"lr": 0.004, "seed": 1, "device": "auto", "sizes": [1, 2]}, "none": None},
        metrics={"accuracy": 1.0, "loss": 1.5e-7, "ok": True},
        gate={"verdict": "pass", "champion": "v2"},
        overridden="the old one is broken",
    )
    text = dump_version(version)
    assert read_canonical(text) is not None
    assert parse_version(text, "v1", "f") == version
    assert read_canonical(dump_model("Handwritten digits, 8×8 pixels, ten classes", "v1")) is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('oid: "', 'weights_file: a.pt\noid: "', "'weights_file' stands beside the oid of a single file"),
        (f'oid: "{OID}"', f'oid: "{OID}.dir"', "'weights_file' should name the folder's file of weights, not None"),
        (f'oid: "{OID}"', f'oid: "{OID}.dir"\nweights_file: ../x.pt', "should name the folder's file of weights"),
        (f'oid: "{OID}"', f'oid: "{OID}.dir"\nweights_file: /x.pt', "should name the folder's file of weights"),
        ("params: {}", "params: {}\ngate: pass", "line 9: 'gate' should be a mapping"),
        ("params: {}", "params: {}\noverridden: 3", "line 9: 'overridden' should be text"),
        ("params: {}", 'params: {}\noverridden: ""', "line 9: 'overridden' should be text"),
    ],
)
def test_faults_of_folders_and_gates(old: str, new: str, message: str) -> None:
    text = dump_version(VERSION)
    assert old in text
    with pytest.raises(EntryError) as caught:
        parse_version(text.replace(old, new), "v1", "registry/a/b/v1.yaml")
    assert message in str(caught.value)


def test_a_folder_with_a_file_of_weights() -> None:
    version = replace(VERSION, oid=f"{OID}.dir", weights_file="sub/model.pt")
    assert parse_version(dump_version(version), "v1", "f") == version
    assert (version.is_folder, version.weights_path) == (True, "models/a/b.safetensors/sub/model.pt")


MODEL_FILE = "schema: 1\ndescription: A b\ncurrent: v1\naliases: {}\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("deprecations: {v7: old}", "line 5: 'deprecations' names 'v7', of which there is no file"),
        ("deprecations: [v1]", "'deprecations' should be a mapping"),
        ("deprecations: {v1: 3}", "'v1' should be a reason, or have a reason and a date"),
        ("deprecations: {v1: {reason: x, date: soon}}", "should be a reason, or have a reason and a date"),
        ("deprecations: {v1: {reason: x, day: 3}}", "should be a reason, or have a reason and a date"),
        ("protected: production", "'protected' should be a list of aliases"),
        ("protected: [1]", "'protected' should be a list of aliases"),
        ("removed: {v2: today}", "'removed' should give versions and days"),
        ("removed: {two: '2026-11-20'}", "'removed' should give versions and days"),
    ],
)
def test_faults_of_a_models_file(more: str, message: str) -> None:
    with pytest.raises(EntryError) as caught:
        parse_model(f"{MODEL_FILE}{more}\n", "a/b", (VERSION,), "registry/a/b/model.yaml")
    assert message in str(caught.value)


def test_deprecations_with_and_without_a_date() -> None:
    versions = (VERSION, replace(VERSION, name="v2"))
    text = f"{MODEL_FILE}deprecations:\n  v1: wrong split\n  v2:\n    reason: slow\n    date: '2026-11-20'\n"
    model = parse_model(text, "a/b", versions, "f")
    told = {"v1": Deprecation("wrong split"), "v2": Deprecation("slow", "2026-11-20")}
    assert model.deprecations == told
    again = edit_fields(MODEL_FILE.encode(), {"deprecations": plain_deprecations(told)}, "f").decode()
    assert parse_model(again, "a/b", versions, "f").deprecations == told


def test_numbers_are_not_used_twice() -> None:
    model = parse_model(f"{MODEL_FILE}removed: {{v4: '2026-11-20'}}\n", "a/b", (VERSION,), "f")
    assert model.next_name == "v5"


EDITS = [
    # what people wrote, the change, what must be there then
    ("current: v1\n", {"current": "v2"}, "current: v2\n"),
    ("current: v1   # by hand\n", {"current": "v2"}, "current: v2   # by hand\n"),
    ("# head\ncurrent: 'v1'\nx: 1\n", {"current": "v2"}, "# head\ncurrent: v2\nx: 1\n"),
    ("aliases: {}\ny: 1\n", {"aliases": {"p": "v1"}}, "aliases:\n  p: v1\ny: 1\n"),
    ("aliases:\n  p: v1\n  # why\n  s: v2  # note\nz: 1\n", {"aliases": {"p": "v3", "s": "v2"}}, "aliases:\n  p: v3\n  # why\n  s: v2  # note\nz: 1\n"),
    ("aliases: {p: v1, s: v2}  # both\n", {"aliases": {"p": "v3", "s": "v2"}}, "aliases: {p: v3, s: v2}  # both\n"),
    ("a: 1", {"current": "v1"}, "a: 1\ncurrent: v1\n"),
    ("protected:\n- p\nb: 1\n", {"protected": ["p", "s"]}, "protected:\n- p\n- s\nb: 1\n"),
    ("aliases:\n  p: v1\n\n# the end\nb: 1\n", {"aliases": {}}, "aliases: {}\n\n# the end\nb: 1\n"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "changes", "after"), EDITS)
def test_edits_change_what_they_mean_alone(before: str, changes: dict[str, object], after: str) -> None:
    assert edit_fields(before.encode(), changes, "f").decode() == after
    marked = b"\xef\xbb\xbf" + before.replace("\n", "\r\n").encode()
    edited = edit_fields(marked, changes, "f")
    assert edited.decode("utf-8-sig").replace("\r\n", "\n") == after
    assert edited.startswith(b"\xef\xbb\xbf")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from([*LINES[:12], "# c", "", "aliases:", "  p: v1", "  p: v2 # x", "aliases: {p: v1}"]), max_size=8
    ),
    st.dictionaries(names, st.sampled_from(["v1", "v2"]), max_size=3),
)
def test_an_edit_says_what_was_meant_or_is_refused(lines: list[str], aliases: dict[str, str]) -> None:
    text = "\n".join(lines) + "\n"
    try:
        before = read_yaml(text, "f")
        edited = edit_fields(text.encode(), {"aliases": aliases}, "f").decode()
    except EntryError:
        return
    after = yaml.safe_load(edited)
    assert after.pop("aliases") == aliases
    before.pop("aliases", None)
    assert list(after) == list(before)
    assert edited.count("# c") == text.count("# c")
