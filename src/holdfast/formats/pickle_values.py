"""What the walk over a pickle makes of its opcodes: plain values, and records of what it did not carry out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_SHOWN_CHARACTERS = 120


class MalformedPickleError(ValueError):
    """The opcodes make no pickle: the stack runs empty, an argument is cut off, the memo has no such entry."""


class PickleLimitError(ValueError):
    """The pickle asks for more opcodes, memory or depth than any model needs."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle imports; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        # one printable line, whatever the file calls it
        return repr(f"{self.module}.{self.name}"[:MAX_SHOWN_CHARACTERS])[1:-1]


# a text stands for itself; another key is (kind, its text, itself)
TableKey = str | tuple[str, str, Any]


@dataclass(slots=True)
class Table:
    """A dict. Keys are hashed as text alone: a file could choose numbers whose hashes meet, which takes for ever."""

    entries: dict[TableKey, Any] = field(default_factory=dict)

    def put(self, key: Any, value: Any) -> None:
        """Set an entry; a key that is no plain scalar goes by its kind."""
        if isinstance(key, str):
            self.entries[key] = value
            return
        if isinstance(key, bytes):
            self.entries[key.decode("utf-8", "backslashreplace")] = value
            return
        if isinstance(key, tuple) and len(key) <= 16 and all(isinstance(item, (str, int, float)) for item in key):
            key = ",".join(str(item) for item in key)
            text = ("tuple", key, key)
        elif key is None or isinstance(key, (bool, int, float)):
            text = (type(key).__name__, repr(key), key)
        else:
            key = f"<{type(key).__name__.lower()} {len(self.entries)}>"
            text = ("object", key, key)
        self.entries[text] = value

    def get(self, key: str) -> Any:
        """The value under a text key, None where there is none."""
        return self.entries.get(key)

    def items(self) -> Iterator[tuple[str | int, Any]]:
        """Keys, as they go into a tensor's path, and values."""
        for key, value in self.entries.items():
            plain = key if isinstance(key, str) else key[2]
            yield plain if isinstance(plain, (str, int)) and not isinstance(plain, bool) else str(plain), value


@dataclass(slots=True)
class Record:
    """A call that was not made: its children can be looked through, the object itself is unknown.

    Attributes:
        reason: what it would have been, one line; empty for a TorchScript object, whose fields are all there is to it.
        children: arguments, state and items, each under a key or number of its own.
        sealed: what is added is no child: the innards of a known thing.
    """

    reason: str
    children: list[tuple[str | int, Any]] = field(default_factory=list)
    sealed: bool = False

    def add(self, value: Any) -> None:
        """Add a child: a dict's entries become its fields."""
        if self.sealed:
            return
        if isinstance(value, Table):
            self.children += value.items()
        elif isinstance(value, (tuple, list, Record, TensorValue)) and value:
            self.children.append((len(self.children), value))


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage that the pickle points to: ``elements`` of ``dtype`` under ``key``, seen from element ``start`` on."""

    dtype: str
    key: str
    elements: int
    start: int = 0
    visible: int = -1


@dataclass(slots=True)
class TensorValue:
    """A tensor as its rebuild call describes it; shape and strides in elements."""

    storage: StorageRef
    dtype: str
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False
    extra: list[tuple[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Blob:
    """A long run of bytes inside of a pickle, passed over unread."""

    offset: int
    nbytes: int
