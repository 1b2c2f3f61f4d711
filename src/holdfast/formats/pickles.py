"""A walk over the opcodes of a pickle that builds descriptions, and runs nothing.

Opcodes and their arguments are those of the standard library's ``pickletools`` (protocols 0 to 5). No name is imported,
no object is made: `holdfast.formats.pickle_calls` knows what the rebuild calls of torch mean, and everything else
becomes a `Record` that says why it is opaque. A file may ask for at most `MAX_OPCODES` steps and about
`MAX_MEMORY_BYTES` of memory; depth costs nothing here, because nothing recurses.
"""

from dataclasses import dataclass
from typing import Any

from holdfast.formats.pickle_calls import label, storage_dtype
from holdfast.formats.pickle_machine import Machine
from holdfast.formats.pickle_opcodes import HANDLERS, STOP
from holdfast.formats.pickle_values import MalformedPickleError, PickleLimitError, Record, StorageRef

# a checkpoint of 60,000 tensors takes 2.5 million opcodes and 100 MB here; no model that we know has as many
MAX_OPCODES = 5_000_000


@dataclass
class Walk(Machine):
    """One pickle on its way from the first opcode to STOP."""

    def run(self) -> Any:
        """The value on top when the pickle stops.

        Raises:
            MalformedPickleError: it is no pickle or is torn.
            PickleLimitError: it asks for more than `MAX_OPCODES` or `MAX_MEMORY_BYTES`.
        """
        cursor = self.cursor
        try:
            while True:
                code = cursor.byte()
                if code == STOP:
                    return self.pop()
                handler = HANDLERS[code]
                if handler is None:
                    raise MalformedPickleError(f"byte {cursor.position - 1} is no opcode")
                handler(self)
                self.opcodes += 1
                if self.opcodes > MAX_OPCODES:
                    raise PickleLimitError(f"its pickle has more than {MAX_OPCODES:,} opcodes")
        except EOFError as error:
            raise MalformedPickleError(f"its pickle is torn: {error}") from error
        except IndexError as error:
            raise MalformedPickleError(f"its pickle takes from an empty stack at byte {cursor.position}") from error


def torch_persistent(value: Any) -> Any:
    """A storage from torch's persistent id ``("storage", class, key, location, elements[, view])``.

    The sixth is ``(key of the view, first element, elements)`` in files before 1.6, or None.

    Raises:
        MalformedPickleError: it is a storage's id, yet broken.
    """
    if not isinstance(value, tuple) or not value or value[0] not in ("storage", "module"):
        return Record("it names an object outside of the file")
    if value[0] == "module":  # a class and its source, which torch compares and then takes the class
        return value[1] if len(value) > 1 else Record("it names an object outside of the file")
    if len(value) not in (5, 6):
        raise MalformedPickleError("a storage is named by too few facts")
    dtype, key, elements = storage_dtype(value[1]), value[2], value[4]
    if dtype is None:
        return Record(f"a storage of the unknown type {label(value[1])}")
    if not isinstance(key, (str, int)) or type(elements) is not int or not 0 <= elements < 2**60:
        raise MalformedPickleError("a storage is named by what is no key or no count")
    if len(value) == 6 and value[5] is not None:
        view = value[5]
        if not isinstance(view, tuple) or len(view) != 3 or not all(type(n) is int and n >= 0 for n in view[1:]):
            raise MalformedPickleError("a view of a storage is named by what are no counts")
        if view[1] + view[2] > elements:
            raise MalformedPickleError("a view of a storage leads out of it")
        return StorageRef(dtype, str(key), elements, view[1], view[2])
    return StorageRef(dtype, str(key), elements)


def nothing_persistent(_value: Any) -> Any:
    """For pickles that have no storages beside them."""
    return Record("it names an object outside of the file")
