"""Repositories that nobody has set up yet: three that grew for years, and a plain one; and `init` in this process."""

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timezone
from pathlib import Path

import pytest

from cleanup_world import WORLDS, plant_cleanup
from holdfast.cli.main import _run
from holdfast.formats.cache import DigestCache
from holdfast.inventory.run_verdicts import sort_folder
from holdfast.inventory.scan import scan_tree
from holdfast.project.dvc_files import first_remote
from holdfast.project.setup import Setup, Wishes, propose, write
from holdfast.project.survey import Survey, take_survey
from test_inventory_runs_world import Words, build
from test_registry_promote import AVA_RUN, CONFIG, GATE, LOADER, RETRAINED, SIAMESE_RUN, checkpoint
from worlds import World, environment, make_home, run

NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)


def make_plain(folder: Path, name: str = "repository") -> World:
    """A git repository with one commit and nothing of DVC or Holdfast."""
    world = World(folder / name, make_home(folder))
    world.root.mkdir(parents=True)
    world.git("init", "--quiet")
    world.write("app.py", "print('hello')\n")
    world.commit("begin")
    return world


def plant_consolidated(root: Path) -> None:
    """Production models in the folders of their runs, and a configuration that names them."""
    runs = {AVA_RUN: (1.0, 0.40), SIAMESE_RUN: (2.0, 0.30), RETRAINED: (3.0, 0.35)}
    for folder, (value, mse) in runs.items():
        checkpoint(root / folder / "best_model.pt", value)
        (root / folder / "config.yaml").write_text(f"backbone: resnet50\nvalue: {value}\n")
        (root / folder / "m.json").write_text(json.dumps({"val_mse": mse}))
    named = {"ava": f"{AVA_RUN}/best_model.pt", "siamese": f"{SIAMESE_RUN}/best_model.pt"}
    (root / "configs").mkdir()
    (root / "configs/global_config.yaml").write_text(CONFIG.format(**named))
    (root / "app.py").write_text(LOADER.format(**named))
    (root / "params.yaml").write_text(GATE)


GROWN: dict[str, tuple[Callable[[Path], object], str]] = {
    "cleanup": (lambda root: plant_cleanup(root, WORLDS[0]), "*.pth\n__pycache__\n/publication_packages/\n"),
    "experiments": (lambda root: build(root, Words()), "*.pt\n*.pth\n*.pkl\n"),
    "production": (plant_consolidated, "/outputs/\n"),
}


def make_grown(folder: Path, kind: str) -> World:
    """One of the three worlds in git, without DVC."""
    plant, ignored = GROWN[kind]
    world = World(folder / "repository", make_home(folder))
    world.root.mkdir(parents=True)
    world.git("init", "--quiet")
    plant(world.root)
    world.write(".gitignore", ignored)
    world.commit("as it grew")
    return world


def survey_of(root: Path, project: Path | None = None, remotes: dict[str, str] | None = None) -> Survey:
    """What is in a repository."""
    with DigestCache(None) as cache:
        scan = scan_tree(root, cache, weights=False)
    names = remotes or {}
    where = project or root
    return take_survey(
        root, where, scan, sort_folder(where, NOW), remotes=names, default_remote=next(iter(names), None)
    )


def proposed(root: Path, project: Path | None = None, *, remotes: dict[str, str] | None = None) -> Setup:
    """What `init --owner @team` would propose."""
    survey = survey_of(root, project, remotes)
    return propose(survey, Wishes(first_remote(survey.root, None), owner="@team"))


def prepared(root: Path, project: Path | None = None) -> Setup:
    """The same, written."""
    setup = proposed(root, project)
    write(setup)
    return setup


def content(root: Path) -> dict[str, bytes | str]:
    """Every file outside of git's folder and of what DVC and Holdfast make anew; of a link where it leads."""
    found: dict[str, bytes | str] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if (
            name == ".git"
            or name.startswith(".git/")
            or any(part in f"/{name}" for part in ("/.dvc/tmp/", "/.dvc/cache/"))
        ):
            continue
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def call(world: World, *arguments: str, code: int = 0) -> str:
    """A command in this process, as its own would run it; what it printed, or the one line of its error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        variables = environment(world.home)
        for name in set(os.environ) - set(variables):
            patched.delenv(name)
        for name, value in variables.items():
            patched.setenv(name, value)
        patched.chdir(world.folder)
        assert _run(list(arguments)) == code, out.getvalue() + err.getvalue()
    return err.getvalue() if code not in (0, 3) and err.getvalue() else out.getvalue()


def undo(world: World, line: str) -> None:
    """Run the line that undoes a set-up, as a shell does."""
    run(["sh", "-c", line], world.folder, world.home)
