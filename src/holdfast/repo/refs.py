"""What git keeps alive, best known name first: refs of every kind, then the commits behind them."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pygit2

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.repo.git import common_folder, is_shallow

Kind = Literal["workspace", "branch", "tag", "experiment", "stash", "ref", "history", "reflog"]

# heads of operations that are under way, such as a merge; they hold commits that no branch may have yet
_OPERATION_HEADS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD")
_TIP_ORDER: tuple[Kind, ...] = ("branch", "tag", "experiment", "stash", "ref")
# these belong to one worktree, and another one cannot look them up; their commits are behind other refs
_PRIVATE_REFS = ("refs/bisect/", "refs/worktree/", "refs/rewritten/")
_COMMIT_ID = re.compile(r"[0-9a-f]{40}")


class ShallowCloneError(HoldfastError):
    """The clone's history ends early, so what older commits name cannot be known."""


class UnreadableRefError(IntegrityError):
    """A ref or an object that it leads to cannot be read."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object's name was seen.

    Args:
        kind: what holds the commit; ``history`` for a commit behind a branch, tag or other ref, ``reflog`` for one that
            only a reflog still reaches, ``workspace`` for files that need not be committed.
        ref: short name of that ref: ``main``, ``origin/main``, ``v1.0``, ``exp-a``, ``stash@{0}``; for the workspace
            the name of the linked worktree, else empty.
        commit: 40 hex digits; empty for the workspace.
        back: how many commits behind the ref's tip, at least.
    """

    kind: Kind
    ref: str
    commit: str = ""
    back: int = 0


def open_repository(git_root: Path) -> pygit2.Repository:
    """The git repository of the working tree at ``git_root``.

    Raises:
        ShallowCloneError: its history ends early.
        UnreadableRefError: libgit2 cannot open it.
    """
    try:
        repository = pygit2.Repository(str(git_root))
    except pygit2.GitError as error:
        raise UnreadableRefError(f"the git repository {git_root} cannot be opened: {error}") from error
    if is_shallow(git_root):
        raise ShallowCloneError(
            f"{git_root} is a shallow clone: commits that are not here may name objects that are",
            hint="Run `git fetch --unshallow` first",
        )
    return repository


def read_tips(repository: pygit2.Repository) -> list[Origin]:
    """Every ref's commit, best first: branches (the current one before others, local before remote), tags,
    experiments, stashes, other refs. Heads of all worktrees, detached or in the middle of a merge, count as branches.

    Raises:
        UnreadableRefError: a ref cannot be read, or leads to a missing object.
    """
    folder = common_folder(Path(repository.path))
    names = repository.listall_references()
    _check_loose_refs(repository, folder, set(names))
    tips = [*_head_tips(repository, folder), *(tip for name in names for tip in _ref_tips(repository, name))]
    current = None if repository.head_is_detached else repository.lookup_reference("HEAD").target
    order = {kind: rank for rank, kind in enumerate(_TIP_ORDER)}
    tips.sort(key=lambda item: (order[item[1].kind], item[0] != current, *_remote_last(item[0]), item[1].ref))
    return [tip for _, tip in tips]


def order_commits(repository: pygit2.Repository, tips: Iterable[Origin]) -> Iterator[tuple[pygit2.Commit, Origin]]:
    """Every commit that ``tips`` reach, each once and with its best origin: tips, commits behind branches by their
    distance, commits behind other refs.

    Raises:
        UnreadableRefError: a commit is missing.
    """
    tips = list(tips)
    seen: set[pygit2.Oid] = set()
    starts: list[tuple[pygit2.Commit, Origin]] = []
    for tip in tips:
        commit = _commit(repository, pygit2.Oid(hex=tip.commit), tip)
        starts.append((commit, tip))
        if commit.id not in seen:
            seen.add(commit.id)
            yield commit, tip
    walked: set[pygit2.Oid] = set()
    for branches in (True, False):
        level = deque((commit, tip) for commit, tip in starts if (tip.kind == "branch") == branches)
        while level:
            commit, origin = level.popleft()
            if commit.id in walked:
                continue
            walked.add(commit.id)
            if commit.id not in seen:
                seen.add(commit.id)
                yield commit, origin
            for parent in commit.parent_ids:
                if parent not in walked:
                    behind = Origin("history", origin.ref, str(parent), origin.back + 1)
                    level.append((_commit(repository, parent, behind), behind))


def reflog_commits(repository: pygit2.Repository, reached: set[pygit2.Oid]) -> Iterator[tuple[pygit2.Commit, Origin]]:
    """Commits that no ref reaches any more, but a reflog does: amended, reset, rebased away.

    They keep nothing alive; they give names to what may go. What git has pruned already is passed over.
    """
    seen = set(reached)
    for name in ["HEAD", *sorted(repository.listall_references())]:
        short = name.removeprefix("refs/heads/")
        for index, entry in enumerate(_reflog(repository, name)):
            queue = deque([(entry, 0)])
            while queue:
                oid, back = queue.popleft()
                if oid in seen:
                    continue
                seen.add(oid)
                commit: object = repository.get(oid)
                if isinstance(commit, pygit2.Commit):
                    yield commit, Origin("reflog", f"{short}@{{{index}}}", str(oid), back)
                    queue.extend((parent, back + 1) for parent in commit.parent_ids)


