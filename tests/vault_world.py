"""A world of clones that push to one vault, and of collectors, on a clock of its own: a model says what must stay.

What a clone or a collector does is a process that may stop before any call of the store, for as long as others like,
go on, or be killed there. What must stay is known without looking at the vault: a file that was acknowledged stays for
the minimum age, and as long as a root names it without a gap. Whatever the order of what happens, it reads back.
"""

import contextlib
import io
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, lru_cache

import pytest
import zstandard

from faults import Result
from holdfast.errors import HoldfastError, StalePlanError
from holdfast.formats.source import MemorySource
from holdfast.objectstore.store import ObjectStore
from holdfast.vault import collecting, encoding, index, session, sink, survey
from holdfast.vault.check import check_vault
from holdfast.vault.codec import encode
from holdfast.vault.collection import collect, plan_collection
from holdfast.vault.index_file import IndexFile
from holdfast.vault.pipeline import Pipeline
from holdfast.vault.repository import Vault, init_vault, open_vault
from holdfast.vault.roots import register, registrations, words
from holdfast.vault.segment import CONDEMNED, INDEX, READY_SUFFIX
from holdfast.vault.session import RevokedError, Session
from processes import Clock, ClockedStore, Process, SteppedStore
from vaults import SMALL_BLOCK, bf16_history, noise, oid_of

# safety rests on no clock: what matters of these is their order alone
MINIMUM_AGE, GRACE, QUARANTINE = timedelta(hours=24), timedelta(hours=6), timedelta(hours=2)
LEAPS = (1, 3, 3, 7, 7, 30)
AFTER_QUARANTINE = 3
# all that a session sends is one pack, sent at its end
PACK_BYTES = 1 << 21
# checkpoints are longer, and are stored against one another
BUNDLED_BYTES = 4 << 10
VERSIONS, SHARED, ONCE = 3, 4, 12
# of a sequence, between its beginning and its end
STEPS = 6


class LostError(AssertionError):
    """Something that must be there is not."""


@lru_cache(maxsize=1)
def pool() -> tuple[bytes, ...]:
    """What clones push: versions of a checkpoint and a file, so few that clones meet; and files that are pushed once."""
    return (*bf16_history(VERSIONS, elements=4500), *(noise(700, number) for number in range(SHARED - VERSIONS + ONCE)))


@lru_cache(maxsize=1)
def names() -> dict[str, int]:
    """The numbers of the files, by oid."""
    return {oid_of(data): number for number, data in enumerate(pool())}


class AtOnce(Pipeline):
    """A pipeline whose work is done by whoever asks for it: what a process asks of the store has one order."""

    def submit(self, work: Callable[[], Result], done: Callable[[Result], None], *, ahead: int = 0) -> None:  # noqa: ARG002
        self._check()
        try:
            done(work())
        except BaseException as error:
            self._failure = error
            raise


encoded = lru_cache(maxsize=1000)(encode)


@dataclass(eq=False)
class Root:
    """A ref that names a file, from when it was made until it is deleted."""

    kind: str


@dataclass(eq=False)
class Clone:
    """A clone: what its git names.

    Attributes:
        id: of its registrations.
        hidden: its roots are known to collectors by its registrations alone.
        roots: by oid.
        kept: of its roots those that collectors could know of in time.
    """

    id: str
    hidden: bool
    roots: dict[str, Root] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Seat:
    """Where one process at a time runs: its vault has an index that it may not have looked at for long."""

    store: SteppedStore
    clone: Clone | None = None

    @cached_property
    def vault(self) -> Vault:
        process, self.store.process = self.store.process, None
        try:
            return open_vault(self.store, None, jobs=1)
        finally:
            self.store.process = process


