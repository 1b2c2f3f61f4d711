"""Mending a vault: the index out of the packs, and lost blobs out of files that a cache on this machine still has.

Nothing is overwritten that could be read:

1. Packs that no readable segment names tell in their footers what they hold: a new session names them.
2. Segments that cannot be read are copied to ``damaged/`` and emptied; the packs that they named have been found by 1.
3. Packs that are damaged or gone are condemned, so that nobody builds upon them; a collector takes them away.
4. Files that need something condemned are put again: from a cache, else out of the vault itself where all of their
   blobs can still be read. The rest is lost, and listed.
"""

import contextlib
import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from holdfast.errors import IntegrityError
from holdfast.formats.source import Source
from holdfast.vault.check import DAMAGED_BLOB, DAMAGED_PACK, MISSING_PACK, SHORT_PACK, CheckResult
from holdfast.vault.listing import Listing, listing_of
from holdfast.vault.pack import footer_entries, footer_rows, parse_key, read_footer
from holdfast.vault.records import DamagedVaultError
from holdfast.vault.repository import UnknownFileError, Vault
from holdfast.vault.segment import CONDEMNED, INDEX, SESSIONS, write_condemned, write_segment
from holdfast.vault.session import Session
from holdfast.vault.survey import Survey, survey

DAMAGED_FOLDER = "damaged"

Find = Callable[[str], "AbstractContextManager[Source] | None"]


@dataclass(frozen=True)
class RepairResult:
    """What a repair did.

    Attributes:
        packs_named: packs that a new segment names.
        segments_emptied: sessions whose segments could not be read.
        packs_condemned: packs that are damaged or gone.
        healed: files that were put again.
        lost: files that cannot be put together, with the reason; whoever has one can push it again.
    """

    packs_named: tuple[str, ...]
    segments_emptied: tuple[str, ...]
    packs_condemned: tuple[str, ...]
    healed: tuple[str, ...]
    lost: dict[str, str]


def repair_vault(vault: Vault, checked: CheckResult, find: Find) -> RepairResult:
    """Mend a vault.

    Args:
        vault: the vault.
        checked: what a check just found; packs whose data it did not read are taken to be right.
        find: says for an oid where its bytes may be on this machine; they are verified.

    Raises:
        DamagedVaultError: a condemned generation is damaged: what may be built upon is not known.
        StoreError: the store cannot be read or written.
    """
    found = survey(vault.store, vault.jobs)
    unread = sorted(key for key in found.damaged if key.startswith(f"{INDEX}/"))
    others = sorted(found.damaged.keys() - set(unread))
    if others:
        raise DamagedVaultError(f"{others[0]} cannot be read: {found.damaged[others[0]]}", hint="Fetch it from a copy")
    bad_packs = _bad_packs(checked, found)
    named = _name_packs(vault, found, bad_packs, unread) if unread else []
    for key in unread:
        session = key.removeprefix(f"{INDEX}/")
        vault.store.put(f"{DAMAGED_FOLDER}/{session}-{secrets.token_hex(4)}", vault.store.get(key) or b"\0")
        vault.store.put(key, b"")
    condemned = sorted(bad_packs - found.condemned.packs)
    if condemned:
        vault.store.put_if_absent(f"{CONDEMNED}/{secrets.token_hex(16)}", write_condemned(condemned, ()))
    healed, lost = _heal(vault, find)
    return RepairResult(tuple(named), tuple(unread), tuple(condemned), tuple(healed), lost)


def _bad_packs(checked: CheckResult, found: Survey) -> set[str]:
    bad = {finding.key for finding in checked.findings if finding.kind in (DAMAGED_PACK, MISSING_PACK, SHORT_PACK)}
    bad.update(finding.key.rpartition(" ")[2] for finding in checked.findings if finding.kind == DAMAGED_BLOB)
    return bad & (found.packs.keys() | found.named().keys())


