"""The files that a session put last, in memory: what comes next is most often stored against one of them."""

from collections import OrderedDict
from collections.abc import Sequence

from holdfast.formats.source import MemorySource
from holdfast.vault.split import Piece

RECENT_BYTES = 160 << 20


class RecentFiles:
    """Plain blobs of the last files, by id, up to `RECENT_BYTES` together."""

    def __init__(self) -> None:
        self._files: OrderedDict[int, tuple[MemorySource, list[bytes]]] = OrderedDict()
        self._places: dict[bytes, tuple[MemorySource, int, int]] = {}
        self._nbytes = self._number = 0

    def add(self, source: MemorySource, ids: Sequence[bytes], pieces: Sequence[Piece]) -> None:
        """A file, whose pieces are known to have these ids."""
        self._number += 1
        self._files[self._number] = (source, list(ids))
        self._nbytes += source.size
        for name, piece in zip(ids, pieces, strict=True):
            self._places[name] = (source, piece.offset, piece.length)
        while self._nbytes > RECENT_BYTES:
            _, (oldest, names) = self._files.popitem(last=False)
            self._nbytes -= oldest.size
            for name in names:
                if name in self._places and self._places[name][0] is oldest:
                    del self._places[name]

    def __contains__(self, name: bytes) -> bool:
        return name in self._places

    def plain(self, name: bytes) -> bytes | None:
        """A blob's plain bytes, None where it is not here."""
        if name not in self._places:
            return None
        source, offset, length = self._places[name]
        return source.read(offset, length)
