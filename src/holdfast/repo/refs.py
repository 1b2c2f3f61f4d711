"""What git keeps alive, best known name first: refs of every kind, then the commits behind them."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from holdfast.errors import HoldfastError
from holdfast.repo.gitfolder import GitFolder, RefState, find_git_folder, git_folder_of
from holdfast.repo.gitfolder import ShallowCloneError as ShallowCloneError
from holdfast.repo.gitfolder import UnreadableRefError as UnreadableRefError
from holdfast.repo.objects import Commit, GitObjects
from holdfast.repo.roots import Roots

if TYPE_CHECKING:
    import pygit2

Kind = Literal["workspace", "branch", "tag", "experiment", "stash", "ref", "history", "reflog"]

_TIP_ORDER: tuple[Kind, ...] = ("branch", "tag", "experiment", "stash", "ref")
_EXPERIMENT = re.compile(r"refs/exps/(?P<two>[0-9a-f]{2})/(?P<rest>[0-9a-f]{38})/(?P<name>.+)")
_QUEUES = {"refs/exps/celery/stash": "queue", "refs/exps/celery/failed": "failed queue"}


class UnknownRevisionError(HoldfastError):
    """Git knows no commit of that name."""


class Origin(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Tip:
    """A commit that a ref points to.

    Args:
        name: the whole name of the ref, ``refs/heads/main``; ``HEAD`` and the like for heads.
        origin: its commit, and what to call it.
        baseline: the commit that an experiment started from, 40 hex digits; else empty.
    """

    name: str
    origin: Origin
    baseline: str = ""


def open_repository(git_root: Path) -> "pygit2.Repository":
    """The git repository of the working tree at ``git_root``.

    Raises:
        ShallowCloneError: its history ends early.
        UnreadableRefError: libgit2 cannot open it.
        UnsupportedRepositoryError: it is of a kind that cannot be read.
    """
    return find_git_folder(git_root).repository


def read_tips(repository: "pygit2.Repository") -> list[Origin]:
    """Every ref's commit, best first: branches (the current one before others, local before remote), tags,
    experiments, stashes, other refs. Heads of all worktrees, detached or in the middle of a merge, count as branches.

    Raises:
        UnreadableRefError: a ref cannot be read, or leads to a missing object.
    """
    folder = git_folder_of(repository)
    return [tip.origin for tip in list_tips(folder, GitObjects(folder))]


def list_tips(folder: GitFolder, objects: GitObjects, state: RefState | None = None) -> list[Tip]:
    """The same with the refs' whole names; of ``state`` where it was read before.

    Raises:
        UnreadableRefError: a ref cannot be read, or leads to a missing object.
    """
    state = state or folder.state()
    tips = [Tip(name, Origin("branch", name, oid)) for name, oid in state.heads]
    for tip in tips:
        _commit(objects, tip.origin.commit, tip.origin)
    refs, logs = dict(state.refs), dict(state.logs)
    if state.current in refs and not state.current.startswith("refs/heads/"):
        tips.append(Tip("HEAD", Origin("branch", "HEAD", refs[state.current])))
    for name, oid in refs.items():
        tips.extend(_ref_tips(objects, name, oid, logs.get(name, ())))
    order = {kind: rank for rank, kind in enumerate(_TIP_ORDER)}
    tips.sort(
        key=lambda tip: (order[tip.origin.kind], tip.name != state.current, *_remote_last(tip.name), tip.origin.ref)
    )
    return tips


def order_commits(objects: GitObjects, tips: Iterable[Tip], roots: Roots) -> Iterator[Origin]:
    """The commits that ``roots`` choose, each once and with its best origin: tips, commits along first parents of
    branches and experiments, commits behind branches by their distance, commits behind other refs.

    Args:
        objects: reads commits.
        tips: from `list_tips`.
        roots: what is chosen.

    Raises:
        UnreadableRefError: a commit is missing.
        UnknownRevisionError: git and DVC know no such revision.
        UsageError: ``date`` is no day.
    """
    tips = list(tips)
    seen: set[str] = set()
    day, since = roots.day, roots.since

    def fresh(origins: Iterable[Origin]) -> Iterator[Origin]:
        for origin in origins:
            if origin.commit not in seen:
                seen.add(origin.commit)
                yield origin

    chosen = [tip for tip in tips if _chooses(roots, tip)]
    named = [_resolve(objects, tips, revision) for revision in roots.revisions]
    yield from fresh(tip.origin for tip in chosen)
    yield from fresh(tip.origin for tip, _ in named)
    lines = [(tip, roots.num) for tip in chosen if roots.all_branches and tip.name.startswith("refs/heads/")]
    lines += [(tip, roots.num if follows else 1) for tip, follows in named]
    for tip, count in lines:
        yield from fresh(_first_parents(objects, tip, count))
    for tip in chosen:
        if tip.baseline and roots.all_experiments:
            yield from fresh(_first_parents(objects, tip, -1, until=tip.baseline))
    known = [*chosen, *(tip for tip, _ in named)]
    lines_of_all = [tip for tip in tips if _is_line(tip)]
    starts = known if roots.behind else []
    if roots.all_commits:
        starts = list(dict.fromkeys([*lines_of_all, *starts]))
    yield from fresh(_behind(objects, starts, lambda _: True))
    if since is not None:
        yield from fresh(_behind(objects, known, lambda commit: commit.time >= since))
    if day is not None:
        yield from fresh(_behind(objects, lines_of_all, lambda commit: commit.time >= day))


def reflog_commits(folder: GitFolder, objects: GitObjects, reached: set[str]) -> Iterator[Origin]:
    """Commits that no ref reaches any more, but a reflog does: amended, reset, rebased away.

    They keep nothing alive; they give names to what may go. What git has pruned already is passed over.
    """
    seen = set(reached)
    for name in ["HEAD", *folder.refs()]:
        short = name.removeprefix("refs/heads/")
        for index, entry in enumerate(folder.log(name)):
            queue = deque([(entry, 0)])
            while queue:
                oid, back = queue.popleft()
                if oid in seen:
                    continue
                seen.add(oid)
                if (commit := objects.find_commit(oid)) is not None:
                    yield Origin("reflog", f"{short}@{{{index}}}", oid, back)
                    queue.extend((parent, back + 1) for parent in commit.parents)


def unreadable(what: str, origin: Origin, error: Exception, promisor: str | None = None) -> UnreadableRefError:
    """The error for an object of ``origin`` that git cannot give; ``promisor`` is the remote of a partial clone."""
    return UnreadableRefError(
        f"{what} ({origin.kind} {origin.ref}) cannot be read: {error or 'it is missing'}",
        hint=f"This is a partial clone: `git fetch --refetch --no-filter {promisor}` makes it whole"
        if promisor
        else "`git fsck` says what is damaged; `git fetch` from a whole clone, or deleting the ref, mends it",
    )


def _chooses(roots: Roots, tip: Tip) -> bool:
    if tip.baseline:
        return roots.all_experiments
    return roots.chooses_ref(tip.name) or (roots.all_commits and _is_line(tip))


def _is_line(tip: Tip) -> bool:
    """Whether ``dvc gc --all-commits`` starts from it."""
    return tip.name == "HEAD" or tip.name.startswith(("refs/heads/", "refs/remotes/", "refs/tags/"))


def _behind(objects: GitObjects, tips: list[Tip], wanted: Callable[[Commit], bool]) -> Iterator[Origin]:
    """All commits that tips reach and that are wanted, nearest first, those of branches before those of other refs."""
    walked: set[str] = set()
    for branches in (True, False):
        queue = deque((tip, tip.origin.commit, 0) for tip in tips if (tip.origin.kind == "branch") == branches)
        while queue:
            tip, oid, back = queue.popleft()
            if oid in walked:
                continue
            walked.add(oid)
            commit = objects.find_commit(oid) or _commit(objects, oid, _back(tip, oid, back))
            if wanted(commit):
                yield _back(tip, oid, back)
            for parent in commit.parents:
                if parent not in walked:
                    queue.append((tip, parent, back + 1))


def _first_parents(objects: GitObjects, tip: Tip, count: int, *, until: str = "") -> Iterator[Origin]:
    oid, back = tip.origin.commit, 0
    while count < 0 or back < count:
        origin = _back(tip, oid, back)
        commit = _commit(objects, oid, origin)
        yield origin
        if not commit.parents or commit.parents[0] == until:
            return
        oid, back = commit.parents[0], back + 1


def _back(tip: Tip, oid: str, back: int) -> Origin:
    return Origin("history", tip.origin.ref, oid, back) if back else tip.origin


def _resolve(objects: GitObjects, tips: list[Tip], revision: str) -> tuple[Tip, bool]:
    """The commit that a revision names, and whether DVC would go on to those before it."""
    oid = objects.find_revision(revision)
    if oid is None:
        remote = {
            tip.origin.commit
            for tip in tips
            if tip.name.startswith("refs/remotes/") and tip.name.split("/", 3)[3:] == [revision]
        }
        experiments = {tip.origin.commit for tip in tips if tip.baseline and tip.origin.ref == revision}
        found = remote or experiments
        if len(found) > 1:
            raise UnknownRevisionError(
                f"{revision!r} names {len(found)} commits", hint="Name the one that is meant by its hash"
            )
        if found:
            return Tip(revision, Origin("ref", revision, found.pop())), False
        raise UnknownRevisionError(f"git knows no commit {revision!r}", hint="`git log --all` shows them")
    return Tip(revision, Origin("ref", revision, oid)), True


def _commit(objects: GitObjects, oid: str, origin: Origin) -> Commit:
    commit = objects.find_commit(oid)
    if commit is None:
        promisor = objects.folder.promisor
        raise unreadable(f"commit {oid}", origin, ValueError("it is missing, damaged or no commit"), promisor)
    return commit


def _ref_tips(objects: GitObjects, name: str, oid: str, log: tuple[str, ...]) -> Iterator[Tip]:
    kind, short, baseline = _describe(name)
    commit, what = objects.peel(oid)
    if what == "missing":
        error = ValueError("it leads to a missing or damaged object")
        raise unreadable(name, Origin(kind, short), error, objects.folder.promisor)
    if what == "tree" or (what == "blob" and name.startswith("refs/replace/")):
        told = "replaces" if name.startswith("refs/replace/") else "points to"
        error = ValueError(f"it {told} a {what}, so that what commits name is unsure")
        raise unreadable(name, Origin(kind, short), error)
    if what == "blob":
        return  # a tag of a single blob, such as a signing key, names no objects
    if not log:
        yield Tip(name, Origin(kind, short, commit), baseline)
        return
    for index, entry in enumerate(log):
        stashed = _commit(objects, entry, Origin(kind, short))
        yield Tip(name, Origin(kind, f"{short}@{{{index}}}", entry))
        # a stash is a commit whose further parents hold the index and the untracked files
        for parent in stashed.parents[1:]:
            yield Tip(name, Origin(kind, f"{short}@{{{index}}}", parent))


def _describe(name: str) -> tuple[Kind, str, str]:
    for prefix, kind in (("refs/heads/", "branch"), ("refs/remotes/", "branch"), ("refs/tags/", "tag")):
        if name.startswith(prefix):
            return kind, name.removeprefix(prefix), ""  # type: ignore[return-value]
    if name.startswith("refs/exps/"):
        # refs/exps/<2 hex>/<38 hex>/<name>: an experiment; all others are DVC's own, the queue among them
        if match := _EXPERIMENT.fullmatch(name):
            return "experiment", match["name"], match["two"] + match["rest"]
        return "experiment", _QUEUES.get(name, name.removeprefix("refs/exps/")), ""
    return ("stash", "stash", "") if name == "refs/stash" else ("ref", name, "")


def _remote_last(name: str) -> tuple[bool, str]:
    return name.startswith("refs/remotes/"), name
