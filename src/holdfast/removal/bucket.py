"""A bucket whose objects can go: a plain DVC remote on S3, R2, GCS or Azure."""

import re
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TypeVar

from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import (
    DeniedError,
    InvalidKeyError,
    ObjectInfo,
    ObjectNotFoundError,
    ObjectStore,
    RefusedError,
    StoreError,
    check_folder,
)
from holdfast.removal.batches import (
    APPLIED,
    CLOCK,
    KEYS,
    LOCK,
    PLAN,
    THINGS,
    RemovalError,
    applied_record,
    check_batch,
    check_plan,
    is_batch,
    not_waiting,
)
from holdfast.removal.locks import BucketLock, seconds_with_sleep
from holdfast.removal.names import MAX_KEY_BYTES, check_apart, check_key, digest_in, flat_name, key_bytes, key_of
from holdfast.removal.place import Batch, Moved, Progress, Thing, silent
from holdfast.removal.tally import AGAIN, CHANGED, MISSING, OTHER, Tally

JOBS = 16
CHUNK = 1000  # things that are copied before the first of them is deleted: one bulk deletion
CHUNK_BYTES = 4 * 1024**3  # so that the next one to come sees how far it got
PROBE_BYTES = 64 * 1024
PIECE_BYTES = 8 * 1024 * 1024
NO_COPY = "the store's copy of it is not the same"
_MD5 = re.compile(r'"[0-9a-f]{32}"')


Item = TypeVar("Item")


def thing_of(info: ObjectInfo) -> Thing:
    """An object as a thing, out of a listing or of `head`, which know the time to different parts of a second."""
    return Thing(info.key, info.size, f"{info.etag}@{int(info.modified.timestamp())}")


@dataclass(frozen=True)
class _Prepared:
    """What came of one thing before anything is deleted.

    Args:
        key: its own.
        size: bytes.
        there: the object to be deleted; None where that was done, or where the thing is left.
        copy: the object to be deleted instead, where ``there`` may not be.
        reason: why it is left; None where it is not.
        error: what the store said, where that is the reason.
    """

    key: str
    size: int
    there: str | None = None
    copy: str | None = None
    reason: str | None = None
    error: StoreError | None = None


