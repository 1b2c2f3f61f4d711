"""What of a vault is needed: one recipe for each file, one place for each blob, and what each pack has besides.

A blob may lie in several places: two writers raced, or a repack stored it anew. One of them is chosen, so that each
chosen place with a base is deeper than the chosen place of that base, and chains end.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.vault.listing import rows_as_bytes
from holdfast.vault.reading import Place
from holdfast.vault.records import DamagedVaultError, Entry, Recipe, unpack_pieces
from holdfast.vault.survey import Survey

# of what is kept so much may be of no use to anybody before packs are written anew for it
MAX_WASTE = 0.02
# packs shorter than this share of a full one are put together where there are so many
SMALL_SHARE, SMALL_PACKS = 0.25, 8


@dataclass(frozen=True)
class Marked:
    """What is needed.

    Attributes:
        recipes: of each file, with the session whose segment has it.
        entries: the chosen place of each blob that a file needs, bases with them.
        used: bytes of chosen places, by pack; packs of which nothing is needed are left out.
        listed: bytes of all places that segments name, each once, by pack.
    """

    recipes: Mapping[str, tuple[Recipe, str]]
    entries: Mapping[bytes, Entry]
    used: Mapping[str, int]
    listed: Mapping[str, int]

    def waste(self, pack: str) -> int:
        """The bytes of a pack that nobody needs."""
        return self.listed.get(pack, 0) - self.used.get(pack, 0)


def standing_files(found: Survey) -> set[str]:
    """The files that segments list which nobody condemned."""
    return _files(found, lambda session: session not in found.condemned.segments)


def pending_files(found: Survey) -> set[str]:
    """The files of condemned segments out of which not all that is needed was copied yet."""
    undecided = found.condemned.segments - found.ready.segments
    return _files(found, lambda session: session in undecided)


def waiting_files(found: Survey) -> set[str]:
    """The files that lie in quarantine and nowhere else."""
    return _files(found, lambda session: session in found.ready.segments) - standing_files(found) - pending_files(found)


def mark(found: Survey, avoided: Collection[str] = (), *, needed: Collection[str] | None = None) -> Marked:
    """Choose recipes and places.

    Args:
        found: what is in the vault.
        needed: files; None for all but those that wait in quarantine.
        avoided: packs whose places are chosen only where there is no other one, as those of condemned packs are.

    Raises:
        DamagedVaultError: something cannot be read, so that what is needed is not known.
    """
    if found.damaged:
        key, reason = next(iter(sorted(found.damaged.items())))
        raise DamagedVaultError(f"{key} cannot be read: {reason}", hint="Mend the vault first: `holdfast vault repair`")
    places = _places(found, avoided)
    wanted_files = standing_files(found) | pending_files(found) if needed is None else set(needed)
    recipes = _recipes(found, places, wanted_files)
    lost = sorted(wanted_files - recipes.keys())
    if lost:
        raise DamagedVaultError(
            f"{lost[0]}{f' and {len(lost) - 1} more files' if lost[1:] else ''} cannot be put together",
            hint="See what is wrong: `holdfast vault check`; mend it: `holdfast vault repair`",
        )
    wanted = dict.fromkeys(piece.blob for recipe, _ in recipes.values() for piece in recipe.pieces)
    entries = _chosen(wanted, places)
    used: dict[str, int] = {}
    for entry in entries.values():
        used[entry.pack] = used.get(entry.pack, 0) + entry.stored
    listed: dict[str, int] = {}
    for pack, _, stored in {(entry.pack, entry.offset, entry.stored) for entry in found.entries}:
        listed[pack] = listed.get(pack, 0) + stored
    return Marked(recipes, entries, used, listed)


def wasted_bytes(found: Survey, marked: Marked) -> dict[str, int]:
    """The bytes of each pack that nobody needs; of what is condemned nobody asks any more."""
    standing = found.named().keys() & found.packs.keys() - found.condemned.packs
    return {pack: marked.waste(pack) for pack in sorted(standing)}


def packs_to_leave(found: Survey, wasted: Mapping[str, int], pack_bytes: int) -> set[str]:
    """The packs to be written anew: those with most waste until little is left, and small ones where there are many."""
    left: set[str] = set()
    sizes = {pack: found.packs[pack] for pack in wasted}
    kept, waste = sum(sizes.values()), sum(wasted.values())
    for pack in sorted(wasted, key=lambda pack: (-wasted[pack] / sizes[pack], pack)):
        if waste <= MAX_WASTE * kept or not wasted[pack]:
            break
        left.add(pack)
        kept -= sizes[pack]
        waste -= wasted[pack]
    small = {pack for pack, size in sizes.items() if size < SMALL_SHARE * pack_bytes}
    return left | small if len(small) >= SMALL_PACKS else left


def _places(found: Survey, avoided: Collection[str]) -> dict[bytes, list[Entry]]:
    """For each blob where it can be decoded from, the best place first."""
    able = found.decodable(found.unreachable()).tolist()
    places: dict[bytes, dict[Place, Entry]] = {}
    for entry, fine in zip(found.entries, able, strict=True):
        if fine:
            places.setdefault(entry.id, {})[entry.pack, entry.offset] = entry

    # what a repack wrote comes before what it was to replace, though that be less deep: it may have been interrupted
    repacked = {pack for segment in found.segments if not segment.rows.claimed.any() for pack in segment.packs}

    def rank(entry: Entry) -> tuple[bool, bool, bool, int, int, str, int]:
        late = entry.pack in found.condemned.packs, entry.pack in avoided, entry.pack not in repacked
        return *late, entry.depth, entry.stored, entry.pack, entry.offset

    return {name: sorted(some.values(), key=rank) for name, some in places.items()}


def _files(found: Survey, chosen: Callable[[str], bool]) -> set[str]:
    return {oid for segment in found.segments if chosen(segment.session) for oid in segment.rows.oids}


def _recipes(
    found: Survey, places: Mapping[bytes, Sequence[Entry]], wanted: Collection[str]
) -> dict[str, tuple[Recipe, str]]:
    """For each wanted file the best recipe all of whose blobs can be decoded."""

    def rank(session: str) -> tuple[bool, str]:
        return session in found.condemned.segments, session

    recipes: dict[str, tuple[Recipe, str]] = {}
    for segment in sorted(found.segments, key=lambda segment: rank(segment.session)):
        rows = segment.rows
        columns = (rows.oids, rows.sizes.tolist(), rows_as_bytes(rows.digests), rows.formats, rows.packed_pieces())
        for oid, size, digest, form, packed in zip(*columns, strict=True):
            if oid in wanted and oid not in recipes:
                pieces = unpack_pieces(packed)
                if all(piece.blob in places for piece in pieces):
                    recipes[oid] = (Recipe(oid, size, digest, form, pieces), segment.session)
    return recipes


def _chosen(wanted: Iterable[bytes], places: Mapping[bytes, Sequence[Entry]]) -> dict[bytes, Entry]:
    """A place for each blob and for all bases below it."""
    wanted = list(wanted)
    chosen: dict[bytes, Entry] = {}
    rest = list(wanted)
    while rest:
        entry = chosen.setdefault(rest[-1], places[rest[-1]][0])
        rest.pop()
        base = entry.base
        if not base:
            continue
        if base not in chosen:
            chosen[base] = places[base][0]
            rest.append(base)
        if chosen[base].depth >= entry.depth:
            # the least deep place has less depth than whatever was made against the blob, or that could not be decoded
            chosen[base] = min(places[base], key=lambda place: place.depth)
            rest.append(base)
    kept: dict[bytes, Entry] = {}
    for name in wanted:
        while name and name not in kept:
            kept[name] = chosen[name]
            name = chosen[name].base
    return kept
