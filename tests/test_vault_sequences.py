"""Random sequences of pushes, collections, crashes and leaps of the clock: nothing that is needed is ever lost.

Collectors that are broken on purpose are caught by the same sequences.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from holdfast.objectstore.store import ObjectStore
from holdfast.vault import collecting, collection
from holdfast.vault.collecting import Settled, Waiting, generations, store_time
from holdfast.vault.repository import Vault
from holdfast.vault.segment import CONDEMNED, INDEX, READY_SUFFIX, SESSIONS
from vault_world import QUARANTINE, Collector, LostError, World

# test_vault_sequences_more has the other half, for another process
SEEDS, STEPS = 1000, 12
# a broken collector is caught among so many
BROKEN_SEEDS = 4000

Live = Callable[[], set[str]]


def run_many(first: int, count: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        world = World(seed, Collector())
        world.run(STEPS)
        counts.update(world.counts)
    print(f"{count} sequences: {dict(counts)}")
    return counts


def test_nothing_is_lost_in_many_sequences() -> None:
    counts = run_many(0, SEEDS)
    assert min(counts[name] for name in ("push", "pause", "go_on", "collect", "settle", "purge", "failed")) > SEEDS / 5


@pytest.mark.soak
def test_nothing_is_lost_in_very_many_sequences() -> None:
    run_many(10_000, 20 * SEEDS)


def is_caught(collector: Collector, world: type[World] = World) -> bool:
    """Whether it loses something in one of the sequences."""
    for seed in range(BROKEN_SEEDS):
        try:
            world(seed, collector).run(STEPS)
        except LostError:
            return True
    return False


class ExperimentsIgnored(World):
    def live(self, store: ObjectStore) -> set[str]:
        experiments = {oid for clone in self.clones for oid, kind in clone.roots.items() if kind == "experiment"}
        return super().live(store) - experiments


class RegistrationsIgnored(World):
    def live(self, store: ObjectStore) -> set[str]:  # noqa: ARG002
        return {oid for clone in self.clones if not clone.hidden for oid in clone.roots}


@pytest.mark.parametrize("world", [ExperimentsIgnored, RegistrationsIgnored])
def test_a_collector_that_ignores_some_roots_is_caught(world: type[World]) -> None:
    assert is_caught(Collector(), world)


def test_a_collector_that_deletes_before_it_marks_again_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(vault: Vault, *_: object, **__: object) -> Settled:
        for generation in generations(vault.store):
            vault.store.put_if_absent(f"{CONDEMNED}/{generation.name}{READY_SUFFIX}", b"")
        return Settled((), (), 0)

    class Hasty(Collector):
        def settle(self, vault: Vault, live: Live) -> None:  # noqa: ARG002
            settle(vault)

        def purge(self, vault: Vault, live: Live) -> None:  # noqa: ARG002
            collecting.purge(vault, None, older_than=QUARANTINE)

    monkeypatch.setattr(collection, "settle", settle)
    assert is_caught(Hasty())


def undecided(store: ObjectStore) -> dict[str, timedelta]:
    now = store_time(store)
    announced = {info.key.removeprefix(f"{SESSIONS}/"): now - info.modified for info in store.list_objects(SESSIONS)}
    decided = {info.key.removeprefix(f"{INDEX}/") for info in store.list_objects(INDEX)}
    return {session: age for session, age in announced.items() if session not in decided}


@pytest.mark.soak  # rare: among some thousands
def test_a_collector_that_revokes_without_create_if_absent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(store: ObjectStore, grace: timedelta) -> list[Waiting]:
        found = []
        for session, age in sorted(undecided(store).items()):
            if age < grace:
                found.append(Waiting(session, age))
            else:
                store.put(f"{INDEX}/{session}", b"")
                store.delete(f"{SESSIONS}/{session}")
        return found

    monkeypatch.setattr(collecting, "_waiting", waiting)
    assert is_caught(Collector())


@pytest.mark.soak  # rare: among some thousands
def test_a_collector_that_lists_sessions_before_it_condemns_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    before: set[str] = set()
    waits = collecting._waiting

    @contextmanager
    def looking(vault: Vault) -> Iterator[None]:
        before.clear()
        before.update(undecided(vault.store))
        yield

    class Early(Collector):
        def collect(self, vault: Vault, live: Live) -> None:
            with looking(vault):
                super().collect(vault, live)

        def settle(self, vault: Vault, live: Live) -> None:
            with looking(vault):
                super().settle(vault, live)

    def waiting(store: ObjectStore, grace: timedelta) -> list[Waiting]:
        if not before:
            return []
        return [one for one in waits(store, grace) if one.session in before]

    monkeypatch.setattr(collecting, "_waiting", waiting)
    assert is_caught(Early())
