"""What lies twice in a DVC remote: from its listing, headers read by ranges, and what of it is on this machine.

No object is downloaded. Of one that the local cache has, the copy here is read instead. Of the others headers and
sampled blocks are read by ranges; whether their weights or tensors are equal cannot be told without their bytes, and
the report says so.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from holdfast.dedup.contents import Body, Contents, read_contents, slots_of
from holdfast.dedup.duplicates import Collected
from holdfast.dedup.files import Candidate
from holdfast.dedup.groups import KINDS, MIN_SIZE_BYTES, DuplicateGroup, DuplicateReport, Kind, ranked
from holdfast.dedup.names import read_names
from holdfast.dedup.report import READING, SAMPLING, Progress, inner_groups, names_of
from holdfast.dedup.similar import similar_groups
from holdfast.errors import HoldfastError
from holdfast.formats.cache import DigestCache
from holdfast.formats.opening import read_checkpoint
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.source import ObjectSource
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.cache import object_path
from holdfast.repo.dvcfiles import LEGACY_MD5, LISTING_SUFFIX, MD5
from holdfast.repo.lineage import ObjectKey
from holdfast.repo.workspace import Project
from holdfast.vault.layout import is_listing, is_run, key_of, list_contents
from holdfast.vault.split import may_be_checkpoint

JOBS = 16
# of a smaller object header and samples would be a good part, so that it is not looked into
MIN_LOOKED_BYTES = 4 << 20
MAX_LOOKED, MAX_PAIRS = 2000, 50
# blocks of 256 KiB: a megabyte of each of two objects
BLOCKS_A_PAIR = 4
SIMILAR_ADVICE = "holdfast vault import, holdfast push"
MIGRATE_ADVICE = "dvc cache migrate; dvc push; then holdfast gc plan --scope remote"

Open = Callable[[], "_Opened"]


def report_remote(
    store: ObjectStore,
    project: Project,
    cache: Path,
    digests: DigestCache,
    *,
    kinds: Collection[Kind] = (),
    min_size: int = MIN_SIZE_BYTES,
    jobs: int = JOBS,
    progress: Progress = lambda _what, _done, _total: None,
) -> DuplicateReport:
    """Everything in a DVC remote that is stored twice, as far as it can be told without downloading.

    Args:
        store: the remote.
        project: whose history names the objects.
        cache: DVC's local one.
        digests: what is known of the files in it.
        kinds: those wanted; all if none.
        min_size: smaller objects, and groups that waste less, are left out.
        jobs: requests at a time.
        progress: see `Progress`.

    Raises:
        UsageError: it is a folder within a remote.
        StoreError: it cannot be reached.
    """
    wanted = frozenset(kinds or KINDS)
    listed = list_contents(store, jobs=jobs).sizes
    sizes = {_key(oid): size for oid, size in listed.items() if not is_run(oid) and not is_listing(oid)}
    sizes = {key: size for key, size in sizes.items() if size >= max(1, min_size)}
    notes: list[str] = []
    lineage = read_names(project, cache, notes)
    groups = [group for group in _both_layouts(sizes) if group.kind in wanted]
    here = {key: path for key in sizes if (path := object_path(cache, *key)).is_file()}
    contents = Contents()
    if wanted - {"checkout", "duplicate"}:
        contents = read_contents(
            _collected(cache, here),
            digests,
            min_size=min_size,
            progress=lambda done, total: progress(READING, done, total),
        )
        inner = frozenset(wanted - {"similar"})
        groups += inner_groups(
            contents, digests, lineage, inner, min_size=min_size, max_pairs=0, blocks=0, progress=progress
        )
        notes += contents.notes
    if "similar" in wanted:
        bodies = [*contents.bodies, *_far_bodies(store, sizes, here, len(contents.bodies), jobs, notes)]
        found = similar_groups(
            bodies,
            lineage,
            notes,
            max_pairs=MAX_PAIRS,
            blocks=BLOCKS_A_PAIR,
            progress=lambda done, total: progress(SAMPLING, done, total),
        )
        groups += [group for group in found if group.wasted >= max(1, min_size)]
    names = names_of(lineage)
    shown = [
        replace(
            group,
            paths=(),
            names=tuple(names.get(oid, "") for oid in group.oids),
            advice=MIGRATE_ADVICE if group.kind == "duplicate" else SIMILAR_ADVICE,
        )
        for group in groups
    ]
    return DuplicateReport(
        groups=ranked(shown),
        files=0,
        objects=len(sizes),
        bytes=sum(sizes.values()),
        link_types=(),
        notes=tuple(dict.fromkeys(notes)),
        scopes=("remote",),
        checkpoints=len(contents.bodies),
        tensors=len(contents.tensors),
    )


class _Opened(ObjectSource):
    """An object that is read by ranges, in the manner of a file."""

    def __enter__(self) -> "_Opened":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _key(oid: str) -> ObjectKey:
    kind, _, value = oid.partition(":")
    return kind, value


def _both_layouts(sizes: Mapping[ObjectKey, int]) -> Iterator[DuplicateGroup]:
    """Objects that lie where DVC 3 and where DVC 2 keep them: of equal length they are the same bytes.

    DVC 2 named text by what it is with the line ends of Unix; where that made a difference the lengths differ.
    """
    for (kind, oid), size in sizes.items():
        if kind == MD5 and sizes.get((LEGACY_MD5, oid)) == size and not oid.endswith(LISTING_SUFFIX):
            digest = blake3(f"both layouts\0{oid}".encode()).hexdigest()
            yield DuplicateGroup(f"blake3:{digest}", size, 2, size, "duplicate", (), (oid,))


def _collected(cache: Path, here: Mapping[ObjectKey, Path]) -> Collected:
    collected = Collected(cache)
    for (kind, oid), path in here.items():
        try:
            status = path.stat()
        except OSError:
            continue  # collected meanwhile
        label = path.relative_to(cache).as_posix()
        inode = (status.st_dev, status.st_ino)
        collected.objects.append(Candidate(path, label, oid, kind, status.st_size, inode, status.st_mtime_ns))
    return collected


def _far_bodies(
    store: ObjectStore,
    sizes: Mapping[ObjectKey, int],
    here: Mapping[ObjectKey, Path],
    first: int,
    jobs: int,
    notes: list[str],
) -> list[Body]:
    """The checkpoints that are in the remote alone, by their headers; the largest, where there are very many."""
    far = sorted((key for key in sizes if key not in here), key=lambda key: (-sizes[key], key))
    looked = [key for key in far if sizes[key] >= MIN_LOOKED_BYTES][:MAX_LOOKED]
    found: list[Body] = []
    for key, told in zip(looked, concurrently(lambda key: _looked(store, key), looked, jobs), strict=True):
        if isinstance(told, HoldfastError):
            notes.append(f"{key[1]}: its header cannot be read: {told.message}")
        elif told is not None:
            opener, slots = told
            found.append(Body(first + len(found), sizes[key], 0, (), (key,), opener, slots=slots))
    if found:
        several = "1 checkpoint is" if len(found) == 1 else f"{len(found):,} checkpoints are"
        notes.append(
            f"{several} in the remote alone: whether their weights or tensors are equal to others' is not known without"
            " downloading them, and is not in these figures"
        )
    small = [key for key in far if key not in set(looked)]
    if small:
        several = "1 object is" if len(small) == 1 else f"{len(small):,} objects are"
        notes.append(f"{several} in the remote alone and too small or too many to be looked into: not known")
    return found


def _looked(store: ObjectStore, key: ObjectKey) -> tuple[Open, tuple[int, ...]] | HoldfastError | None:
    """How to open an object that is a checkpoint, and its slots; None of any other."""
    name = key_of(f"{key[0]}:{key[1]}")
    if name is None:
        return None
    try:
        source = _Opened(store, name)
        if not may_be_checkpoint(source):
            return None
        checkpoint = read_checkpoint(source)
        if not checkpoint.tensors:
            return None
        slots = slots_of(checkpoint)
    except HoldfastError as error:
        return error
    info = source.info
    return (lambda: _Opened(store, name, info)), slots
