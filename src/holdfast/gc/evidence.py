"""Everything that is known of who needs which object: the names of objects, and what could not be known."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.gc.choice import choose
from holdfast.gc.planned import Doubt
from holdfast.gc.policy import Policy
from holdfast.gc.references import Key, Mention, Name, References, let_go, name_of
from holdfast.registry import FOLDER
from holdfast.repo.cache import RunCacheEntry, list_run_cache, read_members
from holdfast.repo.dvc import LocalCache, local_cache
from holdfast.repo.dvcfiles import LISTING_SUFFIX
from holdfast.repo.gitfolder import GitFolder, find_git_folder
from holdfast.repo.history import HistoryReader, Sighting
from holdfast.repo.others import other_repositories, read_other, submodules
from holdfast.repo.roots import EVERYTHING
from holdfast.repo.workspace import Project

HISTORY = Path(".dvc") / "tmp" / "holdfast" / "history.sqlite"
COMMAND_SHOWN_CHARACTERS = 40
# the input that tells one project from another
PROJECT = "the project"

# the members of a folder's listing, (path, oid); None where it is missing or damaged
Members = Callable[[str, str], Sequence[tuple[str, str]] | None]


@dataclass(frozen=True)
class MissingListing:
    """A folder's listing that is needed and cannot be read."""

    mention: Mention
    why: str

    @property
    def room(self) -> float:
        """Bytes that no member can exceed."""
        return float("inf") if self.mention.out.size is None else self.mention.out.size

    def __str__(self) -> str:
        name = self.mention.name
        where = f"commit {name.commit[:8]}, {name.source}" if name.commit else name.source
        return f"the listing {self.mention.out.oid[:8]}{LISTING_SUFFIX} of {name.path} ({where}) is {self.why}"

    @property
    def doubt(self) -> Doubt:
        """What it means for a plan."""
        name = self.mention.name
        if name.kind == "run cache":
            way_out = "`dvc fetch --run-cache`, or plan with --ignore-run-cache"
        elif name.commit:
            checkout = f"`git checkout {name.commit[:8]} && dvc fetch {name.path}`"
            # DVC knows neither the commits of experiments nor of stashes under that option
            everything = name.kind in ("branch", "tag", "history", "registry")
            way_out = f"`dvc fetch --all-commits`, or {checkout}" if everything else checkout
        else:
            way_out = f"`dvc fetch {name.path}`"
        return Doubt(f"{self}: what could be its member is kept", way_out)


