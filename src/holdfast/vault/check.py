"""Is everything there, and what it should be? Nothing is changed.

The structure: every segment can be read, every pack that one names is there in its length, every blob that a file needs
is in one, with its bases. With ``read_data`` all packs are fetched, all blobs decoded, all files put together.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from blake3 import blake3

from holdfast.objectstore.store import ObjectStore
from holdfast.vault.check_reading import Here, PackRead, PackToRead
from holdfast.vault.pack import parse_key
from holdfast.vault.reading import Place
from holdfast.vault.records import Entry, Recipe
from holdfast.vault.segment import INDEX
from holdfast.vault.survey import Survey, survey

if TYPE_CHECKING:
    from holdfast.vault.check_partitions import Spread

# what may be wrong
SEGMENT, CONDEMNED = "damaged segment", "damaged condemned generation"
MISSING_PACK, SHORT_PACK, DAMAGED_PACK = "missing pack", "pack of another length", "damaged pack"
MISSING_BLOB, DAMAGED_BLOB = "missing blob", "damaged blob"
CONFLICT, DAMAGED_FILE = "file with two contents", "damaged file"
# what is no damage
ORPHAN_PACK, CONDEMNED_PACK = "orphan pack", "condemned pack"
HARMLESS = frozenset({ORPHAN_PACK, CONDEMNED_PACK})


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        kind: one of the names above.
        key: the object, or the blob or file, that it is about.
        reason: what is wrong with it.
        oids: the files that cannot be put together for it.
    """

    kind: str
    key: str
    reason: str
    oids: tuple[str, ...] = ()

    @property
    def harmless(self) -> bool:
        """Whether nothing is lost: what an interrupted push left behind, or what a collector will take away."""
        return self.kind in HARMLESS


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        findings: damage first.
        packs: how many are there.
        packs_read: how many were fetched and decoded.
        files: how many have a recipe.
        files_read: how many were put together.
        blobs: how many places of blobs there are.
    """

    findings: tuple[Finding, ...]
    packs: int
    packs_read: int
    files: int
    files_read: int
    blobs: int

    @property
    def clean(self) -> bool:
        """Whether nothing is damaged."""
        return all(finding.harmless for finding in self.findings)


def check_vault(
    store: ObjectStore,
    *,
    jobs: int,
    read_data: bool = False,
    share: float = 1.0,
    progress: Callable[[str, int, int], None] | None = None,
    spread: "Spread | None" = None,
) -> CheckResult:
    """Check a vault.

    Args:
        store: where it is.
        jobs: requests and threads at a time.
        read_data: fetch, decode and put together everything, too.
        share: how much of the packs and of the files that is done for; which ones is told by their names.
        progress: is called with ``packs`` or ``files``, how many are done, and how many there are.
        spread: what else reads, with the same findings; None for this process alone.

    Raises:
        StoreError: the store cannot be read.
        WorkersLostError: what else was to read is gone; what it had read is not read again.
        OSError: it cannot be noted what was read.
    """
    found = survey(store, jobs)
    findings, bad = structure_findings(found)
    packs_read = files_read = 0
    tell = progress or (lambda _what, _done, _total: None)
    if read_data:
        packs = _packs(found, share)
        entries = {pack.key: pack.entries for pack in packs}
        with (
            contextlib.nullcontext(Here(store, found.entries, jobs)) if spread is None else spread.begun(found) as parts
        ):
            for read in parts.read_packs(packs, partial(tell, "packs")):
                more, places = _pack_findings(found, read, entries[read.key])
                findings += more
                bad |= places
            packs_read = len(packs)
            recipes = _readable(found, bad, share)
            good = [entry for entry in found.entries if (entry.pack, entry.offset) not in bad]
            damages = parts.read_files(recipes, good, partial(tell, "files"))
            for recipe, damage in zip(recipes, damages, strict=True):
                if damage:
                    findings.append(Finding(DAMAGED_FILE, recipe.oid, damage, (recipe.oid,)))
            files_read = len(recipes)
    findings.sort(key=lambda finding: (finding.harmless, finding.kind, finding.key))
    return CheckResult(
        tuple(findings), len(found.packs), packs_read, len(set(found.oids)), files_read, len(found.entries)
    )


def structure_findings(found: Survey) -> tuple[list[Finding], set[Place]]:
    """What is wrong with what segments and listings say, and the places that cannot be read for it."""
    findings = [
        Finding(SEGMENT if key.startswith(f"{INDEX}/") else CONDEMNED, key, reason)
        for key, reason in sorted(found.damaged.items())
    ]
    bad = found.unreachable()
    named = found.named()
    for key, size in sorted(named.items()):
        there = found.packs.get(key)
        if there == size:
            continue
        kind, reason = (
            (MISSING_PACK, "it is not there")
            if there is None
            else (SHORT_PACK, f"it has {there} bytes instead of {size}")
        )
        lost = found.absent(found.places_of([key]))[1]
        if key in found.condemned.packs and not lost:
            kind = CONDEMNED_PACK
        findings.append(Finding(kind, key, reason, tuple(sorted(lost))))
    findings += [
        Finding(ORPHAN_PACK, key, "no segment names it: an interrupted push, or one that is under way, sent it")
        for key in sorted(found.packs.keys() - named.keys())
    ]
    blobs, lost = found.absent(bad)
    if blobs:
        users = _users(found.recipes(), set(blobs), lost)
        findings += [
            Finding(MISSING_BLOB, name.hex(), "it is in no pack, or its bases are not", users[name]) for name in blobs
        ]
    findings += [Finding(CONFLICT, oid, "segments disagree about it", (oid,)) for oid in found.conflicts()]
    return findings, bad


def _users(recipes: Iterable[Recipe], names: set[bytes], lost: Collection[str]) -> dict[bytes, tuple[str, ...]]:
    users: dict[bytes, set[str]] = {name: set() for name in names}
    for recipe in recipes:
        if recipe.oid in lost:
            for piece in recipe.pieces:
                if piece.blob in users:
                    users[piece.blob].add(recipe.oid)
    return {name: tuple(sorted(oids)) for name, oids in users.items()}


def _pack_findings(found: Survey, read: PackRead, entries: Sequence[Entry]) -> tuple[list[Finding], set[Place]]:
    """What to tell of a pack, and the places in it that cannot be read."""
    key, damage, broken = read
    places = {(key, offset) for offset, _ in broken}
    if damage:
        lost = found.absent(places)[1] if places else set()
        kind = CONDEMNED_PACK if key in found.condemned.packs and not lost else DAMAGED_PACK
        kind = kind if key in found.named() else ORPHAN_PACK
        return [Finding(kind, key, damage, tuple(sorted(lost)))], places
    names = {entry.offset: entry.id.hex() for entry in entries}
    return [
        Finding(
            DAMAGED_BLOB,
            f"{names[offset]} at byte {offset} of {key}",
            reason,
            tuple(sorted(found.absent({(key, offset)})[1])),
        )
        for offset, reason in broken
    ], places


def _packs(found: Survey, share: float) -> list[PackToRead]:
    """The packs of the sample, ordered by their keys."""
    keys = [key for key in sorted(found.packs) if _sampled(key, share)]
    entries: dict[str, list[Entry]] = {key: [] for key in keys}
    for entry in found.entries:
        if entry.pack in entries:
            entries[entry.pack].append(entry)
    named = found.named()
    return [PackToRead(key, key in named, tuple(entries[key])) for key in keys]


def _readable(found: Survey, bad: set[Place], share: float) -> list[Recipe]:
    """The files, each once, that should be readable; the others have been told of."""
    lost = found.absent(bad)[1]
    recipes = {
        recipe.oid: recipe for recipe in found.recipes() if recipe.oid not in lost and _sampled(recipe.oid, share)
    }
    return list(recipes.values())


def _sampled(name: str, share: float) -> bool:
    """Whether a name is in the sample: the same for everybody, and the larger sample has the smaller one in it."""
    return share >= 1 or int.from_bytes(blake3(name.encode()).digest(8), "big") < share * 2**64


__all__ = ["CheckResult", "Finding", "check_vault", "parse_key", "structure_findings"]
