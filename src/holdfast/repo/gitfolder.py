"""Git's own folder, read as files: where it is, what it cannot be read for, its refs and their logs.

Refs are a few small files, and a library that reads them takes longer to load than they do. Objects are read through
libgit2, which is opened when the first one is asked for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import HoldfastError, IntegrityError

if TYPE_CHECKING:
    import pygit2

COMMIT_ID = re.compile(r"[0-9a-f]{40}")
# heads of operations that are under way, such as a merge; they hold commits that no branch may have yet
OPERATION_HEADS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD")
# the logs of these refs are what they hold: stashes, queued and failed experiments
PILES = ("/stash", "/failed")
_MAX_SYMBOLIC = 5  # as git has it
_SECTION = re.compile(r"""\s*\[\s*([A-Za-z0-9.-]+)\s*(?:"((?:[^"\\]|\\.)*)")?\s*\]""")
_ASSIGNMENT = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)\s*(?:=\s*(.*))?$")


class ShallowCloneError(HoldfastError):
    """The clone's history ends early, so what older commits name cannot be known."""


class UnreadableRefError(IntegrityError):
    """A ref or an object that it leads to cannot be read."""


class UnsupportedRepositoryError(HoldfastError):
    """A git repository of a kind that cannot be read here, so what its commits name cannot be known."""


