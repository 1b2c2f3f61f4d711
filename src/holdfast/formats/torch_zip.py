"""torch's zip format (since 1.6) and TorchScript archives.

Members lie in a folder named after the file: ``data.pkl`` (a pickle whose persistent ids name storages), ``data/<key>``
(a storage's bytes), ``byteorder`` (``little`` or ``big``; little where it is missing), ``version``. TorchScript adds
``code/`` and ``constants.pkl`` with ``constants/<key>``. Source: torch/serialization.py (``_save``, ``_load``) and
caffe2/serialize/inline_container.cc of torch 2.13.
"""

from dataclasses import replace
from typing import Any

from holdfast.errors import IntegrityError
from holdfast.formats.archive import Member, member_bytes, member_cursor, storage_of
from holdfast.formats.checkpoint import Checkpoint, Opaque, PickleSpan, Storage, Tensor
from holdfast.formats.contents import Contents, contents_of, unique
from holdfast.formats.dtypes import span_bytes, swap_unit
from holdfast.formats.pickle_values import MalformedPickleError, PickleLimitError, StorageRef
from holdfast.formats.pickles import Walk, torch_persistent
from holdfast.formats.source import Cursor, MemorySource, Source
from holdfast.formats.torch_storage import tensors_of

PICKLE = "data.pkl"
# a pickle up to this is read at once and checked against its CRC
MAX_CHECKED_BYTES = 16 * 1024 * 1024
MAX_RECORD_BYTES = 64


def folder_of(found: dict[str, Member]) -> str | None:
    """The folder, with its slash, in which a torch archive keeps ``data.pkl``; None where this is no torch archive."""
    folders = _folders(found)
    return folders[0] if folders else None


def _folders(found: dict[str, Member]) -> list[str]:
    return [
        name[: -len(PICKLE)]
        for name in found
        if name == PICKLE or (name.endswith("/" + PICKLE) and name.count("/") == 1)
    ]


def open_torch_zip(source: Source, found: dict[str, Member]) -> Checkpoint:
    """Read the pickles and find the storages.

    Raises:
        IntegrityError: the archive or a pickle is torn, a storage is missing, a tensor leads out of its storage.
    """
    folder = folder_of(found)
    assert folder is not None
    if len(_folders(found)) > 1:
        # torch reads the one whose name its directory lists first; we show nobody the other one
        raise IntegrityError(f"{source.name} holds {len(_folders(found))} torch archives in one")
    script = folder + "constants.pkl" in found
    swap = _is_big_endian(source, found, folder)
    checkpoint = _read(source, found, folder + PICKLE, folder + "data/", swap)
    if not script:
        return replace(checkpoint, format="torch zip")
    constants = _read(source, found, folder + "constants.pkl", folder + "constants/", swap)
    taken = {tensor.name for tensor in checkpoint.tensors}
    others = tuple(
        replace(
            tensor,
            name=unique(f"constants/{tensor.name}", taken),
            path=("constants", *tensor.path),
            part="other",
            weight_name=None,
        )
        for tensor in constants.tensors
    )
    return replace(
        checkpoint,
        format="torchscript",
        tensors=(*checkpoint.tensors, *others),
        opaque=(*checkpoint.opaque, *(Opaque(f"constants/{item.name}", item.reason) for item in constants.opaque)),
        pickles=(*checkpoint.pickles, *constants.pickles),
    )


def _read(source: Source, found: dict[str, Member], name: str, storages: str, swap: bool) -> Checkpoint:
    place = storage_of(source, found[name])
    foreign: list[str] = []
    try:
        walk = Walk(_cursor(source, place), torch_persistent, foreign=foreign)
        contents = contents_of(walk.run())
    except MalformedPickleError as error:
        raise IntegrityError(f"{source.name} ({name}): {error}") from error
    except PickleLimitError as error:
        return opaque_pickle(source, PickleSpan(name, place, tuple(foreign)), str(error))

    def locate(reference: StorageRef) -> Storage:
        member = found.get(storages + reference.key)
        if member is None:
            raise IntegrityError(f"{source.name} lacks the storage {(storages + reference.key)[:120]!r}")
        storage = storage_of(source, member)
        if storage.plain_nbytes < span_bytes(reference.dtype, reference.elements):
            raise IntegrityError(f"{source.name}: its storage {member.name!r} is shorter than its pickle says")
        # torch turns round by the storage's type, so that an untyped storage stays as it is
        return replace(storage, swap=swap_unit(reference.dtype)) if swap else storage

    tensors = tensors_of(source, contents, locate)
    return from_contents(source, contents, tensors, (PickleSpan(name, place, tuple(foreign)),))


def from_contents(
    source: Source, contents: Contents, tensors: tuple[Tensor, ...], pickles: tuple[PickleSpan, ...]
) -> Checkpoint:
    """The checkpoint that a torch pickle describes."""
    return Checkpoint(
        format="torch",
        source=source,
        tensors=tensors,
        metadata=contents.metadata,
        opaque=tuple(contents.opaque),
        container=contents.container,
        no_digest=contents.no_digest,
        pickles=pickles,
    )


def opaque_pickle(source: Source, pickle: PickleSpan, reason: str) -> Checkpoint:
    """A checkpoint whose pickle asked for too much."""
    return Checkpoint("torch", source, opaque=(Opaque("", reason),), no_digest=reason, pickles=(pickle,))


def _cursor(source: Source, place: Storage) -> Cursor:
    if place.codec == "raw" and place.nbytes > MAX_CHECKED_BYTES:
        return member_cursor(source, place)
    if place.plain_nbytes > MAX_CHECKED_BYTES:
        raise PickleLimitError(f"its pickle is packed, and has {place.plain_nbytes:,} bytes unpacked")
    data = member_bytes(source, place, MAX_CHECKED_BYTES)
    return Cursor(MemorySource(data, source.name), 0, len(data))


def _is_big_endian(source: Source, found: dict[str, Member], folder: str) -> bool:
    member = found.get(folder + "byteorder")
    if member is None:
        return False
    order: Any = member_bytes(source, storage_of(source, member), MAX_RECORD_BYTES)
    if order not in (b"little", b"big"):
        raise IntegrityError(f"{source.name} has the byte order {order!r}")
    return bool(order == b"big")
