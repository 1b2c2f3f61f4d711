"""The files of a vault: which of them nobody needs, by all that is known."""

import io
from collections.abc import Iterator
from datetime import timedelta

from holdfast.gc.evidence import Evidence, Members
from holdfast.gc.planned import SECONDS_A_DAY, Found, PlannedObject
from holdfast.gc.policy import Policy
from holdfast.gc.references import Name, key_of
from holdfast.repo.cache import RunCacheEntry, UnreadableRunCacheError
from holdfast.repo.clone import clone_id
from holdfast.repo.dvcfiles import LISTING_SUFFIX, UnreadableFileError, read_listing, read_run_cache_entry
from holdfast.vault.collection import CollectionPlan, VaultFile, plan_collection
from holdfast.vault.repository import Vault
from holdfast.vault.roots import registrations

_RUNS = "runs:"


def find_vault(
    vault: Vault,
    name: str,
    evidence: Evidence,
    policy: Policy,
    *,
    grace: timedelta,
) -> Found:
    """The fate of the files of a vault, and of packs that belong to none.

    Args:
        vault: the vault.
        name: of the remote beside which it is, or its URL.
        evidence: of `holdfast.gc.evidence.gather`, told of the vault's listings and run-cache entries.
        policy: how long a file must not have been claimed.
        grace: pushes that were announced longer ago are given up.

    Raises:
        DamagedVaultError: something cannot be read, so that what is needed is not known.
        StoreError: the store cannot be read.
    """
    registered = registered_files(vault, evidence)
    plan = plan_collection(vault, live_files(vault, evidence, registered), recent=policy.minimum_age, grace=grace)
    objects = [_kept(file, name, evidence, registered, policy) for file in plan.kept]
    objects += [_dead(file, name, evidence) for file in plan.dead]
    objects += [
        PlannedObject("vault", name, pack, size, 0.0, "remove", "abandoned", "of a push that never ended")
        for pack, size in plan.abandoned.items()
    ]
    return Found(tuple(objects), notes=tuple(_notes(name, plan)), inputs=((f"the vault {name}".rstrip(), plan.digest),))


def live_files(vault: Vault, evidence: Evidence, registered: dict[str, str] | None = None) -> set[str]:
    """The files of a vault that a root names, or may name.

    Args:
        vault: the vault.
        evidence: see `find_vault`.
        registered: of `registered_files`; None to ask for them.

    Raises:
        DamagedVaultError, StoreError: the registrations cannot be read.
    """
    told = registered_files(vault, evidence) if registered is None else registered
    vault.refresh()
    sizes = vault.index.digests(list(vault.index.oids()))
    needed = evidence.needed()
    return {
        oid
        for oid, (size, _) in sizes.items()
        if oid in told
        or key_of(oid) in needed
        or (oid.startswith(_RUNS) and evidence.keeps_runs)
        or evidence.could_be_member(key_of(oid), size)
    }


def registered_files(vault: Vault, evidence: Evidence) -> dict[str, str]:
    """The files that other clones said that they need, with the name of one that does.

    Raises:
        DamagedVaultError: what one said cannot be read.
        StoreError: the store cannot be read.
    """
    own = clone_id(evidence.project)
    told = {oid: one.name for one in registrations(vault.store) if one.clone != own for oid in one.files}
    read = vault_members(vault)
    # a clone that lacks a listing could not say what is in it
    for oid, name in sorted(told.items()):
        if oid.endswith(LISTING_SUFFIX):
            hash_name, value = key_of(oid)
            for _, member in read(hash_name, value) or ():
                told.setdefault(f"{hash_name}:{member}", name)
    return told


def vault_members(vault: Vault) -> Members:
    """Reads folders' listings out of a vault."""

    def read(hash_name: str, oid: str) -> list[tuple[str, str]] | None:
        name = f"{hash_name}:{oid}"
        if not vault.exists([name]):
            return None
        try:
            return read_listing(_bytes(vault, name))
        except UnreadableFileError:
            return None

    return read


def vault_runs(vault: Vault) -> Iterator[RunCacheEntry]:
    """The entries of DVC's run cache that a vault has.

    Raises:
        UnreadableRunCacheError: one is damaged.
        HoldfastError: the vault cannot be read.
    """
    vault.refresh()
    for oid in sorted(oid for oid in vault.index.oids() if oid.startswith(_RUNS)):
        try:
            command, outs = read_run_cache_entry(_bytes(vault, oid))
        except UnreadableFileError as error:
            raise UnreadableRunCacheError(
                f"the run cache entry {oid} in {vault.url} cannot be read: {error}", hint="Plan with --ignore-run-cache"
            ) from error
        yield RunCacheEntry(command, tuple(outs))


def _bytes(vault: Vault, oid: str) -> bytes:
    stream = io.BytesIO()
    vault.get(oid, stream)
    return stream.getvalue()


def _names(file: VaultFile, evidence: Evidence) -> tuple[Name, ...]:
    if file.oid.startswith(_RUNS):
        return (Name(file.oid, "run cache" if evidence.keeps_runs else "nothing", "an entry of DVC's run cache"),)
    return tuple(evidence.references.of(key_of(file.oid)))


def _kept(file: VaultFile, place: str, evidence: Evidence, registered: dict[str, str], policy: Policy) -> PlannedObject:
    names = _names(file, evidence)
    if names and names[0].keeps:
        reason, why = names[0].kind, names[0].source
    elif file.oid in registered:
        reason, why = "clone", f"the clone {registered[file.oid]} needs it"
    elif listing := evidence.could_be_member(key_of(file.oid), file.size):
        reason, why = "undecided", f"undecided: {listing}"
    else:
        reason, why = "young", f"pushed within {policy.minimum_age.total_seconds() / SECONDS_A_DAY:g} days"
    return _line(file, place, names, reason, why, kept=True)


def _dead(file: VaultFile, place: str, evidence: Evidence) -> PlannedObject:
    names = _names(file, evidence)
    reason, why = (names[0].kind, f"only {names[0].source}") if names else ("nothing", "nothing names it")
    return _line(file, place, names, reason, why, kept=False)


def _line(
    file: VaultFile,
    place: str,
    names: tuple[Name, ...],
    reason: str,
    why: str,
    *,
    kept: bool,
) -> PlannedObject:
    hash_name, oid = key_of(file.oid)
    return PlannedObject(
        scope="vault",
        place=place,
        path=file.oid,
        size=file.size,
        age_days=round(file.age.total_seconds() / SECONDS_A_DAY, 3),
        tier="keep" if kept else "remove",
        reason=reason,
        why=why,
        hash_name=hash_name,
        oid=oid,
        names=names,
        stored=file.stored_bytes,
    )


def _notes(name: str, plan: CollectionPlan) -> Iterator[str]:
    if plan.packs:
        size = sum(plan.packs.values()) / 1e6
        yield (
            f"Packs of {size:.1f} MB in {' '.join(['the vault', name]).strip()} would be replaced, of which "
            f"{plan.copied_bytes / 1e6:.1f} MB are needed and stored anew."
        )
