"""This project's own pipeline in a git repository of its own: the main job, run once for all who copy it."""

import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from worlds import TOOLS, make_home, run

PROJECT = Path(__file__).parent.parent
COPIED = ("stages", "registry", "metrics", "dvc.yaml", "dvc.lock", "params.yaml", ".gitignore", ".dvcignore")


class Clone:
    """A copy of the pipeline's files in a git repository of its own, with an empty home."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        self.home = make_home(folder)
        self.root.mkdir()
        for name in COPIED:
            source = PROJECT / name
            if source.is_dir():
                shutil.copytree(source, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.root / name)
        (self.root / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(PROJECT / ".dvc" / name, self.root / ".dvc" / name)
        for name in ("data", "models/digits", "outputs/train", "outputs/evaluate"):
            (self.root / name).mkdir(parents=True)
            shutil.copy(PROJECT / name / ".gitignore", self.root / name / ".gitignore")
        for name in ("classifier.yaml", "classifier.md", "README.md"):
            shutil.copy(PROJECT / "models/digits" / name, self.root / "models/digits" / name)
        self("git", "init", "-q")
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", "the project")

    def __call__(self, tool: str, *arguments: str, code: int = 0) -> str:
        command = tool if tool == "git" else str(TOOLS / tool)
        return run([command, *arguments], self.root, self.home, code=code).stdout

    def open_gate(self) -> None:
        """Ask nothing of a candidate any more: for tests that are not about the gate."""
        params = self.root / "params.yaml"
        params.write_text(re.sub(r"(?m)^promote:(.*\n)+", "promote:\n  model: digits/classifier\n", params.read_text()))

    def status(self) -> list[str]:
        return self("git", "status", "--porcelain", "--untracked-files=all").splitlines()

    def outs(self) -> dict[str, str]:
        """The md5 of each out, by its path."""
        lock = yaml.safe_load((self.root / "dvc.lock").read_text())
        return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}

    def json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.root / name).read_bytes())
        return content


def current_of(clone: Clone) -> dict[str, Any]:
    """The current version of the project's model, as the registry shows it."""
    model = json.loads(clone("holdfast", "registry", "show", "--json"))["models"][0]
    found: dict[str, Any] = next(entry for entry in model["versions"] if entry["version"] == model["current"])
    return found


def main_job(folder: Path, factory: pytest.TempPathFactory) -> Clone:
    """A clone in ``folder`` in which the main job has run once and was pushed; it runs once in all processes of the tests."""
    base = factory.getbasetemp()
    # xdist's workers have folders of their own below that of the run
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "main-job"
    made.mkdir(exist_ok=True)
    with open(made / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "done").exists():
            shutil.rmtree(made / "world", ignore_errors=True)  # of one that failed
            (made / "world").mkdir()
            clone = Clone(made / "world")
            clone("dvc", "repro")
            clone("dvc", "push")
            (made / "done").touch()
    shutil.copytree(made / "world", folder, symlinks=True, dirs_exist_ok=True)
    return placed(folder / "clone", folder / "home")


def placed(root: Path, home: Path) -> Clone:
    """A clone that is there already."""
    made = object.__new__(Clone)
    made.root, made.home = root, home
    return made
