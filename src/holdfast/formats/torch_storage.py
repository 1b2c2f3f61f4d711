"""What the torch formats share: from a walk's values to tensors over storages in the file."""

from collections.abc import Callable

from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Storage, Tensor
from holdfast.formats.contents import Contents, Found
from holdfast.formats.dtypes import BITS, span_bytes
from holdfast.formats.pickle_values import StorageRef
from holdfast.formats.source import Source

Locate = Callable[[StorageRef], Storage]
MAX_LOGICAL_BYTES = 2**62


def tensors_of(source: Source, contents: Contents, locate: Locate) -> tuple[Tensor, ...]:
    """The tensors, each checked to stay inside of its storage.

    Args:
        source: for errors.
        contents: what the pickle holds.
        locate: where a storage lies in the file; called once for each of its keys and dtypes.

    Raises:
        IntegrityError: a tensor leads out of its storage, or what `locate` raises.
    """
    places: dict[tuple[str, str], Storage] = {}
    tensors = []
    for found in contents.tensors:
        reference = found.value.storage
        key = (reference.key, reference.dtype)
        if key not in places:
            places[key] = locate(reference)
        tensors.append(_tensor(source, found, places[key]))
    return tuple(tensors)


def _tensor(source: Source, found: Found, storage: Storage) -> Tensor:
    value = found.value
    tensor = Tensor(
        name=found.name,
        path=found.path,
        dtype=value.dtype,
        shape=value.shape,
        strides=value.strides,
        start=_first_element(value.storage, value.dtype, value.start),
        storage=storage,
        part=found.part,
        weight_name=found.weight_name,
        conjugate=value.conjugate,
        negative=value.negative,
    )
    if tensor.elements == 0:
        return tensor
    last = tensor.start + sum((length - 1) * step for length, step in zip(tensor.shape, tensor.strides, strict=True))
    if span_bytes(tensor.dtype, last + 1) > storage.plain_nbytes or tensor.elements >= MAX_LOGICAL_BYTES:
        raise IntegrityError(
            f"{source.name}: tensor {found.name[:120]!r} ends behind its storage of {storage.plain_nbytes} bytes"
        )
    if BITS[tensor.dtype] % 8 and not (tensor.contiguous and tensor.start * BITS[tensor.dtype] % 8 == 0):
        raise IntegrityError(f"{source.name}: tensor {found.name[:120]!r} begins inside of a byte")
    return tensor


def _first_element(reference: StorageRef, dtype: str, start: int) -> int:
    # a view (files before 1.6) counts in elements of its storage, a tensor in its own
    return start + reference.start * BITS[reference.dtype] // BITS[dtype]