@dataclass(frozen=True)
class RefState:
    """All that leads to commits, read at one time.

    Args:
        current: the ref that is checked out; None where the head is detached.
        heads: detached heads and those of operations under way, as `GitFolder.heads`.
        refs: every ref with its object.
        logs: older objects of the refs that are a pile of commits (stashes, the queue of experiments), newest first.
    """

    current: str | None
    heads: tuple[tuple[str, str], ...]
    refs: tuple[tuple[str, str], ...]
    logs: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class GitFolder:
    """A git repository's folder; of a linked worktree the one that is its own.

    Args:
        path: ``.git``, ``.git/worktrees/NAME``, or the folder of a bare repository; absolute.
        common: what all worktrees share; the same folder where there is one alone.
        worktree: the top of the working tree; None for a bare repository.
    """

    path: Path
    common: Path
    worktree: Path | None
    _opened: "list[pygit2.Repository]" = field(default_factory=list, repr=False, compare=False)

    @property
    def repository(self) -> "pygit2.Repository":
        """The repository as libgit2 has it, which reads objects; opened when it is first asked for.

        Raises:
            UnreadableRefError: libgit2 cannot open it.
        """
        if not self._opened:
            import pygit2  # imported here: 30 ms, a third of a command that finds all in its cache

            try:
                self._opened.append(pygit2.Repository(str(self.path)))
            except pygit2.GitError as error:
                raise UnreadableRefError(f"the git repository {self.path} cannot be opened: {error}") from error
        return self._opened[0]

    @cached_property
    def configuration(self) -> dict[str, str]:
        """The repository's own settings, ``section.subsection.key`` → the last value; without includes."""
        return _read_configuration(self.common / "config")

    @property
    def promisor(self) -> str | None:
        """The remote of a partial clone, which has what is missing here; None for a whole clone."""
        for name, value in self.configuration.items():
            if name.startswith("remote.") and name.endswith(".promisor") and value.lower() in ("", "true", "yes", "1"):
                return name.removeprefix("remote.").removesuffix(".promisor")
        return self.configuration.get("extensions.partialclone")

    def refs(self) -> dict[str, str]:
        """Every ref by its whole name, with the object (40 hex digits) that it leads to; ordered by name.

        Those of a linked worktree alone (a bisection, say) have `` of NAME`` behind their name.

        Raises:
            UnreadableRefError: a ref is damaged, or leads to none.
        """
        loose = dict(self._loose_refs())
        found = self._packed_refs()
        found.update({name: value for name, value in loose.items() if not value.startswith("ref:")})
        for name, value in loose.items():
            if value.startswith("ref:") and (oid := self._follow(name, value, loose, found)):
                found[name] = oid
        return dict(sorted(found.items()))

    def state(self) -> RefState:
        """All refs and heads as they are now.

        Raises:
            UnreadableRefError: one is damaged.
        """
        current = self._current()
        heads, refs = tuple(self.heads()), self.refs()
        piles = tuple((name, tuple(self.log(name))) for name in refs if name.endswith(PILES))
        return RefState(current, heads, tuple(refs.items()), piles)

    def head(self) -> tuple[str | None, str | None]:
        """The ref that is checked out (None where the head is detached) and its commit (None before the first one).

        Raises:
            UnreadableRefError: it is damaged.
        """
        current = self._current()
        if current is None:
            return None, _read_text(self.path / "HEAD").strip()
        return current, self.refs().get(current)

    def heads(self) -> Iterator[tuple[str, str]]:
        """Detached heads of all worktrees and heads of operations under way: name for people, commit.

        The name is ``HEAD`` or ``MERGE_HEAD`` for the own worktree's, ``HEAD of NAME`` for another one's.
        """
        for folder in [self.common, *sorted(self.common.glob("worktrees/*"))]:
            place = folder.name if folder != self.common else "main"
            for head in ("HEAD", *OPERATION_HEADS):
                path = folder / head
                for line in path.read_text().splitlines() if path.is_file() else []:
                    if COMMIT_ID.fullmatch(line.strip()):
                        yield head if folder == self.path else f"{head} of {place}", line.strip()

    def log(self, name: str) -> list[str]:
        """The objects that a ref or head had, newest first; empty where git keeps no log of it."""
        folder = self.path if name == "HEAD" else self.common
        try:
            lines = (folder / "logs" / name).read_bytes().splitlines()
        except OSError:
            return []
        found = [line[41:81].decode("ascii", "replace") for line in reversed(lines)]
        return [oid for oid in found if COMMIT_ID.fullmatch(oid)]

    def worktrees(self) -> dict[str, Path]:
        """The working trees of the repository other than this one, by name; those that are gone are left out."""
        pointers = self.common.glob("worktrees/*/gitdir")
        found = {path.parent.name: Path(path.read_text().strip()).parent for path in pointers}
        if self.common.name == ".git" and self.configuration.get("core.bare", "false").lower() != "true":
            found["main worktree"] = self.common.parent
        here = (self.worktree or self.path).resolve()
        return {name: path for name, path in sorted(found.items()) if path.is_dir() and path.resolve() != here}

    def submodules(self) -> list[str]:
        """Submodules that ``.gitmodules`` names, by path."""
        found = _read_configuration(self.worktree / ".gitmodules") if self.worktree else {}
        return sorted(
            value for name, value in found.items() if name.startswith("submodule.") and name.endswith(".path")
        )

    def _current(self) -> str | None:
        value = _read_text(self.path / "HEAD").strip()
        if COMMIT_ID.fullmatch(value):
            return None
        if not value.startswith("ref:"):
            raise UnreadableRefError(f"{self.path / 'HEAD'} is damaged", hint="`git checkout` of a branch mends it")
        return value.removeprefix("ref:").strip()

    def _loose_refs(self) -> Iterator[tuple[str, str]]:
        for top in [self.common, *sorted(self.common.glob("worktrees/*"))]:
            place = "" if top == self.common else f" of {top.name}"
            folders = [top / "refs"]
            while folders:
                folder = folders.pop()
                for path in folder.iterdir() if folder.is_dir() else ():
                    if path.is_dir():
                        folders.append(path)
                    elif path.suffix != ".lock":
                        name = f"{path.relative_to(top).as_posix()}{place}"
                        if value := _loose_value(path, name):
                            yield name, value

    def _packed_refs(self) -> dict[str, str]:
        try:
            lines = (self.common / "packed-refs").read_text().splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged("packed-refs") from error
        found = {}
        for line in lines:
            if line[:1] not in ("#", "^"):
                oid, _, name = line.partition(" ")
                if not COMMIT_ID.fullmatch(oid) or not name:
                    raise _damaged(name or "packed-refs")
                found[name] = oid
        return found

    def _follow(self, name: str, value: str, loose: dict[str, str], direct: dict[str, str]) -> str | None:
        for _ in range(_MAX_SYMBOLIC):
            target = value.removeprefix("ref:").strip()
            if target in loose and loose[target].startswith("ref:"):
                value = loose[target]
                continue
            if target in direct:
                return direct[target]
            if name.endswith("/HEAD"):
                return None  # a remote's default branch that was deleted there holds nothing
            break
        raise _damaged(name)


