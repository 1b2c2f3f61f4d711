"""Which bytes of a checkpoint are tensors, and their slots.

A *run* is one storage, or some small neighbours of one type. A run begins where a tensor begins, so that equal tensors
are equal pieces wherever they lie. All else is *opaque*: headers, pickles, paddings; storages that are packed, empty or
claimed twice over; scalars, and whatever is too short to be worth a blob.

A *slot* names the same part of the same tensor in another version of the file, or in the same weights in another
format. It is the first eight bytes, little-endian, of the BLAKE3 with key-derivation context `SLOT_CONTEXT` over the
JSON text (ASCII, no spaces) of a list: ``[part, name, dtype, shape]`` for each storage of the run, then the number of
the block. The name of a weight is the one relative to its container, that of any other tensor the one in the file; of
tied tensors the first name of a weight counts, else the first name. 0 becomes 1. Where two runs have the same names,
the slots of both are 0, as are those of opaque pieces. A slot is a hint where to look for a base, and nothing else.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

from holdfast.formats.checkpoint import Checkpoint, Storage, Tensor
from holdfast.vault.codec_elements import ELEMENTS, OPAQUE

SLOT_CONTEXT = "holdfast 2026-11 vault slot v1"
# a storage from here on is a run of its own, and no run is shorter: a blob costs some 150 bytes in pack and index
OWN_BYTES = 4 * 1024
# smaller neighbours become one run up to this length, with what lies between them: zip's headers and paddings
GROUP_BYTES = 64 * 1024
GAP_BYTES = 512
# shorter ones (steps, counters of batches) count as gaps, or they would part their neighbours
SCALAR_BYTES = 64

Name = tuple[str, str, str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring bytes of one type.

    Attributes:
        offset: the first byte, counted from the start of the file.
        nbytes: how many, small gaps between its storages included.
        dtype: of its numbers; ``bytes`` where they have several, are big-endian, or of a type the codec does not know.
        names: part, name, dtype and shape of each storage's tensor, which slots are made of; empty for no slots.
    """

    offset: int
    nbytes: int
    dtype: str
    names: tuple[Name, ...]

    @property
    def end(self) -> int:
        """The byte behind its last."""
        return self.offset + self.nbytes

    def slot(self, block: int, dtype: str | None = None) -> int:
        """The slot of one of its blocks; with a dtype, that of the same tensors in this dtype."""
        if not self.names:
            return 0
        names = self.names if dtype is None else [(part, name, dtype, shape) for part, name, _, shape in self.names]
        return slot_of(names, block)


def slot_of(names: Sequence[Name], block: int) -> int:
    """The slot of a block of the tensors named; never 0."""
    text = json.dumps([*names, block], separators=(",", ":"), ensure_ascii=True)
    digest = blake3(text.encode("ascii"), derive_key_context=SLOT_CONTEXT).digest(length=8)
    return int.from_bytes(digest, "little") or 1


def runs_of(checkpoint: Checkpoint) -> tuple[Run, ...]:
    """The runs of a checkpoint in the order of the file, none of them inside of another."""
    runs = [run for run in _grouped(_storages(checkpoint)) if run.nbytes >= OWN_BYTES]
    times = Counter(run.names for run in runs)
    return tuple(run if times[run.names] == 1 else Run(run.offset, run.nbytes, run.dtype, ()) for run in runs)


def _storages(checkpoint: Checkpoint) -> list[Run]:
    """A run for each storage that lies in the file as it is, and that no other one overlaps."""
    tensors: dict[Storage, list[Tensor]] = {}
    for tensor in checkpoint.tensors:
        if tensor.storage.external is None and tensor.storage.nbytes:
            tensors.setdefault(tensor.storage, []).append(tensor)
    runs, claimed = [], 0
    ordered = sorted(tensors, key=lambda storage: (storage.offset, storage.nbytes))
    behind = [*(storage.offset for storage in ordered), checkpoint.size][1:]
    for storage, following in zip(ordered, behind, strict=True):
        end = storage.offset + storage.nbytes
        if storage.codec == "raw" and claimed <= storage.offset and end <= min(following, checkpoint.size):
            runs.append(_run(storage, tensors[storage]))
        claimed = max(claimed, end)
    return runs


def _run(storage: Storage, tensors: list[Tensor]) -> Run:
    # of each tensor the name that a file of the weights alone gives it, too
    names = [(t.part, t.name if t.weight_name is None else t.weight_name, t.dtype, t.shape) for t in tensors]
    name = min(names, key=lambda name: (name[0] != "weights", *name))
    plain = storage.swap == 1 and len({dtype for _, _, dtype, _ in names}) == 1 and name[2] in ELEMENTS
    return Run(storage.offset, storage.nbytes, name[2] if plain else OPAQUE, (name,))


def _grouped(runs: list[Run]) -> Iterator[Run]:
    group: list[Run] = []
    for run in runs:
        if run.nbytes < SCALAR_BYTES:
            continue
        if group and not _joins(group, run):
            yield _joined(group)
            group = []
        if run.nbytes < OWN_BYTES:
            group.append(run)
        else:
            yield run
    if group:
        yield _joined(group)


def _joins(group: list[Run], run: Run) -> bool:
    start = group[0].offset
    return (
        run.nbytes < OWN_BYTES
        and run.dtype == group[0].dtype
        and run.offset - group[-1].end <= GAP_BYTES
        and run.end - start <= GROUP_BYTES
        # or the codec would read numbers from the middle of one to the middle of the next
        and (run.offset - start) % ELEMENTS[run.dtype].width == 0
    )


def _joined(group: list[Run]) -> Run:
    start = group[0].offset
    return Run(start, group[-1].end - start, group[0].dtype, tuple(name for run in group for name in run.names))
