"""The opcodes of pickles, protocols 0 to 5, each as what it does to a `Machine`. The source is ``pickletools``."""

import codecs
import re
import struct
from collections.abc import Callable
from typing import Any

from holdfast.formats.pickle_machine import KEY_BYTES, LONG_BYTES, MARK, REFERENCE_BYTES, TABLE_ENTRY_BYTES, Machine
from holdfast.formats.pickle_values import Global, MalformedPickleError, PickleLimitError, Record, Table, TensorValue

MAX_LINE_BYTES = 4096
MAX_INTEGER_BYTES = 255
# what Python itself would take as it stands, with a warning
ODD_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\(?:[^\\'\"abfnrtvx0-3]|$)")


def _text_integer(data: bytes) -> int:
    try:
        if len(data) > MAX_INTEGER_BYTES:
            raise ValueError
        return int(data)
    except ValueError as error:
        raise MalformedPickleError(f"its pickle has a number that is none: {data[:20]!r}") from error


def _int(machine: Machine) -> None:
    line = machine.cursor.line(MAX_LINE_BYTES)
    machine.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else _text_integer(line), 60)


def _long(machine: Machine) -> None:
    machine.push(_text_integer(machine.cursor.line(MAX_LINE_BYTES).rstrip(b"L")), 140)


def _float(machine: Machine) -> None:
    try:
        machine.push(float(machine.cursor.line(MAX_LINE_BYTES)))
    except ValueError as error:
        raise MalformedPickleError("its pickle has a number that is none") from error


def _binary_long(length: int) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        count = int.from_bytes(machine.cursor.read(length), "little")
        if count > MAX_INTEGER_BYTES:
            raise PickleLimitError(f"its pickle has a number of {count} bytes")
        machine.push(int.from_bytes(machine.cursor.read(count), "little", signed=True), 40 + count)

    return handler


def _fixed(form: str) -> Callable[[Machine], None]:
    layout = struct.Struct(form)

    def handler(machine: Machine) -> None:
        machine.push(layout.unpack(machine.cursor.read(layout.size))[0])

    return handler


def _constant(value: Any) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        machine.push(value, 0)

    return handler


def _run(length: int, *, text: bool) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        count = int.from_bytes(machine.cursor.read(length), "little")
        if count > machine.cursor.left:
            raise MalformedPickleError(f"its pickle is torn: {count} bytes are wanted at {machine.cursor.position}")
        machine.long_run(count, text=text)

    return handler


def _string(machine: Machine) -> None:
    line = machine.cursor.line(LONG_BYTES)
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise MalformedPickleError("its pickle has a text without quotes")
    if ODD_ESCAPE.search(line):
        machine.text(line[1:-1])
        return
    try:
        plain = codecs.escape_decode(line[1:-1])[0]
    except ValueError as error:
        raise MalformedPickleError("its pickle has a text with broken escapes") from error
    machine.text(bytes(plain))


def _unicode(machine: Machine) -> None:
    line = machine.cursor.line(LONG_BYTES)
    try:
        value = line.decode("raw-unicode-escape").encode("utf-8", "surrogatepass")
    except ValueError as error:
        raise MalformedPickleError("its pickle has a text with broken escapes") from error
    machine.text(value)


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)), 64 + 8 * count)

    return handler


def _tuple(machine: Machine) -> None:
    items = machine.to_mark()
    machine.push(tuple(items), 64 + 8 * len(items))


def _list(machine: Machine) -> None:
    items = machine.to_mark()
    machine.push(items, 88 + 8 * len(items))


def _dict(machine: Machine) -> None:
    items = machine.to_mark()
    table = Table()
    machine.push(table, 200)
    _fill(machine, table, items)


def _fill(machine: Machine, target: Any, items: list[Any]) -> None:
    if len(items) % 2:
        raise MalformedPickleError("its pickle has a key without a value")
    if isinstance(target, Table):
        for place in range(0, len(items), 2):
            key = items[place]
            machine.charge(TABLE_ENTRY_BYTES if isinstance(key, str) else KEY_BYTES)
            target.put(key, items[place + 1])
    elif isinstance(target, Record):
        machine.charge(100 * len(items))
        table = Table()
        for place in range(0, len(items), 2):
            table.put(items[place], items[place + 1])
        target.add(table)
    else:
        raise MalformedPickleError(f"its pickle sets items of a {type(target).__name__.lower()}")


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _fill(machine, machine.top(), [key, value])


def _set_items(machine: Machine) -> None:
    items = machine.to_mark()
    _fill(machine, machine.top(), items)


def _extend(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    machine.charge(REFERENCE_BYTES * len(items))
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Record):
        machine.charge(100 * len(items))
        for item in items:
            target.add(item)
    else:
        raise MalformedPickleError(f"its pickle appends to a {type(target).__name__.lower()}")


def _pop_mark(machine: Machine) -> None:
    machine.to_mark()


def _append(machine: Machine) -> None:
    item = machine.pop()
    _extend(machine, [item])


def _global(machine: Machine) -> None:
    module, name = (machine.cursor.line(MAX_LINE_BYTES).decode("utf-8", "backslashreplace") for _ in range(2))
    machine.push(machine.name(module, name), 200)


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.name(module, name), 100)


def _extension(length: int) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        code = int.from_bytes(machine.cursor.read(length), "little")
        machine.note(f"extension {code}")
        machine.push(Record(f"it names object {code} of the extension registry"), 200)

    return handler


