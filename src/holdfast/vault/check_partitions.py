"""A check whose reading is spread over other processes, in parts that an interrupted check need not read again.

Packs are parted by the first digits of their keys, files by the pack that they begin in. What is known of a part that
was read and found sound is kept until the check is done; what is damaged is looked at anew, since somebody may have
mended it. A part that has changed, or was read long ago, does not count.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from blake3 import blake3

from holdfast.executor.executor import Executor
from holdfast.executor.parquet import parquet_of
from holdfast.executor.partitions import Partition, Shards, run_partitions
from holdfast.objectstore.address import StoreAddress
from holdfast.vault.check_reading import PackRead, PackToRead, Progress, file_damage, read_packs, reader_of
from holdfast.vault.folder_lock import held_folder
from holdfast.vault.pack import parse_key
from holdfast.vault.records import Entry, Recipe
from holdfast.vault.survey import Survey

# of packs: a part has up to so many, and a sixteenth of them at least
PART_BYTES = 512 << 20
# what was read longer ago says little about what is there now
REMEMBERED = timedelta(days=1)
# requests and threads of a task: one that decodes, and one that waits for the store
TASK_JOBS = 2
_FORM = "check 1"
_COLUMNS = {"name": "VARCHAR", "place": "UBIGINT", "reason": "VARCHAR"}


@dataclass(frozen=True)
class Spread:
    """Where else a check reads.

    Attributes:
        executor: what runs its parts.
        address: of the vault, for them.
        folder: where it is noted what was read; of this vault alone.
        now: seconds since 1970.
    """

    executor: Executor
    address: StoreAddress
    folder: Path
    now: float

    @contextlib.contextmanager
    def begun(self, found: Survey) -> Iterator["Parts"]:
        """The parts of one check; all that is noted is forgotten when it was done to its end.

        Args:
            found: what is in the vault.

        Raises:
            OSError: the folder cannot be written.
        """
        with contextlib.ExitStack() as stack:
            folder = self.folder
            if not stack.enter_context(held_folder(folder)):  # another check of this vault is at it
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-check-")))
            shards = Shards(folder, ".parquet")
            yield Parts(self, shards, found)
            shards.forget(())


@dataclass(frozen=True)
class PacksPart:
    """Packs for one task, with all places of their blobs' bases."""

    address: StoreAddress
    packs: tuple[PackToRead, ...]
    places: tuple[Entry, ...]


@dataclass(frozen=True)
class FilesPart:
    """Files for one task, with all places of their blobs and the bases below."""

    address: StoreAddress
    recipes: tuple[Recipe, ...]
    places: tuple[Entry, ...]


@dataclass
class Parts:
    """The parts of one check."""

    spread: Spread
    shards: Shards
    found: Survey

    def read_packs(self, packs: Sequence[PackToRead], progress: Progress) -> Iterator[PackRead]:
        """As of `holdfast.vault.check_reading.read_packs`.

        Raises:
            WorkersLostError, StoreError, OSError: as of `holdfast.executor.partitions.run_partitions`.
        """
        places = _by_id(self.found.entries)
        digits = _digits(sum(self.found.packs.values()))
        parts = [
            PacksPart(self.spread.address, tuple(some), _closure(places, _bases(some)))
            for some in _parted(packs, lambda pack: _prefix(pack.key, digits))
        ]
        damages: dict[str, str] = {}
        broken: dict[str, list[tuple[int, str]]] = {}
        for key, place, reason in self._run(_read_packs, parts, [len(part.packs) for part in parts], progress):
            if place is None:
                damages[key] = reason
            else:
                broken.setdefault(key, []).append((place, reason))
        for pack in packs:
            yield PackRead(pack.key, damages.get(pack.key, ""), tuple(broken.get(pack.key, ())))

    def read_files(self, recipes: Sequence[Recipe], good: Iterable[Entry], progress: Progress) -> Iterator[str]:
        """For each file as of `holdfast.vault.check_reading.file_damage`.

        Args:
            recipes: of the files.
            good: places that can be read.
            progress: told how many files of how many are done.

        Raises:
            WorkersLostError, StoreError, OSError: as of `holdfast.executor.partitions.run_partitions`.
        """
        places = _by_id(good)
        digits = _digits(sum(self.found.packs.values()))

        def begins(recipe: Recipe) -> str:
            entries = places.get(recipe.pieces[0].blob, ()) if recipe.pieces else ()
            return _prefix(min(entries, key=lambda entry: entry.depth).pack, digits) if entries else ""

        parts = [
            FilesPart(self.spread.address, tuple(some), _closure(places, _blobs(some)))
            for some in _parted(recipes, begins)
        ]
        sizes = [len(part.recipes) for part in parts]
        damages = {oid: reason for oid, _, reason in self._run(_read_files, parts, sizes, progress)}
        for recipe in recipes:
            yield damages.get(recipe.oid, "")

    def _run(
        self,
        function: Callable[[Sequence[Any]], bytes],
        parts: Sequence[PacksPart | FilesPart],
        sizes: Sequence[int],
        progress: Progress,
    ) -> Iterator[tuple[Any, ...]]:
        partitions = [Partition(_name(part), [part], size) for part, size in zip(parts, sizes, strict=True)]
        self._drop_stale(partitions)
        paths = run_partitions(self.spread.executor, function, partitions, self.shards, progress=progress)
        with _reading() as rows:
            for path in paths:
                yield from rows(path)

    def _drop_stale(self, partitions: Iterable[Partition[Any]]) -> None:
        """Forget what is too old, and what is damaged: that may have been mended."""
        least = self.spread.now - REMEMBERED.total_seconds()
        there = [path for part in partitions if (path := self.shards.path(part.name)).exists()]
        if there:
            with _reading() as rows:
                for path in there:
                    if path.stat().st_mtime < least or rows(path):
                        path.unlink()


