"""Collectors and writers that are broken on purpose: the sequences of `vault_world` catch each of them."""

from collections.abc import Callable, Collection, Iterator, Mapping, ValuesView
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from faults import FaultyStore
from holdfast.objectstore.store import Data, ObjectInfo, ObjectStore
from holdfast.vault import collecting, collection
from holdfast.vault.collecting import Live, Settled, generations
from holdfast.vault.marking import Marked, mark
from holdfast.vault.records import Entry
from holdfast.vault.repository import Vault
from holdfast.vault.segment import CONDEMNED, INDEX, READY_SUFFIX, SESSIONS
from holdfast.vault.session import Session
from holdfast.vault.survey import Survey
from vault_world import QUARANTINE, STEPS, Collector, LostError, World

# each is caught far earlier: after some tens, the rarest after some hundreds, on whatever seeds
SEEDS = 1500

Patch = pytest.MonkeyPatch


class ExperimentsIgnored(World):
    """A collector that does not look at experiments."""

    def live(self, store: ObjectStore) -> set[str]:
        roots = [item for clone in self.clones if not clone.hidden for item in clone.roots.items()]
        return super().live(store) - {oid for oid, root in roots if root.kind == "experiment"}


class RegistrationsIgnored(World):
    """A collector that knows its own git alone."""

    def live(self, store: ObjectStore) -> set[str]:  # noqa: ARG002
        return {oid for clone in self.clones if not clone.hidden for oid in clone.roots}


class CondemnedSeenFirst(World):
    """Writers that look at the vault before they announce themselves."""

    @contextmanager
    def session(self, vault: Vault) -> Iterator[Session]:
        vault.refresh()
        with Patch.context() as patch:
            patch.setattr(vault, "refresh", lambda: None)
            session = super().session(vault)
            patch.undo()
            with session:
                yield session


class CondemnedIgnored(World):
    """Writers that build upon what is condemned."""

    @contextmanager
    def session(self, vault: Vault) -> Iterator[Session]:
        store = vault.store.inner
        vault.store.inner = NothingCondemned(store)
        try:
            with super().session(vault) as session:
                vault.store.inner = store
                yield session
        finally:
            vault.store.inner = store


class NothingCondemned(FaultyStore):
    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        return iter(()) if prefix == CONDEMNED else super().list_objects(prefix, after=after)


class Meddler(Collector):
    """A collector for which the store is another one."""

    meddling: Callable[[ObjectStore], ObjectStore]

    def collect(self, vault: Vault, live: Live) -> None:
        with self.meddled(vault):
            super().collect(vault, live)

    def settle(self, vault: Vault, live: Live) -> None:
        with self.meddled(vault):
            super().settle(vault, live)

    def purge(self, vault: Vault, live: Live) -> None:
        with self.meddled(vault):
            super().purge(vault, live)

    @contextmanager
    def meddled(self, vault: Vault) -> Iterator[None]:
        store = vault.store.inner
        vault.store.inner = type(self).meddling(store)
        try:
            yield
        finally:
            vault.store.inner = store


class Overwriting(FaultyStore):
    def put_if_absent(self, key: str, data: Data) -> bool:
        if key.startswith(f"{INDEX}/") and not data:
            self.put(key, data)
            return True
        return super().put_if_absent(key, data)


class RevokesOverCommits(Meddler):
    """Revokes without create-if-absent."""

    meddling = Overwriting


@dataclass
class SessionsSeenFirst(FaultyStore):
    seen: list[ObjectInfo] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen = list(super().list_objects(SESSIONS))

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        return iter(self.seen) if prefix == SESSIONS else super().list_objects(prefix, after=after)


class ListsSessionsFirst(Meddler):
    """Lists sessions before it condemns."""

    meddling = SessionsSeenFirst


class NobodyAnnounced(FaultyStore):
    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        return iter(()) if prefix == SESSIONS else super().list_objects(prefix, after=after)


