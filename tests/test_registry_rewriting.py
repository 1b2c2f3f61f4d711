"""References led to a model's new path, file by file and form by form; what is left, and why."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from holdfast.errors import UsageError
from holdfast.registry.rewriting import RewritePlan, plan_rewrites
from holdfast.registry.rewriting_data import _verified, _yaml_picture
from holdfast.registry.rewriting_found import Place
from holdfast.registry.rewriting_paths import Moves

OLD = "outputs/ava/gpu_run_regression_18_01/best_model.pt"
NEW = "models/album_app/ava_aesthetic_model.pt"
MOVES = {OLD: NEW}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    put(folder, {OLD: b"weights"})
    return folder


def put(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


def after(plan: RewritePlan, file: str) -> str | None:
    """What a file would hold; None where it stays."""
    return next((rewrite.after.decode() for rewrite in plan.rewrites if rewrite.file == file), None)


def reasons(plan: RewritePlan) -> dict[str, str]:
    return {left.place: left.why for left in plan.left}


def rewritten(root: Path, file: str, text: str, moves: Mapping[str, str] = MOVES) -> tuple[str, list[str]]:
    """The text after, and why what is left is left. A second run changes nothing."""
    put(root, {file: text})
    plan = plan_rewrites(root, moves, documents=True)
    result = after(plan, file)
    if result is None:
        return text, [left.why for left in plan.left]
    put(root, {file: result})
    again = plan_rewrites(root, moves, documents=True)
    assert again.rewrites == ()
    assert [left.why for left in again.left] == [left.why for left in plan.left]
    return result, [left.why for left in plan.left]


# each line: the source, and what it is after (the same where the writer's words are to stay)
YAML = [
    ("a: {old}", "a: {new}"),
    ("a: {old}   # {old} is loaded", "a: {new}   # {old} is loaded"),
    ('a: "{old}"', 'a: "{new}"'),
    ("a: '{old}'", "a: '{new}'"),
    ('a: "outputs\\x2fava/gpu_run_regression_18_01\\/best_model.pt"', 'a: "{new}"'),
    ("a: ./{old}", "a: ./{new}"),
    ("a: ../{old}", "a: ../{new}"),
    ("a: album/{old}", "a: ../../album/{new}"),
    ("a: [x, {old}, 'y']", "a: [x, {new}, 'y']"),
    ("a: {{b: {old}, c: 1}}", "a: {{b: {new}, c: 1}}"),
    ("- {old}", "- {new}"),
    ("a: &m {old}\nb: *m", "a: &m {new}\nb: *m"),
    ("a: !path {old}", "a: !path {new}"),
    ("a: !!str\n  {old}", "a: !!str\n  {new}"),
    ("a: |\n  python serve.py --model {old}\n  echo done", "a: |\n  python serve.py --model {new}\n  echo done"),
    ("a: >-\n  {old}", "a: >-\n  {new}"),
    ("a: python serve.py --model={old} -v", "a: python serve.py --model={new} -v"),
    ("a: {win}", "a: {win_new}"),
    ("a: 'python a.py --title ''x'' --model {old}'", "a: 'python a.py --title ''x'' --model {new}'"),
    ("---\na: {old}\n---\nb: {old}\n...", "---\na: {new}\n---\nb: {new}\n..."),
    ("é: 'ü' # ß\na: {old} # ü", "é: 'ü' # ß\na: {new} # ü"),
    ("😀: {old}", "😀: {new}"),
    ("a: {old}\r\nb: 1\r\n", "a: {new}\r\nb: 1\r\n"),
    ("\ufeffa: {old}", "\ufeffa: {new}"),
    ("a:    {old}\t \n\n\n", "a:    {new}\t \n\n\n"),
]


@pytest.mark.parametrize(("source", "wanted"), YAML)
def test_yaml(root: Path, source: str, wanted: str) -> None:
    if "album/" in source:
        wanted = wanted.replace("../../album/", "album/")
    names = {"old": OLD, "new": NEW, "win": OLD.replace("/", "\\"), "win_new": NEW.replace("/", "\\")}
    text, left = rewritten(root, "configs/app.yaml", source.format(**names))
    assert text == wanted.format(**names)
    assert left == []


LEFT = [
    ("a.yaml", "{old}: 0.4\n", "it is a key, not a value"),
    ("a.yaml", "save_path: {old}\n", "its key save_path says that it is written"),
    ("a.yaml", "outputCheckpoint: {old}\n", "its key outputCheckpoint says that it is written"),
    ("a.yaml", "a: &x {old}\nsave_to: *x\n", "its key save_to says that it is written"),
    ("a.yaml", "out:\n  best: {old}\n", "its key out says that it is written"),
    ("a.yaml", "note: we took {old} since it won\n", "it stands in a sentence"),
    ("a.yaml", "a: ${{ROOT}}/{old}\n", "the name is put together from parts"),
    ("a.yaml", "a: outputs/*/*/best_model.pt\n", "a pattern finds whatever lies there"),
    ("a.yaml", "a: best_model.pt\n", "it gives the name without its folder"),
    ("a.yaml", "a: gpu_run_regression_18_01/best_model.pt\n", "it is written from another folder"),
    ("a.yaml", "a: /workspace/album/{old}\n", "it begins outside of the project"),
    ("a.yaml", "a: {old}.dvc\n", "it names the file with which DVC tracks it"),
    ("a.yaml", "a: [{old}\n", "the file cannot be parsed: "),
    ("a.yaml", 'a: "python {old} \\\n  x\\x21"\n', "the value is written in a way that is not rewritten"),
    ("a.yaml", "cmd: python train.py > {old}\n", "the command writes it"),
    ("dvc.yaml", "stages:\n  train:\n    cmd: x\n    outs:\n    - {old}\n", "the pipeline names it"),
    (
        "dvc.yaml",
        "stages:\n  train:\n    cmd: x\n    outs:\n    - {old}:\n        persist: true\n",
        "the pipeline names it",
    ),
    ("a.json", '{{"{old}": 1}}', "it is a key, not a value"),
    ("a.json", '{{"export": {{"best": ["{old}"]}}}}', "its key export says that it is written"),
    ("a.json", "{{'a': '{old}'}}", "the file cannot be parsed: "),
    ("a.toml", 'output = "{old}"\n', "its key output says that it is written"),
    ("a.toml", '"{old}" = 1\n', "it is a key, not a value"),
    ("a.toml", 'a = "{old}\n', "the file cannot be parsed: "),
    ("a.ini", "[a]\nsave = {old}\n", "its key save says that it is written"),
    ("run.sh", "rm -f {old}\n", "the command moves or removes it"),
    ("run.sh", "mv {old} x.pt\n", "the command moves or removes it"),
    ("run.sh", "python train.py | tee {old}\n", "the command writes it"),
    ("run.sh", "cp x.pt {old}\n", "the command writes it"),
    ("run.sh", "python train.py --out {old} --epochs 3\n", "its option out says that it is written"),
    ("run.sh", "python train.py -o {old}\n", "its option o says that it is written"),
    ("run.sh", "M={old}\nrm $M\n", "its variable M is written or removed"),
    ("run.sh", 'cat "$HOME/{old}"\n', "the name is put together from parts"),
    ("Makefile", "{old}: train.py\n\tpython train.py\n", "a rule makes it"),
    ("Dockerfile", "COPY x.pt {old}\n", "the command writes it"),
]


@pytest.mark.parametrize(("file", "source", "why"), LEFT)
def test_what_is_left(root: Path, file: str, source: str, why: str) -> None:
    text = source.format(old=OLD)
    put(root, {file: text})
    plan = plan_rewrites(root, MOVES)
    assert plan.rewrites == ()
    assert [left.why[: len(why)] for left in plan.left] == [why]
    assert plan.left[0].target == OLD
    first = next(n for n, line in enumerate(text.splitlines(), 1) if "best_model" in line)
    assert plan.left[0].place == f"{file}:{first}"


REST = [
    ("a.json", '{{"a": ["{old}", {{"b":\t"{old}"}}] }}', '{{"a": ["{new}", {{"b":\t"{new}"}}] }}'),
    ("a.json", '{{"a": "' + OLD.replace("/", "\\/") + '"}}', '{{"a": "' + NEW.replace("/", "\\/") + '"}}'),
    ("a.json", '{{"a": "' + OLD.replace("o", "\\u006f") + '", "a": "{old}"}}', '{{"a": "{new}", "a": "{new}"}}'),
    ("a.toml", 'a = "{old}" # {old}\nb = \'{old}\'\n', 'a = "{new}" # {old}\nb = \'{new}\'\n'),
    ("a.toml", '[t]\na = """\n{old}"""\nb = [\n  "x", # y\n  \'\'\'{old}\'\'\',\n]\n', '[t]\na = """\n{new}"""\nb = [\n  "x", # y\n  \'\'\'{new}\'\'\',\n]\n'),
    ("a.toml", 'a = {{ p = "{old}" }}\r\n"q r" = "outputs\\u002Fava/gpu_run_regression_18_01/best_model.pt"\r\n', 'a = {{ p = "{new}" }}\r\n"q r" = "{new}"\r\n'),
    ("a.ini", "; {old}\n[a]\np = {old}\nl =\n    {old}\n    other\nq: {old}\n", "; {old}\n[a]\np = {new}\nl =\n    {new}\n    other\nq: {new}\n"),
    ("a.ini", "[DEFAULT]\np = {old}\n[a]\nx = 1\n[b]\n", "[DEFAULT]\np = {new}\n[a]\nx = 1\n[b]\n"),
    ("a.cfg", "p = \"{old}\"\n", "p = \"{new}\"\n"),
    ("run.sh", "#!/bin/sh\n# {old}\nM={old}\npython a.py --model \"{old}\" '{old}' $M # {old}\n", "#!/bin/sh\n# {old}\nM={new}\npython a.py --model \"{new}\" '{new}' $M # {old}\n"),
    ("run.sh", "if [ -f {old} ]; then cp {old} /tmp/x; fi\n", "if [ -f {new} ]; then cp {new} /tmp/x; fi\n"),
    ("run.sh", 'bash -c "python a.py {old} --n 3"\ncat <<EOF\n{old}\nEOF\n', 'bash -c "python a.py {new} --n 3"\ncat <<EOF\n{new}\nEOF\n'),
    ("Dockerfile", 'FROM x\nCOPY {old} /app/m.pt\nENV MODEL={old}\nCOPY ["{old}", "/m"]\n', 'FROM x\nCOPY {new} /app/m.pt\nENV MODEL={new}\nCOPY ["{new}", "/m"]\n'),
    ("Makefile", "MODEL := {old}\ntest: {old}x\n\tpython a.py {old}\n", "MODEL := {new}\ntest: {old}x\n\tpython a.py {new}\n"),
    ("docs/a.md", "[m](../{old}#x) ![i](<../{old}> 't') `[c](../{old})` [r]\n\n```\n[m](../{old})\n```\n\n[r]: ../{old} \"t\"\n[no]({old}) [top](/{old})\n",
     "[m](../{new}#x) ![i](<../{new}> 't') `[c](../{old})` [r]\n\n```\n[m](../{old})\n```\n\n[r]: ../{new} \"t\"\n[no]({old}) [top](/{new})\n"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "source", "wanted"), REST)
def test_other_kinds(root: Path, file: str, source: str, wanted: str) -> None:
    text, left = rewritten(root, file, source.format(old=OLD, new=NEW))
    assert text == wanted.format(old=OLD, new=NEW)
    assert left == []


def test_documents_are_left_unless_asked_for(root: Path) -> None:
    put(root, {"README.md": f"[m]({OLD})\n"})
    assert plan_rewrites(root, MOVES).rewrites == ()
    assert after(plan_rewrites(root, MOVES, documents=True), "README.md") == f"[m]({NEW})\n"


def test_encodings_are_kept(root: Path) -> None:
    latin = f"# f\u00fcr\nmodel: {OLD} # gr\u00f6\u00dfer\n".encode("latin-1")
    put(root, {"a.yaml": latin, "b.py": b"# -*- coding: latin-1 -*-\nX = '\xfc'; Y = '" + OLD.encode() + b"' # \xdf\n"})
    plan = plan_rewrites(root, MOVES)
    done = {rewrite.file: rewrite.after for rewrite in plan.rewrites}
    assert done == {
        "a.yaml": latin.replace(OLD.encode(), NEW.encode()),
        "b.py": b"# -*- coding: latin-1 -*-\nX = '\xfc'; Y = '" + NEW.encode() + b"' # \xdf\n",
    }


def test_a_new_path_beyond_the_file_s_encoding_is_left(root: Path) -> None:
    put(root, {"a.yaml": f"# f\u00fcr\nmodel: {OLD}\n".encode("latin-1")})
    plan = plan_rewrites(root, {OLD: "models/ü.pt"})
    assert plan.rewrites == ()
    assert reasons(plan) == {"a.yaml:2": "the file is not UTF-8, and the path needs it"}


@pytest.mark.parametrize("new", ["models/a b.pt", "models/a: b #c.pt", "models/it's \"x\".pt", "models/ü.pt", "models/$x`y`.pt", "models/{a}%s*?.pt", "models/1,2].pt", "models/1,2.pt", "models/a #c.pt"])  # fmt: skip
def test_new_paths_that_need_quotes(root: Path, new: str) -> None:
    """Where the string can hold it, it does, and where it cannot, the place is listed."""
    files = {
        "a.json": json.dumps({"m": OLD}),
        "a.yaml": f"m: \"{OLD}\"\nn: {OLD}\no: [{OLD}]\np: '{OLD}'\n",
        "a.toml": f"m = \"{OLD}\"\nn = '{OLD}'\n",
        "a.py": f"a = '{OLD}'\nb = r\"{OLD}\"\nc = f'{OLD}'\n",
        "a.sh": f'x={OLD}\ny="{OLD}"\n',
        "a.ini": f"[a]\nx = {OLD}\n",
    }
    put(root, files)
    plan = plan_rewrites(root, {OLD: new})
    import yaml

    lines = {left.place for left in plan.left}
    assert json.loads(after(plan, "a.json") or "") == {"m": new}
    data = yaml.safe_load(after(plan, "a.yaml") or "")
    for line, value in enumerate(data.values(), 1):
        value = value[0] if isinstance(value, list) else value
        assert value == new or (value == OLD and f"a.yaml:{line}" in lines)
    assert data["m"] == new
    space: dict[str, str] = {}
    exec(after(plan, "a.py") or "", space)
    assert space["a"] == space["c"] == new
    assert space["b"] == new or "a.py:2" in lines
    assert "a.ini:2" in lines or f"x = {new}\n" in (after(plan, "a.ini") or "")


def test_forms_of_relative_paths(root: Path) -> None:
    put(root, {"src/conf/a.yaml": f"a: ../../{OLD}\nb: {OLD}\nc: ./../../{OLD}\nd: {root}/{OLD}\ne: ../{OLD}\n"})
    plan = plan_rewrites(root, MOVES)
    assert after(plan, "src/conf/a.yaml") == f"a: ../../{NEW}\nb: {NEW}\nc: ../../{NEW}\nd: {root}/{NEW}\ne: ../{OLD}\n"
    # from src/: not the file's own folder, but some program's
    assert reasons(plan) == {
        "src/conf/a.yaml:5": "it is written from another folder than the project's or the file's own"
    }


def test_ambiguous_paths_are_left(root: Path) -> None:
    """``models/a.pt`` in a folder that has a ``models/a.pt`` of its own may mean either."""
    put(
        root,
        {"models/a.pt": b"1", "app/models/a.pt": b"2", "app/c.yaml": "m: models/a.pt\n", "d.yaml": "m: models/a.pt\n"},
    )
    plan = plan_rewrites(root, {"models/a.pt": "prod/a.pt"}, keep=())
    assert plan.files == ("d.yaml",)
    assert reasons(plan) == {"app/c.yaml:1": "it may also mean app/models/a.pt"}


def test_a_new_path_that_would_mean_another_is_left(root: Path) -> None:
    put(root, {"model.pt": b"1", "archive/c.yaml": "m: ../model.pt\n"})
    plan = plan_rewrites(root, {"model.pt": "archive/model.pt"})
    assert plan.rewrites == ()
    assert reasons(plan) == {"archive/c.yaml:1": "the new path, written from there, would also mean model.pt"}


def test_run_folders_and_the_registry_stay(root: Path) -> None:
    folder = OLD.rpartition("/")[0]
    put(
        root,
        {f"{folder}/config.yaml": f"best: {OLD}\n", "registry/a/b/v1.yaml": f"path: {OLD}\n", "c.yaml": f"m: {OLD}\n"},
    )
    plan = plan_rewrites(root, MOVES)
    assert plan.files == ("c.yaml",)
    assert reasons(plan) == {f"{folder}/config.yaml:1": f"what lies in {folder} stays as it is"}
    assert plan_rewrites(root, MOVES, keep=()).files == ("c.yaml", f"{folder}/config.yaml")
    assert plan_rewrites(root, MOVES, keep=("outputs/ava/", "c.yaml")).files == ()


def notebook(*cells: str | list[str], kind: str = "code", **dump: object) -> str:
    made = [
        {"cell_type": kind, "metadata": {}, "outputs": [{"output_type": "stream", "text": [f"loaded {OLD}\n"]}], "source": cell}
        for cell in cells
    ]  # fmt: skip
    return json.dumps({"cells": made, "metadata": {"m": OLD}, "nbformat": 4, "nbformat_minor": 5}, **dump)  # type: ignore[arg-type]


@pytest.mark.parametrize("dump", [{"indent": 1}, {"indent": None}, {"ensure_ascii": False, "indent": "\t"}, {"indent": 1, "sort_keys": True}])  # fmt: skip
def test_notebooks(root: Path, dump: dict[str, object]) -> None:
    lines = ["# ü\n", f"path = '{OLD}'  # {OLD}\n", f"!python a.py --model {OLD}\n", "%matplotlib inline\n"]
    text = notebook(lines, f"%%bash\ncat {OLD}\nrm {OLD}", f"from pathlib import Path\nPath('{OLD}')", **dump) + "\n"
    result, left = rewritten(root, "nb/a.ipynb", text)
    assert left == ["the command moves or removes it"]
    before, now = json.loads(text), json.loads(result)
    sources = ["".join(cell["source"]) for cell in now["cells"]]
    assert sources == [
        f"# ü\npath = '{NEW}'  # {OLD}\n!python a.py --model {NEW}\n%matplotlib inline\n",
        f"%%bash\ncat {NEW}\nrm {OLD}",
        f"from pathlib import Path\nPath('{NEW}')",
    ]
    for old, new in zip(before["cells"], now["cells"], strict=True):
        new["source"] = old["source"]
    assert now == before
    # every other byte stays
    assert result.replace(NEW, OLD) == text


def test_names_of_a_notebook_are_known_in_later_cells(root: Path) -> None:
    text = notebook("R = 'models'", "import os\nos.path.join(R, 'old.pt')", "R + '/old.pt'")
    put(root, {"models/old.pt": b"", "a.ipynb": text})
    plan = plan_rewrites(root, {"models/old.pt": "models/app/new.pt"})
    sources = [cell["source"] for cell in json.loads(after(plan, "a.ipynb") or "")["cells"]]
    assert sources == ["R = 'models'", "import os\nos.path.join(R, 'app/new.pt')", "R + '/app/new.pt'"]


def test_a_notebook_written_otherwise_is_left(root: Path) -> None:
    """An old format, and Markdown cells."""
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": [f"x = '{OLD}'"], "outputs": []}]}], "nbformat": 3}
    put(root, {"old.ipynb": json.dumps(old), "text.ipynb": notebook(f"see [it]({OLD})", kind="markdown")})
    plan = plan_rewrites(root, MOVES)
    assert plan.rewrites == ()
    assert reasons(plan) == {"old.ipynb[1]:1": "the notebook is written in a way that is not rewritten"}


def test_several_models_at_once(root: Path) -> None:
    other = "outputs/siamese_e2e/20260113_073023/best_model.pt"
    put(root, {"a.yaml": f"a: {OLD}\nb: {other}\nc: best_model.pt\n"})
    plan = plan_rewrites(root, {OLD: NEW, other: "models/album_app/siamese_comparison_model.pt"})
    assert after(plan, "a.yaml") == f"a: {NEW}\nb: models/album_app/siamese_comparison_model.pt\nc: best_model.pt\n"
    assert [(left.line, left.why) for left in plan.left] == [(3, "it gives the name without its folder")]


@pytest.mark.parametrize("moves", [{"/a.pt": "b.pt"}, {"a.pt": "../b.pt"}, {"a//b.pt": "c.pt"}, {"a.pt": ""}, {"a.pt": "b.pt", "b.pt": "c.pt"}])  # fmt: skip
def test_moves_that_cannot_be(root: Path, moves: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        plan_rewrites(root, moves)
    assert plan_rewrites(root, {"a.pt": "a.pt"}).rewrites == ()


def test_plan_as_json(root: Path) -> None:
    put(root, {"a.yaml": f"a: {OLD}\nout: {OLD}\n"})
    told = json.loads(json.dumps(plan_rewrites(root, MOVES).to_json()))
    assert told["moves"] == MOVES
    (changed,) = told["rewrites"]
    assert changed == {
        "file": "a.yaml",
        "edits": [{"file": "a.yaml", "cell": None, "line": 1, "start": 3, "old": OLD, "new": NEW}],
    }
    assert [item["place"] for item in told["left"]] == ["a.yaml:2"]


def test_what_says_something_else_is_no_rewriting(root: Path) -> None:
    """The comparison that every edit must pass: a wrong one does not."""
    text = f"a: {OLD} # {OLD}\nb: other\n"
    place = Place(text, "a.yaml")
    moves = Moves(root, MOVES)

    def passes(*edits: tuple[str, str, int]) -> bool:
        made = [place.edit(start := text.index(old, at), start + len(old), new) for old, new, at in edits]
        return _verified(place, made, _yaml_picture(text), _yaml_picture, moves)

    assert passes((OLD, NEW, 0))
    assert not passes((OLD, NEW, 10))  # in the comment: nothing is rewritten
    assert not passes((OLD, NEW, 0), (OLD, NEW, 10))
    assert not passes((OLD, f"{NEW}x", 0))
    assert not passes((OLD, NEW, 0), ("other", "another", 0))
    assert not passes((OLD, NEW, 0), ("b:", "c:", 0))
    assert not passes((OLD, f"[{NEW}]", 0))
    assert not passes((OLD, f"{NEW}: x", 0))