@dataclass
class Evidence:
    """Who needs what.

    Attributes:
        project: whose.
        cache: its DVC cache.
        references: all names of objects.
        missing: listings that are needed and cannot be read.
        keeps_runs: whether entries of the run cache keep objects, and stay themselves.
        inputs: digests of what was read, by name.
        notes: what was left out, and why.
        reached: the commits (40 hex digits) that refs here reach, whatever the policy says of them.
        doubted: of the missing listings of each kind of hash the one with most room, which speaks for all of them.
    """

    project: Project
    cache: LocalCache
    references: References
    missing: list[MissingListing]
    keeps_runs: bool = True
    inputs: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reached: frozenset[str] = frozenset()
    doubted: dict[str, MissingListing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for listing in self.missing:
            known = self.doubted.get(listing.mention.out.hash_name)
            if known is None or known.room < listing.room:
                self.doubted[listing.mention.out.hash_name] = listing

    def could_be_member(self, key: Key, size: int) -> MissingListing | None:
        """The missing listing that may name an object of that size, which is no listing itself; None where none may."""
        listing = self.doubted.get(key[0])
        return listing if listing and not key[1].endswith(LISTING_SUFFIX) and size <= listing.room else None

    def needed(self) -> set[Key]:
        """All objects that something needs."""
        return set(self.references.keepers())


def gather(
    project: Project,
    cache: LocalCache,
    policy: Policy,
    *,
    now: float,
    ignore_run_cache: bool = False,
    members: Members | None = None,
    listings: Iterable[Key] = (),
    runs: Iterable[RunCacheEntry] = (),
) -> Evidence:
    """Read all that names objects: git, the index, the workspace, the run cache, other repositories.

    Of git these are branches, tags, experiments and their queue, stashes, other refs, heads of worktrees, and all
    commits behind them. What the policy lets go still gives names to objects.

    Args:
        project: from `holdfast.repo.workspace.find_project`.
        cache: DVC's.
        policy: what of it keeps objects.
        now: seconds since the epoch.
        ignore_run_cache: the run cache keeps nothing.
        members: reads a listing that the cache does not have.
        listings: of what is stored: those that nothing names still tell what their members were called.
        runs: entries of the run cache that lie elsewhere.

    Raises:
        ShallowCloneError: git's history ends early.
        UnreadableRefError: a ref or git object cannot be read.
        UnreadableDvcFileError: a DVC file in a commit or the workspace cannot be read.
        UnreadableRunCacheError: an entry of the run cache cannot be read.
        UnreadableOtherError: a repository that ``repos:`` names cannot be read.
        DvcConfigError: DVC's configuration cannot be read.
        EntryError: a file of the registry is broken.
    """
    run_cache = policy.run_cache and not ignore_run_cache
    folder = find_git_folder(project.git_root)
    references = References()
    choice = choose(project, folder, policy, now)
    with closing(HistoryReader(folder, cache=project.root / HISTORY)) as reader:
        workspace = reader.read_workspace()
        for sighting in workspace.sightings:
            references.add(sighting.out, choice.naming.name(sighting), sighting.file)
        answer = reader.answer_refs(choice.roots)
        references.add_answer(answer, choice.naming)
        staged = list(reader.read_index())
        for sighting in staged:
            references.add(sighting.out, choice.naming.name(sighting), sighting.file)
        reached = set(reader.reached)
        lost = list(reader.read_reflogs()) if choice.roots == EVERYTHING else []
        for sighting in lost:
            references.add(sighting.out, name_of(sighting), sighting.file)
    if choice.roots != EVERYTHING:
        reached |= _name_the_rest(folder, project, references)
    for other in other_repositories(project.root, policy.repos or ()):
        for sighting in read_other(other, project.root / HISTORY):
            references.add(sighting.out, name_of(sighting), sighting.file)
    entries = list_run_cache(cache.folder, skip_damaged=not run_cache)
    if remembered := [*entries, *runs]:
        stages = _stages(chain(workspace.sightings, answer, staged, lost))
        for found in _run_cache_mentions(remembered, project.prefix, stages, keeps=run_cache):
            references.add(*found)
    foreign = _foreign_projects(project, workspace.projects, cache)
    missing = _expand(
        references,
        lambda *key: read_members(cache.folder, *key) or (members(*key) if members else None),
        set(listings),
        lambda file: _owner(file, workspace.projects) in foreign,
    )
    inputs = {
        PROJECT: _digest((str(folder.common), project.prefix)),
        "git": _digest((folder.head(), sorted(folder.heads()), folder.refs())),
        "the workspace": _digest([(sighting.file, sighting.out) for sighting in workspace.sightings]),
        "the registry": _digest_of_models(project),
        "the run cache": _digest(entries),
        "the policy": _digest((policy, ignore_run_cache)),
    }
    notes = [f"{path} is a submodule: what it needs is left to it" for path in submodules(folder)]
    return Evidence(project, cache, references, missing, run_cache, inputs, notes, frozenset(reached))


def _name_the_rest(folder: GitFolder, project: Project, references: References) -> set[str]:
    """Give names to what the policy lets go; all commits that refs reach."""
    with closing(HistoryReader(folder, cache=project.root / HISTORY)) as reader:
        for sighting in chain(reader.read_refs(), reader.read_reflogs()):
            name = name_of(sighting)
            references.add(sighting.out, let_go(name) if name.keeps else name, sighting.file)
        return reader.reached


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogateescape")).hexdigest()


def _digest_of_models(project: Project) -> str:
    """What aliases say; the versions themselves are among the workspace's files."""
    found = sorted((project.root / FOLDER).glob("*/*/model.yaml"))
    return _digest([(path.relative_to(project.root).as_posix(), path.read_bytes()) for path in found])


def _stages(sightings: Iterable[Sighting]) -> dict[str, str]:
    """The stage that makes each path; of several the one that is met first."""
    stages: dict[str, str] = {}
    for sighting in sightings:
        if sighting.out.stage:
            stages.setdefault(sighting.out.path, sighting.out.stage)
    return stages


def _run_cache_mentions(
    entries: Iterable[RunCacheEntry], prefix: str, stages: Mapping[str, str], *, keeps: bool
) -> Iterable[Mention]:
    kind = "run cache" if keeps else "nothing"
    for entry in entries:
        for out in entry.outs:
            path = f"{prefix}/{out.path}" if prefix else out.path
            stage = stages.get(path)
            what = f"stage {stage}" if stage else f"`{_shortened(entry.command)}`"
            restore = "; `dvc repro` can restore it" if keeps else " (ignored)"
            yield Mention(out, Name(path, kind, f"run cache: {what}{restore}"), f"{prefix}/" if prefix else "")


def _expand(
    references: References, read: Members, stored: set[Key], is_foreign: Callable[[str], bool]
) -> list[MissingListing]:
    """Name the members of every folder; return the listings that are needed and cannot be read.

    What another project names that has a cache of its own is not needed here.
    """
    missing = []
    for key, known in sorted(references.listings.items()):
        members = read(*key)
        ordered = sorted(known.values(), key=lambda one: one.name.order)
        for one in ordered:
            references.add_members(one, members or ())
        if members is None:
            needed = (one for one in ordered if one.name.keeps and not one.out.listed and not is_foreign(one.file))
            if first := next(needed, None):
                missing.append(MissingListing(first, "damaged" if key in stored else "missing"))
    for hash_name, oid in sorted(stored - references.listings.keys()):
        for path, member in read(hash_name, oid) or ():
            lost = Name(f"{oid[:8]}{LISTING_SUFFIX}/{path}", "nothing", "an unreferenced folder")
            references.add_name((hash_name, member), lost)
    return missing


def _foreign_projects(project: Project, prefixes: Sequence[str], cache: LocalCache) -> list[str]:
    """Folders of the other DVC projects in the same git repository that have a cache of their own."""
    result = []
    for prefix in prefixes:
        try:
            if prefix != project.prefix and local_cache(project.git_root / prefix).folder != cache.folder:
                result.append(prefix)
        except HoldfastError:
            continue  # in doubt it shares our cache
    return result


def _owner(file: str, projects: Iterable[str]) -> str | None:
    """The nearest project above a DVC file; None where there is none today."""
    around = [prefix for prefix in projects if not prefix or file.startswith(f"{prefix}/")]
    return max(around, key=len, default=None)


def _shortened(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= COMMAND_SHOWN_CHARACTERS else f"{line[: COMMAND_SHOWN_CHARACTERS - 1]}…"