@dataclass
class World:
    """All of it. ``collector`` may be replaced by one that is broken."""

    seed: int
    collector: "Collector"
    clock: Clock = field(default_factory=Clock)
    told: dict[str, datetime] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    trace: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.oids = list(names())
        self._decoded: set[tuple[str, frozenset[tuple[str, int]] | None]] = set()
        self._seen: set[str] = set()
        self._changes = -1
        self._once = SHARED
        self._nested = False

    def run(self, steps: int) -> None:
        """So many steps, each followed by a look at what must be there; in the end all that is under way ends."""
        with drawn(self.seed):
            self.store = ClockedStore(self.clock)
            # one that looks at the vault only when it does not find something, or now and then
            self.reader = init_vault(self.store, None, block_bytes=SMALL_BLOCK, pack_bytes=PACK_BYTES, jobs=1)
            self.clones = [Clone(f"{number:032x}", hidden=number == 0) for number in range(3)]
            # people work in two windows of one clone
            self.late: list[Callable[[], object]] = []
            self.writers = [self._seat(clone) for clone in (self.clones[0], *self.clones)]
            self.collectors = [self._seat() for _ in range(2)]
            try:
                self.begin()
                for _ in range(steps):
                    weights = self.weights()
                    step = self.random.choices(list(weights), list(weights.values()))[0]
                    self._say(step.__name__)
                    step()
                    self.look()
                self.end()
            finally:
                for process in self.stopped():
                    with contextlib.suppress(Exception):
                        process.kill()

    def begin(self) -> None:
        """What was pushed long ago, much of which nobody needs any more; a push, under way since then or not; a collection."""
        for _ in range(2):
            self.push(hurries=True)
        self.unroot(hurries=True)
        early = self.random.random() < 0.7
        if early:
            self.push(hurries=False)
        self.clock.now += timedelta(hours=max(LEAPS))
        if not early:
            self.push(hurries=False)
        self.look()
        self.collect(hurries=False)
        self.look()

    def weights(self) -> dict[Callable[[], None], int]:
        """What may happen next, and how likely that is: rather what there is an occasion for."""
        condemned = [key for key in self.store.objects if key.startswith(CONDEMNED)]
        ready = sum(key.endswith(READY_SUFFIX) for key in condemned)
        pending = len(condemned) - 2 * ready
        stopped = len(self.stopped())
        return {
            self.push: 5,
            self.unroot: 2,
            self.name_again: 2 if ready else 0,
            self.tick: 4,
            self.collect: 2 if pending else 6,
            self.settle: 6 if pending else 0,
            self.purge: 6 if ready else 0,
            self.go_on: 3 * min(stopped, 2),
            self.kill: 1 if stopped else 0,
            self.arrive: 2 if self.late else 0,
        }

    def stopped(self) -> list[Process]:
        """What is under way."""
        seats = (*self.writers, *self.collectors)
        return [seat.store.process for seat in seats if seat.store.process is not None]

    def push(self, *, hurries: bool | None = None) -> None:
        numbers = self.random.sample(range(SHARED), self.random.randint(1, 2))
        if self._once < len(pool()) and self.random.random() < 0.7:
            numbers.append(self._once)
            self._once += 1
        self._begin(self.writers, lambda seat: self._pushing(seat, numbers), f"push {numbers}", hurries=hurries)

    def unroot(self, *, hurries: bool | None = None) -> None:
        """A clone deletes refs."""
        self._begin(self.writers, self._unrooting, "unroot", hurries=hurries)

    def name_again(self) -> None:
        """A ref names a file again that nobody needed any more, and that can still be read: a purge brings it back."""
        if any(process.name == "purge" for process in self.stopped()):
            return  # it may have asked for the roots already, as may a garbage collection of git
        clone = self.random.choice([clone for clone in self.clones if not clone.hidden])
        oid = self.random.choice(self.oids[: self._once])
        if oid in self.told and oid not in clone.kept:
            with contextlib.suppress(HoldfastError):
                self.reader.get(oid, io.BytesIO())
                clone.roots.setdefault(oid, Root("branch"))
                clone.kept.add(oid)
                self.counts["named again"] += 1

    def tick(self) -> None:
        self.clock.now += timedelta(hours=self.random.choice(LEAPS))

    def collect(self, *, hurries: bool | None = None) -> None:
        def work(seat: Seat) -> None:
            self.collector.collect(seat.vault, self._live(seat))

        self._begin(self.collectors, work, "collect", hurries=hurries)

    def settle(self) -> None:
        self._begin(self.collectors, lambda seat: self.collector.settle(seat.vault, self._live(seat)), "settle")

    def purge(self) -> None:
        self._begin(self.collectors, lambda seat: self.collector.purge(seat.vault, self._live(seat)), "purge")

    def go_on(self) -> None:
        if stopped := self.stopped():
            self._let(self.random.choice(stopped), hurries=self.random.random() < 0.5)

    def arrive(self) -> None:
        """Something arrives that its sender has given up."""
        if self.late:
            self.late.pop(self.random.randrange(len(self.late)))()

    def kill(self) -> None:
        if stopped := self.stopped():
            process = self.random.choice(stopped)
            process.kill()
            self._leave(process)

    def end(self) -> None:
        """What is under way ends, late, a last collection takes what nobody needs, and all is well."""
        if self.stopped() or self.late:
            if self.random.random() < 0.5:
                self.clean_up(min(hours for hours in LEAPS if timedelta(hours=hours) > GRACE))
            while stopped := self.stopped():
                self._let(self.random.choice(stopped), hurries=True)
                self.look()
            while self.late:
                self.arrive()
                self.look()
        self._sweep(self.collector.purge, AFTER_QUARANTINE)
        self.clean_up(max(LEAPS))
        if not self.check():
            # packs of a session that was announced until a moment ago
            self.clean_up(max(LEAPS))
            assert self.check(), f"seed {self.seed}: something is left that nobody needs"

    def check(self) -> bool:
        """Whether there is nothing but what somebody needs."""
        result = check_vault(self.store, jobs=1, read_data=self.seed % 8 == 0)
        if not result.clean:
            raise LostError(f"seed {self.seed}: {result.findings}")
        return not result.findings

    def clean_up(self, hours: int) -> None:
        """A whole collection, in which nothing fails."""
        self._sweep(self.collector.collect, hours)
        self._sweep(self.collector.purge, AFTER_QUARANTINE)

    def _sweep(self, step: Callable[[Vault, Callable[[], set[str]]], None], hours: int) -> None:
        self.clock.now += timedelta(hours=hours)
        try:
            step(self.reader, lambda: self.live(self.store))
        except HoldfastError as error:
            raise LostError(f"seed {self.seed}: nobody can collect any more: {error}") from error
        self.look()

    def live(self, store: ObjectStore) -> set[str]:
        """What a collector can know."""
        seen = {oid for clone in self.clones if not clone.hidden for oid in clone.roots}
        return seen | {oid for one in registrations(store) for oid in one.files}

    def session(self, vault: Vault) -> contextlib.AbstractContextManager[Session]:
        """A writer's visit."""
        return vault.session(max_restore_ratio=self.random.choice((1, 8)))

    def needed(self) -> set[str]:
        """What must be there, whatever was done."""
        young = {oid for oid in self.told if self._young(oid)}
        return young.union(*(clone.kept for clone in self.clones))

    def look(self) -> None:
        """Read all that is needed and may have changed."""
        if self.store.changes != self._changes:
            self._changes = self.store.changes
            self._seen.clear()
            if self.random.random() < 0.5:
                self.reader.refresh()
        needed = sorted(self.needed() - self._seen)
        places = self._places(needed) if needed else {}
        for oid in needed:
            if (oid, places.get(oid)) not in self._decoded:
                out = io.BytesIO()
                try:
                    self.reader.get(oid, out)
                except HoldfastError as error:
                    raise LostError(f"seed {self.seed}: file {names()[oid]} is lost: {error}") from error
                assert out.getvalue() == pool()[names()[oid]], (self.seed, oid)
                self._decoded.update(self._places([oid]).items())
            self._seen.add(oid)

    def _places(self, oids: Sequence[str]) -> dict[str, frozenset[tuple[str, int]]]:
        """Where the reader finds files, if it need not look again; what lies in packs never changes."""
        with contextlib.suppress(HoldfastError):
            recipes = self.reader.index.recipes(oids)
            ids = {oid: {piece.blob for piece in recipe.pieces} for oid, recipe in recipes.items()}
            plan = self.reader.reader().plan(name for some in ids.values() for name in some)
            if {entry.pack for entry in plan.entries.values()} <= self.store.objects.keys():
                chains = {oid: [entry for name in some for entry in plan.chain(name)] for oid, some in ids.items()}
                return {oid: frozenset((entry.pack, entry.offset) for entry in chain) for oid, chain in chains.items()}
        return {}

    def _young(self, oid: str) -> bool:
        return self.clock.now - self.told[oid] < MINIMUM_AGE

    def _seat(self, clone: Clone | None = None) -> Seat:
        return Seat(SteppedStore(self.store, late=self.late), clone)

    def _live(self, seat: Seat) -> Callable[[], set[str]]:
        return lambda: self.live(seat.vault.store)

    def _begin(
        self, seats: Sequence[Seat], work: Callable[[Seat], None], name: str, *, hurries: bool | None = None
    ) -> None:
        free = [seat for seat in seats if seat.store.process is None]
        if not free:
            self.go_on()
            return
        seat = self.random.choice(free)
        process = Process(name, lambda: work(seat), self.random)
        seat.store.process = process
        self._let(process, hurries=self.random.random() < 0.25 if hurries is None else hurries)

    def _let(self, process: Process, *, hurries: bool) -> None:
        process.go_on(hurries=hurries)
        if process.ended:
            self._leave(process)
        else:
            self.counts["stopped"] += 1
            self._say(f"  {process.name} stops before {process.at}")
            self._meanwhile(process)

    def _meanwhile(self, process: Process) -> None:
        """Often something happens right where a process stopped, and it goes on at once then."""
        if self._nested or self.random.random() < 0.1:
            return
        self._nested = True
        others = [other for other in self.stopped() if other is not process]
        if others and self.random.random() < 0.7:
            self._let(self.random.choice(others), hurries=self.random.random() < 0.8)
        elif any(seat.store.process is process for seat in self.collectors):
            self.push()
        else:
            self.collect()
        self._nested = False
        if not process.ended and self.random.random() < 0.6:
            self._let(process, hurries=self.random.random() < 0.5)

    def _leave(self, process: Process) -> None:
        for seat in (*self.writers, *self.collectors):
            if seat.store.process is process:
                seat.store.process = None
        self.counts["killed" if process.killed else "failed" if process.failed else process.name.split()[0]] += 1
        self._say(f"  {process.name} {'is killed' if process.killed else 'fails' if process.failed else 'is done'}")

    def _pushing(self, seat: Seat, numbers: Sequence[int]) -> None:
        clone = seat.clone
        assert clone is not None
        replaced = words(seat.vault.store, clone.id) if clone.hidden else []
        try:
            name = self._send(seat, numbers)
        except RevokedError:
            self.counts["revoked"] += 1
            name = self._send(seat, numbers)
        since = self.store.first[f"{INDEX}/{name}"]
        for number in numbers:
            oid = self.oids[number]
            self.told[oid] = max(since, self.told.get(oid, since))
            if self.random.random() < 0.4:  # else somebody is told of it, and names it nowhere
                clone.roots.setdefault(oid, Root(self.random.choice(("branch", "experiment"))))
            self._say(f"  clone {clone.id[-1]} is told of {number}; named: {oid in clone.roots}")
        if clone.hidden:
            self._register(seat, clone, replaced)
        else:
            # what was acknowledged too late may be gone: the next push sends it again
            clone.kept.update(oid for oid in clone.roots if oid in self.told and self._young(oid))

    def _send(self, seat: Seat, numbers: Sequence[int]) -> str:
        with self.session(seat.vault) as visit:
            put(visit, numbers, self.random)
            visit.commit()
            return visit.id

    def _unrooting(self, seat: Seat) -> None:
        clone = seat.clone
        assert clone is not None
        gone = sorted(clone.roots)
        if gone and self.random.random() < 0.6:
            gone = [self.random.choice(gone)]
        for oid in gone:
            del clone.roots[oid]
            clone.kept.discard(oid)
        self._say(f"  clone {clone.id[-1]} no longer names {[names()[oid] for oid in gone]}")
        if clone.hidden:
            self._register(seat, clone, words(seat.vault.store, clone.id))

    def _register(self, seat: Seat, clone: Clone, replaced: Sequence[str]) -> None:
        said = dict(clone.roots)
        register(seat.vault.store, clone.id, "clone", said, replaced)
        # not what was named again meanwhile: who did that says it
        clone.kept.update(oid for oid, root in said.items() if clone.roots.get(oid) is root and self._young(oid))

    def _say(self, text: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.clock.now:%m-%d %H} {text}")


