"""A folder whose things can go: DVC's cache, a remote that is a folder, the workspace."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from holdfast.atomic import create_exclusively, write_atomically
from holdfast.errors import HoldfastError
from holdfast.removal.batch_folder import BatchFolder, clear
from holdfast.removal.batches import (
    APPLIED,
    LOCK,
    PLAN,
    RemovalError,
    applied_record,
    check_batch,
    check_plan,
    is_batch,
    not_waiting,
)
from holdfast.removal.folders import Folders, LinkAboveError, folders_below, make_folders
from holdfast.removal.locks import locked_folder
from holdfast.removal.names import check_apart, check_key, flat_name
from holdfast.removal.place import Batch, Moved, Progress, Thing, silent
from holdfast.removal.tally import AGAIN, CHANGED, DENIED, MISSING, OTHER, Tally, failure_of, tried
from holdfast.removal.transfer import (
    ChangedMeanwhileError,
    drop_thing,
    finish_taking,
    recover,
    restore_thing,
    take_thing,
)
from holdfast.removal.trees import CannotCarryError, Spot, names_in, same, state, status


@dataclass(frozen=True)
class _Work:
    """What is open while the quarantine is held."""

    place: Folders
    quarantine: Folders

    def sync(self, desk: BatchFolder) -> None:
        """Make durable what was done: names that are new before those that are gone."""
        os.fsync(desk.things)
        self.place.sync()


class FolderPlace:
    """A `Place` that is a folder of this machine.

    What goes is renamed into the quarantine, where that is in the same file system; else copied, synced, read again and
    compared, and only then deleted. Modes, times, owners, empty folders, links and names that are no UTF-8 stay. Hard
    links to what goes stay good; symbolic links to it do not.

    Args:
        root: the folder; keys are relative to it.
        quarantine: a folder, made where there is something to take, and gone when nothing waits. It may lie in
            ``root``. Its name is longer than two letters, for DVC takes such a folder of a cache for one of its own.
    """

    def __init__(self, root: Path, quarantine: Path) -> None:
        self.root = root.absolute()
        self.quarantine = quarantine.absolute()
        top, inner = self.root.resolve(), self.quarantine.resolve()
        self._own_key = inner.relative_to(top).as_posix() if inner.is_relative_to(top) else None
        if self._own_key == "." or len(self.quarantine.name) <= 2:
            raise RemovalError(f"{self.quarantine} cannot be the quarantine of {self.root}", hint="Name another folder")

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.root)

    def now(self) -> datetime:
        """What the clock of the quarantine's file system says; this machine's where it cannot be asked."""
        lock = self.quarantine / LOCK
        with contextlib.suppress(OSError):
            os.utime(lock)
            return _time(lock.stat())
        return datetime.now(timezone.utc)

    def look(self, keys: Collection[str]) -> dict[str, Thing]:
        """The things of these keys as they are now; those that are not there, or behind a link, are left out."""
        found: dict[str, Thing] = {}
        if not self.root.is_dir():
            return found
        with self._failures(), folders_below(self.root) as folders:
            for key in sorted(keys):
                with self._failures(check_key(key)), contextlib.suppress(LinkAboveError, CannotCarryError):
                    spot = folders.spot(key)
                    if spot is not None and (now := state(spot)) is not None:
                        found[key] = Thing(key, now.size, now.stamp, now.links)
        return found

    def take(self, batch: str, plan: bytes, things: Sequence[Thing], progress: Progress = silent) -> Moved:
        """Move things into the quarantine; one that changed, or that may not be moved, is left."""
        check_batch(batch)
        check_apart([thing.key for thing in things], self._own_key)
        with self._working() as work:
            desk = BatchFolder(work.quarantine, batch)
            self._begin(desk, batch, plan, things)
            tally = Tally(sum(thing.size for thing in things), progress)
            for thing in sorted(things, key=lambda thing: thing.key):
                tally.add(thing.key, thing.size, tried(self._take, work, desk, thing))
            work.sync(desk)
            moved = tally.moved()
            if moved.done and not tally.hindered:
                write_atomically(self.quarantine / batch / APPLIED, applied_record(moved, self.now()))
            return self._told(moved)

    def batches(self) -> list[Batch]:
        """What waits, the oldest first."""
        with self._failures():
            try:
                names = sorted(filter(is_batch, (entry.name for entry in self.quarantine.iterdir())))
            except FileNotFoundError:
                return []
            with folders_below(self.quarantine) as folders:
                found = [self._batch(folders, name) for name in names]
        return sorted((batch for batch in found if batch is not None), key=lambda batch: (batch.since, batch.id))

    def restore(self, batch: str, keys: Collection[str] | None = None, progress: Progress = silent) -> Moved:
        """Put things back, all of the batch where no keys are given; nothing that is there is overwritten."""
        return self._each(batch, keys, progress, self._restore)

    def purge(self, batch: str, keys: Collection[str] | None = None, progress: Progress = silent) -> Moved:
        """Delete things for good."""
        return self._each(batch, keys, progress, self._purge)

    def _each(
        self,
        batch: str,
        keys: Collection[str] | None,
        progress: Progress,
        do: Callable[[_Work, BatchFolder, str, str], str | None],
    ) -> Moved:
        check_batch(batch)
        if not self.quarantine.is_dir():
            return Moved((), 0, not_waiting(sorted(keys or ()), batch))
        with self._working() as work:
            desk = BatchFolder(work.quarantine, batch)
            waiting = desk.waiting()
            wanted = sorted(waiting if keys is None else set(keys) & set(waiting))
            missing = sorted(set(keys or ()) - set(waiting))
            sizes = {key: thing.size for key in wanted if (thing := desk.look(key, waiting[key])) is not None}
            tally = Tally(sum(sizes.values()), progress)
            for key, size in sizes.items():
                tally.add(key, size, tried(do, work, desk, key, waiting[key]))
            if waiting:
                work.sync(desk)
            moved = self._told(tally.moved())
        left = sorted((*moved.left, *not_waiting(missing, batch)))
        return Moved(moved.done, moved.bytes, tuple(left))

    def _begin(self, desk: BatchFolder, batch: str, plan: bytes, things: Sequence[Thing]) -> None:
        """Write the plan, unless it is there."""
        path = self.quarantine / batch / PLAN
        make_folders(path.parent)
        try:
            create_exclusively(path, plan)
        except FileExistsError:
            check_plan(batch, path.read_bytes(), plan)
            if {flat_name(thing.key) for thing in things} - set(names_in(desk.things)):
                os.utime(path)  # what goes now waits as long as what went before

    def _take(self, work: _Work, desk: BatchFolder, thing: Thing) -> str | None:
        """Move one thing; why not, or None."""
        place = work.place.spot(thing.key)
        name = flat_name(thing.key)
        waiting = Spot(desk.things, name)
        waits = status(waiting) is not None
        if place is None:
            return None if waits else MISSING
        if reason := recover(thing.key, place, waiting):
            return reason

        def unchanged(spot: Spot) -> bool:
            now = state(spot)
            return now is not None and now.stamp == thing.stamp

        if status(place) is None:
            return None if waits else MISSING
        if not unchanged(place):
            return AGAIN if waits else CHANGED
        work.place.note(thing.key)
        try:
            if waits:
                # a copy was finished, and its process killed before the original went
                if not same(place, waiting):
                    return AGAIN
                finish_taking(thing.key, place, unchanged)
            else:
                desk.keep_key(thing.key, name)
                take_thing(thing.key, place, waiting, Spot(desk.coming, name), unchanged)
        except ChangedMeanwhileError:
            return CHANGED
        return None

    def _restore(self, work: _Work, desk: BatchFolder, key: str, name: str) -> str | None:
        place = work.place.spot(key, make=True)
        assert place is not None
        waiting = Spot(desk.things, name)
        if reason := recover(key, place, waiting):
            return reason
        work.place.note(key)
        if status(place) is not None:
            if not same(place, waiting):
                return OTHER
            drop_thing(waiting, Spot(desk.gone, name))
        else:
            try:
                restore_thing(key, waiting, place, Spot(desk.gone, name))
            except FileExistsError:
                return OTHER
        desk.forget_key(name)
        return None

    def _purge(self, work: _Work, desk: BatchFolder, key: str, name: str) -> str | None:
        waiting = Spot(desk.things, name)
        with contextlib.suppress(LinkAboveError):
            place = work.place.spot(key)
            if place is not None and (reason := recover(key, place, waiting)):
                return reason
        drop_thing(waiting, Spot(desk.gone, name))
        desk.forget_key(name)
        return None

    def _batch(self, folders: Folders, name: str) -> Batch | None:
        desk = BatchFolder(folders, name)
        found = (desk.look(key, flat) for key, flat in sorted(desk.waiting().items()))
        things = tuple(thing for thing in found if thing is not None)
        if not things:
            return None
        folder = self.quarantine / name
        try:
            plan, since = (folder / PLAN).read_bytes(), _time((folder / PLAN).stat())
        except FileNotFoundError:
            plan, since = b"", _time(folder.stat())
        return Batch(name, since, (folder / APPLIED).is_file(), plan, things)

    @contextmanager
    def _working(self) -> Iterator[_Work]:
        """Hold the quarantine; what was left half done, and batches in which nothing waits, are cleared away."""
        with self._failures(), locked_folder(self.quarantine), contextlib.ExitStack() as stack:
            place = stack.enter_context(folders_below(self.root))
            quarantine = stack.enter_context(folders_below(self.quarantine))
            clear(quarantine)
            try:
                yield _Work(place, quarantine)
            finally:
                clear(quarantine)

    def _told(self, moved: Moved) -> Moved:
        """What was done, unless nothing may be done here at all."""
        denied = [key for key, reason in moved.left if reason == DENIED]
        if denied and not moved.done:
            raise RemovalError(f"{self.root}/{denied[0]}: {DENIED}", hint="See who owns the folder: `ls -ld`")
        return moved

    @contextmanager
    def _failures(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except HoldfastError:
            raise
        except OSError as error:
            raise failure_of(error, self.root / key) from error


def _time(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, timezone.utc)
