"""The plan for DVC's local cache: what could be removed, what stays, and why.

A plan deletes nothing. Equal history, workspace, cache and time give an equal plan, byte for byte.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import chain
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.gc.references import RANKS, Mention, Name, References, mention
from holdfast.repo.cache import CacheObject, RunCacheEntry, list_objects, list_run_cache, read_members
from holdfast.repo.dvc import LocalCache, local_cache
from holdfast.repo.dvcfiles import LEGACY_MD5, LISTING_SUFFIX, MD5
from holdfast.repo.history import HistoryReader, read_workspace
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project

PLAN_FORMAT = "holdfast gc plan 1"
SECONDS_A_DAY = 86400
COMMAND_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class PlannedObject:
    """An object of the cache and its fate.

    Args:
        hash_name: ``md5``, or ``md5-dos2unix`` for the place of DVC 2.
        oid: its name in the cache.
        path: where it lies, from the cache's folder.
        size: bytes.
        age_days: since the later of mtime and ctime.
        kept: whether it stays.
        reason: the kind of what decided: a key of `holdfast.gc.references.RANKS`, ``reflog`` or ``nothing``.
        why: the same for people.
        names: the paths it has or had, best first.
    """

    hash_name: str
    oid: str
    path: str
    size: int
    age_days: float
    kept: bool
    reason: str
    why: str
    names: tuple[Name, ...]


@dataclass(frozen=True)
class Doubt:
    """Something that could not be known, for which objects are kept; ``way_out`` ends it."""

    text: str
    way_out: str


@dataclass(frozen=True)
class Total:
    """Objects and bytes that one kind of reason decided."""

    kept: bool
    reason: str
    objects: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What would happen to each object of the local cache, and why.

    Args:
        time: when it was made, ISO 8601, UTC.
        revision: the commit checked out; None before the first.
        ignore_run_cache: whether the run cache was not allowed to keep objects.
        objects: ordered by size, largest first.
        doubts: what could not be known.
    """

    time: str
    revision: str | None
    ignore_run_cache: bool
    objects: tuple[PlannedObject, ...]
    doubts: tuple[Doubt, ...]

    @property
    def removed(self) -> list[PlannedObject]:
        """Objects that nothing refers to."""
        return [entry for entry in self.objects if not entry.kept]

    @property
    def kept(self) -> list[PlannedObject]:
        """Objects that stay."""
        return [entry for entry in self.objects if entry.kept]

    @property
    def totals(self) -> list[Total]:
        """Objects and bytes by reason, best reason first, what could be removed last."""
        groups: dict[tuple[bool, str], list[int]] = {}
        for entry in self.objects:
            groups.setdefault((entry.kept, entry.reason), []).append(entry.size)
        order = sorted(groups, key=lambda group: (not group[0], RANKS.get(group[1], len(RANKS)), group[1]))
        return [Total(*group, len(groups[group]), sum(groups[group])) for group in order]

    def to_json(self, objects: Sequence[PlannedObject] | None = None) -> dict[str, Any]:
        """The plan as JSON takes it; with ``objects`` those alone are listed, the totals stay those of the plan."""
        return {
            "format": PLAN_FORMAT,
            "time": self.time,
            "revision": self.revision,
            "ignore_run_cache": self.ignore_run_cache,
            "totals": [asdict(total) for total in self.totals],
            "doubts": [asdict(doubt) for doubt in self.doubts],
            "objects": [asdict(entry) for entry in (self.objects if objects is None else objects)],
        }


@dataclass(frozen=True)
class _MissingListing:
    mention: Mention
    why: str

    @property
    def room(self) -> float:
        """Bytes that no member can exceed."""
        return float("inf") if self.mention.out.size is None else self.mention.out.size


def plan_cache(project: Project, *, now: float, ignore_run_cache: bool = False) -> Plan:
    """Decide for every object in the project's local cache whether something refers to it.

    Reads all of git (branches, tags, experiments and their queue, stashes, other refs, heads of worktrees), the index,
    the workspace and the run cache. Whatever cannot be decided is kept and named in ``doubts``.

    Args:
        project: from `holdfast.repo.workspace.find_project`.
        now: seconds since the epoch, for ages.
        ignore_run_cache: objects that only DVC's run cache needs are shown as removable.

    Raises:
        ShallowCloneError: git's history ends early.
        UnreadableRefError: a ref or git object cannot be read.
        UnreadableDvcFileError: a DVC file in a commit or the workspace cannot be read.
        UnreadableRunCacheError: an entry of the run cache cannot be read.
        DvcConfigError: DVC's configuration cannot be read.
    """
    cache = local_cache(project.root)
    # listed before anything is read: an object that is added meanwhile is not in the plan, and cannot be called unused
    objects = list_objects(cache.folder)
    repository = open_repository(project.git_root)
    reader = HistoryReader(repository)
    workspace = read_workspace(repository)
    references = References()
    stages: dict[str, str] = {}
    for sighting in chain(workspace.sightings, reader.read_refs(), reader.read_index(), reader.read_reflogs()):
        references.add(mention(sighting))
        if sighting.out.stage:
            stages.setdefault(sighting.out.path, sighting.out.stage)
    entries = list_run_cache(cache.folder, skip_damaged=ignore_run_cache)
    for found in _run_cache_mentions(entries, project.prefix, stages, keeps=not ignore_run_cache):
        references.add(found)
    foreign = _foreign_projects(project, workspace.projects, cache)
    missing = _expand_listings(references, cache, objects, lambda file: _owner(file, workspace.projects) in foreign)
    doubted = {hash_name: _most_roomy(missing, hash_name) for hash_name in (MD5, LEGACY_MD5)}
    doubts = [_missing_doubt(listing) for listing in missing]
    if cache.outside:
        doubts.insert(0, _outside_doubt(cache))
    planned = [
        _decide(entry, references.of((entry.hash_name, entry.oid)), doubted[entry.hash_name], cache, now)
        for entry in objects
    ]
    return Plan(
        time=datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="seconds"),
        revision=None if repository.head_is_unborn else str(repository.head.target),
        ignore_run_cache=ignore_run_cache,
        objects=tuple(sorted(planned, key=lambda entry: (-entry.size, entry.path))),
        doubts=tuple(doubts),
    )


