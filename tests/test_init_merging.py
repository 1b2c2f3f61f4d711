"""Additions to files that people wrote: nothing of theirs changes, and what cannot be added safely is refused."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.project.merging import NotMergedError, with_item, with_keys, with_lines

ITEM = "repo: local\nhooks:\n  - id: a"


def added_lines(before: str, after: bytes) -> list[str]:
    """The lines that were added; fails where one of the others is gone or in another place."""
    rest = iter(after.decode().splitlines(keepends=True))
    added = []
    for line in before.splitlines(keepends=True):
        for other in rest:
            if other in (line, line + "\n", line + "\r\n"):
                break
            added.append(other)
        else:
            raise AssertionError(f"{line!r} is gone")
    return [*added, *rest]


STYLES = {
    "indented": "repos:\n  # ours\n  - repo: x\n    hooks: [{id: b}]  # why\n\n# the end\nfail_fast: true\n",
    "flush": "fail_fast: true\nrepos:\n- repo: x\n  hooks:\n  - id: b\n",
    "deep": "repos:\n        - repo: x\n          hooks:\n            - id: b\n              args:\n                - |\n                  text\n                  more\n",
    "without an end": "repos:\n- repo: x",
    "anchors": "x: &base\n  language: system\nrepos:\n  - repo: x\n    hooks:\n      - <<: *base\n        id: b\n",
    "alias at the end": "x: &base {language: system}\nrepos:\n  - repo: x\n    more: *base\n",
    "document": "---\nrepos:\n  - repo: x\nci:\n  skip: []\n",
    "quoted": "repos:\n  - repo: 'x: y'\n    rev: \"v1\"   # pinned\n",
    "unicode": "# прошлое\nrepos:\n  - repo: ключ\n",
    "comment last": "repos:\n  - repo: x\n  # no more\n",
    "blank lines": "\n\nrepos:\n\n  - repo: x\n\n\n  - repo: y\n\n\n",
}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("style", STYLES)
def test_an_item_is_added_and_the_rest_stays(style: str, end: str) -> None:
    before = STYLES[style].replace("\n", end)
    after = with_item(before.encode(), "repos", ITEM)

    expected = yaml.safe_load(before)
    expected["repos"].append({"repo": "local", "hooks": [{"id": "a"}]})
    assert yaml.safe_load(after) == expected
    assert len(added_lines(before, after)) == 3
    assert b"\r\n" not in after or not re.search(rb"[^\r]\n", after)  # one kind of line end


@pytest.mark.parametrize(
    "before", ["", "# only words\n", "fail_fast: true\n", "repos: []\n", "repos:\n", "repos: []  # none\nx: 1\n"]
)
def test_a_list_that_is_missing_or_empty(before: str) -> None:
    after = with_item(before.encode(), "repos", ITEM)
    assert yaml.safe_load(after) == {
        **(yaml.safe_load(before) or {}),
        "repos": [{"repo": "local", "hooks": [{"id": "a"}]}],
    }
    assert [line for line in re.findall("#.*", before) if line not in after.decode()] == []


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("repos:\n\t- repo: x\n", "no YAML"),
        ("repos: [{repo: x}]\n", "one line"),
        ("repos: {a: 1}\n", "no list"),
        ("- repo: x\n", "no mapping"),
        ("repos:\n  - repo: x\n   bad\n", "no YAML"),
        ("repos: !reference [x]\n", "no YAML"),
        ("repos: &a\n  - repo: x\nother: *a\n", "nothing can be added"),
        ("repos:\n  - &a {repo: x}\n  - repo: y\n  - *a\n", "nothing can be added"),
        ("repos:\n- repo: x\n...\n---\nb: 1\n", "no YAML"),
        ("{fail_fast: true}\n", "nothing can be added"),
    ],
)
def test_what_cannot_be_added_to_is_refused(before: str, why: str) -> None:
    with pytest.raises(NotMergedError, match=why):
        with_item(before.encode(), "repos", ITEM)


def test_what_is_no_text_is_refused() -> None:
    for merge in (lambda data: with_item(data, "repos", ITEM), lambda data: with_lines(data, ["x"])):
        with pytest.raises(NotMergedError, match="no UTF-8"):
            merge(b"repos:\n- \xff\xfe\n")


def test_keys_go_to_the_end_of_their_mapping() -> None:
    before = "stages:\n  a:\n    cmd: x  # first\n  # last\nplots: []\n"
    after = with_keys(before.encode(), ("stages",), "b:\n  cmd: y")
    assert yaml.safe_load(after) == {"stages": {"a": {"cmd": "x"}, "b": {"cmd": "y"}}, "plots": []}
    assert added_lines(before, after) == ["  b:\n", "    cmd: y\n"]
    top = with_keys(b"lr: 0.1", (), "promote:\n  model: a/b")
    assert top == b"lr: 0.1\n\npromote:\n  model: a/b\n"
    with pytest.raises(NotMergedError, match="has b already"):
        with_keys(after, ("stages",), "b: {}")
    with pytest.raises(NotMergedError, match="no mapping"):
        with_keys(b"stages: [1]\n", ("stages",), "b: {}")


def test_lines_are_added_once_with_their_comment() -> None:
    lines = ["# why", ".*.tmp", "/plots/"]
    assert with_lines(b"", lines) == b"# why\n.*.tmp\n/plots/\n"
    assert with_lines(b"*.pyc", lines) == b"*.pyc\n# why\n.*.tmp\n/plots/\n"
    assert with_lines(b"a\r\n.*.tmp\r\n", lines) == b"a\r\n.*.tmp\r\n/plots/\r\n"
    done = with_lines(b"a\n", lines)
    assert with_lines(done, lines) is done


plain = st.text("abcxyz #:-'\"&*[]{}|>é\t\r\n", max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | plain,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(plain, below, max_size=3),
    max_leaves=8,
)


@given(
    items=st.lists(values, max_size=4),
    others=st.dictionaries(plain, values, max_size=3),
    flow=st.sampled_from([None, False]),
    width=st.sampled_from([20, 80]),
)
def test_whatever_yaml_says_it_says_it_afterwards(
    items: list[object], others: dict[str, object], flow: bool | None, width: int
) -> None:
    document = {**others, "repos": items}
    before = yaml.safe_dump(document, default_flow_style=flow, width=width, sort_keys=False, allow_unicode=True)
    try:
        after = with_item(before.encode(), "repos", ITEM)
    except NotMergedError:
        assert flow is None  # in lines, every list can be added to
        return
    assert yaml.safe_load(after) == {**document, "repos": [*items, {"repo": "local", "hooks": [{"id": "a"}]}]}
