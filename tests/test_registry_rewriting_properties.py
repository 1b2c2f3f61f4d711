"""After rewriting a file means what it meant, but for the one value; every other byte stays. Any file, any path."""

import ast
import configparser
import io
import json
import os
import posixpath
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from holdfast.registry.rewriting import RewritePlan, plan_rewrites

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

COMMON = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
NAME = st.from_regex(r"[a-z0-9_][a-z0-9_\-]{0,7}", fullmatch=True)
# what people call files, and what nobody should
ANY_NAME = st.one_of(NAME, st.text("ab .-_'\"#:,&*[]{}$`%!?ü😀\u00a0@=()", min_size=1, max_size=8)).filter(
    lambda name: name not in (".", "..") and name == name.strip()
)


@st.composite
def paths(draw: st.DrawFn, name: st.SearchStrategy[str] = NAME) -> str:
    return "/".join([*draw(st.lists(name, min_size=1, max_size=4)), f"{draw(name)}.pt"])


@st.composite
def moves(draw: st.DrawFn, name: st.SearchStrategy[str] = NAME) -> tuple[str, str]:
    old, new = draw(paths(name)), draw(paths(name))
    if old == new or posixpath.basename(old) in new.split("/"):
        new = f"models/{draw(NAME)}/renamed.bin"
    return old, new


def leaves(old: str) -> st.SearchStrategy[str]:
    """Values: the path in several forms, near misses, anything."""
    near = [
        f"{old}x",
        f"x{old}",
        f"{old}.dvc",
        f"x/{old}",
        posixpath.basename(old),
        f"s3://b/{old}",
        f"{old}/",
        f"/x/{old}",
    ]
    forms = [old, f"./{old}", f"../{old}"]
    return st.one_of(st.sampled_from([*forms, old]), st.sampled_from(near), st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12))  # fmt: skip


def trees(old: str) -> st.SearchStrategy[Any]:
    plain = st.one_of(leaves(old), st.integers(-9, 9), st.booleans(), st.none())
    return st.dictionaries(NAME, st.recursive(plain, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAME, inner, max_size=3)), max_leaves=8), min_size=1, max_size=4)  # fmt: skip


@contextmanager
def project() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "project"
        (root / "conf").mkdir(parents=True)
        yield root


def rewrite(name: str, data: bytes, old: str, new: str) -> tuple[bytes, RewritePlan]:
    """The bytes after; a second run has nothing to do, and the edits alone make the difference."""
    with project() as root:
        (root / name).write_bytes(data)
        plan = plan_rewrites(root, {old: new}, keep=())
        if not plan.rewrites:
            return data, plan
        (made,) = plan.rewrites
        assert made.before == data
        (root / name).write_bytes(made.after)
        assert plan_rewrites(root, {old: new}, keep=()).rewrites == ()
        return made.after, plan


def wanted(value: str, old: str, new: str) -> str | None:
    """What a value of a file in ``conf/`` becomes; None for one that stays."""
    return {old: new, f"./{old}": f"./{new}", f"../{old}": f"../{new}"}.get(value)


def compare(before: Any, after: Any, old: str, new: str, *, all_of_them: bool, keys: tuple[str, ...] = ()) -> None:
    """The same structure, and every string either what it was or the old path replaced."""
    assert type(before) is type(after)
    if isinstance(before, dict):
        assert list(before) == list(after)
        for key in before:
            compare(before[key], after[key], old, new, all_of_them=all_of_them, keys=(*keys, str(key)))
    elif isinstance(before, list):
        assert len(before) == len(after)
        for left, right in zip(before, after, strict=True):
            compare(left, right, old, new, all_of_them=all_of_them, keys=keys)
    elif isinstance(before, str) and (now := wanted(before, old, new)) is not None:
        assert after == now or (after == before and not all_of_them)
    else:
        assert after == before


def is_written(tree: Any) -> bool:
    """Whether a key says that something is written there; such are left."""
    return re.search(r"(?<![a-z])(?:saves?|out|outputs?|dest|dst|exports?)(?![a-z])", json.dumps(tree)) is not None


