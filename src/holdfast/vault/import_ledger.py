"""What the sessions of an import or a repack are, written down before any of them begins; and doing them.

First all files are looked at (`holdfast.vault.import_looking`); then it is settled which session is called what, which
files are in it, and which others it waits for. From then on nothing is chosen any more: a session that has committed is
never done again, and one that was under way is done under the same name.
"""

import heapq
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from blake3 import blake3

from holdfast.executor.executor import Executor
from holdfast.executor.partitions import Partition, Shards, run_partitions
from holdfast.objectstore.address import StoreAddress
from holdfast.vault.casts import CastFiles
from holdfast.vault.families import Families
from holdfast.vault.import_looking import DAMAGED, FAILED, Batch, files_in, look, shared_blobs
from holdfast.vault.import_order import Item, Limits, sessions_of
from holdfast.vault.import_sending import batches_of
from holdfast.vault.import_session import SessionSent, SessionTask, committed, send_session
from holdfast.vault.import_sources import Source
from holdfast.vault.repository import Vault
from holdfast.vault.segment import INDEX
from holdfast.vault.session import Statistics

Progress = Callable[[str, int, int], None]
LOOKING = "Looking"


@dataclass(frozen=True)
class Work:
    """What is to be put.

    Attributes:
        source: where the files come from.
        target: where the vault is.
        sizes: bytes of each file and of each claim, by oid.
        claims: files that are there, and are claimed.
        limits: how much at a time.
        delta: whether to store parts against those of other versions.
        claiming: whether somebody is told that the files are there.
        leaving: packs upon which nothing shall be built.
        verb: what is said of it while it is done.
        looked_at: how much is looked at at a time, where that is not what is put; None where it is.
    """

    source: Source
    target: StoreAddress
    sizes: Mapping[str, int]
    claims: tuple[str, ...]
    limits: Limits
    delta: bool
    claiming: bool = True
    leaving: tuple[str, ...] = ()
    verb: str = "Importing"
    looked_at: Limits | None = None

    def size(self, item: Item) -> int:
        """An item's bytes."""
        return self.sizes[item.oid]


@dataclass(frozen=True)
class Ledger:
    """The sessions.

    Attributes:
        made_for: digest of what was asked for.
        sessions: a name for each.
        items: of each session the files, with their bases; none is stray.
        needs: of each session the numbers of those that it waits for.
        damaged: files that are not what their names say, by oid, and why.
        failed: other files that could not be read, and why.
    """

    made_for: str
    sessions: tuple[str, ...]
    items: tuple[tuple[Item, ...], ...]
    needs: tuple[tuple[int, ...], ...]
    damaged: Mapping[str, str]
    failed: Mapping[str, str]

    def note(self, number: int) -> str:
        """The name of what is kept of a session that is done."""
        return blake3(f"{self.made_for} {self.sessions[number]}".encode()).hexdigest()

    def as_json(self) -> str:
        """What `read_ledger` reads."""
        return json.dumps(vars(self))


def read_ledger(data: bytes) -> Ledger:
    """A ledger.

    Raises:
        ValueError: it is none.
    """
    values = json.loads(data)
    return Ledger(
        items=tuple(tuple(Item(*item) for item in group) for group in values.pop("items")),
        needs=tuple(map(tuple, values.pop("needs"))),
        sessions=tuple(values.pop("sessions")),
        **values,
    )


def make_ledger(
    made_for: str,
    vault: Vault,
    work: Work,
    items: Sequence[Item],
    executor: Executor,
    looked: Shards,
    progress: Progress,
) -> Ledger:
    """Look at all files, and settle what the sessions are.

    Args:
        made_for: digest of what was asked for.
        vault: where to.
        work: what is to be put.
        items: the files in their order.
        executor: where they are looked at.
        looked: where what was found is kept.
        progress: told how many bytes of how many were looked at.

    Raises:
        WorkersLostError, StoreError, OSError: as of `holdfast.executor.partitions.run_partitions`.
    """
    groups = list(sessions_of(items, work.size, work.limits, sum(work.sizes.values()))) or [()]
    partitions = []
    for number, group in enumerate(groups):
        for some in batches_of(group, work.size, work.looked_at or work.limits):
            sizes = tuple((item.oid, work.size(item)) for item in some)
            known = vault.index.digests([item.oid for item in some])
            digests = tuple((oid, *found) for oid, found in sorted(known.items()))
            batch = Batch(work.source, vault.config, number, sizes, digests, work.delta)
            partitions.append(Partition(batch.name, [batch], sum(size for _, size in sizes)))
    looked.forget({partition.name for partition in partitions})
    paths = run_partitions(
        executor, look, partitions, looked, progress=lambda done, total: progress(LOOKING, done, total)
    )
    settled, damaged, failed = _settled(vault, items, paths, delta=work.delta)
    whole = tuple(tuple(settled[item.oid] for item in group) for group in groups)
    names = tuple(secrets.token_hex(16) for _ in whole)
    return Ledger(made_for, names, whole, _needs(whole, shared_blobs(paths)), damaged, failed)


