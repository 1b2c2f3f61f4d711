"""Worlds for tests: real git repositories, real DVC projects, objects written the way DVC writes them."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import warm_tools

TOOLS = Path(sys.executable).parent


def environment(home: Path) -> dict[str, str]:
    """The variables of this process, with a home, git and DVC configuration that nobody has touched."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_", "HOLDFAST_"))}
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "DVC_NO_ANALYTICS": "1",
        "CI": "true",  # DVC then starts no process that looks for a newer version, beside the tests
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "NO_COLOR": "1",
    }


def make_home(folder: Path) -> Path:
    """An empty home folder below ``folder``, with git's defaults that the tests rely on."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "gitconfig").write_text(
        '[init]\n\tdefaultBranch = main\n[protocol "file"]\n\tallow = always\n[core]\n\tpager = cat\n'
        "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[user]\n\tname = Ada\n\temail = ada@example.org\n"
    )
    return home


def run(command: list[str], cwd: Path, home: Path, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command that must end with ``code``."""
    if warm_tools.warms(command):
        done = warm_tools.run(command, cwd, environment(home))
    else:
        done = subprocess.run(command, cwd=cwd, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class World:
    """A git repository with a DVC project, and the tools to act in it.

    Args:
        root: top of the working tree.
        home: the isolated home folder of git and DVC.
        project: from ``root``, the folder with ``.dvc/``.
    """

    root: Path
    home: Path
    project: str = "."

    @property
    def folder(self) -> Path:
        return self.root / self.project

    @property
    def cache(self) -> Path:
        return self.folder / ".dvc" / "cache"

    def git(self, *arguments: str, code: int = 0) -> str:
        return run(["git", *arguments], self.root, self.home, code=code).stdout.strip()

    def dvc(self, *arguments: str, code: int = 0) -> str:
        return run([str(TOOLS / "dvc"), *arguments], self.folder, self.home, code=code).stdout.strip()

    def holdfast(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return run([str(TOOLS / "holdfast"), *arguments], self.folder, self.home, code=code)

    def python(self, script: str) -> str:
        return run([sys.executable, "-c", script], self.folder, self.home).stdout.strip()

    def write(self, path: str, data: str | bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        return target

    def commit(self, message: str = "change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def store(self, data: str | bytes, *, legacy: bool = False, suffix: str = "") -> str:
        """Put an object into the cache as DVC 3 (or 2) does; its oid."""
        raw = data.encode() if isinstance(data, str) else data
        oid = hashlib.md5(raw, usedforsecurity=False).hexdigest() + suffix
        path = self.cache / ("" if legacy else "files/md5") / oid[:2] / oid[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(raw)
            path.chmod(0o444)
        return oid

    def store_folder(self, members: dict[str, str], *, legacy: bool = False) -> str:
        """Put a folder's files and its listing into the cache; the listing's oid."""
        listing = [{"md5": self.store(data, legacy=legacy), "relpath": path} for path, data in sorted(members.items())]
        return self.store(json.dumps(listing, sort_keys=True), legacy=legacy, suffix=".dir")

    def track(self, path: str, data: str | dict[str, str], *, legacy: bool = False) -> str:
        """Write ``path.dvc`` and the objects that it names, but not the files; the oid."""
        if isinstance(data, dict):
            oid, size = self.store_folder(data, legacy=legacy), sum(len(text.encode()) for text in data.values())
        else:
            oid, size = self.store(data, legacy=legacy), len(data.encode())
        count = f"\n  nfiles: {len(data)}" if isinstance(data, dict) else ""
        kind = "" if legacy else "\n  hash: md5"
        name = path.rsplit("/", 1)[-1]
        self.write(f"{path}.dvc", f"outs:\n- md5: {oid}\n  size: {size}{count}{kind}\n  path: {name}\n")
        return oid

    def lock(self, outs: dict[str, str], *, folder: str = "", stage: str = "train", legacy: bool = False) -> list[str]:
        """Write ``dvc.yaml`` and ``dvc.lock`` with one stage, and the objects of its outs; their oids."""
        oids = [self.store(data, legacy=legacy) for data in outs.values()]
        kind = "" if legacy else "      hash: md5\n"
        entries = "".join(
            f"    - path: {path}\n{kind}      md5: {oid}\n      size: {len(data.encode())}\n"
            for (path, data), oid in zip(outs.items(), oids, strict=True)
        )
        place = f"{folder}/" if folder else ""
        declared = "".join(f"      - {path}\n" for path in outs)
        self.write(f"{place}dvc.yaml", f"stages:\n  {stage}:\n    cmd: make it\n    outs:\n{declared}")
        self.write(f"{place}dvc.lock", f"schema: '2.0'\nstages:\n  {stage}:\n    cmd: make it\n    outs:\n{entries}")
        return oids

    def remember_run(self, outs: dict[str, str], *, command: str = "make it") -> list[str]:
        """Write a run cache entry and the objects of its outs; their oids."""
        oids = [self.store(data) for data in outs.values()]
        entries = "".join(
            f"- path: {path}\n  hash: md5\n  md5: {oid}\n  size: {len(data.encode())}\n"
            for (path, data), oid in zip(outs.items(), oids, strict=True)
        )
        text = f"cmd: {command}\ndeps:\n- path: in.csv\n  hash: md5\n  md5: {'0' * 32}\nouts:\n{entries}"
        key = hashlib.sha256(command.encode()).hexdigest()
        value = hashlib.sha256(text.encode()).hexdigest()
        path = self.cache / "runs" / key[:2] / key / value
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return oids


def make_repository(folder: Path, *, project: str = ".") -> World:
    """A git repository in ``folder/repository`` with an initialised, committed DVC project.

    ``.dvc/`` is written directly, as ``dvc init`` leaves it: starting DVC takes a second that few tests are about.
    """
    world = World(folder / "repository", make_home(folder), project)
    world.folder.mkdir(parents=True)
    world.git("init", "--quiet")
    prefix = "" if project == "." else f"{project}/"
    world.write(f"{prefix}.dvc/config", "")
    world.write(f"{prefix}.dvc/.gitignore", "/config.local\n/tmp\n/cache\n")
    world.write(f"{prefix}.dvcignore", "")
    world.commit("set up")
    return world
