"""What the sessions of an import have in common, found out before any of them begins: blobs, families, casts.

One after the other, each session sees what those before it stored. So that several can be at work, all files are read
once beforehand, in other processes: split and hashed, and nothing encoded. A session that shares a blob with an earlier
one, or stores a file against one of its files, must wait for that one; all else it may do without, and stores the same.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from holdfast.errors import HoldfastError
from holdfast.executor.parquet import parquet_of
from holdfast.formats.source import FileSource
from holdfast.vault.casts import CastNames, cast_names
from holdfast.vault.config import Config
from holdfast.vault.families import least_slots
from holdfast.vault.import_sending import is_damage, reason_of
from holdfast.vault.import_sources import Source, task_folder
from holdfast.vault.measuring import measure
from holdfast.vault.oids import check_md5, hasher_of
from holdfast.vault.pipeline import Pipeline
from holdfast.vault.reading import blob_id
from holdfast.vault.records import ConflictError
from holdfast.vault.scratch import scratch_folder
from holdfast.vault.session import BUNDLE_BYTES, UnreadableFileError
from holdfast.vault.small_files import read_small
from holdfast.vault.split import split_source

FINE, DAMAGED, FAILED = "", "damaged", "failed"
_COLUMNS = {
    "session": "UINTEGER",
    "place": "UINTEGER",
    "oid": "VARCHAR",
    "state": "VARCHAR",
    "reason": "VARCHAR",
    "blobs": "VARCHAR[]",
    "slots": "VARCHAR[]",
    "casts": "VARCHAR[]",
    "halves": "VARCHAR[]",
}


@dataclass(frozen=True)
class Batch:
    """Files for one task: what a session fetches and puts together.

    Attributes:
        source: where they come from.
        config: of the vault.
        session: the number of the session.
        sizes: oid and bytes of each file, in their order.
        digests: size and BLAKE3 that the vault knows already under some of the oids.
        delta: whether anything will be stored against other versions.
    """

    source: Source
    config: Config
    session: int
    sizes: tuple[tuple[str, int], ...]
    digests: tuple[tuple[str, int, bytes], ...]
    delta: bool

    @property
    def name(self) -> str:
        """Hex digest of all that is found depends on."""
        config = self.config.as_bytes()
        key = ("look 1", self.source.url, config, self.session, self.sizes, self.digests, self.delta)
        return blake3(repr(key).encode()).hexdigest()


class Looked(NamedTuple):
    """A file that was read.

    Attributes:
        oid: its name.
        state: `FINE`, `DAMAGED` or `FAILED`.
        reason: why, where it is not fine.
        slots: what finds its family; none of a small file, or where nothing is stored against other versions.
        names: what tells whether it is a cast.
    """

    oid: str
    state: str
    reason: str
    slots: tuple[int, ...]
    names: CastNames


def look(batches: Sequence[Batch]) -> bytes:
    """Read the files of some batches; what was found, as a table.

    Raises:
        StoreError: the remote cannot be reached.
        OSError: the disk is full, or cannot be written.
    """
    rows: list[dict[str, Any]] = []
    for batch in batches:
        with scratch_folder(task_folder()) as scratch:
            files = batch.source.files(scratch)
            try:
                missing = files.fetch(dict(batch.sizes))
                rows += _looked_at(batch, {oid: files.path(oid) for oid, _ in batch.sizes}, missing)
            finally:
                files.close()
    return parquet_of(_COLUMNS, ({name: row.get(name) for name in _COLUMNS} for row in rows))


def files_in(paths: Sequence[Path]) -> Iterator[Looked]:
    """The files of tables, in their order."""
    columns = "oid, state, reason, slots, casts, halves"
    with _database() as connection:
        for path in paths:
            query = f"SELECT {columns} FROM read_parquet(?) WHERE oid IS NOT NULL ORDER BY place"
            for oid, state, reason, slots, casts, halves in connection.execute(query, [str(path)]).fetchall():
                names = CastNames(*(tuple(map(bytes.fromhex, some or ())) for some in (casts, halves)))
                yield Looked(oid, state, reason, tuple(int(slot, 16) for slot in slots or ()), names)


def shared_blobs(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Which session shares blobs with which earlier one, that has them first: pairs of their numbers."""
    if not paths:
        return []
    query = """
        WITH met AS (SELECT DISTINCT session, unnest(blobs) AS blob FROM read_parquet(?)),
        first AS (SELECT blob, min(session) AS first FROM met GROUP BY blob HAVING count(*) > 1)
        SELECT DISTINCT session, first FROM met JOIN first USING (blob) WHERE session > first ORDER BY ALL
    """
    with _database() as connection:
        found: list[tuple[int, int]] = connection.execute(query, [[str(path) for path in paths]]).fetchall()
        return found