def worktree_folders(repository: pygit2.Repository) -> dict[str, Path]:
    """The working trees of the repository other than the given one, by name; those that are gone are left out."""
    folder = common_folder(Path(repository.path))
    found = {path.parent.name: Path(path.read_text().strip()).parent for path in folder.glob("worktrees/*/gitdir")}
    if not repository.is_bare and folder.name == ".git":
        found["main worktree"] = folder.parent
    here = Path(repository.workdir or repository.path).resolve()
    return {name: path for name, path in sorted(found.items()) if path.is_dir() and path.resolve() != here}


def unreadable(what: str, origin: Origin, error: Exception) -> UnreadableRefError:
    """The error for an object of ``origin`` that git cannot give."""
    return UnreadableRefError(
        f"{what} ({origin.kind} {origin.ref}) cannot be read: {error or 'it is missing'}",
        hint="`git fsck` says what is damaged; `git fetch` from a whole clone, or deleting the ref, mends it",
    )


def _commit(repository: pygit2.Repository, oid: pygit2.Oid, origin: Origin) -> pygit2.Commit:
    try:
        commit: object = repository[oid]
    except (KeyError, pygit2.GitError) as error:
        raise unreadable(f"commit {oid}", origin, ValueError("it is missing or damaged")) from error
    if not isinstance(commit, pygit2.Commit):
        raise unreadable(f"commit {oid}", origin, ValueError("it is no commit"))
    return commit


def _ref_tips(repository: pygit2.Repository, name: str) -> Iterator[tuple[str, Origin]]:
    kind, short = _describe(name)
    try:
        reference = repository.lookup_reference(name)
        target = reference.resolve().target
        entry: object = repository[target]
        while isinstance(entry, pygit2.Tag):
            entry = entry.get_object()
    except (KeyError, pygit2.GitError) as error:
        raise unreadable(name, Origin(kind, short), ValueError("it is broken or leads to a missing object")) from error
    if isinstance(entry, pygit2.Tree):
        raise unreadable(name, Origin(kind, short), ValueError("it points to a tree without a commit"))
    if not isinstance(entry, pygit2.Commit):
        return  # a tag of a single blob, such as a signing key, names no objects
    if not name.endswith(("/stash", "/failed")) or not (log := _reflog(repository, name)):
        yield name, Origin(kind, short, str(entry.id))
        return
    for index, oid in enumerate(log):
        stashed = _commit(repository, oid, Origin(kind, short))
        labelled = Origin(kind, f"{short}@{{{index}}}", str(oid))
        yield name, labelled
        # a stash is a commit whose further parents hold the index and the untracked files
        for parent in stashed.parent_ids[1:]:
            yield name, replace(labelled, commit=str(parent))


def _describe(name: str) -> tuple[Kind, str]:
    for prefix, kind in (("refs/heads/", "branch"), ("refs/remotes/", "branch"), ("refs/tags/", "tag")):
        if name.startswith(prefix):
            return kind, name.removeprefix(prefix)  # type: ignore[return-value]
    if name.startswith("refs/exps/"):
        # refs/exps/<2 hex>/<38 hex>/<name>: an experiment; all others are DVC's own, the queue among them
        match = re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)", name)
        queued = {"refs/exps/celery/stash": "queue", "refs/exps/celery/failed": "failed queue"}
        return "experiment", match[1] if match else queued.get(name, name.removeprefix("refs/exps/"))
    return ("stash", "stash") if name == "refs/stash" else ("ref", name)


def _head_tips(repository: pygit2.Repository, folder: Path) -> Iterator[tuple[str, Origin]]:
    here = Path(repository.path).resolve()
    for git_folder in [folder, *sorted(folder.glob("worktrees/*"))]:
        place = "" if git_folder.resolve() == here else f" of {git_folder.name if git_folder != folder else 'main'}"
        for head in ("HEAD", *_OPERATION_HEADS):
            path = git_folder / head
            for line in path.read_text().splitlines() if path.is_file() else []:
                if _COMMIT_ID.fullmatch(line.strip()):
                    origin = Origin("branch", f"{head}{place}", line.strip())
                    _commit(repository, pygit2.Oid(hex=origin.commit), origin)
                    yield f"{head}{place}", origin


def _check_loose_refs(repository: pygit2.Repository, folder: Path, names: set[str]) -> None:
    # libgit2 passes over a loose ref that it cannot parse; what such a ref meant to keep must not be forgotten
    for path in sorted((folder / "refs").rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.endswith(".lock") and not name.startswith(_PRIVATE_REFS) and name not in names:
            try:
                repository.lookup_reference(name)
            except (KeyError, ValueError, pygit2.GitError) as error:
                raise UnreadableRefError(
                    f"the ref {name} cannot be read",
                    hint=f"See `git show-ref`, or delete it: `git update-ref -d {name}`",
                ) from error


def _reflog(repository: pygit2.Repository, name: str) -> list[pygit2.Oid]:
    try:
        return [entry.oid_new for entry in repository.lookup_reference(name).log()]
    except (KeyError, pygit2.GitError):
        return []


def _remote_last(name: str) -> tuple[bool, str]:
    return name.startswith("refs/remotes/"), name
