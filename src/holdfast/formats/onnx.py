"""ONNX: the initializers of a model's graphs and the constants in its nodes, inside of the file or beside it.

A walk over protobuf's wire format, because the library reads all bytes of a model into memory and says nothing of where
they lie. Field numbers are those of onnx/onnx.proto (IR version 12). Initializers are the weights, under their own
names; those of a graph inside of a node are called ``<node>/<attribute>/<name>``. A constant is ``other``, unless
there is no initializer at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Checkpoint, Opaque, Part, Storage, Tensor
from holdfast.formats.contents import MAX_TENSORS, unique
from holdfast.formats.dtypes import BITS, c_strides, count, span_bytes
from holdfast.formats.protobuf import BYTES, FIXED32, VARINT, Counter, Field, MalformedMessageError, fields, varint
from holdfast.formats.source import Cursor, Source, read_exactly

MODEL_FIELDS = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES,
                14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES}  # fmt: skip
MODEL_TEXTS = {2: "producer_name", 3: "producer_version", 4: "domain", 6: "doc_string"}
# TensorProto.DataType
DTYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 12: "U32",
    13: "U64", 14: "C64", 15: "C128", 16: "BF16", 17: "F8_E4M3", 18: "F8_E4M3FNUZ", 19: "F8_E5M2",
    20: "F8_E5M2FNUZ", 21: "U4", 22: "I4", 23: "F4", 24: "F8_E8M0", 25: "U2", 26: "I2",
}  # fmt: skip
# where values stand that are not in `raw_data`, and whether they lie there as they do in memory
FLOATS, INTS, LONGS, DOUBLES, UNSIGNED, STRINGS, RAW = 4, 5, 7, 10, 11, 6, 9
AS_IN_MEMORY = {(FLOATS, "F32"), (FLOATS, "C64"), (DOUBLES, "F64"), (DOUBLES, "C128")}
AS_NUMBERS = {
    INTS: {"I32", "I16", "I8", "U16", "U8", "BOOL", "F16", "BF16", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ"},
    LONGS: {"I64"},
    UNSIGNED: {"U64", "U32"},
}
MAX_TEXT_BYTES = 100_000
MAX_DEPTH = 20  # graphs within nodes
MAX_DIMENSIONS = 64
MAX_NAME_BYTES = 50_000_000
SNIFF_FIELDS = 100_000
EXTERNAL = 1


@dataclass
class _State:
    source: Source
    counter: Counter = field(default_factory=Counter)
    tensors: list[Tensor] = field(default_factory=list)
    opaque: list[Opaque] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    name_bytes: int = 0

    def name(self, text: str) -> str:
        self.name_bytes += len(text)
        if self.name_bytes > MAX_NAME_BYTES or len(self.tensors) + len(self.opaque) > MAX_TENSORS:
            raise MalformedMessageError("it names more tensors than any model has")
        return unique(text, self.taken)


def is_onnx(source: Source) -> bool:
    """Whether the bytes begin as a model does: an IR version, then known fields up to a graph, which may be torn."""
    counter = Counter()
    version = False
    try:
        cursor = Cursor(source, 0, source.size)
        while cursor.left > 0 and counter.fields < SNIFF_FIELDS:
            counter.fields += 1
            tag = varint(cursor)
            number, wire = tag >> 3, tag & 7
            if MODEL_FIELDS.get(number) != wire:
                return False
            if wire == VARINT:
                value = varint(cursor)
                version = version or (number == 1 and 0 < value < 100)
            else:
                length = varint(cursor)
                if number == 7:
                    return version and _begins_a_graph(source, cursor.position)
                cursor.skip(length)
    except (EOFError, MalformedMessageError):
        return False
    return False


def _begins_a_graph(source: Source, position: int) -> bool:
    head = source.read(position, 1)
    # fields 1, 2, 5, 10 to 16 of GraphProto, all of them bytes
    return bool(head) and head[0] in {n << 3 | BYTES for n in (1, 2, 5, 10, 11, 12, 13, 14, 15)} | {0x82}


def open_onnx(source: Source) -> Checkpoint:
    """Find the initializers and constants.

    Raises:
        IntegrityError: the file is torn, or a tensor's bytes are not as many as its shape says.
    """
    state = _State(source)
    metadata: dict[str, Any] = {}
    try:
        for item in fields(source, 0, source.size, state.counter):
            if item.number == 1:
                metadata["ir_version"] = item.value
            elif item.number == 5 and item.wire == VARINT:
                metadata["model_version"] = item.value
            elif item.number in MODEL_TEXTS and item.wire == BYTES:
                metadata[MODEL_TEXTS[item.number]] = _text(state, item)
            elif item.number == 8 and item.wire == BYTES:
                opset = _facts(state, item, {1}, {2})
                metadata[f"opset/{opset.get(1) or 'ai.onnx'}"] = opset.get(2, 0)
            elif item.number == 14 and item.wire == BYTES:
                entry = _facts(state, item, {1, 2}, set())
                metadata[f"metadata/{entry.get(1, '')}"] = entry.get(2, "")
            elif item.number == 7 and item.wire == BYTES:
                _graph(state, item, "", 0)
    except MalformedMessageError as error:
        raise IntegrityError(f"{source.name} is a torn or broken ONNX model: {error}") from error
    if not any(tensor.part == "weights" for tensor in state.tensors):
        # some exporters write every weight as a constant
        state.tensors = [replace(tensor, part="weights", weight_name=tensor.name) for tensor in state.tensors]
    weights = bool(state.tensors)
    reason = f"the weights hold a value that was not read: {state.opaque[0].reason}" if state.opaque else ""
    return Checkpoint(
        "onnx",
        source,
        tuple(state.tensors),
        metadata,
        tuple(state.opaque),
        container="" if weights else None,
        no_digest=reason or ("" if weights else "it holds no weights"),
    )


def _text(state: _State, item: Field) -> str:
    if item.nbytes > MAX_TEXT_BYTES:
        return f"<{item.nbytes:,} bytes>"
    return read_exactly(state.source, item.offset, item.nbytes).decode("utf-8", "backslashreplace")


def _facts(state: _State, item: Field, texts: set[int], numbers: set[int]) -> dict[int, Any]:
    """Some fields of a small message, by number."""
    facts: dict[int, Any] = {}
    for inner in fields(state.source, item.offset, item.nbytes, state.counter):
        if inner.number in texts and inner.wire == BYTES:
            facts[inner.number] = _text(state, inner)
        elif inner.number in numbers and inner.wire == VARINT:
            facts[inner.number] = inner.value
    return facts


def _graph(state: _State, item: Field, prefix: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MalformedMessageError(f"its graphs are nested deeper than {MAX_DEPTH}")
    for number, inner in enumerate(fields(state.source, item.offset, item.nbytes, state.counter)):
        if inner.wire != BYTES:
            continue
        if inner.number == 5:
            _tensor(state, inner, prefix, None, "weights")
        elif inner.number == 1:
            _node(state, inner, prefix, number, depth)
        elif inner.number == 15:
            name = state.name(f"{prefix}sparse initializer {number}")
            state.opaque.append(Opaque(name, "a sparse initializer"))


def _node(state: _State, item: Field, prefix: str, number: int, depth: int) -> None:
    name, output, attributes = "", "", []
    for inner in fields(state.source, item.offset, item.nbytes, state.counter):
        if inner.wire != BYTES:
            continue
        if inner.number == 3:
            name = _text(state, inner)
        elif inner.number == 2 and not output:
            output = _text(state, inner)
        elif inner.number == 5:
            attributes.append(inner)
    for attribute in attributes:
        parts = list(fields(state.source, attribute.offset, attribute.nbytes, state.counter))
        label = next((_text(state, part) for part in parts if part.number == 1 and part.wire == BYTES), "")
        for part in parts:
            if part.wire == BYTES and part.number in (5, 10):
                _tensor(state, part, prefix, output or name or f"node {number}", "other")
            elif part.wire == BYTES and part.number in (6, 11):
                _graph(state, part, f"{prefix}{name or output or f'node {number}'}/{label}/", depth + 1)


def _tensor(state: _State, item: Field, prefix: str, name: str | None, part: Part) -> None:
    dims: list[int] = []
    data: list[Field] = []
    external: dict[str, str] = {}
    kind = location = 0
    own = ""
    for inner in fields(state.source, item.offset, item.nbytes, state.counter):
        if inner.number == 1:
            dims += _dims(state, inner)
        elif inner.number == 2:
            kind = inner.value
        elif inner.number == 8 and inner.wire == BYTES:
            own = _text(state, inner)
        elif inner.number == 13 and inner.wire == BYTES:
            entry = _facts(state, inner, {1, 2}, set())
            external[entry.get(1, "")] = entry.get(2, "")
        elif inner.number == 14:
            location = inner.value
        elif inner.number in (FLOATS, INTS, STRINGS, LONGS, RAW, DOUBLES, UNSIGNED):
            data.append(inner)
    full = state.name(prefix + (own if name is None else name))
    if len(dims) > MAX_DIMENSIONS or any(length >= 2**63 for length in dims):
        raise MalformedMessageError(f"tensor {full[:120]!r} has a shape that is none")
    dtype, shape = DTYPES.get(kind), tuple(dims)
    if dtype is None:
        state.opaque.append(Opaque(full, "a tensor of texts" if kind == 8 else f"a tensor of the unknown type {kind}"))
        return
    if location == EXTERNAL:
        storage: Storage | None = _beside(state, full, external, span_bytes(dtype, count(shape)))
    else:
        storage = _inside(full, data, dtype, count(shape))
    if storage is None:
        state.opaque.append(Opaque(full, "a tensor whose values are not packed"))
        return
    state.tensors.append(
        Tensor(full, (full,), dtype, shape, c_strides(shape), 0, storage, part, full if part == "weights" else None)
    )


def _dims(state: _State, item: Field) -> Iterator[int]:
    if item.wire == VARINT:
        yield item.value
    elif item.wire == BYTES:
        if item.nbytes > 10 * MAX_DIMENSIONS:
            raise MalformedMessageError("a tensor has a shape that is none")
        cursor = Cursor(state.source, item.offset, item.offset + item.nbytes)
        try:
            while cursor.left:
                yield varint(cursor)
        except EOFError as error:
            raise MalformedMessageError(str(error)) from error


def _inside(name: str, data: list[Field], dtype: str, elements: int) -> Storage | None:
    wanted = span_bytes(dtype, elements)
    if not data:
        if wanted:
            raise MalformedMessageError(f"tensor {name[:120]!r} has no bytes where its shape wants {wanted}")
        return Storage(0, 0)
    if len(data) > 1 or data[0].wire != BYTES:
        # a value for each element, unpacked: nobody writes it, the format allows it
        return Storage(data[0].offset, 4) if _is_one(data, dtype, elements) else None
    item = data[0]
    if item.number == RAW or (item.number, dtype) in AS_IN_MEMORY:
        if item.nbytes != wanted:
            raise MalformedMessageError(f"tensor {name[:120]!r} has {item.nbytes} bytes where its shape wants {wanted}")
        return Storage(item.offset, item.nbytes)
    if dtype in AS_NUMBERS.get(item.number, ()):
        if elements > item.nbytes:  # a number takes a byte at least
            raise MalformedMessageError(f"tensor {name[:120]!r} has fewer numbers than its shape wants")
        return Storage(item.offset, item.nbytes, "varint", wanted)
    return None


def _is_one(data: list[Field], dtype: str, elements: int) -> bool:
    return len(data) == 1 and data[0].wire == FIXED32 and dtype == "F32" and elements == 1


def _beside(state: _State, name: str, facts: dict[str, str], wanted: int) -> Storage:
    place = facts.get("location", "")
    source = state.source.sibling(place)
    try:
        offset = int(facts.get("offset") or 0)
        nbytes = int(facts["length"]) if facts.get("length") else wanted
    except ValueError as error:
        raise MalformedMessageError(f"tensor {name[:120]!r} has a place that is no number") from error
    if nbytes != wanted or offset < 0 or offset + nbytes > source.size:
        raise MalformedMessageError(
            f"tensor {name[:120]!r} wants {wanted} bytes at {offset} of {place[:120]!r}, too many"
        )
    return Storage(offset, nbytes, external=place)


assert set(DTYPES.values()) <= BITS.keys()
