"""Files of a remote into a session: fetched some at a time, put, and told of where that failed."""

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.objectstore.parallel import one_ahead
from holdfast.vault.downloading import LocalFiles, cut
from holdfast.vault.import_order import Item, Limits
from holdfast.vault.oids import WrongNameError
from holdfast.vault.records import ConflictError
from holdfast.vault.session import FileToPut, Session


@dataclass
class Sender:
    """Puts groups of files, one after the other.

    Args:
        files: of the remote.
        sizes: bytes of each, by oid.
        items: all that will be put, in their order.
        limits: how much at a time.
        advance: told of bytes as they are read.

    Attributes:
        damaged: files that are not what their names say, by oid, and why.
        failed: other files that were not taken, and why.
    """

    files: LocalFiles
    sizes: Mapping[str, int]
    items: Sequence[Item]
    limits: Limits
    advance: Callable[[int], None]
    damaged: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _uses: dict[str, list[int]] = field(default_factory=dict)
    _place: int = 0

    def __post_init__(self) -> None:
        for place, item in enumerate(self.items):
            if item.base is not None:
                self._uses.setdefault(item.base, []).append(place)

    def send(self, session: Session, group: Sequence[Item], claims: Collection[str], *, claiming: bool = True) -> bool:
        """All of one session but its commit; whether there is anything to commit.

        Args:
            session: that was announced.
            group: the next of the items.
            claims: files that were there when the import was planned.
            claiming: whether what is there already is claimed.

        Raises:
            StoreError: source or vault cannot be reached.
            OSError: the disk is full, or cannot be written.
        """
        known = session.known([*claims, *(item.oid for item in group)])
        if claiming:
            session.claim(sorted(known))
        # what was there when it was planned, and which a collector has taken away since
        lost = [Item(oid) for oid in claims if oid not in known]
        end = self._place + len(group)
        for batch, missing in one_ahead(
            (batch, self._fetch(batch, known)) for batch in batches_of([*group, *lost], self.size, self.limits)
        ):
            self._put(session, [item for item in batch if item.oid not in known], missing)
            self.advance(sum(self.size(item) for item in batch if item.oid in known))
            self._place = min(self._place + len(batch), end)
            self.files.keep(self._next_use, [item.oid for item in batch], self.limits.kept_bytes)
        done = session.statistics()
        return bool(done.files or done.new_blobs or (claiming and known))

    def rewind(self, group: Sequence[Item], place: int) -> None:
        """Forget what came of a group, which is to be sent again from its place on."""
        self.files.keep(lambda _oid: None, (), 0)
        for item in group:
            self.damaged.pop(item.oid, None)
            self.failed.pop(item.oid, None)
        self._place = place

    @property
    def place(self) -> int:
        """How many items were sent."""
        return self._place

    def size(self, item: Item) -> int:
        """An item's bytes."""
        return self.sizes[item.oid]

    def at_hand(self, oid: str) -> Path | None:
        """Where a file is, if it is at hand."""
        path = self.files.path(oid)
        return path if path.exists() else None

    def _fetch(self, batch: Sequence[Item], known: Collection[str]) -> Mapping[str, HoldfastError]:
        return self.files.fetch({item.oid: self.size(item) for item in batch if item.oid not in known})

    def _put(self, session: Session, batch: Sequence[Item], missing: Mapping[str, HoldfastError]) -> None:
        def fail(oid: str, error: HoldfastError) -> None:
            (self.damaged if is_damage(error) else self.failed)[oid] = reason_of(error)
            self.advance(self.sizes[oid])

        for oid, error in missing.items():
            fail(oid, error)
        files = [self._file(item) for item in batch if item.oid not in missing]
        session.put_many(files, fail, lambda _oid, size: self.advance(size))

    def _file(self, item: Item) -> FileToPut:
        base = None if item.stray else item.base or ""
        at_hand = self.at_hand(base) if base else None
        ratio = math.inf if item.cold else None
        return FileToPut(item.oid, self.files.path(item.oid), base, at_hand, ratio, item.cast)

    def _next_use(self, oid: str) -> int | None:
        """Where in the order the next file is that is stored against this one."""
        uses = self._uses.get(oid, [])
        after = bisect_right(uses, self._place - 1)
        return uses[after] if after < len(uses) else None


def batches_of(items: Sequence[Item], size_of: Callable[[Item], int], limits: Limits) -> "list[Sequence[Item]]":
    """What of a session is fetched and put together: small files share blobs within a batch."""
    return list(cut(items, size_of, nbytes=limits.batch_bytes, count=limits.batch_files))


def is_damage(error: HoldfastError) -> bool:
    """Whether a file is not what its name says, or the vault says something else of it."""
    return isinstance(error, WrongNameError | ConflictError)


def reason_of(error: HoldfastError) -> str:
    """What to say of a file that was not taken."""
    if isinstance(error, WrongNameError):
        return "its bytes have another md5 than its name says"
    if isinstance(error, ConflictError):
        return "the vault has another content under this name"
    return error.message
