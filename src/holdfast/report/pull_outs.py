"""Data and models that a pull request changes: what they were, what they are, what they add, what is let go."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.compare.checkpoints import compare_checkpoints
from holdfast.errors import HoldfastError
from holdfast.formats.opening import open_checkpoint
from holdfast.gc.policy import Policy
from holdfast.registry.entries import Model, Version
from holdfast.repo.cache import object_path, read_members
from holdfast.repo.dvcfiles import LISTING_SUFFIX, MD5, Out

if TYPE_CHECKING:
    from holdfast.vault.index import Index
from holdfast.report.pull_sides import Side

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx", ".npz", ".npy")
COMPARED_BYTES = 2 * 10**9  # of checkpoints in all: reading more would keep the reviewer waiting
SAMPLED_FILES = 20  # of those that are encoded for the estimate, the largest
SAMPLED_LEAST_BYTES = 100_000  # smaller ones count whole

ObjectKey = tuple[str, str]
OutKind = Literal["added", "removed", "changed", "renamed"]


@dataclass(frozen=True)
class OutChange:
    """A file or folder of DVC's that differs.

    Attributes:
        kind: ``renamed``: the same object under another path.
        path: on the head side; of a removed one on the base side.
        base: None where the base side has none.
        head: None where the head side has none.
        renamed_from: its path on the base side, of a renamed one.
        verdict: of two checkpoints in words; of a folder how many files differ; empty where there is nothing to say.
    """

    kind: OutKind
    path: str
    base: Out | None
    head: Out | None
    renamed_from: str | None = None
    verdict: str = ""

    @property
    def is_model(self) -> bool:
        """Whether its name is that of a checkpoint."""
        return self.path.lower().endswith(CHECKPOINTS)

    @property
    def size(self) -> int:
        """Bytes of the larger side, 0 where that is not recorded."""
        return max((out.size or 0 for out in (self.base, self.head) if out is not None), default=0)


@dataclass(frozen=True)
class Fresh:
    """Objects that the head side names and the base side does not.

    Attributes:
        known: those of the base side.
        sizes: bytes of each that is new; None where nothing here tells.
        changes: where each belongs.
    """

    known: frozenset[ObjectKey]
    sizes: Mapping[ObjectKey, int | None]
    changes: Mapping[ObjectKey, OutChange]


@dataclass(frozen=True)
class NewBytes:
    """What the branch adds to what is stored.

    Attributes:
        objects: how many objects no DVC file of the base side names.
        nbytes: of all of them, each stored once and whole, as DVC does it.
        vault: the same in a vault, deduplicated; None where it cannot be told.
        exact: whether ``vault`` was read from the vault's index, rather than estimated by encoding a sample.
        unknown: objects whose size nothing here tells, which are not counted.
    """

    objects: int
    nbytes: int
    vault: int | None
    exact: bool
    unknown: int


@dataclass(frozen=True)
class LetGo:
    """An object that the base side's files name and the head side's do not.

    Attributes:
        path: where the base side has it.
        size: bytes; None where it is not recorded.
        kept_by: what keeps it after the merge, in words; empty where nothing does once it is old enough.
    """

    path: str
    size: int | None
    kept_by: str


def compare_outs(base: Side, head: Side) -> list[OutChange]:
    """What DVC tracks and is not the same object: checkpoints first, then the largest."""
    ours, theirs = base.outs, head.outs
    gone = {path: out for path, out in ours.items() if path not in theirs}
    come = {path: out for path, out in theirs.items() if path not in ours}
    found = [
        OutChange("changed", path, ours[path], out)
        for path, out in theirs.items()
        if path in ours and _key(ours[path]) != _key(out)
    ]
    by_key: dict[tuple[str, str], list[str]] = {}
    for path in sorted(gone, reverse=True):
        by_key.setdefault(_key(gone[path]), []).append(path)
    for path in sorted(come):
        before = by_key.get(_key(come[path]))
        if before:
            old = before.pop()
            found.append(OutChange("renamed", path, gone.pop(old), come[path], renamed_from=old))
        else:
            found.append(OutChange("added", path, None, come[path]))
    found += [OutChange("removed", path, out, None) for path, out in gone.items()]
    return sorted(found, key=lambda change: (not change.is_model, -change.size, change.path))


def with_verdicts(changes: list[OutChange], base: Side, head: Side) -> list[OutChange]:
    """The changes with what can be said of them from DVC's cache."""
    left = COMPARED_BYTES
    result = []
    for change in changes:
        verdict = ""
        if change.kind == "changed" and change.base is not None and change.head is not None:
            if change.is_model:
                left -= (change.base.size or 0) + (change.head.size or 0)
            if change.head.oid.endswith(LISTING_SUFFIX) or change.base.oid.endswith(LISTING_SUFFIX):
                verdict = _folder_verdict(base.cache, change.base, change.head)
            elif change.is_model and left < 0:
                verdict = "too large to compare here: `holdfast diff` does it"
            elif change.is_model:
                verdict = compare_files(_place(base, change.base), _place(head, change.head))
        result.append(replace(change, verdict=verdict))
    return result


