"""A world of clones that push to one vault, and of collectors, on a clock of its own: a model says what must stay.

What must stay is known without looking at the vault: a file that was acknowledged stays for the minimum age, and as
long as a root names it without a gap. Whatever the order of what happens, it reads back.
"""

import contextlib
import hashlib
import io
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path

from faults import FaultyStore, Kind, Rule
from holdfast.errors import HoldfastError
from holdfast.formats.source import MemorySource
from holdfast.objectstore.store import (
    GAP_BYTES,
    RANGE_JOBS,
    Data,
    ObjectInfo,
    ObjectNotFoundError,
    ObjectStore,
    TruncatedError,
)
from holdfast.vault import collecting
from holdfast.vault.check import check_vault
from holdfast.vault.collection import collect, plan_collection
from holdfast.vault.repository import Vault, init_vault, open_vault
from holdfast.vault.roots import register, registrations, words
from holdfast.vault.session import RevokedError, Session
from vaults import SMALL_BLOCK, SMALL_PACK, bf16_history, noise, oid_of

MINIMUM_AGE, QUARANTINE, GRACE = timedelta(days=14), timedelta(days=7), timedelta(hours=6)
CLONES = 3


class LostError(AssertionError):
    """Something that must be there is not."""


@dataclass
class Clock:
    """What time the store has."""

    now: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass
class ClockedStore:
    """A store in memory whose objects are written when a clock says so. The real one takes a thread for every call."""

    clock: Clock
    objects: dict[str, tuple[bytes, datetime]] = field(default_factory=dict)
    url: str = "memory://"

    def head(self, key: str) -> ObjectInfo:
        data, written = self._find(key)
        return ObjectInfo(key, len(data), hashlib.md5(data).hexdigest(), written)

    def get(self, key: str, *, etag: str = "") -> bytes:  # noqa: ARG002
        return self._find(key)[0]

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:  # noqa: ARG002
        data = self._find(key)[0]
        if offset + count > len(data):
            raise TruncatedError(f"{key} is too short")
        return data[offset : offset + count]

    def get_ranges(
        self,
        key: str,
        spans: Sequence[tuple[int, int]],
        *,
        gap_bytes: int = GAP_BYTES,  # noqa: ARG002
        jobs: int = RANGE_JOBS,  # noqa: ARG002
    ) -> list[memoryview]:
        return [memoryview(self.get_range(key, offset, count)) for offset, count in spans]

    def put(self, key: str, data: Data) -> None:
        self.objects[key] = (bytes(data), self.clock.now)

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def put_if_absent(self, key: str, data: Data) -> bool:
        if key in self.objects:
            return False
        self.put(key, data)
        return True

    def copy(self, source: ObjectInfo, target: str) -> None:
        self.put(target, self._find(source.key)[0])

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self.delete(key)

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        wanted = f"{prefix}/" if prefix else ""
        return iter([self.head(key) for key in sorted(self.objects) if key.startswith(wanted) and key > after])

    def list_folders(self, prefix: str = "") -> list[str]:
        start = len(prefix) + 1 if prefix else 0
        names = {key[start:].partition("/") for key in self.objects if not prefix or key.startswith(f"{prefix}/")}
        return sorted({name for name, slash, _ in names if slash})

    def _find(self, key: str) -> tuple[bytes, datetime]:
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectNotFoundError(f"{key} is not there") from None


@lru_cache(maxsize=1)
def pool() -> tuple[bytes, ...]:
    """The files that clones push: versions of a checkpoint, and others that share nothing."""
    return (*bf16_history(4, elements=3000), *(noise(1500 + 400 * number, number) for number in range(5)))


@dataclass
class Clone:
    """A clone: what its git names, and a vault whose index it may not have looked at for long.

    Attributes:
        roots: oids by the kind of ref that names them.
        hidden: its roots are known to collectors by its registrations alone.
        said: of its roots those that it could register.
        paused: a push that was stopped, with what it is to send.
    """

    name: str
    vault: Vault
    hidden: bool
    roots: dict[str, str] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    paused: tuple[contextlib.ExitStack, Session, list[int]] | None = None


