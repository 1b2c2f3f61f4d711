"""Segments of the index: what one session put into a vault, and what it told its users is there.

``index/<session>`` holds tables of the kind ``segment`` (`holdfast.vault.listing`). It is created once: by its
writer, or without any bytes by a collector that revokes the session. ``condemned/<generation>`` holds tables of the
kind ``condemned``: ``packs`` with their ``key``, ``segments`` with their ``session``, both text.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.vault.columns import Tables, write_tables
from holdfast.vault.listing import Listing, Rows, entries_of, read_rows, tables_of
from holdfast.vault.pack import SESSION_FORM, parse_key
from holdfast.vault.records import DamagedVaultError, Entry

INDEX, SESSIONS, CONDEMNED = "index", "sessions", "condemned"
READY_SUFFIX = ".ready"
_SEGMENT_KIND, _CONDEMNED_KIND = "segment", "condemned"
_SESSION = re.compile(SESSION_FORM)
MAX_SEGMENT_BYTES = 1 << 32


@dataclass(frozen=True)
class Segment:
    """What a segment says.

    Attributes:
        session: its name.
        packs: keys and sizes.
        rows: blobs, recipes and claims.
    """

    session: str
    packs: dict[str, int]
    rows: Rows

    def entries(self) -> list[Entry]:
        """Its blobs."""
        return entries_of(self.rows, list(self.packs))


@dataclass(frozen=True)
class Condemned:
    """What a generation condemns: nothing of it may be built upon.

    Attributes:
        packs: keys.
        segments: sessions.
    """

    packs: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()


def write_segment(listing: Listing, packs: Mapping[str, int]) -> bytes:
    """A segment's bytes.

    Args:
        listing: the records.
        packs: keys and sizes of the packs that its blobs and recipes are in.
    """
    return write_tables(_SEGMENT_KIND, tables_of(listing, packs))


def read_segment(session: str, data: bytes) -> Segment:
    """A segment.

    Raises:
        DamagedTableError, DamagedVaultError: it is damaged.
    """
    tables = Tables(data, _SEGMENT_KIND, f"The segment {INDEX}/{session}")
    keys, sizes = tables.texts("packs", "key"), tables.numbers("packs", "size").tolist()
    for key in keys:
        parse_key(key)
    packs = dict(zip(keys, sizes, strict=True))
    if len(packs) < len(keys):
        raise tables.damage("it lists a pack twice")
    return Segment(session, packs, read_rows(tables, sizes))


def write_condemned(packs: Iterable[str], segments: Iterable[str]) -> bytes:
    """A condemned generation's bytes."""
    return write_tables(_CONDEMNED_KIND, {"packs": {"key": list(packs)}, "segments": {"session": list(segments)}})


def read_condemned(key: str, data: bytes) -> Condemned:
    """What a generation condemns.

    Raises:
        DamagedTableError: it is damaged.
    """
    tables = Tables(data, _CONDEMNED_KIND, key)
    return Condemned(frozenset(tables.texts("packs", "key")), frozenset(tables.texts("segments", "session")))


def check_session(session: str) -> str:
    """A session's name, if it is one.

    Raises:
        DamagedVaultError: it is none.
    """
    if not _SESSION.fullmatch(session):
        raise DamagedVaultError(f"{session!r:.80} is no session's name")
    return session
