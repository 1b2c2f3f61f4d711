"""Legacy variants archived: the plan, rewritten imports, one commit, its revert, what refuses."""

import json
from pathlib import Path

import pytest

from holdfast.errors import StalePlanError, UsageError
from holdfast.inventory.code_archive import (
    CommitError,
    UncommittedChangesError,
    apply_plan,
    plan_archive,
    read_plan,
)
from holdfast.inventory.code_imports import Resolver, find_uses
from holdfast.inventory.code_modules import read_code
from holdfast.inventory.code_rewrite import CannotRewriteError, Replacement, apply_edits, apply_to_notebook, rewrite
from test_inventory_code import HEAD, klass, notebook, seed_world
from worlds import World, make_home


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path / "code", make_home(tmp_path))
    made.root.mkdir()
    made.git("init", "--quiet")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(made.home / "gitconfig"))
    for path, text in seed_world().items():
        made.write(path, text)
    made.commit("seed")
    return made


def tree(world: World) -> dict[str, bytes]:
    paths = [path for path in world.root.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {path.relative_to(world.root).as_posix(): path.read_bytes() for path in paths}


def test_archive_and_revert(world: World) -> None:
    before = tree(world)
    (world.root / "training/unified_sota_training_system.py").chmod(0o755)
    world.commit("make it executable")
    world.write("staged.txt", "of another change")
    world.git("add", "staged.txt")

    shown = world.holdfast("code", "archive").stdout
    assert shown.startswith("Would archive 5 legacy modules and rewrite 2 imports.")
    assert "tests/test_graph_vae.py:1" in shown
    assert tree(world) == before | {"staged.txt": b"of another change"}

    done = world.holdfast("code", "archive", "--apply").stdout
    commit = world.git("rev-parse", "HEAD")
    assert f"git revert {commit[:10]}" in done
    assert world.git("status", "--porcelain") == "A  staged.txt"
    after = tree(world)
    assert "models/graph_vae.py" in after  # its test needs it
    for name in ("multi_modal_storage_layer", "multi_modal_storage_layer_fixed", "unified_dataloader_fixed"):
        assert after[f"archive/data_build/{name}.py"] == before[f"data_build/{name}.py"]
        assert f"data_build/{name}.py" not in after
    assert after["data_build/__init__.py"] == before["data_build/__init__.py"].replace(b"layer_fixed", b"layer_simple")
    system = after["training/unified_sota_training_system.py"].decode()
    assert system.endswith("except ImportError as error:\n    print(error)\n    raise\n")
    assert (world.root / "training/unified_sota_training_system.py").stat().st_mode & 0o111
    assert "100%" in world.git("show", "--stat", "-M", "--summary", commit)
    # what is archived is no variant any more
    assert "There is nothing to archive; 1 legacy module must stay for now." in world.holdfast("code", "archive").stdout

    world.git("commit", "--quiet", "-m", "the other change")
    world.git("revert", "--no-edit", commit)
    assert tree(world) == before | {"staged.txt": b"of another change"}


def test_a_saved_plan_is_carried_out_or_stale(world: World) -> None:
    text = world.holdfast("code", "archive", "--json").stdout
    plan = world.root.parent / "plan.json"
    plan.write_text(text)
    world.write("data_build/__init__.py", (world.root / "data_build/__init__.py").read_text() + "# more\n")
    world.commit("more")
    stale = world.holdfast("code", "archive", "--plan", str(plan), "--apply", code=14)
    assert stale.stderr == "holdfast: data_build/__init__.py has changed since the plan was made. Make a new plan\n"
    world.git("revert", "--no-edit", "HEAD")
    world.holdfast("code", "archive", "--plan", str(plan), "--apply")
    assert (world.root / "archive/data_build/unified_dataloader_fixed.py").exists()
    world.holdfast("code", "archive", "--plan", str(plan), "--apply", code=14)
    world.holdfast("code", "archive", "--plan", str(plan), "--to", "attic", code=2)


def test_a_target_that_exists_is_stale(world: World) -> None:
    plan = plan_archive(world.root)
    world.write("archive/data_build/unified_dataloader_fixed.py", "")
    with pytest.raises(StalePlanError, match="exists already"):
        apply_plan(plan)


def test_uncommitted_changes_are_refused(world: World) -> None:
    file = world.root / "data_build/__init__.py"
    file.write_text(file.read_text() + "# mine\n")
    with pytest.raises(UncommittedChangesError, match=r"data_build/__init__\.py: changed since"):
        apply_plan(plan_archive(world.root))
    world.git("checkout", "data_build/__init__.py")
    world.git("rm", "--quiet", "--cached", "data_build/unified_dataloader_fixed.py")
    world.git("commit", "--quiet", "-m", "untracked")
    with pytest.raises(UncommittedChangesError, match="not tracked"):
        apply_plan(plan_archive(world.root))
    world.write("unrelated.txt", "may be dirty")


def test_a_hook_that_refuses_leaves_everything_as_it_was(world: World) -> None:
    before, index = tree(world), world.git("ls-files", "-s")
    hook = world.write(".git/hooks/pre-commit", "#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(CommitError, match="not today"):
        apply_plan(plan_archive(world.root))
    assert tree(world) == before
    assert world.git("ls-files", "-s") == index
    assert world.git("status", "--porcelain") == ""
    assert not (world.root / "archive").exists()


def test_outside_of_git_nothing_is_archived(tmp_path: Path) -> None:
    for path, text in seed_world().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    with pytest.raises(CommitError, match="no git repository"):
        apply_plan(plan_archive(tmp_path))


def test_a_folder_below_the_top_of_the_repository(world: World) -> None:
    world.git("mv", "data_build", "models", "training", "tests", "config", "train_unified_sota.py", "-k", ".")
    (world.root / "sub").mkdir()
    names = list(world.git("ls-tree", "--name-only", "HEAD").splitlines())
    world.git("mv", *names, "sub")
    world.commit("one folder down")
    apply_plan(plan_archive(world.root / "sub"))
    assert (world.root / "sub/archive/data_build/unified_dataloader_fixed.py").exists()
    assert world.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "another kind"),
        ({"kind": "gc"}, "another kind"),
        ({"moves": [{"source": "a"}]}, "cannot be read"),
        ({"digests": {"../x": "0"}}, "outside"),
        ({"moves": [{"source": "a.py", "target": "b.py", "why": ""}], "digests": {}}, "no digest"),
        ({"moves": [{"source": "a.py", "target": "/etc/x", "why": ""}], "digests": {"a.py": "0"}}, "outside"),
    ],
)
def test_a_strange_plan_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    plan = {"schema": 1, "kind": "code archive", "moves": [], "edits": [], "manual": [], "held": [], "digests": {}}
    with pytest.raises(UsageError, match=message):
        read_plan(tmp_path, json.dumps(plan | change).encode())
    with pytest.raises(UsageError):
        read_plan(tmp_path, b"[]")


