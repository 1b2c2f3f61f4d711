"""Which format a file is in, by its content, and opening it."""

from pathlib import Path

from holdfast.formats.archive import members
from holdfast.formats.checkpoint import Checkpoint, Opaque, PickleSpan, Storage
from holdfast.formats.numpy_files import MAGIC as NPY_MAGIC
from holdfast.formats.numpy_files import is_npz, open_npy, open_npz
from holdfast.formats.onnx import is_onnx, open_onnx
from holdfast.formats.pickle_values import MalformedPickleError, PickleLimitError
from holdfast.formats.pickles import Walk, nothing_persistent
from holdfast.formats.safetensors import MAX_LEGAL_HEADER_BYTES, open_safetensors
from holdfast.formats.source import Cursor, FileSource, Source
from holdfast.formats.torch_legacy import MAGIC as LEGACY_MAGIC
from holdfast.formats.torch_legacy import open_torch_legacy
from holdfast.formats.torch_zip import folder_of, open_torch_zip

HEAD_BYTES = 512
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
PICKLE_PROTOCOLS = b"\x00\x01\x02\x03\x04\x05"
# what other tools write, recognised so that the reason can say so: (where, what) → (format, name)
KNOWN = {
    (0, b"\x89HDF\r\n\x1a\n"): ("hdf5", "an HDF5 file"),
    (0, b"GGUF"): ("gguf", "a GGUF file"),
    (4, b"TFL3"): ("tflite", "a TensorFlow Lite file"),
    (257, b"ustar"): ("tar", "a tar archive"),
    (0, b"\x1f\x8b"): ("gzip", "a gzip file"),
    (0, b"\x28\xb5\x2f\xfd"): ("zstd", "a zstd file"),
}


def sniff(source: Source) -> str:
    """The format by the first bytes: ``zip`` (of torch, NumPy or anything), ``npy``, ``torch legacy``, ``safetensors``,
    ``onnx``, ``pickle``, or ``unknown``. A torn file has the format that it begins as.
    """
    head = source.read(0, HEAD_BYTES)
    if head.startswith(ZIP):
        return "zip"
    if head.startswith(NPY_MAGIC):
        return "npy"
    if head[:1] == b"\x80" and head[2 : 2 + len(LEGACY_MAGIC)] == LEGACY_MAGIC:
        return "torch legacy"
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_LEGAL_HEADER_BYTES:
        return "safetensors"
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in PICKLE_PROTOCOLS:
        return "pickle"
    return "onnx" if is_onnx(source) else "unknown"


def read_checkpoint(source: Source) -> Checkpoint:
    """Open whatever the source holds; what is no checkpoint that can be read is *opaque*, with the reason.

    Raises:
        IntegrityError: it is damaged.
        OSError: it cannot be read.
    """
    kind = sniff(source)
    if kind == "zip":
        return _archive(source)
    if kind == "pickle":
        return _pickle(source)
    if kind == "unknown":
        return _unknown(source)
    opener = {
        "npy": open_npy, "torch legacy": open_torch_legacy, "safetensors": open_safetensors, "onnx": open_onnx
    }[kind]  # fmt: skip
    return opener(source)


def open_checkpoint(path: Path) -> tuple[FileSource, Checkpoint]:
    """Open a file. The source is to be closed by the caller: ``with source: …``.

    Raises:
        IntegrityError: it is damaged.
        OSError: it cannot be read.
        NotAFileError: it is a folder or a device.
    """
    source = FileSource(path)
    try:
        return source, read_checkpoint(source)
    except BaseException:
        source.close()
        raise


def _archive(source: Source) -> Checkpoint:
    found = members(source)
    if folder_of(found) is not None:
        return open_torch_zip(source, found)
    if is_npz(found):
        return open_npz(source, found)
    return _opaque(source, "zip", f"a zip archive of {len(found)} files, none of which is torch's or NumPy's")


def _pickle(source: Source) -> Checkpoint:
    walk = Walk(Cursor(source, 0, source.size), nothing_persistent)
    try:
        walk.run()
        reason = "a bare pickle, which is never unpickled"
    except (MalformedPickleError, PickleLimitError) as error:
        reason = f"a bare pickle, which is never unpickled, and a broken one: {error}"
    pickle = PickleSpan("", Storage(0, source.size), tuple(walk.foreign))
    return Checkpoint("pickle", source, opaque=(Opaque("", reason),), no_digest=reason, pickles=(pickle,))


def _unknown(source: Source) -> Checkpoint:
    head = source.read(0, HEAD_BYTES)
    for (place, magic), (kind, name) in KNOWN.items():
        if head[place : place + len(magic)] == magic:
            return _opaque(source, kind, f"{name}, whose tensors Holdfast does not read")
    reason = "its first bytes are those of no format that Holdfast knows" if head else "it is empty"
    return _opaque(source, "unknown", reason)


def _opaque(source: Source, kind: str, reason: str) -> Checkpoint:
    return Checkpoint(kind, source, opaque=(Opaque("", reason),), no_digest=reason)
