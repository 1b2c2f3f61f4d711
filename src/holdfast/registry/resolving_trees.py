"""The registry as the two sides of a merge and the commit that they come from have it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pygit2

from holdfast.errors import UsageError
from holdfast.registry import FOLDER
from holdfast.registry.entries import MODEL_FILE, VERSION_NAME, Model, parse_model, parse_version
from holdfast.repo.git_commands import run_git
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project

Side = Literal["ours", "theirs"]
State = Literal["base", "ours", "theirs"]
SIDES: tuple[Side, Side] = ("ours", "theirs")
STATES: tuple[State, ...] = ("base", "ours", "theirs")
THEIR_HEADS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REBASE_HEAD", "REVERT_HEAD")
MISSING: Any = object()


class NoMergeError(UsageError):
    """No merge is under way."""


def other_side(side: Side) -> Side:
    """Theirs for ours, and ours for theirs."""
    return "theirs" if side == "ours" else "ours"


def three_ways(base: Any, ours: Any, theirs: Any) -> tuple[Any, bool]:
    """What both sides mean, and whether they differ in it."""
    if ours == theirs or theirs == base:
        return ours, False
    return (theirs, False) if ours == base else (ours, True)


def merge_texts(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """What git makes of the changes of both sides; None where they meet."""
    with tempfile.TemporaryDirectory(prefix="holdfast-merge-") as folder:
        names = ("ours", "base", "theirs")
        for name, data in zip(names, (ours, base, theirs), strict=True):
            (Path(folder) / name).write_bytes(data)
        merged = run_git(Path(folder), "merge-file", *names)
        return None if merged is None else (Path(folder) / "ours").read_bytes()


class Sides:
    """The commits of a merge that is under way; all paths are from git's root.

    Args:
        project: whose registry.

    Raises:
        NoMergeError: no merge is under way.
    """

    def __init__(self, project: Project) -> None:
        self.repository = open_repository(project.git_root)
        self.prefix = project.prefix
        self.place = self.path(FOLDER)
        ours, theirs = self._head(), self._their_head()
        base = self.repository.merge_base(ours.id, theirs.id)
        self.commits: dict[Side, pygit2.Commit] = {"ours": ours, "theirs": theirs}
        self._trees: dict[State, pygit2.Tree] = {"ours": ours.tree, "theirs": theirs.tree}
        if base is not None:
            self._trees["base"] = self.repository[base].peel(pygit2.Commit).tree

    def path(self, path: str) -> str:
        """A path from the project's root as git has it."""
        return "/".join(part for part in (self.prefix, path) if part)

    def model_ids(self, side: Side) -> set[str]:
        """The models that a side has."""
        found = set()
        top = _tree(self._trees[side], self.place)
        for app in top or ():
            for name in app if isinstance(app, pygit2.Tree) else ():
                if isinstance(name, pygit2.Tree) and MODEL_FILE in name:
                    found.add(f"{app.name}/{name.name}")
        return found

    def differ(self, model_id: str) -> bool:
        """Whether the sides have a model's folder in two states."""
        ours, theirs = (entry_of(self._trees[side], f"{self.place}/{model_id}") for side in SIDES)
        return ours != theirs

    def model(self, state: State, model_id: str) -> Model | None:
        """A model as a commit has it; None where it has none.

        Raises:
            EntryError: a file of it is broken.
        """
        tree = _tree(self._trees[state], f"{self.place}/{model_id}") if state in self._trees else None
        if tree is None or MODEL_FILE not in tree:
            return None
        versions = []
        for entry in tree:
            stem = str(entry.name).removesuffix(".yaml")
            if stem != entry.name and VERSION_NAME.fullmatch(stem) and isinstance(entry, pygit2.Blob):
                text = entry.data.decode("utf-8-sig", "replace")
                versions.append(parse_version(text, stem, f"{state}:{FOLDER}/{model_id}/{entry.name}"))
        ordered = tuple(sorted(versions, key=lambda version: version.number))
        text = self.blob(state, model_id, MODEL_FILE).decode("utf-8-sig", "replace")
        return parse_model(text, model_id, ordered, f"{state}:{FOLDER}/{model_id}/{MODEL_FILE}", partial=True)

    def blob(self, state: State, model_id: str, name: str) -> bytes:
        """A file of a model's folder that a commit has."""
        data = self.data(state, f"{self.place}/{model_id}/{name}")
        assert data is not None
        return data

    def data(self, state: State, path: str) -> bytes | None:
        """A file as a commit has it; None where it has none."""
        oid = entry_of(self._trees[state], path) if state in self._trees else None
        found: object = None if oid is None else self.repository[oid]
        return found.data if isinstance(found, pygit2.Blob) else None

    def names(self, state: State, folder: str) -> Iterator[str]:
        """Names of the files directly in a folder."""
        for entry in (_tree(self._trees[state], folder) if state in self._trees else None) or ():
            if isinstance(entry, pygit2.Blob):
                yield str(entry.name)

    def upstream(self) -> pygit2.Commit | None:
        """What the checked-out branch follows; None where it follows nothing."""
        try:
            branch = self.repository.branches.local[self.repository.head.shorthand]
            return branch.upstream.peel(pygit2.Commit) if branch.upstream is not None else None
        except (KeyError, pygit2.GitError):
            return None  # a detached head, as in a rebase: its `ours` is the upstream side

    def _head(self) -> pygit2.Commit:
        if self.repository.head_is_unborn:
            raise NoMergeError("no merge is under way", hint="Run it between `git merge` and `git commit`")
        return self.repository.head.peel(pygit2.Commit)

    def _their_head(self) -> pygit2.Commit:
        folder = Path(self.repository.path)
        for name in THEIR_HEADS:
            if (folder / name).is_file():
                commit = (folder / name).read_text().split()[0]
                return self.repository[commit].peel(pygit2.Commit)
        raise NoMergeError("no merge is under way", hint="Run it between `git merge` and `git commit`")


def entry_of(tree: pygit2.Tree, path: str) -> pygit2.Oid | None:
    """The id of what lies at a path of a tree; None where nothing does."""
    try:
        return tree[path].id
    except KeyError:
        return None


def _tree(tree: pygit2.Tree, path: str) -> pygit2.Tree | None:
    try:
        found: object = tree[path]
    except KeyError:
        return None
    return found if isinstance(found, pygit2.Tree) else None
