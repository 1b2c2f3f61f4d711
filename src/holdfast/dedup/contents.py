"""The different checkpoints among files and objects, and the tensors that each has: a row for each of very many.

A million tensors take some 60 MB: their digests, lengths, types and names' hashes are columns of numbers.
"""

import heapq
from array import array
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from holdfast.dedup.duplicates import Collected
from holdfast.dedup.files import Candidate, unchanged
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.formats.checkpoint import Checkpoint, Tensor
from holdfast.formats.content import NoDigestError
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import FileSource, Source
from holdfast.inventory.scan_files import choose
from holdfast.repo.lineage import ObjectKey
from holdfast.vault.split import may_be_checkpoint
from holdfast.vault.split_layout import runs_of

# shorter ones (steps, counters) are the same everywhere, and nothing is gained by storing them once
MIN_TENSOR_BYTES = 64
# as the vault does it at a push: so many slots are compared
SLOTS_A_CHECKPOINT = 64
WIDE, HALVES = "F32", ("BF16", "F16")
_OTHER, _WIDE = 0, 1
CODES = {WIDE: _WIDE, **{dtype: number for number, dtype in enumerate(HALVES, 2)}}

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Body:
    """One checkpoint's bytes, however many files and objects have them.

    Args:
        number: its place among all that were found.
        size: bytes.
        modified: mtime in ns, the oldest of its files.
        paths: files of the workspace that have them, from the folder that was looked at.
        keys: objects that have them: hash name and oid.
        open: its bytes, closed when the ``with`` ends.
        file: one file that has them; None where they are not on this machine.
        weights: the weights digest; None where there is none, or it is not known.
        slots: what its tensors are called, as far as checkpoints are compared by that (see `slots_of`).
    """

    number: int
    size: int
    modified: int
    paths: tuple[str, ...]
    keys: tuple[ObjectKey, ...]
    open: Callable[[], AbstractContextManager[Source]]
    file: Path | None = None
    weights: str | None = None
    slots: tuple[int, ...] = ()

    @property
    def oids(self) -> tuple[str, ...]:
        """The objects' names."""
        return tuple(oid for _, oid in self.keys)

    @property
    def label(self) -> str:
        """One name."""
        return self.paths[0] if self.paths else f"cache {self.oids[0]}" if self.keys else "?"


@dataclass
class Tensors:
    """Columns: a row for each tensor of each checkpoint, tied ones once."""

    high: "array[int]" = field(default_factory=lambda: array("Q"))
    low: "array[int]" = field(default_factory=lambda: array("Q"))
    nbytes: "array[int]" = field(default_factory=lambda: array("Q"))
    body: "array[int]" = field(default_factory=lambda: array("L"))
    place: "array[int]" = field(default_factory=lambda: array("L"))
    form: "array[int]" = field(default_factory=lambda: array("Q"))
    dtype: "array[int]" = field(default_factory=lambda: array("B"))
    weight: "array[int]" = field(default_factory=lambda: array("B"))

    def __len__(self) -> int:
        return len(self.nbytes)

    def add(self, body: int, place: int, tensor: Tensor, digest: bytes) -> None:
        """A tensor: of which checkpoint, its place in its listing, and the digest of its bytes."""
        self.high.append(int.from_bytes(digest[:8], "big"))
        self.low.append(int.from_bytes(digest[8:16], "big"))
        self.nbytes.append(tensor.nbytes)
        self.body.append(body)
        self.place.append(place)
        self.form.append(form_of(tensor))
        self.dtype.append(CODES.get(tensor.dtype, _OTHER))
        self.weight.append(tensor.part == "weights")


@dataclass
class Contents:
    """The different checkpoints that were found, and their tensors."""

    bodies: list[Body] = field(default_factory=list)
    tensors: Tensors = field(default_factory=Tensors)
    notes: list[str] = field(default_factory=list)


def form_of(tensor: Tensor) -> int:
    """What a tensor and a cast of it have in common: name and shape, as one number."""
    name = tensor.name if tensor.weight_name is None else tensor.weight_name
    text = f"{tensor.part == 'weights'}\0{name}\0{tensor.shape}".encode("utf-8", "surrogateescape")
    return int.from_bytes(blake3(text).digest(8), "little")


def slots_of(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The slots of a checkpoint's tensors (`holdfast.vault.split_layout`), the least ones: relatives share most."""
    return tuple(heapq.nsmallest(SLOTS_A_CHECKPOINT, {slot for run in runs_of(checkpoint) if (slot := run.slot(0))}))


def read_contents(
    collected: Collected,
    digests: DigestCache,
    *,
    min_size: int,
    progress: Progress = lambda _done, _total: None,
) -> Contents:
    """Look into every checkpoint among files and objects; what was not read before is read once.

    Args:
        collected: after `holdfast.dedup.duplicates.compare`.
        digests: what is known.
        min_size: smaller files are left out.
        progress: called with bytes of files done, and of all.
    """
    contents = Contents()
    groups = list(_alike(collected))
    done, total = 0, sum(members[0].size for members in groups)
    for members in groups:
        first = members[0]
        if first.size >= min_size:
            try:
                _read(members, digests, contents)
            except FileNotFoundError:
                contents.notes.append(f"{first.label}: vanished while it was looked at")
            except OSError as error:
                contents.notes.append(f"{first.label}: {error.strerror or error}")
            except HoldfastError as error:
                contents.notes.append(f"{first.label}: {error.message.removeprefix(f'{first.path} ')}")
        done += first.size
        progress(done, total)
    return contents


def _alike(collected: Collected) -> Iterable[list[Candidate]]:
    """Candidates that may be checkpoints, those with equal bytes together: those of the workspace first."""
    equal = {member.path: digest for digest, members in collected.digests.items() for member in members}
    found: dict[object, list[Candidate]] = {}
    for candidate in collected.everything:
        if candidate.oid or choose(candidate.label, candidate.path.name) != "none":
            found.setdefault(equal.get(candidate.path, candidate.inode), []).append(candidate)
    return found.values()


def _read(members: list[Candidate], digests: DigestCache, contents: Contents) -> None:
    first = members[0]
    with FileSource(first.path) as source:
        if not may_be_checkpoint(source):
            return
        checkpoint = read_checkpoint(source)
    if not checkpoint.tensors:
        return
    try:
        known = digests_of(first.path, digests, weights=True, tensors=True)
    except NoDigestError as error:
        raise IntegrityError(error.message) from error
    if known.tensors is None or not unchanged(first):
        raise IntegrityError(known.no_weights or "changed while it was read")
    number = len(contents.bodies)
    contents.bodies.append(
        Body(
            number,
            first.size,
            min(member.modified for member in members),
            tuple(sorted(member.label for member in members if not member.oid)),
            tuple(sorted({(member.store, member.oid) for member in members if member.oid})),
            lambda: FileSource(first.path),
            first.path,
            known.weights,
            slots_of(checkpoint),
        )
    )
    seen: set[object] = set()
    for place, tensor in enumerate(checkpoint.tensors):
        if tensor.nbytes >= MIN_TENSOR_BYTES and tensor.content_key not in seen:
            seen.add(tensor.content_key)
            contents.tensors.add(number, place, tensor, known.tensors[tensor.name])
