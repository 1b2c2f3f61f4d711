"""Taking files out of a vault that nobody needs any more: which, what that frees, and doing it.

A file is *dead* when no root names it and nobody was told of it lately. Its segments are condemned, and with them the
packs of which little else is needed. `holdfast.vault.collecting` does the rest, and asks for the roots again before it
lets anything go; until the purge a dead file waits in the condemned packs, and `revive` brings it back.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.errors import StalePlanError
from holdfast.vault.claims import claims, recent_claims
from holdfast.vault.collecting import Live, Settled, abandoned_packs, condemn, settle, store_time
from holdfast.vault.marking import Marked, mark, packs_to_leave, standing_files, wasted_bytes
from holdfast.vault.periods import GRACE, RECENT
from holdfast.vault.repository import Vault
from holdfast.vault.survey import Survey, survey


@dataclass(frozen=True)
class VaultFile:
    """A file of the vault.

    Attributes:
        oid: its name.
        size: its bytes.
        stored_bytes: what it takes in packs that no file before it takes, by the order of the names; of a dead one what
            no file that stays needs.
        age: since it was last claimed, by the store's clock; since it was written where nobody ever was told of it.
        recent: whether that is why it stays.
    """

    oid: str
    size: int
    stored_bytes: int
    age: timedelta
    recent: bool


@dataclass(frozen=True)
class CollectionPlan:
    """What a collection would do.

    Attributes:
        kept: the files that stay.
        dead: those that would go.
        packs: that would be replaced or go, with their sizes.
        abandoned: packs of pushes that never ended, with their sizes.
        stored_bytes: of all packs that are not condemned.
        copied_bytes: that would be stored anew, since they lie among what goes.
        digest: of what the plan rests on in the vault.
    """

    kept: tuple[VaultFile, ...]
    dead: tuple[VaultFile, ...]
    packs: Mapping[str, int]
    abandoned: Mapping[str, int]
    stored_bytes: int
    copied_bytes: int
    digest: str

    @property
    def freed_bytes(self) -> int:
        """What the store would hold less, once the quarantine is over."""
        return sum(self.packs.values()) + sum(self.abandoned.values()) - self.copied_bytes


@dataclass(frozen=True)
class Collected:
    """What a collection did.

    Attributes:
        condemned: packs that will go, with their sizes.
        settled: how far they are.
    """

    condemned: Mapping[str, int]
    settled: Settled


def plan_collection(
    vault: Vault, live: Collection[str], *, recent: timedelta = RECENT, grace: timedelta = GRACE
) -> CollectionPlan:
    """Which files nobody needs, and what taking them away would free; changes nothing.

    Args:
        vault: the vault.
        live: the oids that roots name.
        recent: what was claimed less long ago stays.
        grace: as of `holdfast.vault.collecting.abandoned_packs`.

    Raises:
        DamagedVaultError: something cannot be read, so that what is needed is not known.
        StoreError: the store cannot be read.
    """
    found = survey(vault.store, vault.jobs)
    now = store_time(vault.store)
    files = standing_files(found)
    told = recent_claims(found, now, recent)
    whole = mark(found)
    named = frozenset(live)
    needed = files & (named | told.keys())
    marked = mark(found, needed=needed)
    packs = _packs(found, marked, vault.config.pack_bytes)
    abandoned = abandoned_packs(vault.store, found, grace=grace)
    since = _written(found) | claims(found)
    # what is kept counts first: of what it shares nothing becomes free
    seen: set[bytes] = set()
    kept, dead = (
        tuple(
            VaultFile(
                oid,
                whole.recipes[oid][0].size,
                _stored(whole, oid, seen),
                max(now - since[oid], timedelta(0)),
                oid in told and oid not in named,
            )
            for oid in sorted(some)
        )
        for some in (needed, files - needed)
    )
    return CollectionPlan(
        kept,
        dead,
        {pack: found.packs[pack] for pack in sorted(packs)},
        {pack: found.packs[pack] for pack in abandoned},
        sum(size for pack, size in found.packs.items() if pack not in found.condemned.packs),
        sum(marked.used.get(pack, 0) for pack in packs),
        found.digest(),
    )


def collect(
    vault: Vault,
    plan: CollectionPlan,
    live: Live,
    *,
    recent: timedelta = RECENT,
    grace: timedelta = GRACE,
    wait: timedelta = timedelta(0),
) -> Collected:
    """Condemn what a plan says, and bring all that is condemned on.

    Args:
        vault: the vault.
        plan: of `plan_collection`.
        live: asked again which files roots name, before anything is let go.
        recent, grace, wait: as of `holdfast.vault.collecting.settle`.

    Raises:
        StalePlanError: others have written to the vault since the plan was made.
        DamagedVaultError, RevokedError, StoreError: as of `holdfast.vault.collecting.settle`.
    """
    found = survey(vault.store, vault.jobs)
    if found.digest() != plan.digest:
        raise StalePlanError(f"{vault.url} has changed since the plan was made", hint="Make a new one")
    dead = {file.oid for file in plan.dead}
    marked = mark(found, needed=standing_files(found) - dead)
    packs = _packs(found, marked, vault.config.pack_bytes)
    packs.update(abandoned_packs(vault.store, found, grace=grace, revoke=True))
    segments = [segment.session for segment in found.segments if not dead.isdisjoint(segment.rows.oids)]
    generation = condemn(vault.store, packs, found, marked, segments)
    vault.refresh()
    settled = settle(vault, live, recent=recent, grace=grace, wait=wait)
    condemned = sorted(generation.condemned.packs & found.packs.keys()) if generation is not None else []
    return Collected({pack: found.packs[pack] for pack in condemned}, settled)


def _packs(found: Survey, marked: Marked, pack_bytes: int) -> set[str]:
    """The packs that go: of which nothing is needed, and those that are mostly waste."""
    wasted = wasted_bytes(found, marked)
    return packs_to_leave(found, wasted, pack_bytes) | {pack for pack in wasted if pack not in marked.used}


def _written(found: Survey) -> dict[str, datetime]:
    """When each file was last written."""
    latest: dict[str, datetime] = {}
    for segment in found.segments:
        written = found.written[segment.session]
        latest |= {oid: max(written, latest.get(oid, written)) for oid in segment.rows.oids}
    return latest


def _stored(marked: Marked, oid: str, seen: set[bytes]) -> int:
    """The bytes of a file's blobs, and of their bases, that were not seen yet."""
    total, rest = 0, [piece.blob for piece in marked.recipes[oid][0].pieces]
    while rest:
        name = rest.pop()
        if name not in seen:
            seen.add(name)
            entry = marked.entries[name]
            total += entry.stored
            rest += [entry.base] if entry.base else []
    return total
