"""Storing anew what a vault has: old versions as chains that run backward in time, and nothing that nobody needs.

A push stores a version so that restoring it never reads more than the file has. A repack takes what is seldom read any
more (*cold*) and stores each of its files against the next newer version, whatever restoring it reads; the newest
version of each path stays whole. What was stored twice, or belongs to nobody, goes; small packs become large ones.

First the chains are written, in ordinary sessions. Then the packs of which little is needed any more are condemned,
and what is needed of them is copied (`holdfast.vault.collecting`). A file is in no danger at any time.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from holdfast.errors import StalePlanError
from holdfast.repo.lineage import Lineage, ObjectKey
from holdfast.vault.chains import Link, chain_order
from holdfast.vault.claims import claims
from holdfast.vault.collecting import Settled, abandoned_packs, condemn, settle, store_time
from holdfast.vault.import_order import Item, Limits
from holdfast.vault.marking import Marked, mark, packs_to_leave, wasted_bytes
from holdfast.vault.periods import GRACE, RECENT
from holdfast.vault.records import MAX_DEPTH, Recipe
from holdfast.vault.repack_storing import Anew, Progress, RepackSpread, store_elsewhere, store_here
from holdfast.vault.repository import Vault
from holdfast.vault.session import Statistics
from holdfast.vault.survey import Survey, survey


@dataclass(frozen=True)
class ToStore:
    """A file that is to be stored anew.

    Attributes:
        oid: its name.
        path: what people call it.
        size: its bytes.
        base: the version against which; empty for none.
        cold: whether restoring it may read however much.
    """

    oid: str
    path: str
    size: int
    base: str
    cold: bool


@dataclass(frozen=True)
class RepackPlan:
    """What a repack would do.

    Attributes:
        files: to be stored anew, in this order.
        packs: of which parts would not be needed any more, or that are small; keys and sizes.
        abandoned: packs of pushes that never ended; keys and sizes.
        stored_bytes: of all packs.
        wasted_bytes: of these, that nobody needs now.
        segments: digest of what the plan rests on.
    """

    files: tuple[ToStore, ...]
    packs: Mapping[str, int]
    abandoned: Mapping[str, int]
    stored_bytes: int
    wasted_bytes: int
    segments: str

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be done."""
        return not self.files and not self.packs and not self.abandoned


@dataclass(frozen=True)
class Repacked:
    """What a repack did.

    Attributes:
        statistics: of the sessions that stored files anew.
        condemned: packs that will go, with their bytes.
        settled: how far they are.
    """

    statistics: Statistics
    condemned: Mapping[str, int]
    settled: Settled


@dataclass
class _Store:
    """What lies where, and against what, before a repack."""

    found: Survey
    marked: Marked
    links: Sequence[Link]
    oids: Sequence[str]
    ranks: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rank, oid in enumerate(self.oids):
            for piece in self.recipe(oid).pieces:
                self.ranks.setdefault(piece.blob, rank)

    def recipe(self, oid: str) -> Recipe:
        return self.marked.recipes[oid][0]

    def bases(self, rank: int) -> set[int]:
        """The places in the order of the files that have the bases of a file's own blobs."""
        own = {piece.blob for piece in self.recipe(self.oids[rank]).pieces if self.ranks[piece.blob] == rank}
        bases = {self.marked.entries[name].base for name in own} - {b""}
        return {self.ranks[base] for base in bases if base in self.ranks} - {rank}

    def depth(self, rank: int) -> int:
        return max((self.marked.entries[piece.blob].depth for piece in self.recipe(self.oids[rank]).pieces), default=0)


def plan_repack(
    vault: Vault,
    lineage: Lineage,
    *,
    hot: Collection[ObjectKey] = (),
    recent: timedelta = RECENT,
    grace: timedelta = GRACE,
) -> RepackPlan:
    """What a repack would do; changes nothing.

    Args:
        vault: the vault.
        lineage: the versions of each path; a file that it does not know is left as it is.
        hot: files that must stay quick to restore, besides the tips of the lineage.
        recent: what was claimed less long ago is hot, too.
        grace: as of `holdfast.vault.collecting.abandoned_packs`.

    Raises:
        DamagedVaultError: something cannot be read, so that what is needed is not known.
        StoreError: the store cannot be read.
    """
    found = survey(vault.store, vault.jobs)
    marked = mark(found)
    files = _files(found, marked, lineage, {*hot, *lineage.tips, *_claimed(vault, found, recent)})
    leaving = _packs_of((file.oid for file in files), marked)
    wasted = wasted_bytes(found, marked)
    packs = leaving | packs_to_leave(found, wasted, vault.config.pack_bytes)
    abandoned = abandoned_packs(vault.store, found, grace=grace)
    return RepackPlan(
        tuple(files),
        {pack: found.packs[pack] for pack in sorted(packs - found.condemned.packs)},
        {pack: found.packs[pack] for pack in abandoned},
        sum(found.packs.values()),
        sum(wasted.values()) + sum(found.packs[pack] for pack in abandoned),
        found.digest(),
    )


