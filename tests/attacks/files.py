"""Hostile files of every format, small, made when the tests run."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from attacks.pickles import BOMB, BROKEN, GET, RUNS_CODE, TOO_MUCH, text

DATA = np.arange(2, dtype="<f4").tobytes()
LEGACY_HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."


def pickled(body: bytes) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + body + b"."


def torch_zip(pickle: bytes, members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A torch archive around a pickle, with one storage of two floats."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in ({"data.pkl": pickle, "byteorder": b"little", "data/0": DATA} | (members or {})).items():
            archive.writestr(f"archive/{name}", data)
    return stream.getvalue()


def good_zip() -> bytes:
    """A sound torch archive with one tensor."""
    return torch_zip(pickled(tensor("0", 2)))


def tensor(key: str, elements: int) -> bytes:
    """The opcodes of a state dict with one tensor."""
    return (
        b"}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
        + text(key) + text("cpu") + b"K" + bytes([elements]) + b"tQK\x00(K" + bytes([elements]) + b"t(K\x01t\x89NtRs"
    )  # fmt: skip


def legacy(body: bytes, keys: bytes = b"](" + text("0") + b"e", data: bytes = struct.pack("<q", 2) + DATA) -> bytes:
    """A torch file of before 1.6."""
    return LEGACY_HEAD + pickled(body) + pickled(keys) + data


def safetensors(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    line = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(line)) + line + data


def good_safetensors() -> bytes:
    """A sound safetensors file with two tensors."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return safetensors({"a": entry, "b": {**entry, "data_offsets": [8, 16]}, "__metadata__": {"x": "y"}}, DATA + DATA)


def good_npz(compression: int = zipfile.ZIP_STORED) -> bytes:
    """A sound .npz."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name in ("a", "b"):
            array = io.BytesIO()
            np.save(array, np.arange(6.0).reshape(2, 3))
            archive.writestr(f"{name}.npy", array.getvalue())
    return stream.getvalue()


def varint(number: int) -> bytes:
    """Protobuf's varint."""
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])