class WaitsForNobody(Meddler):
    """Does not wait for those who were announced before it condemned, nor revoke them."""

    meddling = NobodyAnnounced


class TidiesUp(Collector):
    """Deletes the empty segments that stand for revoked and collected sessions."""

    def purge(self, vault: Vault, live: Live) -> None:
        super().purge(vault, live)
        vault.store.delete_many([info.key for info in vault.store.list_objects(INDEX) if not info.size])


class PurgesUnasked(Collector):
    """Does not ask for the roots once more before it deletes."""

    def purge(self, vault: Vault, live: Live) -> None:  # noqa: ARG002
        collecting.purge(vault, None, older_than=QUARANTINE)


class ClaimsIgnored(Collector):
    """Takes what no root names, however young it is."""

    def collect(self, vault: Vault, live: Live) -> None:
        plan = collection.plan_collection(vault, live(), recent=timedelta(0))
        collection.collect(vault, plan, live, recent=timedelta(0))


def hasty(patch: Patch) -> Collector:
    """Deletes before it marks again."""

    def settle(vault: Vault, *_: object, **__: object) -> Settled:
        for generation in generations(vault.store):
            vault.store.put_if_absent(f"{CONDEMNED}/{generation.name}{READY_SUFFIX}", b"")
        return Settled((), (), 0)

    patch.setattr(collection, "settle", settle)
    patch.setattr(collecting, "settle", settle)
    return PurgesUnasked()


def forgets_claims(patch: Patch) -> Collector:
    """Copies files, and not that they were claimed."""
    patch.setattr(collecting, "_claims", lambda *_: {})
    return Collector()


class Direct(dict[bytes, Entry]):
    """Places of blobs, of which those that are bases alone are forgotten."""

    wanted: Collection[bytes] = ()

    def values(self) -> ValuesView[Entry]:
        return {name: entry for name, entry in self.items() if name in self.wanted}.values()


def forgets_bases(patch: Patch) -> Collector:
    """Takes a base that belongs to no file any more for garbage."""

    def forgetful(found: Survey, *avoided: Collection[str], needed: Collection[str] | None = None) -> Marked:
        marked = mark(found, *avoided, needed=needed)
        entries = Direct(marked.entries)
        entries.wanted = {piece.blob for recipe, _ in marked.recipes.values() for piece in recipe.pieces}
        used: dict[str, int] = {}
        for entry in entries.values():
            used[entry.pack] = used.get(entry.pack, 0) + entry.stored
        return replace(marked, entries=entries, used=used)

    patch.setattr(collection, "mark", forgetful)
    patch.setattr(collecting, "mark", forgetful)
    return Collector()


BROKEN: Mapping[str, Callable[[Patch], tuple[Collector, type[World]]]] = {
    **{
        world.__name__: lambda _, world=world: (Collector(), world)  # type: ignore[misc]
        for world in (ExperimentsIgnored, RegistrationsIgnored, CondemnedSeenFirst, CondemnedIgnored)
    },
    **{
        kind.__name__: lambda _, kind=kind: (kind(), World)  # type: ignore[misc]
        for kind in (
            RevokesOverCommits,
            ListsSessionsFirst,
            WaitsForNobody,
            TidiesUp,
            PurgesUnasked,
            ClaimsIgnored,
        )
    },
    **{
        make.__name__: lambda patch, make=make: (make(patch), World)  # type: ignore[misc]
        for make in (hasty, forgets_claims, forgets_bases)
    },
}


def caught_after(name: str, first: int, count: int) -> int | None:
    """After how many sequences something is lost; None for never."""
    with Patch.context() as patch:
        collector, world = BROKEN[name](patch)
        for seed in range(first, first + count):
            try:
                world(seed, collector).run(STEPS)
            except LostError:
                return seed - first + 1
    return None


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_caught(name: str) -> None:
    after = caught_after(name, 0, SEEDS)
    print(f"{name}: caught after {after} sequences")
    assert after