@COMMON
@given(st.data())
def test_yaml(data: st.DataObject) -> None:
    old, new = data.draw(moves())
    tree = data.draw(trees(old))
    style = data.draw(st.sampled_from([None, None, '"', "'", "|", ">"]))
    flow = data.draw(st.sampled_from([False, None, True]))
    text = yaml.safe_dump(tree, default_style=style, default_flow_style=flow, allow_unicode=data.draw(st.booleans()), width=10**6, sort_keys=False)  # fmt: skip
    text = f"# {old} is loaded: {{\n{text}# {old}\n"
    if data.draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    if data.draw(st.booleans()):
        text = "\ufeff" + text
    after, _ = rewrite("conf/a.yaml", text.encode(), old, new)
    compare(yaml.safe_load(text), yaml.safe_load(after.decode()), old, new, all_of_them=not is_written(tree))
    # another reader agrees
    reader = YAML(typ="safe", pure=True)
    compare(reader.load(text), reader.load(after.decode()), old, new, all_of_them=False)
    assert after.decode().count("\n") == text.count("\n")
    assert f"# {old} is loaded: {{" in after.decode()


@COMMON
@given(st.data())
def test_yaml_with_any_path(data: st.DataObject) -> None:
    """Names with blanks, quotes and marks: what the value cannot hold stays and is listed."""
    old, new = data.draw(moves(ANY_NAME))
    tree = {"a": old, "b": [old, 1], "c": {"d": f"./{old}"}}
    style = data.draw(st.sampled_from([None, '"', "'"]))
    text = yaml.safe_dump(tree, default_style=style, default_flow_style=data.draw(st.booleans()), allow_unicode=data.draw(st.booleans()), width=10**6)  # fmt: skip
    after, plan = rewrite("conf/a.yaml", text.encode(), old, new)
    before, now = yaml.safe_load(text), yaml.safe_load(after.decode())
    compare(before, now, old, new, all_of_them=False)
    stayed = sum(value == old for value in (now["a"], now["b"][0])) + (now["c"]["d"] == f"./{old}")
    assert stayed == 0 or plan.left


@COMMON
@given(st.data())
def test_json(data: st.DataObject) -> None:
    old, new = data.draw(moves(ANY_NAME))
    tree = data.draw(trees(old))
    text = json.dumps(tree, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1, "\t"])))
    if data.draw(st.booleans()):
        text = text.replace("/", "\\/")
    after, plan = rewrite("conf/a.json", text.encode(), old, new)
    whole = not is_written(tree) and not plan.left
    compare(json.loads(text), json.loads(after), old, new, all_of_them=whole)
    if "\\/" in text and b"/" in after.replace(b"\\/", b""):
        raise AssertionError("its slashes were written otherwise")


@st.composite
def toml_strings(draw: st.DrawFn, value: str) -> str:
    forms = [
        '"' + "".join(f"\\u{ord(c):04x}" if draw(st.integers(0, 9)) == 0 else c for c in value) + '"',
        f'"""\n{value}"""',
    ]
    return draw(st.sampled_from([*forms, f"'{value}'", f"'''{value}'''"]))


@COMMON
@given(st.data())
def test_toml(data: st.DataObject) -> None:
    old, new = data.draw(moves())
    lines = [f"# {old}"]
    for number, value in enumerate(
        data.draw(st.lists(st.sampled_from([old, f"../{old}", f"x{old}", "y"]), max_size=5))
    ):
        string = data.draw(toml_strings(value))
        lines.append(data.draw(st.sampled_from([f"k{number} = {string} # {old}", f"[t{number}]\n'a b' = {string}", f"l{number} = [\n  {string}, # c\n  'x',\n]", f"i{number} = {{ a = 1, b = {string.replace(chr(10), '')} }}"])))  # fmt: skip
    text = "\n".join(lines) + "\n"
    if data.draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    after, _ = rewrite("conf/a.toml", text.encode(), old, new)
    compare(tomllib.loads(text), tomllib.loads(after.decode()), old, new, all_of_them=True)
    assert [line.partition("#")[2] for line in after.decode().splitlines()] == [
        line.partition("#")[2] for line in text.splitlines()
    ]


