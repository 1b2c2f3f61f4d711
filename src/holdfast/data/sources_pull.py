"""Brings a source from the bucket into a folder: in parallel, going on where an interrupted pull ended, verified."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.atomic import sync_folder
from holdfast.data.catalogue import Source
from holdfast.data.sources_bytes import CHUNK_BYTES, checksums_of, form_of, main_checksum, read_files
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import InvalidKeyError, ObjectInfo, ObjectNotFoundError, ObjectStore, check_key

PART_SUFFIX = ".part"
JOBS = 8
SYNC_BYTES = 64 * 2**20  # what a power failure may cost


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        source: ``domain/name``.
        folder: where it is now.
        files: objects that it has.
        size: their bytes.
        received: bytes that were fetched; the others were there.
        checksum: of what is there now.
        verified: whether that was held against a checksum.
    """

    source: str
    folder: str
    files: int
    size: int
    received: int
    checksum: str
    verified: bool


def pull_source(
    store: ObjectStore,
    source: Source,
    folder: Path,
    expected: str = "",
    *,
    force: bool = False,
    jobs: int = JOBS,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Pulled:
    """Bring what lies at a source's prefix into a folder.

    A file that is there with the object's size and time is kept; one that another pull began is gone on with, as long
    as the object is the same. A file takes its place when all of it is there. Where the checksum is not the expected
    one, what was kept is fetched again before that counts as damage.

    Args:
        store: the bucket.
        source: with a prefix.
        folder: where to; made where it is missing.
        expected: the checksum that all must have; none is checked where it is empty.
        force: fetch what is there, too.
        jobs: requests at a time.
        progress: told bytes done, and in all.

    Raises:
        ObjectNotFoundError: there is nothing at the prefix.
        InvalidKeyError: an object's name cannot be that of a file below the folder.
        IntegrityError: the bytes do not have the checksum, or an object was replaced meanwhile.
        StoreError: the bucket cannot be read.
        OSError: a file cannot be written.
    """
    objects = list_source(store, source.prefix)
    if not objects:
        hint = f"`holdfast sources verify {source.domain} --remote` says what is where"
        raise ObjectNotFoundError(f"there is nothing at {store.url.rstrip('/')}/{source.prefix}/", hint=hint)
    names = {info.key: info.key.removeprefix(f"{source.prefix}/") for info in objects}
    _check_names(set(names.values()), source)
    kept = [] if force else [info for info in objects if _is_there(folder / names[info.key], info)]
    received = _fetch_all(store, objects, kept, names, folder, jobs, progress)
    digests = read_files(folder, names.values(), expected, jobs=jobs)
    if expected and expected not in checksums_of(digests).values() and kept:
        # a file that was changed here and kept its time: the bucket's decides
        received += _fetch_all(store, kept, [], names, folder, jobs, progress)
        digests = read_files(folder, names.values(), expected, jobs=jobs)
    found = checksums_of(digests)
    if expected and expected not in found.values():
        told = found.get(form_of(expected)) or f"{len(objects)} files"
        place = f"{store.url.rstrip('/')}/{source.prefix}/"
        raise IntegrityError(
            f"{source.id}: what came from {place} has {told}, and {expected} is expected",
            hint=f"It lies in {folder}. `holdfast sources verify {source.domain} --remote` says more",
        )
    size = sum(info.size for info in objects)
    return Pulled(source.id, str(folder), len(objects), size, received, main_checksum(digests), bool(expected))


def list_source(store: ObjectStore, prefix: str) -> list[ObjectInfo]:
    """The objects at a prefix, without what consoles leave for folders that were made by hand."""
    objects = list(store.list_objects(prefix))
    folders = {info.key[:place] for info in objects for place, character in enumerate(info.key) if character == "/"}
    return [info for info in objects if info.size or info.key not in folders | {prefix}]


def _check_names(paths: set[str], source: Source) -> None:
    for name in sorted(paths):
        check_key(name)
        above = name
        while "/" in above:
            above = above.rpartition("/")[0]
            if above in paths:
                fault = f"{source.id} has an object {above} and others below it, which no folder can hold"
                raise InvalidKeyError(fault, hint="Rename one of them in the bucket")


def _is_there(path: Path, info: ObjectInfo) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == info.size and int(status.st_mtime) == int(info.modified.timestamp())


def _fetch_all(
    store: ObjectStore,
    objects: Sequence[ObjectInfo],
    kept: Sequence[ObjectInfo],
    names: dict[str, str],
    folder: Path,
    jobs: int,
    progress: Callable[[int, int], None],
) -> int:
    """Fetch the objects that are not kept; the bytes that came."""
    there = {info.key for info in kept}
    wanted = [info for info in objects if info.key not in there]
    total = sum(info.size for info in objects)
    done = [total - sum(info.size for info in wanted), 0]

    def tell(begun: int, came: int) -> None:
        done[0] += begun + came  # off by a moment where two threads meet, which only the picture shows
        done[1] += came
        progress(done[0], total)

    # few large files are fetched by several requests each
    requests = max(1, jobs // max(1, len(wanted)))
    came = 0
    for count in concurrently(lambda info: _fetch(store, info, folder / names[info.key], requests, tell), wanted, jobs):
        came += count
    for place in sorted({(folder / names[info.key]).parent for info in wanted}):
        sync_folder(place)
    return came


def _fetch(store: ObjectStore, info: ObjectInfo, path: Path, requests: int, tell: Callable[[int, int], None]) -> int:
    """Fetch an object, from where an earlier pull of the same state ended; the bytes that came."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = f"{info.etag}\n{info.size}\n{info.modified.isoformat()}".encode()
    part = path.with_name(f".{path.name}.{hashlib.sha256(state).hexdigest()[:16]}{PART_SUFFIX}")
    for old in path.parent.glob(f".{_escaped(path.name)}.*{PART_SUFFIX}"):
        if old != part:
            old.unlink(missing_ok=True)  # of a state that the object no longer has
    with open(part, "ab") as stream:
        begun = stream.tell()
        if begun > info.size:
            stream.truncate(0)
            begun = 0
        tell(begun, 0)
        offset, unsynced = begun, 0
        spans = [(place, min(CHUNK_BYTES, info.size - place)) for place in range(begun, info.size, CHUNK_BYTES)]
        for data in concurrently(lambda span: store.get_range(info.key, *span, etag=info.etag), spans, requests):
            stream.write(data)
            offset += len(data)
            unsynced += len(data)
            tell(0, len(data))
            if unsynced >= SYNC_BYTES:
                _sync(stream.fileno(), stream.flush)
                unsynced = 0
        _sync(stream.fileno(), stream.flush)
    if part.stat().st_size != info.size:
        part.unlink()
        raise HoldfastError(f"{part} was written by another command, too", hint="Run one pull of a source at a time")
    seconds = info.modified.timestamp()
    os.utime(part, (seconds, seconds))
    part.replace(path)
    return info.size - begun


def _sync(descriptor: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(descriptor)


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