class Collector:
    """The collector as it is."""

    def collect(self, vault: Vault, live: Callable[[], set[str]]) -> None:
        try:
            self._collect(vault, live)
        except StalePlanError:
            self._collect(vault, live)

    def _collect(self, vault: Vault, live: Callable[[], set[str]]) -> None:
        plan = plan_collection(vault, live(), recent=MINIMUM_AGE, grace=GRACE)
        collect(vault, plan, live, recent=MINIMUM_AGE, grace=GRACE)

    def settle(self, vault: Vault, live: Callable[[], set[str]]) -> None:
        collecting.settle(vault, live, recent=MINIMUM_AGE, grace=GRACE)

    def purge(self, vault: Vault, live: Callable[[], set[str]]) -> None:
        collecting.purge(vault, live, older_than=QUARANTINE)


def put(visit: Session, numbers: Sequence[int], chances: random.Random) -> None:
    """Each file, versions of the checkpoint against a neighbour."""
    oids = list(names())
    known = visit.known([oids[number] for number in numbers])
    visit.claim(known)
    for number in numbers:
        if oids[number] not in known:
            base = number + chances.choice((-1, -1, 1))
            base_oid = oids[base] if number < VERSIONS and 0 <= base < VERSIONS else None
            visit.put(oids[number], MemorySource(pool()[number]), base_oid=base_oid)


@contextlib.contextmanager
def drawn(seed: int) -> Iterator[None]:
    """Names that are drawn by lot come from the seed, too, and checkpoints of a few KiB are taken for large."""
    chances = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda nbytes=32: chances.randbytes(nbytes).hex())
        patch.setattr(session, "SMALL_BYTES", BUNDLED_BYTES)
        # everybody reads the same segments, and sends the same blobs, again and again
        for module in (survey, index):
            patch.setattr(module, "read_segment", lru_cache(maxsize=None)(module.read_segment))
        for module in (survey, index, collecting):
            patch.setattr(module, "read_condemned", lru_cache(maxsize=None)(module.read_condemned))
        patch.setattr(encoding, "encode", encoded)
        # one thread runs at a time
        patch.setattr(zstandard, "ZstdCompressor", lru_cache(maxsize=None)(zstandard.ZstdCompressor))
        for module in (encoding, session, sink):
            patch.setattr(module, "Pipeline", AtOnce)
        # all run on one machine: what they read is in one file, what of it counts each knows for itself
        file = IndexFile(None)
        patch.setattr(file, "close", lambda: None)
        patch.setattr(index, "IndexFile", lambda _: file)
        yield
        patch.undo()
        file.close()
