"""Is everything there, and what it should be? Nothing is changed.

The structure: every segment can be read, every pack that one names is there in its length, every blob that a file needs
is in one, with its bases. With ``read_data`` all packs are fetched, all blobs decoded, all files put together.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

from holdfast.errors import IntegrityError
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore
from holdfast.vault.listing import listing_of
from holdfast.vault.oids import check_md5, hasher_of
from holdfast.vault.pack import footer_entries, footer_of, footer_rows, parse_key
from holdfast.vault.reading import BrokenBlobError, MissingBlobError, Place, Plan, Reader, decode_chain
from holdfast.vault.records import DamagedVaultError, Entry, Recipe
from holdfast.vault.segment import INDEX
from holdfast.vault.survey import Survey, survey

# what may be wrong
SEGMENT, CONDEMNED = "damaged segment", "damaged condemned generation"
MISSING_PACK, SHORT_PACK, DAMAGED_PACK = "missing pack", "pack of another length", "damaged pack"
MISSING_BLOB, DAMAGED_BLOB = "missing blob", "damaged blob"
CONFLICT, DAMAGED_FILE = "file with two contents", "damaged file"
# what is no damage
ORPHAN_PACK, CONDEMNED_PACK = "orphan pack", "condemned pack"
HARMLESS = frozenset({ORPHAN_PACK, CONDEMNED_PACK})

PACKS_AHEAD = 2


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
) -> CheckResult:
    """Check a vault.

    Args:
        store: where it is.
        jobs: requests and threads at a time.
        read_data: fetch, decode and put together everything, too.
        share: how much of the packs and of the files that is done for; which ones is told by their names.
        progress: is called with ``packs`` or ``files``, how many are done, and how many there are.

    Raises:
        StoreError: the store cannot be read.
    """
    found = survey(store, jobs)
    findings, bad = structure_findings(found)
    packs_read = files_read = 0
    if read_data:
        keys = [key for key in sorted(found.packs) if _sampled(key, share)]
        for number, (finding, places) in enumerate(_read_packs(found, store, keys, jobs), 1):
            findings += finding
            bad |= places
            packs_read = number
            if progress:
                progress("packs", number, len(keys))
        recipes = _readable(found, bad, share)
        for number, finding in enumerate(_read_files(found, store, recipes, bad, jobs), 1):
            findings += finding
            files_read = number
            if progress:
                progress("files", number, len(recipes))
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


def _read_packs(
    found: Survey, store: ObjectStore, keys: Sequence[str], jobs: int
) -> Iterator[tuple[list[Finding], set[Place]]]:
    """For each pack what is wrong with it and its blobs, and the places that cannot be read for it."""
    named = found.named()
    entries: dict[str, list[Entry]] = {key: [] for key in keys}
    for entry in found.entries:
        if entry.pack in entries:
            entries[entry.pack].append(entry)
    reader = _reader(found, store, jobs)

    def fetch(key: str) -> bytes | None:
        try:
            return store.get(key)
        except ObjectNotFoundError:  # deleted by a collector since it was listed
            return None

    for key, data in zip(keys, concurrently(fetch, keys, min(jobs, PACKS_AHEAD)), strict=True):
        if data is None:
            yield [], set()
            continue
        damage = _pack_damage(key, data, entries[key], named=key in named)
        broken = _broken_blobs(reader, data, entries[key], jobs)
        places = {(entry.pack, entry.offset) for entry, _ in broken}
        findings = []
        if damage:
            lost = found.absent(places)[1] if places else set()
            kind = CONDEMNED_PACK if key in found.condemned.packs and not lost else DAMAGED_PACK
            kind = ORPHAN_PACK if key not in named else kind
            findings.append(Finding(kind, key, damage, tuple(sorted(lost))))
        else:
            findings += [
                Finding(
                    DAMAGED_BLOB,
                    f"{entry.id.hex()} at byte {entry.offset} of {key}",
                    reason,
                    tuple(sorted(found.absent({(entry.pack, entry.offset)})[1])),
                )
                for entry, reason in broken
            ]
        yield findings, places


def _pack_damage(key: str, data: bytes, entries: Sequence[Entry], *, named: bool) -> str:
    """What is wrong with a pack as a whole; empty for nothing."""
    try:
        rows = footer_rows(footer_of(data, key), key, len(data))
        listed = listing_of(rows, footer_entries(rows, key))
    except IntegrityError as error:
        return error.message
    # a collector that gives packs another segment leaves out what nobody needs
    if named and not set(entries) <= set(listed.entries):
        return f"{key} holds other blobs than the index says"
    return ""


def _broken_blobs(reader: Reader, data: bytes, entries: Sequence[Entry], jobs: int) -> list[tuple[Entry, str]]:
    """The blobs of a pack that do not decode to what they are named after."""
    view = memoryview(data)

    def reason(entry: Entry) -> str:
        try:
            below = reader.plan([entry.base]).chain(entry.base) if entry.base else []
            stored = dict(reader.fetch(below))
            stored[entry.pack, entry.offset] = view[entry.offset : entry.offset + entry.stored]
            decode_chain([entry, *below], stored)
        except BrokenBlobError as error:
            return error.message if error.entry == entry else ""  # its base's pack is told of by itself
        except DamagedVaultError:
            return ""
        return ""

    reasons = concurrently(reason, entries, jobs)
    return [(entry, text) for entry, text in zip(entries, reasons, strict=True) if text]


def _readable(found: Survey, bad: set[Place], share: float) -> list[Recipe]:
    """The files, each once, that should be readable; the others have been told of."""
    lost = found.absent(bad)[1]
    recipes = {
        recipe.oid: recipe for recipe in found.recipes() if recipe.oid not in lost and _sampled(recipe.oid, share)
    }
    return list(recipes.values())


def _read_files(
    found: Survey, store: ObjectStore, recipes: Sequence[Recipe], bad: set[Place], jobs: int
) -> Iterator[list[Finding]]:
    reader = _reader(found, store, jobs)
    for recipe in recipes:
        digest, md5, size = blake3(), hasher_of(recipe.oid), 0
        try:
            plan: Plan = reader.plan((piece.blob for piece in recipe.pieces), frozenset(bad))
            windows = reader.read(plan, [piece.blob for piece in recipe.pieces])
            window: dict[bytes, bytes] = {}
            for piece in recipe.pieces:
                while piece.blob not in window:
                    window = next(windows)
                part = memoryview(window[piece.blob])[piece.offset : piece.offset + piece.length]
                digest.update(part)
                size += len(part)
                if md5 is not None:
                    md5.update(part)
            if digest.digest() != recipe.digest or size != recipe.size:
                raise DamagedVaultError(f"{recipe.oid} is not put together as its recipe says")
            check_md5(recipe.oid, md5, "What the vault has")
        except (BrokenBlobError, MissingBlobError):
            yield []  # told of with its pack
        except IntegrityError as error:
            yield [Finding(DAMAGED_FILE, recipe.oid, error.message, (recipe.oid,))]
        else:
            yield []


def _reader(found: Survey, store: ObjectStore, jobs: int) -> Reader:
    places: dict[bytes, list[Entry]] = {}
    for entry in found.entries:
        places.setdefault(entry.id, []).append(entry)
    return Reader(store, lambda ids: {name: places[name] for name in ids if name in places}, jobs)


def _sampled(name: str, share: float) -> bool:
    """Whether a name is in the sample: the same for everybody, and the larger sample has the smaller one in it."""
    return share >= 1 or int.from_bytes(blake3(name.encode()).digest(8), "big") < share * 2**64


__all__ = ["CheckResult", "Finding", "check_vault", "parse_key", "structure_findings"]