def compare_files(base: Path, head: Path) -> str:
    """How two checkpoints differ, in words."""
    if not (base.is_file() and head.is_file()):
        return "not in the cache here"
    try:
        with contextlib.ExitStack() as stack:
            one, ours = open_checkpoint(base)
            stack.enter_context(one)
            two, theirs = open_checkpoint(head)
            stack.enter_context(two)
            found = compare_checkpoints(ours, theirs)
    except (HoldfastError, OSError) as error:
        return f"cannot be compared: {' '.join(str(error).split())}".replace(str(base), "base").replace(
            str(head), "head"
        )
    if found.kind == "same weights" and found.metadata:
        return "same weights, new metadata"
    if found.kind == "not comparable":
        reason = ours.no_digest or theirs.no_digest or "it holds no weights"
        return f"not comparable: {reason}"
    return found.verdict


def fresh_objects(base: Side, head: Side, changes: list[OutChange]) -> Fresh:
    """The objects that the head side adds; a folder counts as its listing and its files where that is here."""
    known = {key for out in base.outs.values() for key in _objects(base, out)}
    sizes: dict[ObjectKey, int | None] = {}
    parents: dict[ObjectKey, OutChange] = {}
    for change in changes:
        if change.head is None or change.kind == "renamed":
            continue
        for key in _objects(head, change.head):
            if key not in known and key not in sizes:
                place = object_path(head.cache, *key)
                whole = key == _key(change.head)
                # of a folder the size that is recorded is that of its files
                recorded = change.head.size if whole and not _is_listed(head, change.head) else None
                sizes[key] = recorded if recorded is not None or not place.is_file() else place.stat().st_size
                parents[key] = change
    return Fresh(frozenset(known), sizes, parents)


def new_bytes(base: Side, head: Side, fresh: Fresh, *, exact: int | None = None) -> NewBytes:
    """What new objects add to what is stored.

    Args:
        base: whose objects are there already.
        head: whose objects are to be there.
        fresh: those that are new.
        exact: what a vault stores of them, where its index tells.
    """
    nbytes = sum(size or 0 for size in fresh.sizes.values())
    unknown = sum(size is None for size in fresh.sizes.values())
    vault = exact if exact is not None else _estimated(base, head, fresh) if fresh.sizes else 0
    return NewBytes(len(fresh.sizes), nbytes, vault, exact is not None, unknown)


def vault_bytes(index: "Index", known: Collection[str], fresh: Collection[str]) -> int | None:
    """What a vault stores of some oids besides what it needs for others; None where its index does not know them all.

    Args:
        index: of the vault.
        known: md5s that the base side has.
        fresh: those that are new.

    Raises:
        IntegrityError: the index contradicts itself.
    """
    recipes = index.recipes([f"{MD5}:{oid}" for oid in fresh])
    if len(recipes) < len(set(fresh)):
        return None
    before = index.recipes([f"{MD5}:{oid}" for oid in known]).values()
    blobs = {piece.blob for recipe in recipes.values() for piece in recipe.pieces}
    blobs -= {piece.blob for recipe in before for piece in recipe.pieces}
    entries = index.entries(blobs)
    return sum(places[0].stored for places in entries.values()) if len(entries) == len(blobs) else None