OFFERS = "class A: pass\nclass B: pass\ndef f(): pass\n"
REWRITES = [
    ("from pkg.m_old import A", "from pkg.m_new import A"),
    (
        "from  pkg.m_old  import (  # why\n    A,  # this\n    B as C,\n)",
        "from  pkg.m_new  import (  # why\n    A,  # this\n    B as C,\n)",
    ),
    ("from pkg . m_old import A", None),
    ("from \\\n  pkg.m_old import A", "from \\\n  pkg.m_new import A"),
    ("x = 'ä'; from pkg.m_old import f; f()", "x = 'ä'; from pkg.m_new import f; f()"),
    ("from pkg import m_old\nm_old.A()", "from pkg import m_new as m_old\nm_old.A()"),
    ("from pkg import other, m_old as m\nm.A()", "from pkg import other, m_new as m\nm.A()"),
    ("import pkg.m_old\nx = pkg.m_old.A(pkg.m_old.f)", "import pkg.m_new\nx = pkg.m_new.A(pkg.m_new.f)"),
    ("import os, pkg.m_old as m\nm.f()", "import os, pkg.m_new as m\nm.f()"),
    ("from pkg.m_old import Gone", None),
    ("from pkg.m_old import *", None),
    ("from pkg import m_old\nuse(m_old)", None),
    ("import pkg.m_old\nuse(pkg.m_old)", None),
    ("import pkg.m_old as m\nm.gone()", None),
    ("import importlib\nm = importlib.import_module('pkg.m_old')", None),
    ("def f():\n\tfrom pkg.m_old import A\r\n\treturn A\n", "def f():\n\tfrom pkg.m_new import A\r\n\treturn A\n"),
    (
        "try:\n    from pkg.m_new import A\nexcept ImportError:\n    from pkg.m_old import A  # sorry\n",
        "try:\n    from pkg.m_new import A\nexcept ImportError:\n    raise  # sorry\n",
    ),
    (
        "try:\n    from pkg.m_new import B\nexcept ImportError:\n    from pkg.m_old import A\n",
        "try:\n    from pkg.m_new import B\nexcept ImportError:\n    from pkg.m_new import A\n",
    ),
    (
        "try:\n    from pkg.m_new import A\nexcept ImportError:\n    from pkg.m_old import A\n    old = True\n",
        "try:\n    from pkg.m_new import A\nexcept ImportError:\n    from pkg.m_new import A\n    old = True\n",
    ),
]