def find_git_folder(git_root: Path) -> GitFolder:
    """The git folder of the working tree at ``git_root``, or of the bare repository that it is.

    Raises:
        UnreadableRefError: there is none.
        ShallowCloneError: its history ends early.
        UnsupportedRepositoryError: its history is grafted, or its objects or refs have a form that cannot be read.
    """
    pointer = git_root / ".git"
    if pointer.is_dir():
        path, worktree = pointer, git_root
    elif pointer.is_file():
        path, worktree = (git_root / _read_text(pointer).removeprefix("gitdir:").strip()).resolve(), git_root
    else:
        path, worktree = git_root, None
    if not (path / "HEAD").is_file():
        raise UnreadableRefError(f"there is no git repository in {git_root}")
    path = path.resolve()
    common = path
    if (path / "commondir").exists():
        common = (path / _read_text(path / "commondir").strip()).resolve()
    folder = GitFolder(path, common, worktree.resolve() if worktree else None)
    _check(folder, git_root)
    return folder


def git_folder_of(repository: "pygit2.Repository") -> GitFolder:
    """The folder of a repository that libgit2 has open."""
    path = Path(repository.path).resolve()
    common = path
    if (path / "commondir").exists():
        common = (path / _read_text(path / "commondir").strip()).resolve()
    return GitFolder(path, common, Path(repository.workdir).resolve() if repository.workdir else None, [repository])


def _check(folder: GitFolder, shown: Path) -> None:
    if (folder.common / "shallow").exists():
        raise ShallowCloneError(
            f"{shown} is a shallow clone: commits that are not here may name objects that are",
            hint="Run `git fetch --unshallow` first",
        )
    grafts = folder.common / "info" / "grafts"
    if grafts.exists() and any(line[:1] not in ("", "#") for line in _read_text(grafts).splitlines()):
        raise UnsupportedRepositoryError(
            f"{shown} has grafts ({grafts}), which change what is behind its commits",
            hint="`git replace --convert-graft-file` turns them into refs that can be read",
        )
    form = folder.configuration.get("extensions.objectformat", "sha1").lower()
    if form != "sha1":
        raise UnsupportedRepositoryError(
            f"{shown} names its objects by {form}, which neither DVC nor Holdfast reads",
            hint="Make a clone with `git init --object-format=sha1` and push the branches into it",
        )
    refs = folder.configuration.get("extensions.refstorage", "files").lower()
    if refs != "files":
        raise UnsupportedRepositoryError(
            f"{shown} keeps its refs as {refs}, which is not read here",
            hint="Run `git refs migrate --ref-format=files`",
        )


def _loose_value(path: Path, name: str) -> str | None:
    try:
        value = path.read_text().strip()
    except FileNotFoundError:
        return None  # packed or deleted meanwhile; packed refs are read after this
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(name) from error
    if not COMMIT_ID.fullmatch(value) and not value.startswith("ref:"):
        raise _damaged(name)
    return value


def _read_configuration(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    section = ""
    for line in _read_text(path).splitlines() if path.exists() else []:
        rest = line
        if header := _SECTION.match(line):
            below = f".{header[2]}" if header[2] is not None else ""
            section = f"{header[1].lower()}{below}"
            rest = line[header.end() :]
        if (assignment := _ASSIGNMENT.match(rest)) and section:
            value = re.split(r"\s[#;]", assignment[2] or "")[0].strip().strip('"')
            found[f"{section}.{assignment[1].lower()}"] = value
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableRefError(f"{path} cannot be read: {error}") from error


def _damaged(name: str) -> UnreadableRefError:
    return UnreadableRefError(
        f"the ref {name} cannot be read", hint=f"See `git show-ref`, or delete it: `git update-ref -d {name}`"
    )
