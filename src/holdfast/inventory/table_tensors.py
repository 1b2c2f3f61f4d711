"""The table of tensors: of files from their headers, of objects from what was read of them already."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from blake3 import blake3

from holdfast.errors import IntegrityError
from holdfast.executor.executor import Executor
from holdfast.executor.parquet import parquet_of
from holdfast.executor.partitions import Partition, Shards, run_partitions
from holdfast.formats.cache import DigestCache, digests_of, key_of
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import FileSource
from holdfast.inventory.scan_partitions import cut, name_of
from holdfast.inventory.scan_shards import tensor_lines, tensor_rows
from holdfast.inventory.scan_table import text_of
from holdfast.inventory.table_columns import TENSORS, types_of

TASK = "holdfast table tensors 1"  # another number where the same input would give another table
SHARDS = 16  # of what was read, some 4,000 objects, make one of the table
FILES = 256
BATCH = 4  # shards of the table whose lines are held at a time

Writer = Callable[[Shards], list[Path]]


def tensors_of_objects(shards: Sequence[Path], executor: Executor) -> Writer:
    """What writes the tensors of a bucket's models.

    Args:
        shards: of `holdfast.inventory.scan_objects.StoreScan`.
        executor: what makes tables of them.
    """

    def write(target: Shards) -> list[Path]:
        written = []
        parts = cut(shards, lambda path: path.stem, SHARDS)
        while batch := list(islice(parts, BATCH)):
            lines = ["".join(map(tensor_lines, part)) for part in batch]
            partitions = [Partition(name_of(TASK, [(_digest(text),)]), [text], 1) for text in lines if text]
            written += run_partitions(executor, _table_of_lines, partitions, target)
        return written

    return write


def tensors_of_files(
    root: Path, labels: Iterable[str], cache: DigestCache, *, digests: bool, executor: Executor
) -> Writer:
    """What writes the tensors of files.

    Args:
        root: the folder from which paths are seen.
        labels: the files, in order.
        cache: what is known of their tensors' digests.
        digests: whether to read what it does not know; else only headers are read.
        executor: in this process.
    """

    def write(target: Shards) -> list[Path]:
        states = []
        for label in labels:
            with suppress(OSError):  # removed since
                states.append((label, *key_of((root / label).stat())))
        task = f"{TASK} {'digests' if digests else 'headers'}"
        partitions = [
            Partition(name_of(task, part), [label for label, *_ in part], len(part))
            for part in cut(states, lambda state: state[0], FILES)
        ]
        return run_partitions(executor, partial(_table_of_files, root, cache, digests), partitions, target)

    return write


def _table_of_lines(parts: Sequence[str]) -> bytes:
    found = (json.loads(line) for lines in parts for line in lines.splitlines())
    return parquet_of(types_of(TENSORS), _rows(found))


def _table_of_files(root: Path, cache: DigestCache, digests: bool, labels: Sequence[str]) -> bytes:
    return parquet_of(types_of(TENSORS), _rows((label, _of_file(root / label, cache, digests)) for label in labels))


def _of_file(path: Path, cache: DigestCache, digests: bool) -> list[list[Any]]:
    with suppress(OSError, IntegrityError):  # the report says what is damaged
        known = digests_of(path, cache, tensors=True) if digests else None
        with FileSource(path) as source:
            return tensor_rows(read_checkpoint(source), dict(known.tensors) if known and known.tensors else None)
    return []


def _rows(found: Iterable[tuple[str, list[list[Any]]]]) -> Iterator[dict[str, Any]]:
    for path, tensors in found:
        label = text_of(path)
        for name, dtype, shape, nbytes, digest in tensors:
            yield {
                "path": label,
                "name": text_of(name),
                "dtype": dtype,
                "shape": shape,
                "bytes": nbytes,
                "digest": digest,
            }


def _digest(lines: str) -> str:
    return blake3(lines.encode("ascii")).hexdigest()