def let_go(base: Side, head: Side, models: Mapping[str, Model | None], policy: Policy) -> list[LetGo]:
    """What nothing at the head side's commit names any more, the largest first, and what keeps it all the same."""
    named = {_key(out) for out in head.outs.values()}
    registered = {
        (MD5, version.oid): f"{model.id}@{version.name}"
        for model in models.values()
        if model is not None
        for version in _kept_versions(model, policy)
    }
    found: dict[tuple[str, str], LetGo] = {}
    for path, out in sorted(base.outs.items()):
        key = _key(out)
        if key not in named and key not in found:
            kept = f"registered as {registered[key]}" if key in registered else _history(policy)
            found[key] = LetGo(path, out.size, kept)
    return sorted(found.values(), key=lambda gone: (-(gone.size or 0), gone.path))


def _kept_versions(model: Model, policy: Policy) -> Iterator[Version]:
    newest = model.versions if policy.versions is None else model.versions[len(model.versions) - policy.versions :]
    named = {model.current, *model.aliases.values()}
    for version in model.versions:
        if version in newest or version.name in named:
            yield version


def _history(policy: Policy) -> str:
    if policy.history is None:
        return "git's history"
    days = policy.history.days
    return f"git's history for {days} days" if days else ""


def _key(out: Out) -> ObjectKey:
    return out.hash_name, out.oid


def _place(side: Side, out: Out) -> Path:
    return object_path(side.cache, out.hash_name, out.oid)


def _folder_verdict(cache: Path, base: Out, head: Out) -> str:
    lists = [
        read_members(cache, out.hash_name, out.oid) if out.oid.endswith(LISTING_SUFFIX) else [] for out in (base, head)
    ]
    if lists[0] is None or lists[1] is None:
        return "its listing is not in the cache here"
    ours, theirs = dict(lists[0]), dict(lists[1])
    added, removed = len(theirs.keys() - ours.keys()), len(ours.keys() - theirs.keys())
    changed = sum(ours[name] != theirs[name] for name in ours.keys() & theirs.keys())
    told = [
        f"{count:,} {what}" for count, what in ((added, "added"), (removed, "removed"), (changed, "changed")) if count
    ]
    return f"of {len(theirs):,} files {', '.join(told)}" if told else ""


def _objects(side: Side, out: Out) -> Iterator[ObjectKey]:
    """An out's object, and where it is a folder whose listing is here, the files'."""
    yield _key(out)
    if out.oid.endswith(LISTING_SUFFIX):
        for _, oid in read_members(side.cache, out.hash_name, out.oid) or ():
            yield out.hash_name, oid


def _is_listed(side: Side, out: Out) -> bool:
    """Whether it is a folder whose listing is here."""
    return out.oid.endswith(LISTING_SUFFIX) and _place(side, out).is_file()


def _estimated(base: Side, head: Side, fresh: Fresh) -> int | None:
    """About what a vault would store: the largest files are encoded in part, the others count whole."""
    # imported here: the codec takes 0.1 s
    from holdfast.dedup.estimate import sample_pair
    from holdfast.formats.source import FileSource

    total = 0
    sampled = 0
    for key, size in sorted(fresh.sizes.items(), key=lambda item: (-(item[1] or 0), item[0])):
        place = object_path(head.cache, *key)
        if size is None or size < SAMPLED_LEAST_BYTES or sampled >= SAMPLED_FILES:
            total += size or 0
            continue
        if not place.is_file():
            return None  # the most of it is not here, so that nothing can be said
        older = _predecessor(base, fresh.changes[key])
        try:
            sample = sample_pair(partial(FileSource, place), None if older is None else partial(FileSource, older))
        except (HoldfastError, OSError):
            total += size
            continue
        sampled += 1
        total += max(0, sample.rest + round(sample.matched * (1 - sample.same)) - sample.saving)
    return total


def _predecessor(base: Side, change: OutChange) -> Path | None:
    """The checkpoint that a changed one would be encoded against, where it is here; other files are cut by content."""
    if not change.is_model or change.base is None or change.base.oid.endswith(LISTING_SUFFIX):
        return None
    place = _place(base, change.base)
    return place if place.is_file() else None
