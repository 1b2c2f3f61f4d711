"""Carrying out a plan of links, and bringing originals back.

An original first gets a second name in a staging folder, then its path becomes the link; at the end all originals move
from there into the quarantine. Whether a step is done is read from what is there, never from a note, so that a run
which was killed goes on by running it again; its plan waits beside the staging folder until then.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.atomic import write_atomically
from holdfast.dedup.plan import NEW_PLAN, DedupPlan, Replacement, read_plan
from holdfast.dedup.planning import stamp_of
from holdfast.dedup.swap import Spot, clear_folders, clone_beside, is_swapped, mend, restore_original, swap
from holdfast.errors import HoldfastError, LockedError, StalePlanError
from holdfast.removal.batches import batch_id
from holdfast.removal.folder import FolderPlace
from holdfast.removal.place import Batch, Moved
from holdfast.repo.cache import object_path
from holdfast.repo.dvc import local_cache
from holdfast.repo.dvc_links import Linker, linking
from holdfast.repo.workspace import Project

NAMED = 3  # files that an error names
# DVC's folder, or one of our own where there is no DVC
PROJECT_PLACE, PLAIN_PLACE = Path(".dvc") / "tmp" / "holdfast", Path(".holdfast")
QUARANTINE, STAGING, JOURNALS, LOCK = "quarantine", "dedup-originals", "dedup-plans", "dedup.lock"

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Applied:
    """What was done.

    Args:
        batch: under which the originals wait in the quarantine.
        linked: paths that are links now, those of an earlier, killed run among them.
        bytes: of these: free once the quarantine is purged.
        left: paths that stay copies, and why.
    """

    batch: str
    linked: tuple[str, ...]
    bytes: int
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Restored:
    """What came back: paths, and what did not, with the reason."""

    paths: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class House:
    """Where things of a folder wait.

    Args:
        folder: the project's root, or any folder.
        project: the project; None where there is none.
    """

    folder: Path
    project: Project | None

    @property
    def place(self) -> FolderPlace:
        """The folder with its quarantine."""
        return FolderPlace(self.folder, self.top / QUARANTINE)

    @property
    def top(self) -> Path:
        """What is ours in it."""
        return self.folder / (PROJECT_PLACE if self.project is not None else PLAIN_PLACE)

    def staging(self, batch: str) -> Path:
        """Where originals wait until all are swapped."""
        return self.top / STAGING / batch

    def journal(self, batch: str) -> Path:
        """The plan that is being carried out."""
        return self.top / JOURNALS / f"{batch}.json"

    def applied(self, batch: str) -> Path:
        """The plan that was carried out, as long as its originals may come back."""
        return self.top / JOURNALS / f"{batch}.applied"

    def returning(self, batch: str) -> Path:
        """The plan whose originals are being brought back: the quarantine forgets it with the last of them."""
        return self.top / JOURNALS / f"{batch}.restoring"

    def key(self, batch: str, path: str) -> str:
        """An original's key in the place."""
        return (self.staging(batch) / path).relative_to(self.folder).as_posix()


def check(house: House, plan: DedupPlan) -> list[Replacement]:
    """The steps that are still to be done, where all else is as the plan has it.

    Raises:
        StalePlanError: a file, or how DVC links, has changed since.
        DvcConfigError: DVC's configuration cannot be read.
    """
    batch = batch_id(plan.as_bytes())
    cache = None
    if house.project is not None:
        found = local_cache(house.folder)
        cache = found.folder
        if any(step.tracked for step in plan.steps) and found.link_types != plan.link_types:
            raise StalePlanError(
                f"DVC's cache.type is {','.join(found.link_types)}, and was {','.join(plan.link_types)}", hint=NEW_PLAN
            )
    waiting = _waiting(house, batch)
    open_steps, changed = [], []
    for step in plan.steps:
        spot = _spot(house, batch, step, cache)
        if step.path in waiting or is_swapped(step, spot):
            continue
        try:
            same = stamp_of(spot.path) == step.stamp and stamp_of(spot.source).same_bytes(step.source_stamp)
        except OSError:
            same = False
        if same:
            open_steps.append(step)
        else:
            changed.append(step.path)
    if changed:
        more = f" and {len(changed) - NAMED:,} more" if len(changed) > NAMED else ""
        raise StalePlanError(
            f"changed since the plan was made, or what they would be linked to was: {', '.join(changed[:NAMED])}{more}",
            hint=NEW_PLAN,
        )
    return open_steps