def _read_packs(parts: Sequence[PacksPart]) -> bytes:
    """What is wrong with the packs of some parts, as a table."""
    rows: list[dict[str, Any]] = []
    for part in parts:
        for read in read_packs(part.address.open(), part.packs, part.places, TASK_JOBS):
            if read.damage:
                rows.append({"name": read.key, "place": None, "reason": read.damage})
            rows += [{"name": read.key, "place": offset, "reason": reason} for offset, reason in read.broken]
    return parquet_of(_COLUMNS, rows)


def _read_files(parts: Sequence[FilesPart]) -> bytes:
    """What is wrong with the files of some parts, as a table."""
    rows = []
    for part in parts:
        reader = reader_of(part.address.open(), part.places, TASK_JOBS)
        damages = ((recipe.oid, file_damage(reader, recipe)) for recipe in part.recipes)
        rows += [{"name": oid, "place": None, "reason": damage} for oid, damage in damages if damage]
    return parquet_of(_COLUMNS, rows)


@contextlib.contextmanager
def _reading() -> Iterator[Callable[[Path], list[tuple[Any, ...]]]]:
    """What reads the rows of a table."""
    import duckdb  # imported here: 100 ms that only a check elsewhere takes

    with duckdb.connect(config={"threads": 1}) as connection:
        yield lambda path: connection.execute("SELECT name, place, reason FROM read_parquet(?)", [str(path)]).fetchall()


def _name(part: PacksPart | FilesPart) -> str:
    """What tells a part from others, and from itself before the vault changed."""
    items = part.packs if isinstance(part, PacksPart) else part.recipes
    return blake3(repr((_FORM, part.address.url, items, part.places)).encode()).hexdigest()


def _digits(nbytes: int) -> int:
    """How many digits of their keys part so many bytes of packs."""
    digits = 1
    while nbytes > PART_BYTES * 16**digits:
        digits += 1
    return digits


def _prefix(key: str, digits: int) -> str:
    return parse_key(key)[0][:digits]


def _parted(items: Iterable[Any], prefix: Callable[[Any], str]) -> list[list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(prefix(item), []).append(item)
    return [found[name] for name in sorted(found)]


def _by_id(entries: Iterable[Entry]) -> dict[bytes, list[Entry]]:
    places: dict[bytes, list[Entry]] = {}
    for entry in entries:
        places.setdefault(entry.id, []).append(entry)
    return places


def _bases(packs: Iterable[PackToRead]) -> Iterator[bytes]:
    return (entry.base for pack in packs for entry in pack.entries if entry.base)


def _blobs(recipes: Iterable[Recipe]) -> Iterator[bytes]:
    return (piece.blob for recipe in recipes for piece in recipe.pieces)


def _closure(places: Mapping[bytes, Sequence[Entry]], names: Iterable[bytes]) -> tuple[Entry, ...]:
    """All places of some blobs, and of all bases below them."""
    wanted = list(dict.fromkeys(names))
    met, found = set(wanted), list[Entry]()
    while wanted:
        entries = places.get(wanted.pop(), ())
        found += entries
        for entry in entries:
            if entry.base and entry.base not in met:
                met.add(entry.base)
                wanted.append(entry.base)
    return tuple(found)
