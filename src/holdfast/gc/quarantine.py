"""What collections have taken away and is still there: listing it, bringing it back, deleting it for good."""

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from holdfast.errors import HoldfastError, UsageError
from holdfast.gc.evidence import Evidence
from holdfast.gc.objects import key_at
from holdfast.gc.plan import Request, read_plan
from holdfast.gc.planned import PlannedObject, Scope
from holdfast.gc.planning import gather_for
from holdfast.gc.policy import Policy
from holdfast.gc.references import Key, key_of
from holdfast.gc.stores import registered_objects
from holdfast.gc.vault import live_files
from holdfast.gc.world import STATE, World
from holdfast.removal.place import Batch, Place, Progress, Thing, silent
from holdfast.vault.collecting import Waiting, generations, purge, revive, settle, store_time
from holdfast.vault.marking import waiting_files
from holdfast.vault.periods import GRACE
from holdfast.vault.survey import survey

# plans that were carried out here
APPLIED = STATE / "collected"
# so many hex digits of a plan or an object are enough to name it
SHORTEST_PREFIX = 6
_HEX = re.compile(rf"[0-9a-f]{{{SHORTEST_PREFIX},32}}(?:\.dir)?")


@dataclass(frozen=True)
class Held:
    """Something that waits.

    Attributes:
        scope: see `holdfast.gc.planned.Scope`.
        place: the name of the remote; empty for what lies here.
        plan: the digest of the plan that took it; empty for what a vault condemned.
        path: where it lay.
        size: bytes.
        since: how long it waits, by the place's clock; None for a vault's, whose collection is not over.
        what: the object as it was planned, where that is known.
    """

    scope: Scope
    place: str
    plan: str
    path: str
    size: int
    since: timedelta | None
    what: PlannedObject | None = None

    @property
    def oid(self) -> str:
        """DVC's name of it, empty where it is no object."""
        return self.key[1] if self.key else ""

    @property
    def key(self) -> Key | None:
        """DVC's hash and name of it, by where it lay, whoever took it away; None where it is no object."""
        if self.scope == "vault":
            return key_of(self.path)
        return key_at(self.path) if self.scope in ("cache", "remote") else None

    @property
    def names(self) -> tuple[str, ...]:
        """The paths that it had, best first."""
        return tuple(name.path for name in self.what.names) if self.what else ()

    def is_meant(self, target: str) -> bool:
        """Whether a plan's digest, an oid (either may be cut short), a path or a pattern of paths means it."""
        if _HEX.fullmatch(target) and (self.plan.startswith(target) or self.oid.startswith(target)):
            return True
        paths = (self.path, *self.names)
        wanted = target.rstrip("/")
        return any(path == wanted or path.startswith(f"{wanted}/") or fnmatchcase(path, target) for path in paths)


@dataclass(frozen=True)
class Restored:
    """What came back.

    Attributes:
        held: what it was.
        bytes: of it.
        left: what did not come back, and why.
    """

    held: tuple[Held, ...]
    bytes: int
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Purged:
    """What is gone for good.

    Attributes:
        held: what it was.
        bytes: of it; of a vault, of its packs.
        rescued: what came back instead, since something needs it again.
        young: how many things have to wait longer.
        left: what could not be deleted or brought back, and why.
        waiting: pushes to a vault that must end first.
    """

    held: tuple[Held, ...]
    bytes: int
    rescued: tuple[Held, ...]
    young: int
    left: tuple[tuple[str, str], ...]
    waiting: tuple[Waiting, ...] = ()


def list_held(world: World, remotes: Sequence[str] = (), vaults: Sequence[str] = ()) -> list[Held]:
    """All that waits here, in remotes and in vaults, the oldest first.

    Raises:
        HoldfastError: a quarantine cannot be read.
    """
    found = [held for _, _, held in _batches(world, remotes)]
    for name in vaults:
        found += _held_by_vault(world, name)
    return sorted(found, key=lambda held: (-(held.since or timedelta(0)), held.scope, held.place, held.path))