def _name_packs(vault: Vault, found: Survey, bad: Collection[str], unread: Collection[str]) -> list[str]:
    """Segments for the packs that no readable one names, a new session for each that wrote some of them."""
    orphans = sorted(found.packs.keys() - found.named().keys() - set(bad))
    # what a push that is under way has sent it will name itself
    busy = {info.key.removeprefix(f"{SESSIONS}/") for info in vault.store.list_objects(SESSIONS)}
    busy -= {key.removeprefix(f"{INDEX}/") for key in unread}
    of_session: dict[str, list[str]] = {}
    for key in orphans:
        with contextlib.suppress(DamagedVaultError):
            session = parse_key(key)[1]
            if session not in busy:
                of_session.setdefault(session, []).append(key)
    named: list[str] = []
    digests: dict[str, tuple[int, bytes]] = dict(zip(found.oids, found.digests, strict=True))
    for keys in of_session.values():
        listing, packs = Listing(), {}
        for key in keys:
            try:
                rows = footer_rows(read_footer(vault.store, key, found.packs[key]), key, found.packs[key])
                _merge(listing, listing_of(rows, footer_entries(rows, key)), digests)
                packs[key] = found.packs[key]
            except IntegrityError:
                continue
        if packs:
            _drop_incomplete(vault, listing)
            session = secrets.token_hex(16)
            vault.store.put(f"{SESSIONS}/{session}", session.encode())
            vault.store.put_if_absent(f"{INDEX}/{session}", write_segment(listing, packs))
            vault.store.delete(f"{SESSIONS}/{session}")
            named += packs
    return named


def _merge(listing: Listing, other: Listing, digests: dict[str, tuple[int, bytes]]) -> None:
    """Take over what is not there yet, and contradicts nothing."""
    blobs = {entry.id for entry in listing.entries}
    listing.entries += [entry for entry in other.entries if entry.id not in blobs]
    files = {recipe.oid for recipe in listing.recipes}
    for recipe, claimed in zip(other.recipes, other.claimed, strict=True):
        content = (recipe.size, recipe.digest)
        if recipe.oid not in files and digests.setdefault(recipe.oid, content) == content:
            listing.recipes.append(recipe)
            listing.claimed.append(claimed)


def _drop_incomplete(vault: Vault, listing: Listing) -> None:
    """Leave out files of a push that never committed, some of whose blobs were never sent."""
    needed = {piece.blob for recipe in listing.recipes for piece in recipe.pieces}
    needed |= {entry.base for entry in listing.entries if entry.base}
    vault.refresh()
    there = vault.index.entries(needed).keys() | {entry.id for entry in listing.entries}
    kept = [all(piece.blob in there for piece in recipe.pieces) for recipe in listing.recipes]
    listing.recipes = [recipe for recipe, whole in zip(listing.recipes, kept, strict=True) if whole]
    listing.claimed = [claimed for claimed, whole in zip(listing.claimed, kept, strict=True) if whole]


def _heal(vault: Vault, find: Find) -> tuple[list[str], dict[str, str]]:
    """Put the files again that need what is condemned or gone."""
    healed: list[str] = []
    lost: dict[str, str] = {}
    with vault.session(resume=False) as session:
        oids = list(vault.index.oids())
        standing = vault.index.standing(oids, thorough=True)
        for oid in oids:
            if oid not in standing:
                reason = _put_again(vault, session, oid, find)
                if reason:
                    lost[oid] = reason
                else:
                    healed.append(oid)
        session.commit()
    return healed, lost


def _put_again(vault: Vault, session: Session, oid: str, find: Find) -> str:
    """Put a file again; why that was not possible, empty where it was."""
    reasons = []
    for place in (find, lambda name: contextlib.nullcontext(vault.open(name))):
        try:
            opened: AbstractContextManager[Source] | None = place(oid)
            if opened is None:
                continue
            with opened as source:
                session.put(oid, source, again=True)
        except (IntegrityError, UnknownFileError) as error:
            reasons.append(error.message)
        except OSError as error:
            reasons.append(str(error))
        else:
            return ""
    return "; ".join(reasons)