@dataclass
class World:
    """All of it. ``collector`` may be replaced by one that is broken."""

    seed: int
    collector: "Collector"
    clock: Clock = field(default_factory=Clock)
    told: dict[str, datetime] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.store = ClockedStore(self.clock)
        init_vault(self.store, None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, jobs=1).close()
        # one that looks at the vault only when it does not find something
        self.reader = open_vault(self.store, None, jobs=1)
        self.clones = [
            Clone(f"clone{number}", open_vault(self.store, None, jobs=1), hidden=number == 0)
            for number in range(CLONES)
        ]

    def run(self, steps: int) -> None:
        """So many steps, each followed by a look at what must be there; in the end all that is under way ends."""
        for _ in range(steps):
            step = self.random.choices(
                (self.push, self.pause, self.go_on, self.unroot, self.tick, self.collect, self.settle, self.purge),
                (5, 2, 2, 3, 4, 4, 2, 2),
            )[0]
            self.counts[step.__name__] = self.counts.get(step.__name__, 0) + 1
            step()
            self.look()
        self.end()

    def push(self, clone: Clone | None = None, numbers: Sequence[int] | None = None) -> None:
        clone = clone or self.random.choice(self.clones)
        numbers = numbers or self.random.sample(range(len(pool())), self.random.randint(1, 3))

        def send(vault: Vault) -> None:
            with vault.session() as session:
                put(session, numbers)
                session.commit()
            self.acknowledge(clone, numbers)
            self.say(clone, vault)

        self.perhaps(send, clone)

    def pause(self) -> None:
        """A push is stopped after it announced itself and looked, or later."""
        clone = self.random.choice(self.clones)
        if clone.paused is not None:
            return
        numbers = self.random.sample(range(len(pool())), self.random.randint(1, 3))
        stack = contextlib.ExitStack()
        session = stack.enter_context(clone.vault.session())
        if self.random.random() < 0.6:
            put(session, numbers)
        clone.paused = (stack, session, numbers)

    def go_on(self, clone: Clone | None = None) -> None:
        clone = clone or self.random.choice(self.clones)
        if clone.paused is None:
            return
        stack, session, numbers = clone.paused
        clone.paused = None
        try:
            with stack:
                put(session, numbers)
                session.commit()
        except RevokedError:
            clone.vault.refresh()
            self.push(clone, numbers)
            return
        self.acknowledge(clone, numbers)
        self.say(clone, clone.vault)

    def unroot(self) -> None:
        clone = self.random.choice(self.clones)
        gone = sorted(clone.roots)
        if gone and self.random.random() < 0.7:
            gone = [self.random.choice(gone)]
        for oid in gone:
            del clone.roots[oid]
        self.say(clone, clone.vault)

    def tick(self) -> None:
        self.clock.now += timedelta(hours=self.random.choice((1, 5, 24 * 3, 24 * 8, 24 * 16)))

    def collect(self) -> None:
        self.perhaps(lambda vault: self.collector.collect(vault, lambda: self.live(vault.store)))

    def settle(self) -> None:
        self.perhaps(lambda vault: self.collector.settle(vault, lambda: self.live(vault.store)))

    def purge(self) -> None:
        self.perhaps(lambda vault: self.collector.purge(vault, lambda: self.live(vault.store)))

    def end(self) -> None:
        """Nothing fails any more: what is under way ends, a last collection takes what nobody needs, all is well."""
        self.clean_up(15, 8)
        for clone in self.clones:
            self.go_on(clone)
        self.look()
        self.clean_up(15)
        for vault in (self.reader, *(clone.vault for clone in self.clones)):
            vault.close()
        result = check_vault(self.store, jobs=1, read_data=True)
        assert result.clean, (self.seed, result.findings)

    def clean_up(self, *waits: int) -> None:
        """Whole collections, each so many days after the one before."""
        for days in waits:
            self.clock.now += timedelta(days=days)
            with open_vault(self.store, None, jobs=1) as vault:
                for step in (self.collector.collect, self.collector.settle, self.collector.purge):
                    step(vault, lambda: self.live(self.store))
                    self.look()

    def acknowledge(self, clone: Clone, numbers: Sequence[int]) -> None:
        for number in numbers:
            oid = oid_of(pool()[number])
            self.told[oid] = self.clock.now
            clone.roots[oid] = self.random.choice(("branch", "experiment"))

    def say(self, clone: Clone, vault: Vault) -> None:
        if clone.hidden:
            clone.said &= clone.roots.keys()
            replaced = words(vault.store, "a" * 32)
            register(vault.store, "a" * 32, clone.name, clone.roots, replaced)
            # what was acknowledged too long ago, and not registered since, may be gone: the next push sends it again
            clone.said |= {oid for oid in clone.roots if self.clock.now - self.told[oid] < MINIMUM_AGE}

    def live(self, store: ObjectStore) -> set[str]:
        """What a collector can know."""
        seen = {oid for clone in self.clones if not clone.hidden for oid in clone.roots}
        return seen | {oid for one in registrations(store) for oid in one.files}

    def needed(self) -> set[str]:
        """What must be there, whatever was done."""
        young = {oid for oid, since in self.told.items() if self.clock.now - since < MINIMUM_AGE}
        return young | {oid for clone in self.clones for oid in (clone.said if clone.hidden else clone.roots)}

    def look(self) -> None:
        needed = self.needed()
        for number, data in enumerate(pool()):
            if oid_of(data) in needed:
                out = io.BytesIO()
                try:
                    self.reader.get(oid_of(data), out)
                except HoldfastError as error:
                    raise LostError(f"seed {self.seed}: file {number} is lost: {error}") from error
                assert out.getvalue() == data, (self.seed, number)

    def meanwhile(self) -> None:
        """What others do between two calls of a store."""
        stopped = [clone for clone in self.clones if clone.paused is not None]
        chance = self.random.random()
        if stopped and chance < 0.5:
            self.go_on(self.random.choice(stopped))
        elif chance < 0.7:
            self.pause()
        else:
            clone = self.random.choice(self.clones)
            numbers = self.random.sample(range(len(pool())), 2)
            with clone.vault.session() as session:
                put(session, numbers)
                session.commit()
            self.acknowledge(clone, numbers)
            self.say(clone, clone.vault)

    def perhaps(self, act: Callable[[Vault], None], clone: Clone | None = None) -> None:
        """Do something with a vault one of whose calls may fail; it is given up then, as by a process that was killed."""
        rules = []
        if self.random.random() < 0.5:
            kinds: tuple[Kind, ...] = ("refuse", "lose", "duplicate", "delay", "delay")
            rules = [Rule(self.random.choice(kinds), at=self.random.randint(1, 40))]
        try:
            if clone is not None and not rules:
                act(clone.vault)
            else:
                with open_vault(FaultyStore(self.store, rules, wait=self.meanwhile), None, jobs=1) as vault:
                    act(vault)
        except HoldfastError:
            self.counts["failed"] = self.counts.get("failed", 0) + 1


class Collector:
    """The collector as it is."""

    def collect(self, vault: Vault, live: Callable[[], set[str]]) -> None:
        plan = plan_collection(vault, live(), recent=MINIMUM_AGE, grace=GRACE)
        collect(vault, plan, live, recent=MINIMUM_AGE, grace=GRACE)

    def settle(self, vault: Vault, live: Callable[[], set[str]]) -> None:
        collecting.settle(vault, live, recent=MINIMUM_AGE, grace=GRACE)

    def purge(self, vault: Vault, live: Callable[[], set[str]]) -> None:
        collecting.purge(vault, live, older_than=QUARANTINE)


def put(session: Session, numbers: Sequence[int]) -> None:
    """Each file, versions of the checkpoint against the one before."""
    known = session.known([oid_of(pool()[number]) for number in numbers])
    session.claim(known)
    for number in sorted(numbers):
        oid = oid_of(pool()[number])
        if oid not in known:
            base = oid_of(pool()[number - 1]) if 0 < number < 4 else None
            session.put(oid, MemorySource(pool()[number]), base_oid=base)
