"""torch's format before 1.6, still written with ``_use_new_zipfile_serialization=False``; and the tar of before 0.1.12.

Five pickles one behind the other: a magic number, the protocol's number, facts of the system, the object, the list of
storage keys. Then for each key its number of elements as a little-endian ``i64`` and its bytes, always little-endian.
Source: torch/serialization.py (``_legacy_save``, ``_legacy_load``) and torch/csrc/serialization.cpp of torch 2.13.
"""

from dataclasses import replace
from typing import Any

from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Checkpoint, Opaque, PickleSpan, Storage
from holdfast.formats.contents import contents_of
from holdfast.formats.dtypes import span_bytes
from holdfast.formats.pickle_calls import label
from holdfast.formats.pickle_values import MalformedPickleError, PickleLimitError, StorageRef
from holdfast.formats.pickles import Walk, nothing_persistent, torch_persistent
from holdfast.formats.source import Cursor, Source
from holdfast.formats.torch_storage import tensors_of
from holdfast.formats.torch_zip import from_contents, opaque_pickle

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
# LONG1, ten bytes, the magic number: how it stands in the file behind PROTO
MAGIC = b"\x8a\x0a" + MAGIC_NUMBER.to_bytes(10, "little") + b"."
LENGTH_BYTES = 8


def open_torch_legacy(source: Source) -> Checkpoint:
    """Read the pickles and find the storages behind them.

    Raises:
        IntegrityError: a pickle is broken, a storage is missing or has another length, the file goes on behind them.
    """
    cursor = Cursor(source, 0, source.size)
    references: dict[str, StorageRef] = {}

    def persistent(value: Any) -> Any:
        found = torch_persistent(value)
        if isinstance(found, StorageRef):
            references.setdefault(found.key, found)
        return found

    try:
        first = Walk(cursor, nothing_persistent)
        head = [first.run() for _ in range(3)]
        if head[:2] != [MAGIC_NUMBER, PROTOCOL_VERSION]:
            raise MalformedPickleError(f"it has the protocol {label(head[1])}, not {PROTOCOL_VERSION}")
        start = cursor.position
        walk = Walk(cursor, persistent)
        try:
            contents = contents_of(walk.run())
        except PickleLimitError as error:
            rest = Storage(start, source.size - start)
            pickle = PickleSpan("", rest, tuple(walk.foreign))
            return replace(opaque_pickle(source, pickle, str(error)), format="torch legacy")
        behind = cursor.position
        last = Walk(cursor, nothing_persistent)
        keys = last.run()
        end = cursor.position
        storages = _storages(cursor, references, keys)
    except (MalformedPickleError, PickleLimitError, EOFError) as error:
        raise IntegrityError(f"{source.name}: {error}") from error

    def locate(reference: StorageRef) -> Storage:
        storage = storages.get(reference.key)
        if storage is None:
            raise IntegrityError(f"{source.name} lacks the storage {reference.key[:120]!r}")
        if span_bytes(reference.dtype, reference.elements) > storage.nbytes:
            raise IntegrityError(f"{source.name}: its storage {reference.key[:120]!r} is shorter than its pickle says")
        return storage

    tensors = tensors_of(source, contents, locate)
    pickles = (
        PickleSpan("head", Storage(0, start), tuple(first.foreign)),
        PickleSpan("", Storage(start, behind - start), tuple(walk.foreign)),
        PickleSpan("storages", Storage(behind, end - behind), tuple(last.foreign)),
    )
    for pickle in (pickles[0], pickles[2]):
        # torch unpickles these too, though they hold no tensors
        if pickle.foreign:
            contents.opaque.append(Opaque(pickle.name, f"it would call or import {pickle.foreign[0]}"))
    checkpoint = from_contents(source, contents, tensors, pickles)
    return replace(checkpoint, format="torch legacy")


def _storages(cursor: Cursor, references: dict[str, StorageRef], keys: Any) -> dict[str, Storage]:
    if not isinstance(keys, list) or not all(isinstance(key, (str, int)) for key in keys):
        raise MalformedPickleError("its list of storages is none")
    storages: dict[str, Storage] = {}
    for key in map(str, keys):
        if key not in references or key in storages:
            raise MalformedPickleError(f"its list of storages names {key[:120]!r}, which is unknown or comes twice")
        elements = int.from_bytes(cursor.read(LENGTH_BYTES), "little", signed=True)
        reference = references[key]
        if elements != reference.elements:
            raise MalformedPickleError(f"its storage {key[:120]!r} has {elements} elements, not {reference.elements}")
        nbytes = span_bytes(reference.dtype, elements)
        storages[key] = Storage(cursor.position, nbytes)
        cursor.skip(nbytes)
    if cursor.left:
        raise MalformedPickleError(f"it goes on for {cursor.left} bytes behind its last storage")
    return storages
