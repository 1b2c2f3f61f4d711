"""Another version of a checkpoint of which git's history knows none: the newest one that is made of the same tensors.

Of a file at a new path, history cannot say what was there before, and a client of DVC's HTTP remote sends files by
their md5 alone. Names, shapes and types of the tensors (the *slots* of `holdfast.vault.split_layout`) say it nearly as
well.
"""

import contextlib
import heapq
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from holdfast.errors import IntegrityError
from holdfast.vault.index import Index
from holdfast.vault.records import unpack_pieces
from holdfast.vault.split import Split

# of a file so many slots are looked at, the least ones: two versions have most of them in common
SLOTS_A_FILE = 64
MAX_SLOTS = 100_000
# the newest checkpoints of the vault that are looked at in the beginning
FILES_BEFORE = 200


class Families:
    """Knows for each slot which file had it last; may be used from many threads.

    Args:
        index: of the vault whose files they are.
        place: where a file is on this machine, if it is.
    """

    def __init__(self, index: Index, place: Callable[[str], Path | None] = lambda _oid: None) -> None:
        self._index = index
        self.place = place
        self._lock = threading.Lock()
        self._newest: OrderedDict[int, str] = OrderedDict()
        self._begun = False

    def base(self, oid: str, split: Split) -> str | None:
        """The file that another one may be stored against; that one is then the newest itself."""
        return self.base_of(oid, least_slots(split))

    def base_of(self, oid: str, slots: Sequence[int]) -> str | None:
        """The same by its `least_slots` alone."""
        if not slots:
            return None
        with self._lock:
            if not self._begun:
                self._begin()
                self._begun = True
            found = Counter(self._newest[slot] for slot in slots if slot in self._newest)
            self._note(oid, slots)
        found.pop(oid, None)
        return min(found, key=lambda other: (-found[other], other)) if found else None

    def _begin(self) -> None:
        query = (
            "SELECT oid, pieces FROM recipes WHERE format != 'bytes' AND segment IN {active} "
            f"ORDER BY segment DESC, oid LIMIT {FILES_BEFORE}"
        )
        for oid, pieces in reversed(self._index.rows(query)):
            with contextlib.suppress(IntegrityError):
                self._note(oid, _least(piece.slot for piece in unpack_pieces(pieces)))

    def _note(self, oid: str, slots: Iterable[int]) -> None:
        for slot in slots:
            self._newest[slot] = oid
            self._newest.move_to_end(slot)
        while len(self._newest) > MAX_SLOTS:
            self._newest.popitem(last=False)


def least_slots(split: Split) -> list[int]:
    """What finds a file's family: the least of its slots."""
    return _least(piece.slot for piece in split.pieces)


def _least(slots: Iterable[int]) -> list[int]:
    return heapq.nsmallest(SLOTS_A_FILE, {slot for slot in slots if slot})
