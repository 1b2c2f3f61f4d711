"""Small questions to git: which revision, shallow or whole, changed or clean.

What reads trees and commits in bulk is `holdfast.repo.history`.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from holdfast.errors import HoldfastError

INDEX_WAITS_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class GitStageError(HoldfastError):
    """Git refuses to add a file to its index."""


def head_revision(folder: Path) -> str | None:
    """The commit (40 hex digits) that is checked out in the repository around ``folder``.

    None outside a git repository, before the first commit, and where the repository cannot be opened: callers record
    the revision of a run, and a run without one is still a run.
    """
    # imported here: 50 ms that `holdfast --help` and a training script which never asks need not pay
    import pygit2

    found = pygit2.discover_repository(str(folder))
    if found is None:
        return None
    try:
        repository = pygit2.Repository(found)
        return None if repository.head_is_unborn else str(repository.head.target)
    except pygit2.GitError:
        return None


def is_dirty(folder: Path) -> bool:
    """Whether a file that git tracks differs from the checked-out commit; False outside a git repository.

    Untracked files do not count.
    """
    # imported here: 60 ms, see head_revision
    import git

    try:
        return bool(git.Git(folder).status("--porcelain", "--untracked-files=no"))
    except git.exc.GitCommandError:
        return False


def is_shallow(folder: Path) -> bool:
    """Whether the repository around ``folder`` is a shallow clone, whose history ends early."""
    import pygit2  # imported here: see head_revision

    found = pygit2.discover_repository(str(folder))
    return found is not None and (common_folder(Path(found)) / "shallow").exists()


def common_folder(git_folder: Path) -> Path:
    """The git folder that all worktrees share, given that of one of them (``.git`` or ``.git/worktrees/NAME``)."""
    pointer = git_folder / "commondir"
    return (git_folder / pointer.read_text().strip()).resolve() if pointer.exists() else git_folder.resolve()


def committed_files(folder: Path, below: Path) -> set[str] | None:
    """Names of the files directly in ``below`` that the checked-out commit has; empty before the first commit.

    None outside a git repository, where nothing is committed or uncommitted.
    """
    import pygit2  # imported here: see head_revision

    found = pygit2.discover_repository(str(folder))
    if found is None:
        return None
    repository = pygit2.Repository(found)
    if repository.head_is_unborn or repository.workdir is None:
        return set()
    place = below.resolve().relative_to(Path(repository.workdir).resolve()).as_posix()
    try:
        tree = repository.head.peel(pygit2.Tree) / place
    except KeyError:
        return set()
    return {entry.name for entry in tree if entry.name} if isinstance(tree, pygit2.Tree) else set()


def stage_files(folder: Path, paths: Iterable[Path]) -> None:
    """Add files to git's index, as ``git add`` does; nothing happens outside a git repository.

    Raises:
        GitStageError: git refuses, because the files are ignored or another git process holds the index.
    """
    # imported here: see is_dirty
    import git

    names = [str(path.resolve()) for path in paths]
    try:
        repository = git.Repo(folder, search_parent_directories=True)
    except git.exc.InvalidGitRepositoryError:
        return
    try:
        for wait in (*INDEX_WAITS_SECONDS, None):
            try:
                repository.git.add("--", *names)
                return
            except git.exc.GitCommandError as error:
                reason = " ".join(error.stderr.split()).removeprefix("stderr: ")
                if "index.lock" in reason and wait is not None:
                    time.sleep(wait)  # another git process holds the index for a moment
                    continue
                hint = "Everything else is done: run `git add` on them when git is free"
                raise GitStageError(f"git does not add {', '.join(names)}: {reason}", hint=hint) from error
    finally:
        repository.close()