class BucketPlace:
    """A `Place` that is a bucket, or a prefix of one.

    What goes is copied by the server, compared (size and etag; where etags are no digests, size and three samples), and
    only then deleted: copies in parallel, deletions in bulk. A copy is a new object: its time begins anew, and so it
    does when it comes back.

    Args:
        store: the bucket with the prefix that keys are relative to.
        quarantine: a folder of the same store.
        jobs: requests at a time.
        elapsed: seconds on a clock that only grows, also while the machine sleeps.
    """

    def __init__(
        self,
        store: ObjectStore,
        quarantine: str,
        *,
        jobs: int = JOBS,
        elapsed: Callable[[], float] = seconds_with_sleep,
    ) -> None:
        self._store = store
        self._folder = check_folder(quarantine)
        self._jobs = jobs
        self._elapsed = elapsed
        if len(self._folder.rpartition("/")[2]) <= 2:
            raise RemovalError(f"{quarantine!r} cannot be a quarantine of {store.url}", hint="Name another folder")

    @property
    def name(self) -> str:
        """The bucket's URL."""
        return self._store.url

    def now(self) -> datetime:
        """What the store's clock says."""
        key = f"{self._folder}/{CLOCK}/{secrets.token_hex(16)}"
        self._store.put(key, b"")
        try:
            return self._store.head(key).modified
        finally:
            self._store.delete(key)

    def look(self, keys: Collection[str]) -> dict[str, Thing]:
        """The things of these keys as they are now, by one request each; `thing_of` makes them of a listing."""
        wanted = [check_key(key) for key in sorted(keys)]
        found = (info for info in concurrently(self._head, wanted, self._jobs) if info is not None)
        return {info.key: thing_of(info) for info in found}

    def take(self, batch: str, plan: bytes, things: Sequence[Thing], progress: Progress = silent) -> Moved:
        """Move objects into the quarantine; one that changed, or that may not be moved, is left."""
        check_batch(batch)
        check_apart([thing.key for thing in things], self._folder)
        desk = _BatchObjects(self._store, f"{self._folder}/{batch}")
        tally = Tally(sum(thing.size for thing in things), progress)
        with self._lock().held() as lock:
            waiting = {info.key: info for info in self._store.list_objects(desk.things)}
            if not self._store.put_if_absent(desk.plan, plan):
                check_plan(batch, self._store.get(desk.plan), plan)
                if {f"{desk.things}/{flat_name(thing.key)}" for thing in things} - set(waiting):
                    self._store.put(desk.plan, plan)  # what goes now waits as long as what went before

            def copied(thing: Thing) -> _Prepared:
                lock.renew()
                return self._copied(desk, waiting, thing)

            failure = None
            for chunk in _chunks(sorted(things, key=lambda thing: thing.key), lambda thing: thing.size):
                refused = self._settle(lock, tally, list(concurrently(copied, chunk, self._jobs)))
                failure = failure or refused
                if failure is not None and not tally.begun:
                    break  # it may be that nothing is allowed here
            moved = tally.moved()
            if moved.done and not tally.hindered:
                self._store.put(desk.applied, applied_record(moved, lock.now))
            desk.remove_if_empty()
        return _told(moved, failure)

    def batches(self) -> list[Batch]:
        """What waits, the oldest first."""
        found = []
        for name in filter(is_batch, self._store.list_folders(self._folder)):
            desk = _BatchObjects(self._store, f"{self._folder}/{name}")
            things = tuple(Thing(key, info.size, thing_of(info).stamp) for key, info in sorted(desk.waiting().items()))
            if not things:
                continue
            try:
                plan, since = self._store.get(desk.plan), self._store.head(desk.plan).modified
            except ObjectNotFoundError:
                plan, since = b"", max(info.modified for info in desk.waiting().values())
            found.append(Batch(name, since, self._head(desk.applied) is not None, plan, things))
        return sorted(found, key=lambda batch: (batch.since, batch.id))

    def restore(self, batch: str, keys: Collection[str] | None = None, progress: Progress = silent) -> Moved:
        """Put objects back, all of the batch where no keys are given; nothing that is there is overwritten."""
        return self._each(batch, keys, progress, self._put_back)

    def purge(self, batch: str, keys: Collection[str] | None = None, progress: Progress = silent) -> Moved:
        """Delete objects for good."""
        return self._each(batch, keys, progress, lambda key, info: _Prepared(key, info.size, info.key))

    def _each(
        self,
        batch: str,
        keys: Collection[str] | None,
        progress: Progress,
        prepare: Callable[[str, ObjectInfo], _Prepared],
    ) -> Moved:
        """Prepare what waits and delete it, in chunks."""
        check_batch(batch)
        desk = _BatchObjects(self._store, f"{self._folder}/{batch}")
        with self._lock().held() as lock:
            waiting = desk.waiting()
            wanted = sorted(waiting if keys is None else set(keys) & set(waiting))
            missing = sorted(set(keys or ()) - set(waiting))
            tally = Tally(sum(waiting[key].size for key in wanted), progress)

            def prepared(key: str) -> _Prepared:
                lock.renew()
                return prepare(key, waiting[key])

            failure = None
            for chunk in _chunks(wanted, lambda key: waiting[key].size):
                refused = self._settle(lock, tally, list(concurrently(prepared, chunk, self._jobs)))
                failure = failure or refused
                if failure is not None and not tally.begun:
                    break  # it may be that nothing is allowed here
            desk.forget_keys(tally.moved().done)
            desk.remove_if_empty()
        moved = _told(tally.moved(), failure)
        return Moved(moved.done, moved.bytes, tuple(sorted((*moved.left, *not_waiting(missing, batch)))))

    def _copied(self, desk: "_BatchObjects", waiting: dict[str, ObjectInfo], thing: Thing) -> _Prepared:
        """Copy one thing, and see that it was what was planned from before the copy until after it."""
        name = f"{desk.things}/{flat_name(thing.key)}"
        there = waiting.get(name)
        before = self._head(thing.key)
        if before is None:
            return _Prepared(thing.key, thing.size, reason=None if there is not None else MISSING)
        if thing_of(before).stamp != thing.stamp:
            return _Prepared(thing.key, thing.size, reason=CHANGED if there is None else AGAIN)
        try:
            if there is None or there.size != thing.size:
                desk.keep_key(thing.key)
                self._store.copy(before, name)
            whole = self._is_copy(before, name)
        except ObjectNotFoundError:
            return _Prepared(thing.key, thing.size, reason=MISSING)
        except (DeniedError, RefusedError, InvalidKeyError) as error:
            failure = error if isinstance(error, StoreError) else None
            return _Prepared(thing.key, thing.size, reason=error.message, error=failure)
        after = self._head(thing.key)
        if whole and after is not None and thing_of(after).stamp == thing.stamp:
            return _Prepared(thing.key, thing.size, thing.key, name)
        self._store.delete(name)
        changed = after is not None and thing_of(after).stamp != thing.stamp
        return _Prepared(thing.key, thing.size, reason=MISSING if after is None else CHANGED if changed else NO_COPY)

    def _put_back(self, key: str, info: ObjectInfo) -> _Prepared:
        """Copy one thing back, unless something is there."""
        there = self._head(key)
        if there is not None and not self._same(there, info):
            return _Prepared(key, info.size, reason=OTHER)
        if there is None:
            try:
                self._store.copy(info, key)
                if not self._is_copy(info, key):
                    return _Prepared(key, info.size, reason=NO_COPY)
            except ObjectNotFoundError:
                return _Prepared(key, info.size, reason=MISSING)
            except (DeniedError, RefusedError) as error:
                return _Prepared(key, info.size, reason=error.message, error=error)
        return _Prepared(key, info.size, info.key)

    def _settle(self, lock: BucketLock, tally: Tally, copied: Sequence[_Prepared]) -> StoreError | None:
        """Delete what was copied, and count; the first refusal."""
        going = [item.there for item in copied if item.there is not None]
        refused: dict[str, StoreError] = {}
        if going:
            lock.renew()
            try:
                self._store.delete_many(going)
            except (DeniedError, RefusedError) as error:
                left = concurrently(self._head, going, self._jobs)
                refused = {info.key: error for info in left if info is not None}
                copies = [item.copy for item in copied if item.there in refused and item.copy is not None]
                self._store.delete_many(copies)
        for item in copied:
            stays = refused.get(item.there or "")
            tally.add(item.key, item.size, item.reason if stays is None else stays.message)
        return next(chain((item.error for item in copied if item.error is not None), refused.values()), None)

    def _is_copy(self, source: ObjectInfo, target: str) -> bool:
        """Whether a copy is one."""
        copy = self._store.head(target)
        return copy.size == source.size and self._alike(source, copy)

    def _alike(self, one: ObjectInfo, other: ObjectInfo) -> bool:
        """Whether two objects of one size have the same digest, or the same bytes where samples are taken.

        An etag is a digest where it looks like one and is the same: what is encrypted by keys of KMS has etags that
        look like one and are none.
        """
        if _MD5.fullmatch(one.etag) and one.etag == other.etag:
            return True
        last = max(one.size - PROBE_BYTES, 0)
        starts = sorted({0, last // 2, last})
        spans = [(start, min(PROBE_BYTES, one.size - start)) for start in starts if one.size]
        here, there = (self._store.get_ranges(info.key, spans, gap_bytes=0) for info in (one, other))
        return here == there

    def _same(self, one: ObjectInfo, other: ObjectInfo) -> bool:
        """Whether two objects have the same bytes; all are read where etags do not say it."""
        if one.size != other.size:
            return False
        if _MD5.fullmatch(one.etag) and one.etag == other.etag:
            return True
        for start in range(0, one.size, PIECE_BYTES):
            count = min(PIECE_BYTES, one.size - start)
            here, there = (self._store.get_range(i.key, start, count, etag=i.etag) for i in (one, other))
            if here != there:
                return False
        return True

    def _head(self, key: str) -> ObjectInfo | None:
        try:
            return self._store.head(key)
        except ObjectNotFoundError:
            return None

    def _lock(self) -> BucketLock:
        return BucketLock(self._store, f"{self._folder}/{LOCK}", self._elapsed)


def _chunks(items: Sequence[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in groups, so that few bytes are copied before anything is deleted."""
    chunk: list[Item] = []
    nbytes = 0
    for item in items:
        chunk.append(item)
        nbytes += size(item)
        if len(chunk) >= CHUNK or nbytes >= CHUNK_BYTES:
            yield chunk
            chunk, nbytes = [], 0
    if chunk:
        yield chunk


def _told(moved: Moved, failure: StoreError | None) -> Moved:
    """What was done, unless nothing may be done here at all."""
    if failure is not None and not moved.done:
        raise failure
    return moved


class _BatchObjects:
    """The objects of one batch.

    Args:
        store: the bucket.
        folder: of the batch.
    """

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store, self._folder = store, folder
        self.plan, self.applied = f"{folder}/{PLAN}", f"{folder}/{APPLIED}"
        self.things = f"{folder}/{THINGS}"

    def waiting(self) -> dict[str, ObjectInfo]:
        """What waits by its key. What has no key's name was put there by somebody else."""
        found = {}
        for info in self._store.list_objects(self.things):
            name = info.key.rpartition("/")[2]
            if info.key == f"{self.things}/{name}" and (key := key_of(name, self._long_key(name))) is not None:
                found[key] = info
        return found

    def keep_key(self, key: str) -> None:
        """Keep the key of a name that does not say it, before the thing comes."""
        digest = digest_in(flat_name(key))
        if digest is not None:
            self._store.put_if_absent(f"{self._folder}/{KEYS}/{digest}", key_bytes(key))

    def forget_keys(self, keys: Collection[str]) -> None:
        """The things of these keys are gone."""
        digests = (digest_in(flat_name(key)) for key in keys)
        self._store.delete_many([f"{self._folder}/{KEYS}/{digest}" for digest in digests if digest is not None])

    def remove_if_empty(self) -> None:
        """Delete the rest of a batch in which nothing waits."""
        if next(iter(self._store.list_objects(self.things)), None) is None:
            rest = [info.key for info in self._store.list_objects(self._folder)]
            # the plan last: without it nobody would know what the rest is
            self._store.delete_many(key for key in rest if key != self.plan)
            self._store.delete(self.plan)

    def _long_key(self, name: str) -> bytes | None:
        digest = digest_in(name)
        if digest is None:
            return None
        try:
            data = self._store.get(f"{self._folder}/{KEYS}/{digest}")
        except ObjectNotFoundError:
            return b""
        return data if len(data) <= MAX_KEY_BYTES else b""