@COMMON
@given(st.data())
def test_ini(data: st.DataObject) -> None:
    old, new = data.draw(moves())
    values = data.draw(
        st.lists(st.sampled_from([old, f"../{old}", f"x{old}", f"a b {old} c", "y"]), min_size=1, max_size=5)
    )
    lines = [f"; {old}", "[main]"]
    for number, value in enumerate(values):
        lines += data.draw(
            st.sampled_from(
                [[f"k{number} = {value}"], [f"K{number}:{value}"], [f"l{number} =", f"\t{value}", "    other"]]
            )
        )
    text = "\n".join(lines) + "\n"
    after, _ = rewrite("conf/a.ini", text.encode(), old, new)

    def read(source: str) -> dict[str, dict[str, Any]]:
        parser = configparser.RawConfigParser()
        parser.read_string(source)
        return {name: {key: value.split("\n") for key, value in parser.items(name)} for name in parser.sections()}

    compare(read(text), read(after.decode()), old, new, all_of_them=True)
    assert after.startswith(f"; {old}\n".encode())


@st.composite
def expressions(draw: st.DrawFn, path: str) -> str:
    """An expression of Python that is the path: a literal in some quotes, or a join of its parts."""
    names = path.split("/")
    cuts = sorted(draw(st.sets(st.integers(1, len(names) - 1), max_size=3)))
    parts = ["/".join(names[start:end]) for start, end in zip([0, *cuts], [*cuts, len(names)], strict=True)]
    strings = [draw(literals(part)) for part in parts]
    gap = draw(st.sampled_from([" / ", "\n    / ", " /  # c\n "]))
    args = draw(st.sampled_from([", ", ",\n    ", ",  # c\n    "]))
    base = draw(st.sampled_from(["", "ROOT", "HERE.parent", "BASE"]))
    if base == "BASE":
        return f"os.path.join({args.join([base, *strings])})"
    if base:
        return draw(st.sampled_from([f"({base}{gap}{gap.join(strings)})", f"Path({base}, {args.join(strings)})", f"{base}.joinpath({args.join(strings)})"]))  # fmt: skip
    if len(strings) == 1:
        return strings[0]
    return draw(
        st.sampled_from([f"(Path({strings[0]}){gap}{gap.join(strings[1:])})", f"os.path.join({args.join(strings)})"])
    )


@st.composite
def literals(draw: st.DrawFn, text: str) -> str:
    quote = draw(st.sampled_from(["'", '"', "'''", '"""']))
    prefix = draw(st.sampled_from(["", "r", "f", "u", "rf"]))
    if not re.fullmatch(r"[\w/.\-]+", text):
        return repr(text)
    if "r" not in prefix and draw(st.booleans()):
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.sampled_from([f"\\x{ord(text[at]):02x}", f"\\{ord(text[at]):03o}", f"\\u{ord(text[at]):04x}"])) + text[at + 1 :]  # fmt: skip
    return f"{prefix}{quote}{text}{quote}"


PROLOGUE = """import os
from pathlib import Path
HERE = Path(__file__).parent
ROOT = HERE.parent
BASE = os.path.dirname(os.path.dirname(__file__))
"""


def run(source: str) -> list[str]:
    space: dict[str, Any] = {"__file__": "/project/conf/a.py"}
    exec(compile(source, "a.py", "exec"), space)
    return [os.fspath(value) for value in space["VALUES"]]