def repack(
    vault: Vault,
    plan: RepackPlan,
    *,
    recent: timedelta = RECENT,
    grace: timedelta = GRACE,
    wait: timedelta = timedelta(0),
    scratch: Path | None = None,
    progress: Progress = lambda _what, _done, _total: None,
    limits: Limits | None = None,
    spread: RepackSpread | None = None,
) -> Repacked:
    """Do what a plan says.

    Interrupted, it goes on from the packs that it had sent when it is called again with a new plan.

    Args:
        vault: the vault.
        plan: of `plan_repack`, made a moment ago.
        recent, grace, wait: as of `holdfast.vault.collecting.settle`.
        scratch: a folder that has room for two files of the vault; None for the system's.
        progress: told what is done, and how many bytes of how many.
        limits: how much a session stores anew.
        spread: what else stores files anew, to the same packs; None for this process alone.

    Raises:
        StalePlanError: others have written to the vault since.
        DamagedVaultError: something cannot be read.
        RevokedError: a collector ended the session.
        StoreError: the store cannot be read or written.
        WorkersLostError: what else was to do it is gone.
        OSError: a file could not be kept here for a moment.
    """
    if survey(vault.store, vault.jobs).digest() != plan.segments:
        raise StalePlanError(f"{vault.url} has changed since the plan was made", hint="Make a new one")
    statistics = Statistics()
    if plan.files:
        items = [Item(file.oid, file.base or None, file.cold) for file in plan.files]
        anew = Anew(items, {file.oid: file.size for file in plan.files}, plan.packs, limits or Limits())
        if spread is None:
            statistics = store_here(vault, anew, scratch, progress)
        else:
            statistics = store_elsewhere(vault, anew, spread, progress)
    found = survey(vault.store, vault.jobs)
    marked = mark(found, plan.packs)
    packs = packs_to_leave(found, wasted_bytes(found, marked), vault.config.pack_bytes)
    packs.update(abandoned_packs(vault.store, found, grace=grace, revoke=True))
    generation = condemn(vault.store, packs, found, marked)
    vault.refresh()
    settled = settle(vault, grace=grace, recent=recent, wait=wait)
    condemned = sorted(generation.condemned.packs & found.packs.keys()) if generation is not None else []
    return Repacked(statistics, {pack: found.packs[pack] for pack in condemned}, settled)


def _files(found: Survey, marked: Marked, lineage: Lineage, hot: Collection[ObjectKey]) -> list[ToStore]:
    """The files that are not stored as they should be, in the order in which they are to be stored."""
    tensors = {_key(oid): oid for oid, (recipe, _) in marked.recipes.items() if any(p.slot for p in recipe.pieces)}
    # of one age larger ones go first: what is cast to half the bytes finds what it was cast from
    keys = sorted(
        (key for key in tensors if key in lineage.paths), key=lambda key: marked.recipes[tensors[key]][0].size
    )
    links = chain_order(lineage, keys, hot)
    store = _Store(found, marked, links, [tensors[link.key] for link in links])
    bases = [store.bases(rank) for rank in range(len(links))]
    closed = _closed(store, bases)
    chosen: set[int] = set()
    for rank, link in enumerate(links):
        if not link.cold or link.base is None:
            continue
        forward = any(base > rank for base in bases[rank])
        if forward or (not bases[rank] and rank not in closed and _has_own(store, rank)):
            chosen.add(rank)
    ranks = {link.key: rank for rank, link in enumerate(links)}
    parents = [ranks[link.base] if link.base is not None else -1 for link in links]
    _draw_in(store, chosen, bases, parents)
    files = []
    for rank in sorted(chosen):
        link, oid = links[rank], store.oids[rank]
        base = store.oids[parents[rank]] if link.base is not None else ""
        files.append(ToStore(oid, lineage.paths[link.key][0], store.recipe(oid).size, base, link.cold))
    return files


def _draw_in(store: _Store, chosen: set[int], bases: Sequence[Collection[int]], parents: Sequence[int]) -> None:
    """Add the files that cannot stay as they are when others are stored anew."""
    before = -1
    while len(chosen) > before:
        before = len(chosen)
        # what is stored against one of them: that will be deeper
        for rank, below in enumerate(bases):
            if not chosen.isdisjoint(below):
                chosen.add(rank)
        # what one of them shall be stored against, where its pack goes with theirs
        leaving = _packs_of((store.oids[rank] for rank in chosen), store.marked)
        wanted = {parents[rank] for rank in chosen} - chosen - {-1}
        chosen.update(rank for rank in wanted if leaving & _packs_of([store.oids[rank]], store.marked))


def _has_own(store: _Store, rank: int) -> bool:
    """Whether a file has tensors that no newer one has, too."""
    pieces = store.recipe(store.oids[rank]).pieces
    return any(piece.slot and store.ranks[piece.blob] == rank for piece in pieces)


def _closed(store: _Store, bases: Sequence[Collection[int]]) -> set[int]:
    """The files at whose end a chain as long as it may be begins: they stay whole."""
    heads = list(range(len(bases)))
    deepest: dict[int, int] = {}
    for rank, below in enumerate(bases):
        newer = [base for base in below if base < rank]
        heads[rank] = heads[max(newer)] if newer else rank
        deepest[heads[rank]] = max(deepest.get(heads[rank], 0), store.depth(rank))
    return {head for head, depth in deepest.items() if depth >= MAX_DEPTH}


def _claimed(vault: Vault, found: Survey, recent: timedelta) -> set[ObjectKey]:
    """What somebody was told of lately."""
    if not recent:
        return set()
    least = store_time(vault.store) - recent
    return {_key(oid) for oid, since in claims(found).items() if since > least}


def _packs_of(oids: Iterable[str], marked: Marked) -> set[str]:
    """The packs that hold blobs of files."""
    return {marked.entries[piece.blob].pack for oid in oids for piece in marked.recipes[oid][0].pieces}


def _key(oid: str) -> ObjectKey:
    kind, _, value = oid.partition(":")
    return kind, value
