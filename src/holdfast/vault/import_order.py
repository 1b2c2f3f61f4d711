"""In which order an import puts files, what each is stored against, and where one session ends and the next begins."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.repo.lineage import Lineage, ObjectKey
from holdfast.vault.chains import chain_order
from holdfast.vault.layout import is_listing, is_run


@dataclass(frozen=True)
class Limits:
    """How much is done at a time.

    Attributes:
        session_bytes: of files, after which a session commits; of a small import less, see `session_bytes_of`.
        session_files: the same in files.
        batch_bytes: of files that are fetched together. Two batches are here at a time.
        batch_files: the same in files. A file that is larger is a batch by itself.
        kept_bytes: of files besides, for others to be stored against.
        listing_bytes: of folders' listings that are fetched to learn what the files in them were before.
    """

    session_bytes: int = 4 << 30
    session_files: int = 20_000
    batch_bytes: int = 256 << 20
    batch_files: int = 5000
    kept_bytes: int = 1 << 30
    listing_bytes: int = 512 << 20


# of what is imported a session has a part, so that several can be at work; but not less than this
SESSIONS, LEAST_SESSION_BYTES = 64, 256 << 20


class Item(NamedTuple):
    """A file in its place of the order.

    Attributes:
        oid: its name.
        base: the file that it is stored against.
        cold: whether restoring it may read however much.
        stray: whether history does not know it, and something like it may be its base.
        cast: a file that it is known to be a cast of.
    """

    oid: str
    base: str | None = None
    cold: bool = False
    stray: bool = False
    cast: str | None = None


def ordered(sizes: Mapping[str, int], known: Collection[str], lineage: Lineage) -> list[Item]:
    """What a vault lacks in the order in which it is put: what history knows, other files, listings, runs.

    A folder's listing comes after what is in it and a run after its outs: DVC takes the one for a promise of the other.

    Args:
        sizes: bytes of all files that are there, by oid.
        known: those that the vault has.
        lineage: what was which file before.
    """
    oids = sorted(sizes)
    keys: dict[ObjectKey, str] = {}
    others: list[str] = []
    for oid in oids:
        kind, _, value = oid.partition(":")
        if is_listing(oid) or is_run(oid):
            continue
        if (kind, value) in lineage.paths:
            keys[kind, value] = oid
        else:
            others.append(oid)
    # files that the vault has keep their place, so that an import that goes on chooses the same bases
    links = chain_order(lineage, keys, lineage.tips)
    items = [Item(keys[link.key], keys[link.base] if link.base else None, link.cold) for link in links]
    items += [Item(oid, stray=True) for oid in others]
    items += [Item(oid) for oid in filter(is_listing, oids)]
    items += [Item(oid) for oid in filter(is_run, oids)]
    return [item for item in items if item.oid not in known]


def session_bytes_of(total: int, limits: Limits) -> int:
    """So many bytes of files a session has, where an import has so many in all."""
    return min(limits.session_bytes, max(LEAST_SESSION_BYTES, total // SESSIONS))


def sessions_of(
    items: Sequence[Item], size_of: Callable[[Item], int], limits: Limits, total: int
) -> Iterator[Sequence[Item]]:
    """The items in groups, each for a session; where a chain of versions begins, a group may end at half its size.

    A session that has whole chains waits for no other one.

    Args:
        items: in their order.
        size_of: tells an item's bytes.
        limits: how much a session has.
        total: bytes of all that is there, of what was put before, too: so that what goes on is cut as it was.
    """
    most = session_bytes_of(total, limits)
    group: list[Item] = []
    inside: set[str] = set()
    nbytes = 0
    for number, item in enumerate(items):
        size = size_of(item)
        full = nbytes + size > most or len(group) >= limits.session_files
        chain = item.base not in inside and number + 1 < len(items) and items[number + 1].base == item.oid
        half = 2 * nbytes >= most or 2 * len(group) >= limits.session_files
        if group and (full or (half and chain)):
            yield group
            group, inside, nbytes = [], set(), 0
        group.append(item)
        inside.add(item.oid)
        nbytes += size
    if group:
        yield group