@COMMON
@given(st.data())
def test_python(data: st.DataObject) -> None:
    """The program, run, gives the new path wherever it gave the old one, unless the place is listed."""
    old, new = data.draw(moves())
    chosen = data.draw(st.lists(expressions(old), min_size=1, max_size=4))
    others = [f"'{old}x'", f"'x/{old}'", "'ü😀'"]
    items = ",\n".join([*chosen, *others])
    source = f'"""{old}"""\n{PROLOGUE}# {old}\nVALUES = [\n{items},\n]\n'
    after, plan = rewrite("conf/a.py", source.encode(), old, new)
    before, now = run(source), run(after.decode())
    left = 0
    for value, got in zip(before[: len(chosen)], now[: len(chosen)], strict=True):
        assert got in (value, value.replace(old, new))
        left += got == value
    assert left <= len([item for item in plan.left if item.why == "the new path has fewer parts"])
    assert now[len(chosen) :] == before[len(chosen) :]
    assert re.findall(r"#.*", after.decode()) == re.findall(r"#.*", source)
    assert ast.get_docstring(ast.parse(after)) == old


@COMMON
@example(("models/a b.pt", "x/y'z.pt"))
@given(moves(ANY_NAME))
def test_python_with_any_path(pair: tuple[str, str]) -> None:
    old, new = pair
    source = f"VALUES = [{old!r}, {old!a}, f{old.replace('{', '{{').replace('}', '}}')!r}]\n"
    after, plan = rewrite("conf/a.py", source.encode(), old, new)
    now = run(after.decode())
    assert all(value in (old, new) for value in now)
    assert sum(value == old for value in now) <= len(plan.left)


@COMMON
@given(st.data())
def test_notebook(data: st.DataObject) -> None:
    old, new = data.draw(moves())
    values = data.draw(st.lists(expressions(old), min_size=1, max_size=3))
    sources = [PROLOGUE.replace("__file__", "'conf/a.py'"), *(f"VALUE = {value}\n# {old}" for value in values)]
    cells = [{"cell_type": "code", "metadata": {"x": old}, "outputs": [{"text": [old]}], "source": source if data.draw(st.booleans()) else source.splitlines(keepends=True)} for source in sources]  # fmt: skip
    text = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=data.draw(st.booleans()))  # fmt: skip
    after, _ = rewrite("conf/a.ipynb", text.encode(), old, new)
    before, now = json.loads(text), json.loads(after)
    for cell, changed in zip(before["cells"], now["cells"], strict=True):
        ast.parse("".join(changed["source"]))
        assert "".join(changed["source"]).endswith("".join(cell["source"])[-len(f"# {old}") :])
        changed["source"] = cell["source"]
    assert now == before


@pytest.mark.parametrize("seed", range(3))
def test_shell_says_the_same_words(seed: int) -> None:
    """A real shell reads the words of the script before and after."""
    old, new = [("runs/a/best.pt", "models/b.pt"), ("runs/1-2/x.pt", "models/a b'c.pt"), ("r/ü.pt", 'm/$x"`y.pt')][seed]
    forms = [old, f'"{old}"', f"'{old}'", f"./{old}", f"x{old}", f"--m={old}", f'--m="{old}"', f"\\{old}", f'"{old}"x', f'"a {old} b"', f"$HOME/{old}", "'it'\\''s'"]  # fmt: skip
    script = "".join(f"printf '%s\\n' {form} # {old}\n" for form in forms)
    after, _ = rewrite("conf/a.sh", script.encode(), old, new)

    def said(source: bytes) -> list[str]:
        done = subprocess.run(
            ["bash"], input=source, capture_output=True, check=True, env={"HOME": "/h", "LC_ALL": "C.UTF-8"}
        )
        return done.stdout.decode().splitlines()

    before, now = said(script.encode()), said(after)
    assert len(before) == len(now)
    for one, other in zip(before, now, strict=True):
        assert other in (one, one.replace(old, new))
    if seed == 0:
        changed = [one for one, other in zip(before, now, strict=True) if one != other]
        assert changed == [old, old, old, f"./{old}", f"--m={old}", f"--m={old}", f"a {old} b"]
    assert [line.partition("# ")[2] for line in io.StringIO(after.decode())] == [f"{old}\n"] * len(forms)
