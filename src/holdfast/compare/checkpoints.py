"""Two checkpoints: a verdict in words, the tensors that differ, and where every byte of the difference in size is."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.compare.tensors import TensorComparison, compare_tensors
from holdfast.formats.checkpoint import Checkpoint, Tensor
from holdfast.formats.source import READ_BYTES

Kind = Literal[
    "identical", "same weights", "cast", "fine-tuned", "other weights", "different architecture", "not comparable"
]

JOBS = 2
# two random vectors of many dimensions have a cosine near 0, a model and its fine-tuned successor one near 1
RELATED_COSINE = 0.5
PARTS = ("weights", "optimizer", "other")

Progress = Callable[[int], None]


@dataclass(frozen=True)
class PartBytes:
    """Bytes that a part takes in each file; ``file`` stands for headers, metadata and padding."""

    part: str
    a: int
    b: int

    @property
    def difference(self) -> int:
        """How many bytes more it takes in b."""
        return self.b - self.a


@dataclass(frozen=True)
class MetadataChange:
    """A value beside the tensors that differs; None where it is missing."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Comparison:
    """What two checkpoints have in common and what not.

    Attributes:
        kind: the verdict's kind.
        verdict: the verdict in words.
        tensors: the tensors of both, in the order of a.
        only_a: weights that a alone has.
        only_b: weights that b alone has.
        metadata: values beside the tensors that differ.
        parts: bytes by part; they add up to the two files' sizes.
    """

    kind: Kind
    verdict: str
    tensors: tuple[TensorComparison, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    metadata: tuple[MetadataChange, ...]
    parts: tuple[PartBytes, ...]

    @property
    def changed(self) -> tuple[TensorComparison, ...]:
        """The tensors that differ in shape, dtype or a bit."""
        return tuple(tensor for tensor in self.tensors if not tensor.equal)


def compare_checkpoints(
    a: Checkpoint, b: Checkpoint, *, jobs: int = JOBS, progress: Progress | None = None
) -> Comparison:
    """Compare the weights of two open checkpoints tensor by tensor, in bounded memory.

    Weights are matched by their names relative to the weights' container, so that a training checkpoint and the
    safetensors file made from it match.

    Args:
        a: the one, which differences are relative to.
        b: the other.
        jobs: threads; each holds a few MiB.
        progress: told the bytes of each pair of tensors when it is done.

    Raises:
        IntegrityError: a file is damaged or was cut short since it was opened.
        OSError: a file cannot be read.
    """
    parts = _parts(a, b)
    ours, theirs = _weights(a), _weights(b)
    metadata = _metadata_changes(a.metadata, b.metadata)
    only_a = tuple(name for name in ours if name not in theirs)
    only_b = tuple(name for name in theirs if name not in ours)
    if _same_file(a, b):
        return Comparison("identical", "identical bytes", (), (), (), (), parts)

    def compared(name: str) -> TensorComparison:
        result = compare_tensors(name, (a, ours[name]), (b, theirs[name]))
        if progress is not None:
            progress(ours[name].nbytes + theirs[name].nbytes)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        tensors = tuple(pool.map(compared, (name for name in ours if name in theirs)))
    kind, verdict = _verdict(a, b, tensors, only_a, only_b, parts)
    return Comparison(kind, verdict, tensors, only_a, only_b, metadata, parts)


def _weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {tensor.weight_name or tensor.name: tensor for tensor in checkpoint.weights}


def _same_file(a: Checkpoint, b: Checkpoint) -> bool:
    if a.size != b.size or any(t.storage.external for t in (*a.tensors, *b.tensors)):
        return False
    starts = range(0, a.size, READ_BYTES)
    return all(a.source.read(start, READ_BYTES) == b.source.read(start, READ_BYTES) for start in starts)


def _parts(a: Checkpoint, b: Checkpoint) -> tuple[PartBytes, ...]:
    ours, theirs = _bytes_by_part(a), _bytes_by_part(b)
    return tuple(PartBytes(part, ours[part], theirs[part]) for part in (*PARTS, "file"))


def _bytes_by_part(checkpoint: Checkpoint) -> dict[str, int]:
    taken: set[Any] = set()
    counts = dict.fromkeys((*PARTS, "file"), 0)
    for part in PARTS:  # a storage that weights and optimizer share counts as weights
        for tensor in checkpoint.tensors:
            place = (tensor.storage.external, tensor.storage.offset, tensor.storage.nbytes)
            if tensor.part == part and place not in taken and tensor.storage.external is None:
                taken.add(place)
                counts[part] += tensor.storage.nbytes
    counts["file"] = checkpoint.size - sum(counts.values())
    return counts


def _metadata_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[MetadataChange, ...]:
    names = [*a, *(name for name in b if name not in a)]
    return tuple(
        MetadataChange(name, a.get(name), b.get(name))
        for name in names
        # a NaN differs from itself, but not here
        if (name in a) != (name in b) or (a[name] != b[name] and repr(a[name]) != repr(b[name]))
    )


def _verdict(
    a: Checkpoint,
    b: Checkpoint,
    tensors: tuple[TensorComparison, ...],
    only_a: tuple[str, ...],
    only_b: tuple[str, ...],
    parts: tuple[PartBytes, ...],
) -> tuple[Kind, str]:
    for checkpoint in (a, b):
        if not checkpoint.weights or checkpoint.no_digest:
            reason = checkpoint.no_digest or "it holds no weights"
            return "not comparable", f"not comparable: {checkpoint.source.name}: {reason}"
    reshaped = sum(tensor.shapes[0] != tensor.shapes[1] for tensor in tensors)
    if only_a or only_b or reshaped:
        counts = [
            (len(only_a), "only in the first"),
            (len(only_b), "only in the second"),
            (reshaped, "of another shape"),
        ]
        told = ", ".join(f"{count} {what}" for count, what in counts if count)
        return "different architecture", f"different architecture: {told}, {len(tensors) - reshaped} tensors match"
    changed = [tensor for tensor in tensors if not tensor.equal]
    if not changed:
        return "same weights", f"same weights, different wrapper ({_wrapper(parts)})"
    recast = [tensor for tensor in changed if tensor.dtypes[0] != tensor.dtypes[1]]
    if len(recast) == len(changed) and all(tensor.cast for tensor in recast):
        pairs = sorted({tensor.dtypes for tensor in recast})
        told = ", ".join(f"{one} to {other}" for one, other in pairs)
        return "cast", f"the same weights cast to another type: {told} in {len(recast)} of {len(tensors)} tensors"
    unknown = sum(tensor.figures is None for tensor in changed)
    cosine = _overall_cosine(changed)
    told = f"{len(changed)} of {len(tensors)} tensors differ"
    if unknown:
        told += f", {unknown} of them in bytes that are no numbers"
    if cosine is None or cosine >= RELATED_COSINE:
        return "fine-tuned", f"fine-tuned: {told}"
    return "other weights", f"other weights of the same architecture: {told}, overall cosine {cosine:.3f}"


def _wrapper(parts: tuple[PartBytes, ...]) -> str:
    names = {
        "weights": "weights", "optimizer": "optimizer state", "other": "other tensors", "file": "headers and metadata"
    }  # fmt: skip
    told = [
        f"{names[part.part]} {abs(part.difference):,} bytes {'larger' if part.difference > 0 else 'smaller'}"
        for part in parts
        if part.difference
    ]
    return ", ".join(told) or "equal sizes"


def _overall_cosine(tensors: list[TensorComparison]) -> float | None:
    """The elements' mean of the tensors' cosines: one number to tell a successor from a stranger."""
    known = [(t.figures.cosine, t.figures.elements) for t in tensors if t.figures and t.figures.cosine is not None]
    elements = sum(count for _, count in known)
    return sum(cosine * count for cosine, count in known) / elements if elements else None
