"""DVC's own form is read without a YAML reader, and agrees with it in everything; what deviates is left to it."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from holdfast.repo import canonical
from holdfast.repo.dvcfiles import (
    Out,
    StageDefinition,
    UnreadableFileError,
    read_dvc,
    read_dvc_as_yaml,
    read_lock,
    read_lock_as_yaml,
)

HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
OIDS = st.one_of(HEX, HEX.map(lambda oid: f"{oid}.dir"), st.text("0123456789", min_size=32, max_size=32))
WORDS = st.text("abcxyz019_./-+@ ~,=()'\"#:&*!|>%{}[]?\t\\é\u2028\x85\x07<$^", min_size=1, max_size=12)
PLAIN = st.from_regex(r"[a-z0-9_][a-z0-9_./-]{0,12}", fullmatch=True)
SCALARS = st.one_of(
    st.integers(),
    st.floats(allow_nan=True),
    st.booleans(),
    st.none(),
    PLAIN,
    WORDS,
    st.sampled_from(["1e5", "~", "null"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(PLAIN, WORDS), inner, max_size=3)),
    max_leaves=8,
)
COMMANDS = st.one_of(
    PLAIN,
    st.lists(WORDS, min_size=1, max_size=30).map(" ".join),
    st.lists(st.lists(PLAIN, min_size=1, max_size=9).map(" ".join), min_size=1, max_size=3),
    st.just("line one\nline two\n"),
)


@st.composite
def entries(draw: st.DrawFn, paths: st.SearchStrategy[str]) -> dict[str, Any]:
    """An out as DVC writes it."""
    entry: dict[str, Any] = {"path": draw(paths)}
    if draw(st.booleans()):
        entry["hash"] = "md5"
    entry["md5"] = draw(OIDS)
    entry["size"] = draw(st.integers(0, 2**40))
    if draw(st.booleans()):
        entry["nfiles"] = draw(st.integers(1, 999))
    if draw(st.integers(0, 9)) == 0:
        entry["isexec"] = True
    return entry


@st.composite
def locks(draw: st.DrawFn, names: st.SearchStrategy[str]) -> dict[str, Any]:
    """A `dvc.lock`, in the order in which DVC writes it."""
    stages = {}
    for name in draw(st.lists(st.one_of(PLAIN, names), min_size=1, max_size=3, unique=True)):
        stage: dict[str, Any] = {"cmd": draw(COMMANDS)}
        if deps := draw(st.lists(entries(names), max_size=2)):
            stage["deps"] = deps
        if params := draw(st.dictionaries(PLAIN, st.dictionaries(PLAIN, VALUES, max_size=3), max_size=2)):
            stage["params"] = params
        if outs := draw(st.lists(entries(names), max_size=3)):
            stage["outs"] = outs
        stages[name] = stage
    return {"schema": "2.0", "stages": stages}


def as_dvc_writes(document: dict[str, Any]) -> bytes:
    # dvc/utils/serialize/_yaml.py
    yaml = YAML()
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue().encode()


def outcome(read: Callable[[], list[Out]]) -> list[Out] | str:
    try:
        return read()
    except UnreadableFileError:
        return "refused"


DEFINITIONS = {"train": StageDefinition("src", frozenset({"metrics.json"}))}


def same_lock(data: bytes) -> None:
    assert outcome(lambda: read_lock(data, "a/b", DEFINITIONS)) == outcome(
        lambda: read_lock_as_yaml(data, "a/b", DEFINITIONS)
    )


def same_dvc(data: bytes) -> None:
    assert outcome(lambda: read_dvc(data, "a")) == outcome(lambda: read_dvc_as_yaml(data, "a"))


@settings(max_examples=150, deadline=None)
@given(locks(st.one_of(PLAIN, WORDS, st.sampled_from(["train", "train@a", "true", "null", "metrics.json"]))))
def test_locks_that_dvc_writes(document: dict[str, Any]) -> None:
    same_lock(as_dvc_writes(document))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(entries(st.one_of(PLAIN, WORDS)), min_size=1, max_size=3),
    st.sampled_from([{}, {}, {"wdir": ".."}, {"frozen": True}, {"deps": [{"path": "x"}]}]),
)
def test_dvc_files_that_dvc_writes(outs: list[dict[str, Any]], head: dict[str, Any]) -> None:
    order = ("md5", "size", "nfiles", "isexec", "hash", "path")
    same_dvc(as_dvc_writes(head | {"outs": [{key: out[key] for key in order if key in out} for out in outs]}))


LOCK = b"""schema: '2.0'
stages:
  prepare:
    cmd: python prepare.py --from a:b --to $OUT && echo 'done' > log; true
    deps:
    - path: in put.csv
      hash: md5
      md5: d41d8cd98f00b204e9800998ecf8427e
      size: 10
    params:
      params.yaml:
        prepare.seed: 7
        nested:
          adam:
            lr: 0.1
          sgd:
            lr: -1e-05
        sizes:
        - 1
        - 'two'
    outs:
    - path: data/x.npz
      hash: md5
      md5: '12345678901234567890123456789012'
      size: 11
      nfiles: 3
  train@a-1.5:
    cmd: a command that is folded because it is so long that it would not fit into one line of
      eighty characters
    outs:
    - path: metrics.json
      md5: 0123456789abcdef0123456789abcdef.dir
      size: 0