def _reduce(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _new_object(machine: Machine) -> None:
    arguments, kind = machine.pop(), machine.pop()
    machine.call(kind, arguments)


def _new_object_ex(machine: Machine) -> None:
    keywords, arguments, kind = machine.pop(), machine.pop(), machine.pop()
    machine.call(kind, arguments if isinstance(keywords, Table) and not keywords.entries else (arguments, keywords))


def _inst(machine: Machine) -> None:
    _global(machine)
    kind = machine.pop()
    items = machine.to_mark()
    machine.call(kind, tuple(items))


def _obj(machine: Machine) -> None:
    items = machine.to_mark()
    if not items:
        raise MalformedPickleError("its pickle makes an object of no class")
    machine.call(items[0], tuple(items[1:]))


def _build(machine: Machine) -> None:
    state, target = machine.pop(), machine.top()
    if isinstance(target, Record):
        pair = isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], (Table, type(None)))
        for item in state if pair else (state,):
            size = len(item.entries) if isinstance(item, Table) else 1
            machine.charge(100 * size)
            target.add(item)
    elif isinstance(target, Global):
        # setting attributes of an imported name: a monkey patch
        machine.note(f"attributes of {target}")
        machine.stack[-1] = Record(f"it would change {target}")
    elif not isinstance(target, (Table, TensorValue, list)):
        raise MalformedPickleError(f"its pickle sets the state of a {type(target).__name__.lower()}")
    elif isinstance(target, Table) and target.get("numpy dtype") is not None and isinstance(state, tuple):
        order = state[1] if len(state) > 1 else None
        if order == ">":  # rare enough not to be turned round
            target.put("numpy dtype", "big-endian")
    # an OrderedDict's attributes (torch's `_metadata`, versions of module classes) and a parameter's hooks say nothing
    # of tensors


def _persistent(machine: Machine) -> None:
    machine.push(machine.persistent(machine.pop()), 120)


def _persistent_line(machine: Machine) -> None:
    line = machine.cursor.line(MAX_LINE_BYTES)
    machine.push(machine.persistent(line.decode("utf-8", "backslashreplace")), 120)


def _put(length: int) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        machine.remember(int.from_bytes(machine.cursor.read(length), "little"))

    return handler


def _get(length: int) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        machine.recall(int.from_bytes(machine.cursor.read(length), "little"))

    return handler


def _memo_place(machine: Machine) -> int:
    place = _text_integer(machine.cursor.line(MAX_LINE_BYTES))
    if not 0 <= place < 2**32:
        raise MalformedPickleError("its pickle names a place in its memo that is none")
    return place


def _empty(make: Callable[[], Any], nbytes: int) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        machine.push(make(), nbytes)

    return handler


def _read_only(machine: Machine) -> None:
    machine.top()


def _skip(length: int) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        machine.cursor.skip(length)

    return handler


STOP = ord(".")
_TABLE: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _skip(1),  # PROTO
    b"\x95": _skip(8),  # FRAME
    b"(": lambda machine: machine.push(MARK, 0),
    b"0": lambda machine: machine.stack.pop(),  # POP takes a mark too
    b"1": _pop_mark,  # POP_MARK
    b"2": lambda machine: machine.push(machine.top(), 0),  # DUP
    b"I": _int, b"L": _long, b"F": _float, b"S": _string, b"V": _unicode,
    b"J": _fixed("<i"), b"K": _fixed("<B"), b"M": _fixed("<H"), b"G": _fixed(">d"),
    b"\x8a": _binary_long(1), b"\x8b": _binary_long(4),
    b"N": _constant(None), b"\x88": _constant(True), b"\x89": _constant(False),
    b"T": _run(4, text=True), b"U": _run(1, text=True),  # Python 2's str: the names in old torch files
    b"X": _run(4, text=True), b"\x8c": _run(1, text=True), b"\x8d": _run(8, text=True),
    b"B": _run(4, text=False), b"C": _run(1, text=False), b"\x8e": _run(8, text=False), b"\x96": _run(8, text=False),
    b"\x97": lambda machine: machine.push(Record("it takes a buffer from outside of the file"), 120),
    b"\x98": _read_only,
    b")": _constant(()), b"t": _tuple, b"\x85": _tuple_of(1), b"\x86": _tuple_of(2), b"\x87": _tuple_of(3),
    b"]": _empty(list, 88), b"l": _list, b"a": _append, b"e": lambda machine: _extend(machine, machine.to_mark()),
    b"}": _empty(Table, 240), b"d": _dict, b"s": _set_item, b"u": _set_items,
    b"\x8f": _empty(list, 88), b"\x90": lambda machine: _extend(machine, machine.to_mark()), b"\x91": _list,  # sets
    b"c": _global, b"\x93": _stack_global, b"i": _inst, b"o": _obj,
    b"\x82": _extension(1), b"\x83": _extension(2), b"\x84": _extension(4),
    b"R": _reduce, b"\x81": _new_object, b"\x92": _new_object_ex, b"b": _build,
    b"Q": _persistent, b"P": _persistent_line,
    b"q": _put(1), b"r": _put(4), b"p": lambda machine: machine.remember(_memo_place(machine)),
    b"h": _get(1), b"j": _get(4), b"g": lambda machine: machine.recall(_memo_place(machine)),
    b"\x94": lambda machine: machine.remember(len(machine.memo) + len(machine.far_memo)),  # MEMOIZE
}  # fmt: skip
HANDLERS: list[Callable[[Machine], None] | None] = [_TABLE.get(bytes([code])) for code in range(256)]