def message(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx_tensor(dims: list[int], raw: bytes, kind: int = 1, name: bytes = b"w") -> bytes:
    """A TensorProto."""
    return b"".join(b"\x08" + varint(n) for n in dims) + b"\x10" + varint(kind) + message(8, name) + message(9, raw)


def onnx(graph: bytes) -> bytes:
    """A model around a graph's fields."""
    return b"\x08\x08" + message(2, b"tests") + message(7, message(2, b"g") + graph)


def good_onnx() -> bytes:
    """A sound model with two initializers."""
    return onnx(message(5, onnx_tensor([2], DATA)) + message(5, onnx_tensor([1, 2], DATA, name=b"v")))


def _nested_graphs(depth: int) -> bytes:
    graph = message(2, b"g")
    for _ in range(depth):
        graph = message(2, b"g") + message(1, message(5, message(1, b"a") + message(6, graph)))
    return onnx(graph)


def _patched(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def _directory(data: bytes) -> int:
    return data.rindex(b"PK\x01\x02", 0, data.index(b"PK\x05\x06"))


def _with_name(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(b"N"))
        archive.writestr(zipfile.ZipInfo(name), b"x")
    return stream.getvalue()


def _duplicate() -> bytes:
    data = torch_zip(pickled(tensor("0", 2)), {"data/1": DATA})
    return data.replace(b"archive/data/1", b"archive/data/0")


def _overlapping() -> bytes:
    data = torch_zip(pickled(tensor("0", 2)), {"data/1": DATA})
    first, second = (data.index(b"PK\x01\x02", data.index(b"PK\x01\x02")), _directory(data))
    return _patched(data, second + 42, data[first + 42 : first + 46])


@cache
def _bomb(size: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w") as member:
            for _ in range(size // 1_000_000):
                member.write(b"N" * 1_000_000)
        archive.writestr("archive/data/0", DATA)
    return stream.getvalue()


@cache
def _lying_bomb() -> bytes:
    """A deflated member of 160 MB of which the directory says that it has eight bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled(tensor("0", 2)))
        with archive.open("archive/data/0", "w") as member:
            for _ in range(160):
                member.write(b"\0" * 1_000_000)
    data = bytearray(stream.getvalue())
    place = data.rindex(b"archive/data/0") - 46
    data[place + 24 : place + 28] = struct.pack("<I", 8)
    return bytes(data)


def _two_archives() -> bytes:
    """One archive for those who look, one for torch."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", pickled(b"N"))
        archive.writestr("b/data.pkl", pickled(RUNS_CODE["reduce"]))
    return stream.getvalue()


@cache
def _npz_bomb() -> bytes:
    stream = io.BytesIO()
    header = b"{'descr': '<f4', 'fortran_order': True, 'shape': (5000, 5000), }"
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        for _ in range(100):
            member.write(b"\0" * 1_000_000)
    return stream.getvalue()


def _npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


CALL = RUNS_CODE["reduce"]
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FILES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "zip bomb in the pickle": lambda: _bomb(120_000_000),
    "zip bomb that lies": _lying_bomb,
    "npz bomb": _npz_bomb,
    "zip with a path": lambda: _with_name("../../evil"),
    "zip with an absolute path": lambda: _with_name("/etc/evil"),
    "zip with a drive's path": lambda: _with_name("archive\\..\\..\\evil"),
    "zip with a nul": lambda: _with_name("archive/ab").replace(b"archive/ab", b"archive/a\0"),
    "zip with duplicate members": _duplicate,
    "zip with overlapping members": _overlapping,
    "zip with a wrong crc": lambda: good_zip().replace(pickled(tensor("0", 2)), pickled(tensor("0", 1))),
    "zip with a wrong crc of a storage": lambda: good_zip().replace(DATA, b"\1" + DATA[1:]),
    "zip with a huge directory": lambda: _patched(good_zip(), len(good_zip()) - 10, b"\xff\xff\xff\x7f"),
    "zip with a directory elsewhere": lambda: _patched(good_zip(), len(good_zip()) - 6, b"\xf0\xff\xff\x7f"),
    "zip with too many members": lambda: _patched(good_zip(), len(good_zip()) - 12, b"\xff\x7f"),
    "zip without its storage": lambda: torch_zip(pickled(tensor("7", 2))),
    "zip with a short storage": lambda: torch_zip(pickled(tensor("0", 200))),
    "zip of a strange byte order": lambda: torch_zip(pickled(tensor("0", 2)), {"byteorder": b"middle"}),
    "zip encrypted": lambda: _patched(good_zip(), _directory(good_zip()) + 8, b"\1\0"),
    "zip with an unknown method": lambda: _patched(
        _patched(good_zip(), _directory(good_zip()) + 10, b"\x5f\0"), good_zip().rindex(b"PK\x03\x04") + 8, b"\x5f\0"
    ),
    "torchscript with a bad constant": lambda: torch_zip(pickled(b"N"), {"constants.pkl": pickled(CALL)}),
    "code: in the head of a legacy file": lambda: legacy(tensor("0", 2)).replace(b"}.", b"}(" + text("a") + CALL + b"u.", 1),
    "code: in the list of storages": lambda: legacy(tensor("0", 2), keys=b"](" + text("0") + b"e" + CALL + b"0"),
    "zip of two archives": _two_archives,
    "legacy with a byte more": lambda: legacy(tensor("0", 2)) + b"x",
    "legacy without its storage": lambda: legacy(tensor("0", 2), keys=b"]", data=b""),
    "legacy with another length": lambda: legacy(tensor("0", 2), data=struct.pack("<q", 3) + DATA),
    "legacy with a negative length": lambda: legacy(tensor("0", 2), data=struct.pack("<q", -2) + DATA),
    "legacy with a storage twice": lambda: legacy(tensor("0", 2), keys=b"](" + text("0") * 2 + b"e"),
    "legacy with keys that are none": lambda: legacy(tensor("0", 2), keys=b"](]e"),
    "legacy of an endless protocol": lambda: LEGACY_HEAD.replace(b"M\xe9\x03", BOMB + GET) + pickled(b"N"),
    "legacy of another protocol": lambda: legacy(tensor("0", 2)).replace(b"M\xe9\x03", b"M\xe8\x03"),
    "safetensors nested": lambda: safetensors(b'{"a":' + b"[" * 100_000),
    "safetensors duplicate keys": lambda: safetensors(b'{"a": {}, "a": {}}'),
    "safetensors overlapping": lambda: safetensors({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, b"1" * 12),
    "safetensors out of range": lambda: safetensors({"a": {**ENTRY, "data_offsets": [0, 80]}, "b": ENTRY}, DATA),
    "safetensors huge shape": lambda: safetensors({"a": {**ENTRY, "shape": [2**40, 2**40]}}, DATA),
    "safetensors of huge numbers": lambda: safetensors(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5_000 + b"]}}"),
    "safetensors of a huge header": lambda: struct.pack("<Q", 99_000_000) + b"{" + b" " * 1_000,
    "safetensors of a surrogate": lambda: safetensors({"\ud800": ENTRY}, DATA),
    "safetensors metadata of lists": lambda: safetensors({"a": ENTRY, "__metadata__": ["x"]}, DATA),
    "safetensors metadata of numbers": lambda: safetensors({"a": ENTRY, "__metadata__": {"x": {"y": [1]}}}, DATA),
    "npy nested": lambda: _npy(b"(" * 5_000),
    "npy operators": lambda: _npy(b"-" * 9_000 + b"1"),
    "npy huge shape": lambda: _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }"),
    "npy objects": lambda: _npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickled(CALL)),
    "npy code": lambda: _npy(b"__import__('os').mkdir('PWNED')"),
    "onnx nested": lambda: _nested_graphs(200),
    "onnx huge shape": lambda: onnx(message(5, onnx_tensor([2**62, 2**62], DATA))),
    "onnx negative shape": lambda: onnx(message(5, onnx_tensor([2**64 - 1], DATA))),
    "onnx many dimensions": lambda: onnx(message(5, onnx_tensor([1] * 20_000, DATA))),
    "onnx out of range": lambda: onnx(message(5, onnx_tensor([2], DATA)))[:-4],
    "onnx wrong length": lambda: onnx(message(5, onnx_tensor([3], DATA))),
    "onnx varint without end": lambda: onnx(b"\xff" * 40),
    "onnx unknown wire type": lambda: onnx(b"\x0e\x0f"),
    "onnx many tensors": lambda: onnx(message(5, b"\x10\x01") * 30_000),
    "onnx long names": lambda: onnx(message(5, onnx_tensor([2], DATA, name=b"n" * 90_000))),
    "onnx numbers too few": lambda: onnx(message(5, b"\x08\x7f\x10\x06" + message(5, b"\1\2"))),
    "onnx numbers too many": lambda: onnx(message(5, b"\x08\x01\x10\x06" + message(5, b"\1\2"))),
    "gzip of nothing": lambda: b"\x1f\x8b\x08" + zlib.compress(b""),
    "text": lambda: b"weights = torch.load('x')\n" * 100,
}  # fmt: skip


def hostile() -> Iterator[tuple[str, bytes]]:
    """Every hostile file by its name."""
    for kind, bodies in (("code", RUNS_CODE), ("much", TOO_MUCH), ("broken", BROKEN)):
        for name, body in bodies.items():
            yield f"{kind}: {name} (zip)", torch_zip(pickled(b"}" + text("w") + body + b"s"))
            yield f"{kind}: {name} (zip root)", torch_zip(pickled(body))
            storages = (
                (b"](" + text("0") + b"e", struct.pack("<q", 2) + DATA) if b"FloatStorage" in body else (b"]", b"")
            )
            yield f"{kind}: {name} (legacy)", legacy(b"}" + text("w") + body + b"s", *storages)
            yield f"{kind}: {name} (bare)", pickled(body)
    for name, make in FILES.items():
        yield name, make()


GOOD = {
    "torch zip": good_zip, "torch legacy": lambda: legacy(tensor("0", 2)), "safetensors": good_safetensors,
    "npz": good_npz, "npz deflated": lambda: good_npz(zipfile.ZIP_DEFLATED), "onnx": good_onnx,
    "npy": lambda: _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", DATA),
}  # fmt: skip