def _run_cache_mentions(
    entries: Iterable[RunCacheEntry], prefix: str, stages: dict[str, str], *, keeps: bool
) -> Iterable[Mention]:
    kind = "run cache" if keeps else "nothing"
    for entry in entries:
        for out in entry.outs:
            path = f"{prefix}/{out.path}" if prefix else out.path
            stage = stages.get(path)
            what = f"stage {stage}" if stage else f"`{_shortened(entry.command)}`"
            restore = "; `dvc repro` can restore it" if keeps else " (ignored)"
            yield Mention(out, Name(path, kind, f"run cache: {what}{restore}"), f"{prefix}/" if prefix else "")


def _expand_listings(
    references: References, cache: LocalCache, objects: Iterable[CacheObject], is_foreign: Callable[[str], bool]
) -> list[_MissingListing]:
    """Name the members of every folder; return the listings that are needed and cannot be read.

    What another project names that has a cache of its own is not needed here.
    """
    present = {(entry.hash_name, entry.oid) for entry in objects if entry.is_listing}
    missing = []
    for key, known in sorted(references.listings.items()):
        members = read_members(cache.folder, *key)
        ordered = sorted(known.values(), key=lambda one: one.name.order)
        for one in ordered:
            references.add_members(one, members or ())
        if members is None:
            needed = (one for one in ordered if one.name.keeps and not one.out.listed and not is_foreign(one.file))
            if first := next(needed, None):
                missing.append(_MissingListing(first, "damaged" if key in present else "missing"))
    # a listing that nothing names still tells what its members were called
    for hash_name, oid in sorted(present - references.listings.keys()):
        for path, member in read_members(cache.folder, hash_name, oid) or ():
            lost = Name(f"{oid[:8]}{LISTING_SUFFIX}/{path}", "nothing", "an unreferenced folder")
            references.add_name((hash_name, member), lost)
    return missing


def _decide(
    entry: CacheObject, names: list[Name], doubted: _MissingListing | None, cache: LocalCache, now: float
) -> PlannedObject:
    kept, reason, why = True, "undecided", ""
    if names and names[0].keeps:
        reason, why = names[0].kind, names[0].source
    elif cache.outside:
        why = "undecided: the cache lies outside the project, others may use it"
    elif doubted and not entry.is_listing and entry.size <= doubted.room:
        why = f"undecided: {_listing_text(doubted)}"
    elif names:
        kept, reason, why = False, names[0].kind, f"only {names[0].source}"
    else:
        kept, reason, why = False, "nothing", "nothing names it"
    age_days = round(max(0.0, now - entry.changed) / SECONDS_A_DAY, 3)
    return PlannedObject(entry.hash_name, entry.oid, entry.path, entry.size, age_days, kept, reason, why, tuple(names))


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


def _most_roomy(missing: Iterable[_MissingListing], hash_name: str) -> _MissingListing | None:
    """The missing listing that could hold the largest member, which speaks for all of them."""
    return max(
        (one for one in missing if one.mention.out.hash_name == hash_name), key=lambda one: one.room, default=None
    )


def _missing_doubt(missing: _MissingListing) -> Doubt:
    name = missing.mention.name
    if name.kind == "run cache":
        way_out = "`dvc fetch --run-cache`, or plan with --ignore-run-cache"
    elif name.commit:
        checkout = f"`git checkout {name.commit[:8]} && dvc fetch {name.path}`"
        # DVC knows neither the commits of experiments nor of stashes under that option
        everything = name.kind in ("branch", "tag", "history", "registry")
        way_out = f"`dvc fetch --all-commits`, or {checkout}" if everything else checkout
    else:
        way_out = f"`dvc fetch {name.path}`"
    return Doubt(f"{_listing_text(missing)}: what could be its member is kept", way_out)


def _listing_text(missing: _MissingListing) -> str:
    name = missing.mention.name
    where = f"commit {name.commit[:8]}, {name.source}" if name.commit else name.source
    return f"the listing {missing.mention.out.oid[:8]}{LISTING_SUFFIX} of {name.path} ({where}) is {missing.why}"


def _outside_doubt(cache: LocalCache) -> Doubt:
    return Doubt(
        f"the cache {cache.folder} lies outside the project and others may use it: what this project does not name is "
        "kept",
        "`dvc config --unset cache.dir` (with `--local` or `--global` where it is set so) and `dvc fetch` give the "
        "project a cache of its own",
    )


def _shortened(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= COMMAND_SHOWN_CHARACTERS else f"{line[: COMMAND_SHOWN_CHARACTERS - 1]}…"
