"""Files on their way to clients: found, cut into spans, each of which is decoded while the one before is sent."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from holdfast.vault.reading import BrokenBlobError, LostPackError, MissingBlobError
from holdfast.vault.records import DamagedVaultError, Recipe
from holdfast.vault.repository import Vault

# plain bytes that are decoded at once for one client: a piece, or some small ones
SPAN_BYTES = 4 << 20
FRESH_SECONDS = 1.0
_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")


class RangeError(Exception):
    """A range that a file does not have."""


@dataclass(frozen=True)
class Span:
    """Some neighbouring bytes of a file.

    Attributes:
        offset: where they begin.
        count: how many.
    """

    offset: int
    count: int


class Catalogue:
    """What a vault has, looked up anew when something is missing, but not for each thing that is missing.

    Args:
        vault: the vault.
        on_change: is called when a look showed that more, or less, is condemned than before.
        fresh_seconds: what another machine committed is found after so long at the latest.
        clock: seconds, of no meaning but their differences.
    """

    def __init__(
        self,
        vault: Vault,
        on_change: Callable[[], None],
        fresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vault, self._on_change, self._clock = vault, on_change, clock
        self._fresh_seconds = fresh_seconds
        self._looking = threading.Lock()
        self._looked = float("-inf")
        self._condemned: object = None

    def size(self, oid: str) -> int | None:
        """A file's bytes, without decoding any; None where there is no such file.

        Raises:
            ConflictError: the name stands for two contents.
            StoreError: the vault cannot be asked.
        """
        found = self._vault.index.digests([oid])
        if oid not in found:
            self.look()
            found = self._vault.index.digests([oid])
        return found[oid][0] if oid in found else None

    def look(self) -> None:
        """Look what others have put or condemned, unless somebody did a moment ago.

        Raises:
            StoreError: the vault cannot be asked.
        """
        with self._looking:
            now = self._clock()
            if now - self._looked < self._fresh_seconds:
                return
            self._vault.refresh()
            self._looked = now
            known = self._vault.index.known
            condemned = (known.condemned_packs, known.condemned_segments)
            if self._condemned is not None and condemned != self._condemned:
                self._on_change()
            self._condemned = condemned


def parse_range(header: str | None, size: int) -> Span | None:
    """The span that a Range header asks for; None for all of the file, as for what is no single range of bytes.

    Raises:
        RangeError: the file has nothing there.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        count = min(int(match["last"]), size)
        if not count:
            raise RangeError
        return Span(size - count, count)
    first = int(match["first"])
    last = min(int(match["last"]), size - 1) if match["last"] else size - 1
    if match["last"] and int(match["last"]) < first:
        return None
    if first >= size:
        raise RangeError
    return Span(first, last + 1 - first)


def cut(recipe: Recipe, wanted: Span) -> Iterator[Span]:
    """Spans of whole pieces, of some `SPAN_BYTES` each: cut like this, no piece is decoded twice."""
    start, nbytes = wanted.offset, 0
    for place, piece in recipe.within(wanted.offset, wanted.count):
        end = min(place + piece.length, wanted.offset + wanted.count)
        if nbytes and end - start > SPAN_BYTES:
            yield Span(start, nbytes)
            start += nbytes
        nbytes = end - start
    if nbytes:
        yield Span(start, nbytes)


def read_span(vault: Vault, recipe: Recipe, span: Span) -> bytes:
    """The bytes of a span, each blob verified.

    Raises:
        IntegrityError: a blob is damaged, or missing.
        StoreError: the store cannot be read.
    """
    wanted = list(recipe.within(span.offset, span.count))
    ids = list(dict.fromkeys(piece.blob for _, piece in wanted))
    plain: dict[bytes, bytes] = {}
    try:
        reader = vault.reader()
        for window in reader.read(reader.plan(ids), ids):
            plain.update(window)
    except (BrokenBlobError, LostPackError, MissingBlobError):
        return vault.read(recipe.oid, span.offset, span.count)  # which knows other places to look in
    parts = []
    for place, piece in wanted:
        first, last = max(span.offset - place, 0), min(span.offset + span.count - place, piece.length)
        parts.append(memoryview(plain[piece.blob])[piece.offset + first : piece.offset + last])
    return b"".join(parts)


class Whole:
    """Sees that the spans of a whole file, in order, are what its recipe says."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._digest = blake3()
        self._nbytes = 0

    def add(self, data: bytes) -> None:
        """The next bytes.

        Raises:
            DamagedVaultError: these are the last ones, and the file is not what it should be.
        """
        self._digest.update(data)
        self._nbytes += len(data)
        if self._nbytes == self._recipe.size and self._digest.digest() != self._recipe.digest:
            raise DamagedVaultError(f"{self._recipe.oid} is not put together as its recipe says")