def restore(
    world: World,
    targets: Sequence[str],
    remotes: Sequence[str] = (),
    vaults: Sequence[str] = (),
    *,
    progress: Progress = silent,
) -> Restored:
    """Bring things back.

    Args:
        world: the project and its stores.
        targets: digests of plans, oids, paths and patterns of paths, see `Held.is_meant`.
        remotes, vaults: where to look besides here.
        progress: told of bytes.

    Raises:
        UsageError: a target means nothing that waits.
        HoldfastError: a quarantine cannot be read, or a place refuses.
    """
    held = list_held(world, remotes, vaults)
    for target in targets:
        if not any(one.is_meant(target) for one in held):
            raise UsageError(f"nothing that waits is called {target}", hint="`holdfast gc list` shows what does")
    wanted = [one for one in held if any(one.is_meant(target) for target in targets)]
    back: list[Held] = []
    total, left = 0, list[tuple[str, str]]()
    for (scope, name, plan), some in _grouped(wanted).items():
        if scope == "vault":
            revive(world.vault(name), [one.path for one in some])
            back += some
            total += sum(one.size for one in some)  # as they are listed: what was copied of their blobs is less
            continue
        moved = world.place(scope, name).restore(plan, [one.path for one in some], progress)
        done = set(moved.done)
        back += [one for one in some if one.path in done]
        total += moved.bytes
        left += moved.left
    return Restored(tuple(back), total, tuple(left))


def purge_held(
    world: World,
    policy: Policy,
    remotes: Sequence[str] = (),
    vaults: Sequence[str] = (),
    *,
    older_than: timedelta,
    now: float,
    grace: timedelta = GRACE,
    wait: timedelta = timedelta(0),
    dry_run: bool = False,
    offline: bool = False,
    progress: Progress = silent,
) -> Purged:
    """Delete what has waited long enough. The roots are read again: what is needed again comes back instead.

    Args:
        world: the project and its stores.
        policy: what keeps objects.
        remotes, vaults: where to look besides here.
        older_than: how long things must have waited.
        now: seconds since the epoch, for the policy.
        grace, wait: for vaults, as of `holdfast.vault.collecting.settle`.
        dry_run: only say what would be deleted, and what would come back.
        offline: ask no git remote what it has.
        progress: told of bytes.

    Raises:
        HoldfastError: what is needed cannot be known, or a place refuses.
    """
    request = Request(("cache", "remote", "vault"), remotes=tuple(remotes), vaults=tuple(vaults), offline=offline)
    done = _Tally()
    batches = _grouped(held for _, _, held in _batches(world, remotes))
    old = {key: some for key, some in batches.items() if some[0].since is not None and some[0].since >= older_than}
    done.young += sum(len(some) for key, some in batches.items() if key not in old)
    evidence = gather_for(world, request, policy, now=now) if old else None
    registered = {name: registered_objects(world, name) for name in remotes} if old else {}
    for (scope, name, plan), some in old.items():
        assert evidence is not None
        paths = {one.path for one in some if _is_needed(evidence, registered.get(name, ()), one)}
        needed = [one for one in some if one.path in paths]
        rest = [one for one in some if one.path not in paths]
        if dry_run:
            done.rescued += needed
            done.gone += rest
            done.bytes += sum(one.size for one in rest)
            continue
        place = world.place(scope, name)
        if needed:
            back = place.restore(plan, [one.path for one in needed], progress)
            came = set(back.done)
            done.rescued += [one for one in needed if one.path in came]
            done.left += back.left
        moved = place.purge(plan, [one.path for one in rest], progress)
        went = set(moved.done)
        done.gone += [one for one in rest if one.path in went]
        done.bytes += moved.bytes
        done.left += moved.left
    for name in vaults:
        _purge_vault(
            done, world, name, policy, request, older_than=older_than, now=now, grace=grace, wait=wait, dry_run=dry_run
        )
    return Purged(tuple(done.gone), done.bytes, tuple(done.rescued), done.young, tuple(done.left), tuple(done.waiting))


@dataclass
class _Tally:
    gone: list[Held] = field(default_factory=list)
    rescued: list[Held] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    young: int = 0
    bytes: int = 0


