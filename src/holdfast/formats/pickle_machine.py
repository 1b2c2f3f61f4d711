"""What a pickle's opcodes work on: a stack, a memo, and a count of the memory they take."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast.formats.pickle_calls import call, is_allowed
from holdfast.formats.pickle_values import Blob, Global, MalformedPickleError, PickleLimitError, Record, Table
from holdfast.formats.source import Cursor

MAX_MEMORY_BYTES = 100_000_000
LONG_BYTES = 1_000_000  # a run of bytes from here on is passed over unread
MAX_FOREIGN = 50
REFERENCE_BYTES, MEMO_BYTES, TABLE_ENTRY_BYTES = 8, 96, 64
KEY_BYTES = 180  # of a key that is no text
# Python 2 names that stand in old files (pickle's own _compat_pickle)
MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _Mark:
    """What MARK leaves on the stack."""


MARK = _Mark()
Persistent = Callable[[Any], Any]


@dataclass
class Machine:
    """The stack, the memo and the counts of one pickle.

    Attributes:
        cursor: the bytes; after `run` it stands behind the STOP.
        persistent: turns a persistent id into a value.
        foreign: names outside of the allow-list, in order, no name twice.
    """

    cursor: Cursor
    persistent: Persistent
    stack: list[Any] = field(default_factory=list)
    memo: list[Any] = field(default_factory=list)
    far_memo: dict[int, Any] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    memory: int = 0
    opcodes: int = 0

    def push(self, value: Any, nbytes: int = 32) -> None:
        """Put a value on the stack that takes ``nbytes`` of memory."""
        self.charge(nbytes + REFERENCE_BYTES)
        self.stack.append(value)

    def charge(self, nbytes: int) -> None:
        """Count memory, and stop a pickle that wants too much."""
        self.memory += nbytes
        if self.memory > MAX_MEMORY_BYTES:
            raise PickleLimitError(f"its pickle wants more than {MAX_MEMORY_BYTES // 1_000_000} MB of memory")

    def pop(self) -> Any:
        """Take the top of the stack, which is no mark."""
        value = self.stack.pop()
        if value is MARK:
            raise MalformedPickleError(f"its pickle takes a mark for a value at byte {self.cursor.position}")
        return value

    def top(self) -> Any:
        """The top of the stack, which stays."""
        value = self.stack[-1]
        if value is MARK:
            raise MalformedPickleError(f"its pickle takes a mark for a value at byte {self.cursor.position}")
        return value

    def to_mark(self) -> list[Any]:
        """Take all above the last mark, and the mark."""
        place = len(self.stack) - 1
        while place >= 0 and self.stack[place] is not MARK:
            place -= 1
        if place < 0:
            raise MalformedPickleError(f"its pickle has no mark at byte {self.cursor.position}")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def remember(self, place: int) -> None:
        """Put the top into the memo."""
        if place == len(self.memo):  # writers count up, for which a list takes a tenth of a dict's memory
            self.charge(REFERENCE_BYTES + 1)
            self.memo.append(self.top())
        elif place < len(self.memo):
            self.memo[place] = self.top()
        else:
            self.charge(MEMO_BYTES)
            self.far_memo[place] = self.top()

    def recall(self, place: int) -> None:
        """Push what is in the memo."""
        if place < len(self.memo):
            self.push(self.memo[place], 0)
        elif place in self.far_memo:
            self.push(self.far_memo[place], 0)
        else:
            raise MalformedPickleError(f"its pickle has nothing in its memo under {place}")

    def text(self, data: bytes) -> None:
        """Push a text; what is no UTF-8 is written out, so that every name can be printed and hashed."""
        value = data.decode("utf-8", "backslashreplace")
        self.push(value, sys.getsizeof(value))

    def long_run(self, nbytes: int, *, text: bool = False) -> None:
        """Push ``nbytes`` bytes, or pass over them where they are many."""
        if nbytes >= LONG_BYTES:
            blob = Blob(self.cursor.position, nbytes)
            self.cursor.skip(nbytes)
            self.push(blob, 64)
        elif text:
            self.text(self.cursor.read(nbytes))
        else:
            self.push(self.cursor.read(nbytes), 33 + nbytes)

    def name(self, module: Any, name: Any) -> Any:
        """The value for an imported name."""
        if not isinstance(module, str) or not isinstance(name, str):
            self.note("a name made of what is no text")
            return Record("it would import a name made of what is no text")
        value = Global(MODULES.get(module, module), name)
        if not is_allowed(value):
            self.note(str(value))
        return value

    def note(self, name: str) -> None:
        """Remember what is not on the allow-list."""
        name = name[:200]
        if len(self.foreign) < MAX_FOREIGN and name not in self.foreign:
            self.foreign.append(name)

    def call(self, function: Any, arguments: Any) -> None:
        """Push what a call would give."""
        if not isinstance(function, Global):
            self.note("a call of a value")
        value = call(function, arguments)
        size = 100
        if isinstance(value, (str, bytes, list, tuple)):
            size += sys.getsizeof(value)
        elif isinstance(value, Table):
            size += TABLE_ENTRY_BYTES * len(value.entries)
        elif isinstance(value, Record):
            size += 90 * len(value.children)
        self.push(value, size)