"""
DVC_FILE = b"""outs:
- md5: 0123456789abcdef0123456789abcdef.dir
  size: 12
  nfiles: 2
  hash: md5
  path: images
- md5: d41d8cd98f00b204e9800998ecf8427e
  size: 3
  isexec: true
  path: a file.sh
"""
PIECES = st.one_of(
    st.sampled_from(
        [
            "#",
            ":",
            "-",
            "'",
            '"',
            "&",
            "*",
            "!",
            "|",
            ">",
            "%",
            "@",
            "`",
            "{",
            "}",
            "[",
            "]",
            ",",
            "?",
            "\\",
            "~",
            "\t",
            "\r",
            "\n",
            "<<",
            "<<:",
            "null",
            "true",
            "---",
            "...",
            "!!str",
            "&a",
            "*a",
            "|-",
            ">-",
            "x:",
            "'x'",
            "é",
            "\ufeff",
        ]
    ),
    st.sampled_from(
        [" ", "  ", "\n", "\r\n", "\n\n", "\n  ", "\n    ", "\n      ", ": ", " #", "- ", "? ", "\x00", "\u2028"]
    ),
    st.sampled_from(
        ["<<<<<<< ours\n", "=======\n", ">>>>>>> theirs\n", "    cmd: x\n", "  prepare:\n", "    outs:\n", "size: 1\n"]
    ),
    st.text(max_size=3),
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The file with one to three places cut, doubled or overwritten."""
    text = data.decode()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 2, 5, 30])))
        piece = draw(st.one_of(PIECES, st.just(""), st.just(text[start:end] * 2)))
        text = text[:start] + piece + text[end:]
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=700, deadline=None)
@given(damaged(LOCK))
def test_locks_that_nobody_writes(data: bytes) -> None:
    same_lock(data)


@settings(max_examples=300, deadline=None)
@given(damaged(DVC_FILE))
def test_dvc_files_that_nobody_writes(data: bytes) -> None:
    same_dvc(data)


def is_canonical(data: bytes) -> bool:
    stages = canonical.split_lock(data)
    return stages is not None and all(canonical.read_stage(lines) is not None for _, lines in stages)


def test_the_usual_forms_need_no_yaml_reader() -> None:
    assert is_canonical(LOCK)
    assert canonical.read_dvc_file(DVC_FILE) == [
        canonical.Entry("images", "0123456789abcdef0123456789abcdef.dir", True, 12, 2),
        canonical.Entry("a file.sh", "d41d8cd98f00b204e9800998ecf8427e", False, 3, None),
    ]
    assert [out.path for out in read_lock(LOCK, "", {})] == ["data/x.npz", "metrics.json"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cmd: python", "cmd: &a python"),
        ("cmd: python", "cmd: !!str python"),
        ("cmd: python", "cmd: |\n      python"),
        ("cmd: python", "cmd: [python]"),
        ("    deps:\n", "    # a comment\n    deps:\n"),
        ("    deps:\n", "    deps: # a comment\n"),
        ("    deps:\n", "    deps:\n\n"),
        ("    deps:\n", "    deps:\r\n"),
        ("    deps:\n", "\tdeps:\n"),
        ("size: 10", "size: 1_0"),
        ("size: 10", "size: 10\n      size: 10"),
        ("- path: data/x.npz", "- {path: data/x.npz}"),
        ("- path: data/x.npz", '- path: "data/\\u0078.npz"'),
        ("- path: data/x.npz", "- path: null"),
        ("- path: data/x.npz", "- path: datä/x.npz"),
        ("prepare.seed: 7", "prepare.seed: 7\n        prepare.seed: 8"),
        ("prepare.seed: 7", "<<: *defaults"),
        ("  train@a-1.5:", "  prepare:"),
        ("  train@a-1.5:", "  'train@a-1.5':"),
        ("  train@a-1.5:", "  null:"),
        ("schema: '2.0'", "schema: '1.0'"),
        ("  prepare:\n", "<<<<<<< ours\n  prepare:\n"),
        ("  prepare:\n", "---\n  prepare:\n"),
        ("            lr: 0.1\n", "            lr: 0.1\n              deeper: 1\n"),
        ("            lr: 0.1\n", "            lr: 0.1\n           crooked: 1\n"),
        ("        - 1\n", "        - 1\n        key: 1\n"),
        ("        - 1\n", "        - a: 1\n"),
        ("      eighty", "      - eighty"),
        ("      eighty", "      key: eighty"),
    ],
)
def test_what_deviates_is_left_to_the_yaml_reader(before: str, after: str) -> None:
    text = LOCK.decode()
    assert before in text
    data = text.replace(before, after).encode()
    assert not is_canonical(data)
    same_lock(data)