def _purge_vault(
    done: _Tally,
    world: World,
    name: str,
    policy: Policy,
    request: Request,
    *,
    older_than: timedelta,
    now: float,
    grace: timedelta,
    wait: timedelta,
    dry_run: bool,
) -> None:
    vault = world.vault(name)

    def live() -> Collection[str]:
        return live_files(vault, gather_for(world, request, policy, now=now))

    if not dry_run:
        done.waiting += settle(vault, live, grace=grace, recent=policy.minimum_age, wait=wait).waiting
    held = _held_by_vault(world, name)
    if dry_run:
        needed = live() if held else ()
        done.rescued += [one for one in held if one.path in needed]
        rest = [one for one in held if one.path not in needed]
        done.gone += [one for one in rest if one.since is not None and one.since >= older_than]
        done.young += sum(1 for one in rest if one.since is None or one.since < older_than)
        done.bytes += purge(vault, live, older_than=older_than, dry_run=True).bytes
        return
    done.bytes += purge(vault, live, older_than=older_than).bytes
    waiting = {one.path for one in _held_by_vault(world, name)}
    vault.refresh()
    back = vault.index.standing([one.path for one in held])
    done.young += len(waiting)
    done.rescued += [one for one in held if one.path not in waiting and one.path in back]
    done.gone += [one for one in held if one.path not in waiting and one.path not in back]


def _batches(world: World, remotes: Sequence[str]) -> Iterator[tuple[Place, Batch, Held]]:
    for scope, name, place in world.places(tuple(remotes)):
        for batch in place.batches():
            planned = _planned(batch)
            age = place.now() - batch.since
            for thing in batch.things:
                yield place, batch, _held(scope, name, batch, thing, age, planned)


def _held(
    scope: Scope, name: str, batch: Batch, thing: Thing, age: timedelta, planned: dict[tuple[str, str], PlannedObject]
) -> Held:
    what = planned.get((scope, thing.key)) or (planned.get(("runs", thing.key)) if scope == "workspace" else None)
    return Held(scope, name, batch.id, thing.key, thing.size, max(age, timedelta(0)), what)


def _planned(batch: Batch) -> dict[tuple[str, str], PlannedObject]:
    try:
        plan = read_plan(batch.plan)
    except HoldfastError:
        return {}  # of another program: what it took is shown by its path
    return {(entry.scope, entry.path): entry for entry in plan.objects}


def _held_by_vault(world: World, name: str) -> list[Held]:
    vault = world.vault(name)
    found = survey(vault.store, vault.jobs)
    waiting = waiting_files(found)
    if not waiting:
        return []
    since: dict[str, datetime] = {}
    for generation in generations(vault.store):
        if generation.ready is not None:
            for session in generation.condemned.segments:
                since[session] = generation.ready
    now = store_time(vault.store)
    held: dict[str, Held] = {}
    for segment in found.segments:
        for oid, size in zip(segment.rows.oids, segment.rows.sizes.tolist(), strict=True):
            if oid in waiting and segment.session in since:
                age = max(now - since[segment.session], timedelta(0))
                if oid not in held or age < (held[oid].since or age):
                    held[oid] = Held("vault", name, "", oid, size, age)
    planned = _planned_here(world, name)
    for oid, one in held.items():
        plan, what = planned.get(oid, ("", None))
        held[oid] = replace(one, plan=plan, what=what)
    return [held[oid] for oid in sorted(held)]


def _planned_here(world: World, name: str) -> dict[str, tuple[str, PlannedObject | None]]:
    """The files of a vault that plans took which were carried out here, with the plan's digest; the latest counts."""
    found: dict[str, tuple[str, PlannedObject | None]] = {}
    folder = world.project.root / APPLIED
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime) if folder.is_dir() else ():
        with contextlib.suppress(HoldfastError, OSError):  # a damaged one gives no names, and nothing rests on it
            plan = read_plan(path.read_bytes())
            files = [entry for entry in plan.removed if entry.scope == "vault"]
            same = {place for place in {entry.place for entry in files} if _is_same_vault(world, place, name)}
            found.update((entry.path, (plan.digest, entry)) for entry in files if entry.place in same)
    return found


def _is_same_vault(world: World, one: str, other: str) -> bool:
    """Whether two names are of one vault: the project's own may be called by its remote, or not at all."""
    try:
        return one == other or world.vault(one).url == world.vault(other).url
    except HoldfastError:
        return False


def _is_needed(evidence: Evidence, registered: Collection[Key], held: Held) -> bool:
    key = held.key
    if key is None:
        return False
    names = evidence.references.of(key)
    return bool(names and names[0].keeps) or key in registered or evidence.could_be_member(key, held.size) is not None


def _grouped(held: Iterable[Held]) -> dict[tuple[Scope, str, str], list[Held]]:
    groups: dict[tuple[Scope, str, str], list[Held]] = {}
    for one in held:
        groups.setdefault((one.scope, one.place, one.plan), []).append(one)
    return groups