def apply_plan(house: House, plan: DedupPlan, *, progress: Progress = lambda _done, _total: None) -> Applied:
    """Replace copies by links; the originals wait in the quarantine.

    A file that changes after it was checked, or is open for writing, stays as it is and gets a reason.

    Args:
        house: where.
        plan: from `holdfast.dedup.planning.plan_links`.
        progress: called with bytes done, and all.

    Raises:
        StalePlanError: something has changed since the plan was made; nothing was done.
        LockedError: another process does the same here, or DVC works here.
        HoldfastError: the quarantine cannot be written.
        OSError: the disk is full, or a folder cannot be written.
    """
    data = plan.as_bytes()
    batch = batch_id(data)
    with _locked(house):
        cache = local_cache(house.folder).folder if house.project is not None else None
        for step in plan.steps:
            mend(step, _spot(house, batch, step, cache))
        todo = check(house, plan)
        write_atomically(house.journal(batch), data)
        left: dict[str, str] = {}
        done, total = 0, sum(step.size for step in todo)
        with contextlib.ExitStack() as stack:
            linker = None
            if house.project is not None and any(step.tracked for step in todo):
                linker = stack.enter_context(linking(house.folder))
            for step in todo:
                spot = _spot(house, batch, step, cache)
                reason = swap(step, spot, lambda step, spot: _make(step, spot, linker))
                if reason:
                    left[step.path] = reason
                done += step.size
                progress(done, total)
            linked = [step for step in plan.steps if step.path not in left]
            if linker is not None:
                linker.record([(house.folder / step.path, step.hash_name, step.oid) for step in linked if step.tracked])
        _quarantine(house, batch, data, [step.path for step in linked])
        # the plan's last: who is killed before finds what there is to end
        clear_folders(house.top / STAGING)
        house.journal(batch).replace(house.applied(batch))
        house.returning(batch).unlink(missing_ok=True)
    return Applied(
        batch, tuple(step.path for step in linked), sum(step.size for step in linked), tuple(sorted(left.items()))
    )


def restore_plan(house: House, batch: str, paths: Collection[str] | None = None) -> Restored:
    """Bring originals back in the place of the links that replaced them.

    Args:
        house: where.
        batch: under which they wait.
        paths: of these; all if None.

    Raises:
        HoldfastError: nothing waits under that name, or the quarantine cannot be read.
        LockedError: another process works here.
        OSError: a folder cannot be written.
    """
    with _locked(house):
        plan = plan_of(house, batch)
        steps = {step.path: step for step in plan.steps}
        if unknown := sorted(set(paths or ()) - set(steps)):
            raise HoldfastError(f"the plan {batch} has no file {unknown[0]}", hint="`holdfast dedup list` shows them")
        wanted = [step for path, step in steps.items() if paths is None or path in paths]
        write_atomically(house.returning(batch), plan.as_bytes())
        waiting = _waiting(house, batch)
        back = house.place.restore(batch, [house.key(batch, step.path) for step in wanted if step.path in waiting])
        came, left = [], dict(_by_path(house, batch, back.left))
        for step in wanted:
            staged = house.staging(batch) / step.path
            if step.path in left or not os.path.lexists(staged):
                continue
            reason = restore_original(staged, house.folder / step.path, step.digest)
            if reason:
                left[step.path] = reason
            else:
                came.append(step.path)
        # what could not take its place waits on
        _quarantine(house, batch, plan.as_bytes(), [path for path in steps if path not in came])
        clear_folders(house.top / STAGING)
        if not _waiting(house, batch):
            house.applied(batch).unlink(missing_ok=True)
        house.returning(batch).unlink()
    return Restored(tuple(sorted(came)), tuple(sorted(left.items())))