@pytest.mark.parametrize(("before", "after"), REWRITES, ids=[before for before, _ in REWRITES])
def test_rewriting(tmp_path: Path, before: str, after: str | None) -> None:
    files = {
        "pkg/__init__.py": "",
        "pkg/m_old.py": OFFERS + "Gone = 1\ngone = 2\n",
        "pkg/m_new.py": OFFERS,
        "pkg/other.py": "",
    }
    for path, text in (files | {"use.py": before}).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(text.encode())
    code = read_code(tmp_path)
    uses = [use for use in find_uses(code) if use.module == "pkg/m_old.py" and use.file == "use.py"]
    replacement = Replacement("pkg/m_old.py", code.modules["pkg/m_new.py"], Resolver(code.modules), "")
    try:
        edits = [edit for use in uses for edit in rewrite(before, use, replacement)]
    except CannotRewriteError:
        assert after is None
        return
    result = apply_edits(before, edits)
    assert result == after
    compile(result, "use.py", "exec")


def test_relative_imports(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "",
        "p/m_old.py": OFFERS,
        "p/m_new.py": OFFERS,
        "p/q/__init__.py": "",
        "p/q/use.py": "from ..m_old import A\nfrom .. import m_old\nm_old.f\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    code = read_code(tmp_path)
    uses = [use for use in find_uses(code) if use.module == "p/m_old.py"]
    replacement = Replacement("p/m_old.py", code.modules["p/m_new.py"], Resolver(code.modules), "")
    text = files["p/q/use.py"]
    edits = [edit for use in uses for edit in rewrite(text, use, replacement)]
    assert apply_edits(text, edits) == "from ..m_new import A\nfrom .. import m_new as m_old\nm_old.f\n"


@pytest.mark.parametrize("layout", [{"indent": 1}, {"indent": 2, "ensure_ascii": False}, {"separators": (",", ":")}])
@pytest.mark.parametrize("as_list", [True, False])
def test_notebooks_keep_every_other_byte(world: World, layout: dict[str, object], as_list: bool) -> None:
    line = "from models.domain_specific_encoders_fixed import ClimateEncoder  # é\n"
    source = f"%matplotlib inline\n{line}x = 1"
    cell = {
        "cell_type": "code",
        "source": source.splitlines(True) if as_list else source,
        "outputs": [{"text": [line]}],
        "metadata": {},
    }
    document = {"cells": [{"cell_type": "markdown", "source": [line]}, cell], "nbformat": 4, "metadata": {"a": 1.0}}
    raw = json.dumps(document, **layout) + "\n"  # type: ignore[arg-type]
    world.write("tests/look.ipynb", raw)
    world.commit("a notebook that only tries it")
    plan = plan_archive(world.root, canonical=["models/domain_specific_encoders.py"])
    edits = [edit for edit in plan.edits if edit.file == "tests/look.ipynb"]
    if not edits:  # a notebook is production: the variant is active, and stays; rewrite it as if it were not
        code = read_code(world.root)
        (use,) = [use for use in find_uses(code) if use.file == "tests/look.ipynb"]
        module = code.modules["models/domain_specific_encoders.py"]
        edits = rewrite(source, use, Replacement(use.module, module, Resolver(code.modules), ""))
    changed = apply_to_notebook(raw, edits)
    cut = json.dumps("domain_specific_encoders_fixed")[1:-1]
    assert changed.count(cut) == 2
    place = next(i for i, (a, b) in enumerate(zip(raw, changed, strict=False)) if a != b)
    assert changed == raw[:place] + raw[place + len("_fixed") :]
    assert json.loads(changed)["cells"][0] == document["cells"][0]


def test_a_package_that_hands_a_name_on_is_changed_alone(tmp_path: Path) -> None:
    body = HEAD + klass("Store", "put", "get")
    files = {
        "lib/__init__.py": "from .big_store_old import Store\n",
        "lib/big_store.py": body,
        "lib/big_store_old.py": body,
        "train.py": "from lib.big_store import Store\n",
        "train_b.py": "from lib.big_store import Store\n",
        "a.ipynb": notebook("from lib.big_store import Store"),
        "tests/test_a.py": "from lib import Store\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    plan = plan_archive(tmp_path)
    assert [(edit.file, edit.new) for edit in plan.edits] == [("lib/__init__.py", ".big_store")]
    assert [move.source for move in plan.moves] == ["lib/big_store_old.py"]


def test_a_path_in_a_script_holds_the_module(world: World) -> None:
    world.write(
        "run_all.py", 'import subprocess\nsubprocess.run(["python", "data_build/unified_dataloader_standalone.py"])\n'
    )
    world.write("jobs.sh", "python data_build/multi_modal_storage_layer.py\n")
    plan = plan_archive(world.root)
    moved = {move.source for move in plan.moves}
    assert "data_build/unified_dataloader_standalone.py" not in moved
    assert "data_build/multi_modal_storage_layer.py" not in moved
    with pytest.raises(UsageError, match="outside"):
        plan_archive(world.root, folder="../elsewhere")


def test_a_fallback_in_a_notebook_goes_with_the_commit(world: World) -> None:
    cell = (
        "try:\n    from models.domain_specific_encoders import ClimateEncoder\nexcept ImportError:\n"
        "    from models.domain_specific_encoders_fixed import ClimateEncoder\n"
    )
    raw = notebook("x = 1", cell) + "\n"
    world.write("play.ipynb", raw)
    world.commit("a notebook")
    apply_plan(plan_archive(world.root))
    changed = (world.root / "play.ipynb").read_text()
    assert changed == raw.replace("from models.domain_specific_encoders_fixed import ClimateEncoder", "raise")
    assert (world.root / "archive/models/domain_specific_encoders_fixed.py").exists()


def test_variants_and_inventory_in_three_forms(world: World) -> None:
    text = world.holdfast("code", "variants").stdout
    assert text.startswith("4 groups of variants, 11 of 23 modules; 3 places to change.\n")
    assert (
        "| models/graph_vae.py | legacy | 52 | tested by tests/test_graph_vae.py |"
        in world.holdfast("code", "variants", "--md").stdout
    )
    payload = json.loads(world.holdfast("code", "variants", "--json").stdout)
    assert {action["file"] for action in payload["actions"]} >= {"data_build/__init__.py"}
    assert all(variant["changed"] for group in payload["groups"] for variant in group["variants"])
    forced = world.holdfast("code", "variants", "--canonical", "models.graph_vae").stdout
    assert "named canonical" in forced
    assert "no module has that name" in world.holdfast("code", "variants", "--canonical", "x", code=1).stderr

    assert world.holdfast("code", "inventory").stdout.startswith("23 modules: 1 active, 4 canonical, ")
    assert "| models/fusion_transformer.py | in use | model |" in world.holdfast("code", "inventory", "--md").stdout
    payload = json.loads(world.holdfast("code", "inventory", "--json").stdout)
    assert sum(payload["counts"].values()) == len(payload["modules"]) == 23
    assert world.holdfast("code", "archive", "config").stdout == "There is nothing to archive.\n"