def send_all(
    ledger: Ledger, work: Work, before: Mapping[int, SessionSent], executor: Executor, done: Shards, progress: Progress
) -> list[SessionSent]:
    """Do the sessions, each as soon as those that it waits for have committed.

    Args:
        ledger: of them.
        work: what is to be put.
        before: what became of those that are done.
        executor: where they are done.
        done: where it is kept what became of each.
        progress: told how many bytes of how many were put.

    Raises:
        WorkersLostError, RevokedError, StoreError, OSError: as of `holdfast.vault.import_session.send_session`.
    """
    sent = dict(before)
    bytes_of = [sum(map(work.size, group)) for group in ledger.items]

    def task(number: int) -> SessionTask:
        items, claims = ledger.items[number], () if number else work.claims
        sizes = {oid: work.sizes[oid] for oid in (*(item.oid for item in items), *claims)}
        return SessionTask(
            number, ledger.sessions[number], work.target, work.source, items, sizes, claims, work.limits, work.delta,
            work.claiming, work.leaving,
        )  # fmt: skip

    def tell() -> None:
        progress(work.verb, sum(bytes_of[number] for number in sent), sum(bytes_of))

    tell()
    for result in _in_order(executor, task, ledger.needs, set(sent)):
        done.write(ledger.note(result.number), json.dumps(asdict(result)).encode())
        sent[result.number] = result
        tell()
    return [sent[number] for number in range(len(ledger.sessions))]


def sent_before(vault: Vault, ledger: Ledger, done: Shards) -> dict[int, SessionSent]:
    """The sessions that have committed, whether or not anybody was there any more to be told of it.

    Raises:
        StoreError: the store cannot be read.
    """
    listed = {info.key.removeprefix(f"{INDEX}/") for info in vault.store.list_objects(INDEX) if info.size}
    found = {}
    for number, name in enumerate(ledger.sessions):
        path = done.path(ledger.note(number))
        if path.exists():
            values = json.loads(path.read_bytes())
            found[number] = SessionSent(**values | {"statistics": Statistics(**values["statistics"])})
        elif name in listed and (statistics := committed(vault.store, name)) is not None:
            wrong = [
                {item.oid: some[item.oid] for item in ledger.items[number] if item.oid in some}
                for some in (ledger.damaged, ledger.failed)
            ]
            found[number] = SessionSent(number, statistics, *wrong)
    return found


def _settled(
    vault: Vault, items: Sequence[Item], paths: Sequence[Path], *, delta: bool
) -> tuple[dict[str, Item], dict[str, str], dict[str, str]]:
    """The items with all that they are stored against, which a session by itself would find out; and what is wrong."""
    families, casts = Families(vault.index), CastFiles()
    settled = {item.oid: item for item in items}
    damaged: dict[str, str] = {}
    failed: dict[str, str] = {}
    for found in files_in(paths):
        item = settled[found.oid]
        if found.state == DAMAGED:
            damaged[found.oid] = found.reason
        elif found.state == FAILED:
            failed[found.oid] = found.reason
        if delta and found.slots:
            kin = families.base_of(found.oid, found.slots)
            cast = casts.origin(found.oid, found.names)
            settled[found.oid] = item._replace(base=kin if item.stray else item.base, cast=cast)
    return {oid: item._replace(stray=False) for oid, item in settled.items()}, damaged, failed


def _needs(groups: Sequence[Sequence[Item]], shared: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """The earlier sessions that each waits for."""
    places = {item.oid: number for number, group in enumerate(groups) for item in group}
    needs: list[set[int]] = [set() for _ in groups]
    for number, group in enumerate(groups):
        for item in group:
            for other in (item.base, item.cast):
                if other is not None and places.get(other, number) < number:
                    needs[number].add(places[other])
    for number, earlier in shared:
        needs[number].add(earlier)
    return tuple(tuple(sorted(some)) for some in needs)


def _in_order(
    executor: Executor, task: Callable[[int], SessionTask], needs: Sequence[Sequence[int]], done: set[int]
) -> Iterator[SessionSent]:
    """Sessions as they are done. What becomes ready while others are under way is handed out with them."""
    waits = {number: set(some) - done for number, some in enumerate(needs) if number not in done}
    ready = sorted(number for number, some in waits.items() if not some)

    def next_ones() -> Iterator[SessionTask]:
        while ready:
            number = heapq.heappop(ready)
            del waits[number]
            yield task(number)

    while ready:
        for _, result in executor.completed(send_session, next_ones()):
            for number, some in waits.items():
                if result.number in some:
                    some.remove(result.number)
                    if not some:
                        heapq.heappush(ready, number)
            yield result