def purge_plan(house: House, batch: str) -> Moved:
    """Delete the originals that wait under a name for good, which frees their space.

    Raises:
        HoldfastError: the quarantine cannot be written.
        LockedError: another process works here.
    """
    with _locked(house):
        moved = house.place.purge(batch)
        if not moved.left:
            house.applied(batch).unlink(missing_ok=True)
        return moved


def batches(house: House) -> list[Batch]:
    """The plans whose originals wait, the oldest first."""
    return [batch for batch in house.place.batches() if _is_ours(batch)]


def plan_of(house: House, batch: str) -> DedupPlan:
    """The plan under whose name originals wait, or which was cut off.

    Raises:
        HoldfastError: there is none.
    """
    for journal in (house.journal(batch), house.returning(batch), house.applied(batch)):
        if journal.is_file():
            return read_plan(journal.read_bytes())
    found = next((found for found in batches(house) if found.id == batch), None)
    if found is None:
        raise HoldfastError(f"nothing waits under {batch}", hint="`holdfast dedup list` shows what does")
    return read_plan(found.plan)


def unfinished(house: House) -> list[Path]:
    """Plans that were cut off; applying one again ends it."""
    return sorted((house.top / JOURNALS).glob("*.json"))


def unreturned(house: House) -> list[str]:
    """The batches whose originals left the quarantine and are not in their places; restoring one ends it."""
    found = {path.stem for path in (house.top / JOURNALS).glob("*.restoring")}
    if (house.top / STAGING).is_dir():
        found |= {path.name for path in (house.top / STAGING).iterdir()}
    return sorted(found - {path.stem for path in unfinished(house)})


def _make(step: Replacement, spot: Spot, linker: Linker | None) -> None:
    if step.tracked and linker is not None:
        linker.link(step.hash_name, step.oid, step.kind, spot.temporary)
    else:
        clone_beside(step, spot)


def _spot(house: House, batch: str, step: Replacement, cache: Path | None) -> Spot:
    path = house.folder / step.path
    if step.oid:
        if cache is None:
            raise StalePlanError("the plan is of a DVC project, and there is none here", hint=NEW_PLAN)
        source = object_path(cache, step.hash_name, step.oid)
    else:
        source = house.folder / step.source
    # one name for each plan, so that what a killed run left is found by the next
    temporary = path.with_name(f".{path.name[:100]}.{batch[:16]}.tmp")
    return Spot(path, source, house.staging(batch) / step.path, temporary)


def _quarantine(house: House, batch: str, plan: bytes, paths: Sequence[str]) -> None:
    keys = [house.key(batch, path) for path in paths if os.path.lexists(house.staging(batch) / path)]
    if not keys:
        return
    place = house.place
    moved: Moved = place.take(batch, plan, list(place.look(keys).values()))
    if moved.left:
        key, reason = moved.left[0]
        raise HoldfastError(f"{house.folder / key} could not go to the quarantine: {reason}", hint="Apply it again")


def _waiting(house: House, batch: str) -> set[str]:
    """The paths whose originals wait in the quarantine."""
    found = next((found for found in house.place.batches() if found.id == batch), None)
    prefix = f"{house.key(batch, 'x')[:-1]}"
    return {thing.key.removeprefix(prefix) for thing in found.things} if found is not None else set()


def _by_path(house: House, batch: str, left: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    prefix = f"{house.key(batch, 'x')[:-1]}"
    return ((key.removeprefix(prefix), reason) for key, reason in left)


def _is_ours(batch: Batch) -> bool:
    try:
        read_plan(batch.plan)
    except HoldfastError:
        return False  # another command's
    return True


@contextlib.contextmanager
def _locked(house: House) -> Iterator[None]:
    house.top.mkdir(parents=True, exist_ok=True)
    if house.project is None and not (house.top / ".gitignore").exists():
        write_atomically(house.top / ".gitignore", "*\n")
    with open(house.top / LOCK, "w") as stream:
        for attempt in range(2):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if attempt:
                    raise LockedError(
                        f"another process replaces copies in {house.folder}", hint="Wait for it to end"
                    ) from error
                time.sleep(0.1)
        yield
