"""Taking packs and segments out of a vault while others write to it and read from it.

What goes is named first, in a generation under ``condemned/``: from then on no new session builds upon it. Sessions
that were announced before are waited for. Then all that is still needed of it is copied, as an ordinary session, and
the generation is *ready*: its packs are a quarantine, which can be read until they are purged. Each step can be done by
anybody, and again: who is killed leaves work, and no damage. The order is in docs/design/vault.md.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore
from holdfast.vault.claims import recent_claims
from holdfast.vault.copying import copying, patience, read_collector, revoked
from holdfast.vault.journal import Journal
from holdfast.vault.listing import Listing
from holdfast.vault.marking import Marked, mark, pending_files, standing_files, waiting_files
from holdfast.vault.pack import parse_key
from holdfast.vault.periods import GRACE, RECENT
from holdfast.vault.reading import Plan, Reader
from holdfast.vault.records import DamagedVaultError, Entry
from holdfast.vault.repository import Vault
from holdfast.vault.segment import (
    CONDEMNED,
    INDEX,
    READY_SUFFIX,
    SESSIONS,
    Condemned,
    read_condemned,
    write_condemned,
    write_segment,
)
from holdfast.vault.session import RevokedError
from holdfast.vault.sink import PackSink
from holdfast.vault.survey import Survey, survey

CLOCK = "clock"
WAIT_SECONDS = 1.0
# which files somebody needs, as far as is known when it is asked
Live = Callable[[], Collection[str]]


@dataclass(frozen=True)
class Generation:
    """What was condemned together.

    Attributes:
        name: 32 hex digits.
        condemned: its packs and segments.
        ready: since when all that is needed of it lies elsewhere, too; None where that is not known yet.
    """

    name: str
    condemned: Condemned
    ready: datetime | None


@dataclass(frozen=True)
class Waiting:
    """A session that was announced and not decided.

    Attributes:
        session: its name.
        age: since it was announced, by the store's clock.
        collecting: whether it is that of another collector.
    """

    session: str
    age: timedelta
    collecting: bool = False


@dataclass(frozen=True)
class Settled:
    """How far the collection is.

    Attributes:
        waiting: sessions that have to be decided first; where there are any, nothing else was done.
        generations: those that are ready now and were not before.
        copied_bytes: that were still needed, and lie elsewhere now.
    """

    waiting: tuple[Waiting, ...]
    generations: tuple[str, ...]
    copied_bytes: int


@dataclass(frozen=True)
class Purged:
    """What was deleted.

    Attributes:
        generations: of what.
        packs: keys.
        bytes: of these.
        kept: generations that are not ready, or not old enough.
    """

    generations: tuple[str, ...]
    packs: tuple[str, ...]
    bytes: int
    kept: tuple[str, ...]


def store_time(store: ObjectStore) -> datetime:
    """What the store's clock says.

    Raises:
        StoreError: it cannot be written or asked.
    """
    key = f"{CLOCK}/{secrets.token_hex(16)}"
    store.put(key, b"")
    try:
        return store.head(key).modified
    finally:
        store.delete(key)


def generations(store: ObjectStore) -> list[Generation]:
    """What is condemned, in the order of the names.

    Raises:
        DamagedTableError: a generation cannot be read.
        StoreError: the store cannot be read.
    """
    listed = {info.key: info.modified for info in store.list_objects(CONDEMNED)}
    found = []
    for key in sorted(key for key in listed if not key.endswith(READY_SUFFIX)):
        with contextlib.suppress(ObjectNotFoundError):  # purged since
            condemned = read_condemned(key, store.get(key))
            found.append(Generation(key.removeprefix(f"{CONDEMNED}/"), condemned, listed.get(key + READY_SUFFIX)))
    return found


def condemn(
    store: ObjectStore, packs: Collection[str], found: Survey, marked: Marked, segments: Collection[str] = ()
) -> Generation | None:
    """Name packs that are to go, all segments that name one of them, and what else these name that nobody needs.

    Args:
        store: where the vault is.
        packs: keys.
        found: what is in the vault.
        marked: what is needed of it.
        segments: sessions whose segments are to go, too.

    Returns:
        The generation, None where there is nothing new to name.

    Raises:
        StoreError: the store cannot be written.
    """
    wanted, leaving = set(packs) | found.condemned.packs, set(found.condemned.segments)
    given = set(segments) - leaving
    while more := [
        s for s in found.segments if s.session not in leaving and (s.session in given or not wanted.isdisjoint(s.packs))
    ]:
        leaving.update(segment.session for segment in more)
        wanted.update(pack for segment in more for pack in segment.packs if pack not in marked.used)
    new_packs, new_segments = wanted - found.condemned.packs, leaving - found.condemned.segments
    if not new_packs and not new_segments:
        return None
    name = secrets.token_hex(16)
    store.put_if_absent(f"{CONDEMNED}/{name}", write_condemned(sorted(new_packs), sorted(new_segments)))
    return Generation(name, Condemned(frozenset(new_packs), frozenset(new_segments)), None)


def abandoned_packs(store: ObjectStore, found: Survey, *, grace: timedelta = GRACE, revoke: bool = False) -> list[str]:
    """Packs of sessions that ended without a segment, and that are not condemned yet.

    Args:
        store: where the vault is.
        found: what is in the vault.
        grace: packs that were sent less long ago are left alone, as are those of sessions that were announced since.
        revoke: make sure that such a session never counts; else it might come back.

    Raises:
        StoreError: the store cannot be read or written.
    """
    orphans = found.packs.keys() - found.named().keys() - found.condemned.packs
    if not orphans:
        return []
    now = store_time(store)
    under_way = {
        info.key.removeprefix(f"{SESSIONS}/") for info in store.list_objects(SESSIONS) if now - info.modified < grace
    }
    decided = {info.key.removeprefix(f"{INDEX}/") for info in store.list_objects(INDEX)}
    abandoned = []
    for key in sorted(orphans):
        with contextlib.suppress(DamagedVaultError, ObjectNotFoundError):
            session = parse_key(key)[1]
            if session in under_way or now - store.head(key).modified < grace:
                continue
            if session in decided or not revoke or store.put_if_absent(f"{INDEX}/{session}", b""):
                abandoned.append(key)
    return abandoned


def settle(
    vault: Vault,
    live: Live | None = None,
    *,
    grace: timedelta = GRACE,
    recent: timedelta = RECENT,
    wait: timedelta = timedelta(0),
) -> Settled:
    """Bring all generations on: wait for sessions, copy what is still needed, say that they are ready.

    Args:
        vault: the vault.
        live: asked which files somebody needs, once nobody builds upon what is condemned any more; what is condemned
            and neither named by it nor claimed lately is not copied. None where every file is needed.
        grace: a session that was announced longer ago is revoked; one that is younger is waited for, by whoever calls
            this again. That of a collector that has ended is revoked at once.
        recent: what was claimed less long ago stays claimed.
        wait: how long to wait for such sessions.

    Raises:
        DamagedVaultError: something cannot be read, so that what is needed is not known.
        RevokedError: another collector took the copying for abandoned, twice.
        StoreError: the store cannot be read or written.
    """
    store = vault.store
    until = time.monotonic() + wait.total_seconds()
    again = False
    while pending := [generation for generation in generations(store) if generation.ready is None]:
        if waiting := _waited(store, grace, until):
            return Settled(tuple(waiting), (), 0)
        try:
            copied = _copy_pending(vault, pending, live, recent)
        except RevokedError:
            if again:
                raise
            # so slow that another collector took this one for dead: it has done all of this, or is at it
            again, copied = True, None
        if copied is None:
            continue
        # others may have condemned more since, which is theirs
        for generation in pending:
            store.put_if_absent(f"{CONDEMNED}/{generation.name}{READY_SUFFIX}", b"")
        return Settled((), tuple(generation.name for generation in pending), copied)
    return Settled((), (), 0)


def revive(vault: Vault, files: Collection[str], *, recent: timedelta = RECENT) -> int:
    """Copy files out of the quarantine, as an ordinary session; those that are not in it are passed over.

    Args:
        vault: the vault.
        files: oids.
        recent: as of `settle`.

    Returns:
        The bytes of blobs that were copied.

    Raises:
        DamagedVaultError, RevokedError, StoreError: as of `settle`.
    """
    with copying(vault.store) as session:
        found = survey(vault.store, vault.jobs)
        wanted = waiting_files(found) & set(files)
        if not wanted:
            return 0
        return _copy(vault, session, found, mark(found, needed=standing_files(found) | wanted), recent)


def purge(vault: Vault, live: Live | None = None, *, older_than: timedelta, dry_run: bool = False) -> Purged:
    """Delete what has been ready for so long, by the store's clock.

    Args:
        vault: the vault.
        live: asked which files somebody needs: those that wait are copied first.
        older_than: how long.
        dry_run: only say what would be deleted.

    Raises:
        DamagedTableError: a generation cannot be read.
        StoreError: the store cannot be read or written.
    """
    store = vault.store
    known = generations(store)
    now = store_time(store) if known else None
    gone: list[Generation] = []
    kept: list[Generation] = []
    for generation in known:
        old = generation.ready is not None and now is not None and now - generation.ready >= older_than
        (gone if old else kept).append(generation)
    # what another generation still waits for is not deleted by this one
    waited = {pack for generation in kept for pack in generation.condemned.packs}
    packs = {pack for generation in gone for pack in generation.condemned.packs} - waited
    sizes = {info.key: info.size for info in store.list_objects("packs") if info.key in packs}
    if not dry_run and gone:
        if live is not None:
            revive(vault, live())
        for session in sorted({session for generation in gone for session in generation.condemned.segments}):
            store.put(f"{INDEX}/{session}", b"")
        store.delete_many(sorted(sizes))
        # last: while a generation is there nobody builds upon what it names
        store.delete_many([f"{CONDEMNED}/{generation.name}" for generation in gone])
        store.delete_many([f"{CONDEMNED}/{generation.name}{READY_SUFFIX}" for generation in gone])
        vault.refresh()
    names = (tuple(generation.name for generation in some) for some in (gone, kept))
    return Purged(next(names), tuple(sorted(sizes)), sum(sizes.values()), next(names))


def _needed(
    store: ObjectStore, found: Survey, files: Collection[str], live: Live | None, recent: timedelta
) -> set[str]:
    """Which of these files are to stay."""
    if live is None or not files:
        return set(files)
    return set(files) & (set(live()) | recent_claims(found, store_time(store), recent).keys())


def _waited(store: ObjectStore, grace: timedelta, until: float) -> list[Waiting]:
    """The sessions that are not decided yet, once that time has come."""
    waiting = _waiting(store, grace)
    while waiting and time.monotonic() < until:
        time.sleep(WAIT_SECONDS)
        # those that were announced meanwhile know what is condemned
        first = {one.session for one in waiting}
        waiting = [one for one in _waiting(store, grace) if one.session in first]
    return waiting


def _waiting(store: ObjectStore, grace: timedelta) -> list[Waiting]:
    """The sessions that are not decided; those that were announced too long ago are revoked."""
    announced = list(store.list_objects(SESSIONS))
    if not announced:
        return []
    decided = {info.key.removeprefix(f"{INDEX}/") for info in store.list_objects(INDEX)}
    now = store_time(store)
    waiting = []
    for info in announced:
        session, age = info.key.removeprefix(f"{SESSIONS}/"), now - info.modified
        if session not in decided:
            with contextlib.suppress(ObjectNotFoundError):  # it has just ended
                collector = read_collector(store, info)
                if age < patience(collector, grace):
                    waiting.append(Waiting(session, age, collector is not None))
                    continue
                store.put_if_absent(f"{INDEX}/{session}", b"")
        # also where whoever decided it was killed before this: packs of what is announced are left alone
        store.delete(info.key)
    return waiting


def _copy_pending(vault: Vault, pending: Iterable[Generation], live: Live | None, recent: timedelta) -> int | None:
    """Copy what is needed of all that is condemned and not ready; None where there is more of it than these."""
    store = vault.store
    # announced before it looks, as every writer: who condemns what this builds upon waits for it
    with copying(store) as session:
        found = survey(store, vault.jobs)
        # `repair` names packs alone; who was announced before their segments were named is waited for, too
        if condemn(store, (), found, mark(found)) is not None:
            return None
        # what others condemned since is not ready with these, and must be whole until it is: its sessions come first
        waited = {session for generation in pending for session in generation.condemned.segments}
        if not found.condemned.segments - found.ready.segments <= waited:
            return None
        needed = standing_files(found) | _needed(store, found, pending_files(found), live, recent)
        return _copy(vault, session, found, mark(found, needed=needed), recent)


def _copy(vault: Vault, session: str, found: Survey, marked: Marked, recent: timedelta) -> int:
    """Store anew what is needed of condemned packs and segments; how many bytes of blobs."""
    condemned = found.condemned
    standing = {segment.session: segment for segment in found.segments if segment.session not in condemned.segments}
    blobs = [entry for entry in marked.entries.values() if entry.pack in condemned.packs]
    orphaned = _orphaned(found, marked)
    recipes = [recipe for recipe, writer in marked.recipes.values() if writer not in standing]
    claims = _claims(vault.store, found, recent)
    if not blobs and not orphaned and not recipes and not claims:
        return 0
    sink = PackSink(vault.store, Journal(None, session), vault.config.pack_bytes, claiming=False)
    with contextlib.closing(sink):
        for entry, blob in _verified(vault, marked, blobs):
            sink.add(entry._replace(pack=""), blob)
        sink.add_recipes(recipes)
        sink.finish()
    sizes = found.named()
    made = sink.listing
    listing = Listing([*made.entries, *orphaned], made.recipes, made.claimed, sorted(claims), claims)
    packs = {**sink.packs, **{entry.pack: sizes[entry.pack] for entry in orphaned}}
    key, data = f"{INDEX}/{session}", write_segment(listing, packs)
    # what is there may be our own, of an attempt whose answer was lost
    if not vault.store.put_if_absent(key, data) and vault.store.get(key) != data:
        raise revoked()
    vault.refresh()
    return sum(entry.stored for entry in blobs)


def _orphaned(found: Survey, marked: Marked) -> list[Entry]:
    """What is needed in packs that stay, and listed by segments that go alone."""
    condemned = found.condemned
    stay = [segment for segment in found.segments if segment.session not in condemned.segments]
    places = {(entry.pack, entry.offset): entry for entry in marked.entries.values()}
    orphaned = {
        (entry.pack, entry.offset)
        for segment in found.segments
        if segment.session in condemned.segments and not condemned.packs.issuperset(segment.packs)
        for entry in segment.entries()
        if entry.pack not in condemned.packs and (entry.pack, entry.offset) in places
    }
    packs = {pack for pack, _ in orphaned}
    for segment in stay if packs else ():
        # another segment of the same pack may list other parts of it
        if not packs.isdisjoint(segment.packs):
            orphaned.difference_update((entry.pack, entry.offset) for entry in segment.entries())
    return [places[place] for place in sorted(orphaned)]


def _verified(vault: Vault, marked: Marked, blobs: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Encoded blobs, each decoded and compared with its name first."""
    reader = Reader(vault.store, lambda ids: {name: [marked.entries[name]] for name in ids}, vault.jobs)
    ordered = sorted(blobs, key=lambda entry: (entry.depth, entry.pack, entry.offset))
    yield from reader.verified(Plan(marked.entries), [entry.id for entry in ordered])


def _claims(store: ObjectStore, found: Survey, recent: timedelta) -> dict[str, int]:
    """What segments claim that go now and that was claimed lately: when, in seconds since 1970."""
    leaving = found.condemned.segments - found.ready.segments
    going = replace(found, segments=[segment for segment in found.segments if segment.session in leaving])
    if not going.segments:
        return {}
    kept = recent_claims(going, store_time(store), recent)
    return {oid: int(since.timestamp()) for oid, since in kept.items()}
