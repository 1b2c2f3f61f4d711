"""``holdfast check`` as people and hooks run it: exit codes, three forms, the registry, a commit that is refused."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from holdfast.registry.entries import Version
from holdfast.registry.store import Registry
from worlds import TOOLS, World, make_home, make_repository, run

PROJECT = Path(__file__).parent.parent
RULES = """\
canonical:
  models:
    - use: weights/*_final.safetensors
      not: weights/*_trial.safetensors
      why: trained on the test set
  modules:
    - use: storage.layer
      not: storage.layer_simple
"""
RIGHT = 'from storage.layer import Layer\n\nmodel = load(f"weights/{name}_final.safetensors")\n'
WRONG = 'from storage.layer_simple import Layer\n\nmodel = load(f"weights/{name}_trial.safetensors")\n'
LINES = [
    "scripts/new.py:1:1: `from storage.layer_simple import Layer` is not canonical: use `from storage.layer import Layer`",
    'scripts/new.py:3:14: `weights/{}_trial.safetensors` is not canonical (trained on the test set): use `f"weights/{name}_final.safetensors"`',
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A git repository without DVC, with a clean-up behind it."""
    world = World(tmp_path / "code", make_home(tmp_path))
    world.write("holdfast.yaml", RULES)
    world.write("weights/amber_final.safetensors", b"weights")
    world.write("storage/__init__.py", "")
    world.write("storage/layer.py", "class Layer: pass\n")
    world.write("scripts/old.py", RIGHT)
    world.git("init", "--quiet")
    world.commit("clean")
    return world


def test_clean_and_not(world: World) -> None:
    assert world.holdfast("check").stdout == "No findings in 3 sources.\n"

    world.write("scripts/new.py", WRONG)
    done = world.holdfast("check", code=1)
    assert done.stdout.splitlines() == [*LINES, "2 findings in 1 of 4 sources."]
    assert done.stderr == ""
    # an editor's pattern for such lines
    assert len(re.findall(r"^([^\s:]+):(\d+):(\d+): (.+)$", done.stdout, re.MULTILINE)) == 2

    md = world.holdfast("check", "--md", code=1).stdout
    assert "| where | what is wrong | right name |" in md
    assert "| scripts/new.py:3:14 | `weights/{}_trial.safetensors` is not canonical (trained on the test set) |" in md
    payload = json.loads(world.holdfast("check", "--json", code=1).stdout)
    assert (payload["format"], payload["rules"], payload["sources"]) == ("holdfast check 1", 2, 4)
    assert payload["findings"][1] == {
        "file": "scripts/new.py", "cell": None, "line": 3, "column": 14, "end_line": 3, "end_column": 49,
        "about": "model", "text": "weights/{}_trial.safetensors", "right": 'f"weights/{name}_final.safetensors"',
        "note": "", "why": "trained on the test set", "mention": False,
    }  # fmt: skip


def test_files_that_are_named(world: World) -> None:
    world.write("scripts/new.py", WRONG)
    world.write("scripts/note.txt", WRONG)
    assert world.holdfast("check", "scripts/old.py", "scripts/note.txt").stdout == "No findings in 1 source.\n"
    assert "2 findings in 1 of 2 sources." in world.holdfast("check", "scripts", code=1).stdout
    # from another folder, with paths seen from where the rules stand
    inside = world.holdfast("--cd", "scripts", "check", "new.py", code=1)
    assert inside.stdout.startswith("scripts/new.py:1:1: ")
    assert "'gone.py' does not exist" in world.holdfast("check", "gone.py", code=2).stderr


def test_a_project_in_a_folder(world: World) -> None:
    world.write("sub/holdfast.yaml", "canonical: {models: [{use: a/*_new.onnx, not: a/*_old.onnx}]}\n")
    world.write("sub/a/x_new.onnx", b"")
    world.write("sub/use.py", 'x = "a/y_old.onnx"\n')
    world.write("use.py", 'x = "a/y_old.onnx"\n')
    assert world.holdfast("check").stdout == "No findings in 5 sources.\n"
    done = world.holdfast("check", "--root", "sub", "sub/use.py", "use.py", code=1)
    assert done.stdout.startswith("use.py:1:5: `a/y_old.onnx` is not canonical: use `a/y_new.onnx`")
    assert done.stdout.endswith("1 finding in 1 of 1 source.\n")


def test_mentions_and_comments(world: World) -> None:
    world.write("scripts/new.py", "# was storage.layer_simple\nimport storage.layer_simple  # holdfast: allow\n")
    assert world.holdfast("check").stdout == "No findings in 4 sources; 1 place allowed by a comment.\n"
    done = world.holdfast("check", "--mentions", code=1)
    assert done.stdout.startswith("scripts/new.py:1:7: `storage.layer_simple` is not canonical: use `storage.layer`\n")


def test_nothing_to_check_says_how_to_begin(tmp_path: Path) -> None:
    world = World(tmp_path / "code", make_home(tmp_path))
    world.write("weights/amber_best.pth", b"")
    world.write("a.py", 'x = "archive/a.pth"\n')
    world.git("init", "--quiet")
    line = world.holdfast("check").stdout
    assert line.count("\n") == 1
    first = re.search(r"canonical: .*$", line)
    assert first is not None
    # the rule that it shows is one
    world.write("holdfast.yaml", first[0].replace("models/", "weights/"))
    world.write("b.py", 'x = "weights/amber_old.pth"\n')
    assert "use `weights/amber_best.pth`" in world.holdfast("check", "b.py", code=1).stdout


def test_rules_that_cannot_be_kept_name_the_line(world: World) -> None:
    world.write("holdfast.yaml", RULES.replace("_final", "_last"))
    done = world.holdfast("check", code=1)
    assert done.stdout == ""
    assert re.match(r"holdfast: .*holdfast\.yaml:3: canonical\.models\[0\] says to use weights/\*_last", done.stderr)
    world.write("holdfast.yaml", RULES.replace("why:", "reason:"))
    assert "holdfast.yaml:5: canonical.models[0].reason is no setting" in world.holdfast("check", code=1).stderr


def version(path: str, number: int) -> Version:
    return Version("", path, f"{number:032x}", 1, f"blake3:{number:064x}", "2026-11-20")


def test_deprecated_versions_of_the_registry(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    registry = Registry(world.root)
    for number, path in enumerate(["models/faces_2024.pt", "models/faces.pt", "models/faces.pt"], 1):
        registry.register("faces/finder", version(path, number))
    world.write(
        "use.py", 'a = "models/faces_2024.pt"\nb = "faces/finder@v2"\nc = "models/faces.pt"\nd = "archive/x.pt"\n'
    )
    assert world.holdfast("check", code=1).stdout == (
        "use.py:4:5: `archive/x.pt` is archived\n1 finding in 1 of 1 source.\n"
    )
    model = world.root / "registry/faces/finder/model.yaml"
    text = model.read_text()
    model.write_text(f"{text}deprecations:\n  v1: wrong split\n  v2: too slow\n")

    done = world.holdfast("check", code=1)
    assert done.stdout.splitlines() == [
        "use.py:1:5: `models/faces_2024.pt` is deprecated (wrong split): use `models/faces.pt`; there is no such file yet",
        "use.py:2:5: `faces/finder@v2` is deprecated (too slow): use `faces/finder@v3`",
        "use.py:4:5: `archive/x.pt` is archived",
        "3 findings in 1 of 1 source.",
    ]
    # a registration keeps what people wrote; v3 counts still, and has the path of v2
    registry.register("faces/finder", version("models/faces_new.pt", 4))
    lines = world.holdfast("check", code=1).stdout.splitlines()
    assert lines[1] == "use.py:2:5: `faces/finder@v2` is deprecated (too slow): use `faces/finder@v4`"
    assert lines[2].startswith("use.py:4:5: ")

    text = text.replace("current: v3", "current: v4")
    model.write_text(f"{text}deprecations: {{v1: a, v2: b, v3: c, v4: d}}\n")
    assert "use.py:2:5: `faces/finder@v2` is deprecated (b)\n" in world.holdfast("check", code=1).stdout
    model.write_text(f"{text}deprecations: {{v9: gone}}\n")
    assert "'deprecations' names 'v9', of which there is no file" in world.holdfast("check", code=13).stderr
    model.write_text(f"{text}deprecations: [v1]\n")
    assert "line 5: 'deprecations' should be a mapping" in world.holdfast("check", code=13).stderr


def hook() -> dict[str, object]:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-hooks.yaml").read_text())
    (declared,) = (hook for hook in hooks if hook["id"] == "holdfast-check")
    assert isinstance(declared, dict)
    return declared


def test_a_commit_is_refused_with_the_line_and_the_right_name(world: World) -> None:
    """The declared entry, run by git with the staged files, as pre-commit does it."""
    entry = shlex.join([str(TOOLS / word) if word == "holdfast" else word for word in str(hook()["entry"]).split()])
    place = world.write(
        ".git/hooks/pre-commit",
        f"#!/bin/sh\ngit diff --cached --name-only --diff-filter=ACMRT -z | xargs -0 {entry} >&2\n",
    )
    place.chmod(0o755)
    before = world.git("rev-parse", "HEAD")

    world.write("scripts/new.py", WRONG)
    world.git("add", "scripts/new.py", "weights")
    refused = run(["git", "commit", "-m", "new"], world.root, world.home, code=1).stderr
    assert [line for line in refused.splitlines() if line.startswith("scripts/new.py")] == LINES
    assert world.git("rev-parse", "HEAD") == before

    world.write("scripts/new.py", RIGHT)
    world.git("add", "scripts/new.py")
    world.git("commit", "--quiet", "-m", "new")
    assert world.git("rev-parse", "HEAD") != before


def test_the_how_to_shows_the_hooks_as_they_are() -> None:
    page = (PROJECT / "docs/how-to/keep-it-clean.md").read_text()
    blocks = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
    local = next(
        hook for block in blocks for repo in block.get("repos", ()) if repo["repo"] == "local" for hook in repo["hooks"]
    )
    declared = hook()
    assert {key: local[key] for key in ("id", "entry", "types", "require_serial")} == {
        key: declared[key] for key in ("id", "entry", "types", "require_serial")
    }
    remote = next(repo for block in blocks for repo in block.get("repos", ()) if repo["repo"] != "local")
    assert [item["id"] for item in remote["hooks"]] == [declared["id"]]