@contextlib.contextmanager
def _database() -> Iterator[Any]:
    import duckdb  # imported here: 100 ms that only an import elsewhere takes

    with (
        tempfile.TemporaryDirectory(prefix="holdfast-") as folder,
        duckdb.connect(config={"threads": 2, "memory_limit": "1GiB", "temp_directory": folder}) as connection,
    ):
        yield connection


def _looked_at(batch: Batch, paths: dict[str, Path], missing: dict[str, HoldfastError]) -> Iterator[dict[str, Any]]:
    """A row for each file, and for each blob of small ones."""
    digests = {oid: (size, digest) for oid, size, digest in batch.digests}
    small, nbytes = list[bytes](), 0  # of the blob that is put together
    md5 = Pipeline(1, 3, "holdfast-md5")
    try:
        for place, (oid, _) in enumerate(batch.sizes):
            row: dict[str, Any] = {"session": batch.session, "place": place, "oid": oid, "state": FINE, "reason": ""}
            try:
                if oid in missing:
                    raise missing[oid]
                data = _small(paths[oid])
                if data is None:
                    _look_at(batch, oid, paths[oid], digests, md5, row)
                else:
                    _check_small(oid, data, paths[oid], digests)
                    small.append(data)
                    nbytes += len(data)
            except HoldfastError as error:
                row |= {"state": DAMAGED if is_damage(error) else FAILED, "reason": reason_of(error)}
            yield row
            if nbytes >= BUNDLE_BYTES:
                yield _bundled(batch, small)
                small, nbytes = [], 0
        yield _bundled(batch, small)
    finally:
        md5.close()


def _small(path: Path) -> bytes | None:
    try:
        return read_small(path)
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_small(oid: str, data: bytes, path: Path, digests: dict[str, tuple[int, bytes]]) -> None:
    if (hasher := hasher_of(oid)) is not None:
        hasher.update(data)
        check_md5(oid, hasher, str(path))
    _check_known(oid, (len(data), blake3(data).digest()), path, digests)


def _look_at(
    batch: Batch,
    oid: str,
    path: Path,
    digests: dict[str, tuple[int, bytes]],
    md5: Pipeline,
    row: dict[str, Any],
) -> None:
    """A file that is not small. What it is like is told whether or not it is sound, as a session sees it, too."""
    try:
        with FileSource(path) as source:
            split = split_source(source, block_bytes=batch.config.block_bytes, chunking=batch.config.chunking)
            if batch.delta:
                names = cast_names(source, split)
                row |= {
                    "slots": [f"{slot:x}" for slot in least_slots(split)],
                    "casts": [name.hex() for name in names.casts],
                    "halves": [name.hex() for name in names.halves],
                }
            measured = measure(oid, source, split, md5)
            _check_known(oid, (source.size, measured.digest), path, digests)
            row["blobs"] = [name.hex() for name in dict.fromkeys(measured.ids)]
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_known(oid: str, found: tuple[int, bytes], path: Path, digests: dict[str, tuple[int, bytes]]) -> None:
    if digests.get(oid, found) != found:
        raise ConflictError(f"{oid} has another content in the vault than in {path}")


def _bundled(batch: Batch, small: Sequence[bytes]) -> dict[str, Any]:
    data = b"".join(small)
    return {"session": batch.session, "blobs": [blob_id(data).hex()] if data else []}
