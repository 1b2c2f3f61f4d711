"""Remotes and vaults as a collection sees them: what they hold, what their listings say, what others need of them."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.gc.evidence import Evidence, Members
from holdfast.gc.plan import Request
from holdfast.gc.planned import Found
from holdfast.gc.policy import Policy
from holdfast.gc.references import Key, key_of
from holdfast.gc.remote import find_remote, list_remote, remote_key
from holdfast.gc.vault import find_vault, vault_members, vault_runs
from holdfast.gc.world import REMOTE_ROOTS, World
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, StoreError
from holdfast.repo.cache import CacheObject, RunCacheEntry
from holdfast.repo.clone import clone_id
from holdfast.repo.dvcfiles import LISTING_SUFFIX, UnreadableFileError, read_listing
from holdfast.repo.remotes import missing_commits
from holdfast.vault.roots import registrations

NO_GIT_REMOTE = "No git remote was asked: what only commits elsewhere need is not known"


class UnknownCommitsError(HoldfastError):
    """A git remote has commits that are not here, so what they need is not known."""


def list_remotes(world: World, request: Request) -> dict[str, list[CacheObject]]:
    """The objects of each plain remote that a request looks at.

    Raises:
        StoreError: a remote cannot be listed.
        WorkersLostError: what lists them is gone.
    """
    return {name: list_remote(world.remote(name), world.executor) for name in _remotes(request)}


def find_in_stores(
    world: World,
    request: Request,
    evidence: Evidence,
    policy: Policy,
    listed: Mapping[str, Sequence[CacheObject]],
    *,
    now: float,
    grace: timedelta,
) -> Iterator[Found]:
    """The fate of what remotes and vaults hold.

    Args:
        world, request, policy, now, grace: as of `holdfast.gc.planning.make_plan`.
        evidence: of `holdfast.gc.planning.gather_for`.
        listed: of `list_remotes`, made before the evidence was gathered.

    Raises:
        DamagedVaultError: what a vault needs cannot be known.
        StoreError: a store cannot be read.
    """
    if request.offline:
        yield Found((), notes=(NO_GIT_REMOTE,))
    for name, objects in listed.items():
        registered = registered_objects(world, name)
        yield find_remote(evidence, name, objects, registered, policy, now=now + _ahead(world, name))
    for name in _vaults(request):
        yield find_vault(world.vault(name), name, evidence, policy, grace=grace)


def members_of(world: World, request: Request) -> Members:
    """Reads folders' listings out of the stores that a request looks at."""
    readers = [vault_members(world.vault(name)) for name in _vaults(request)]
    return _first([*readers, *(_remote_members(world.remote(name).store) for name in _remotes(request))])


def runs_of(world: World, request: Request) -> Iterator[RunCacheEntry]:
    """The entries of DVC's run cache that the vaults have which a request looks at.

    Raises:
        UnreadableRunCacheError: one is damaged.
    """
    return chain.from_iterable(vault_runs(world.vault(name)) for name in _vaults(request))


def check_git_remotes(git_root: Path, reached: Collection[str]) -> None:
    """See that every commit that a git remote offers is here: others may need what it names.

    Args:
        git_root: top of the working tree.
        reached: commits that refs here reach.

    Raises:
        UnknownCommitsError: one is not.
        UnreachableRemoteError: a remote does not answer.
    """
    missing = missing_commits(git_root, reached=reached)
    if missing:
        first, rest = missing[0], len(missing) - 1
        more = f", and {rest} more commits" if rest > 1 else ", and one more commit" if rest else ""
        commands = " && ".join(dict.fromkeys(one.command for one in missing))
        raise UnknownCommitsError(
            f"{first.remote} has {first.ref} at {first.commit[:8]}, which is not here{more}: what it needs is unknown",
            hint=f"Bring it: `{commands}`; or plan with --offline",
        )


def registered_objects(world: World, name: str) -> set[Key]:
    """What other clones said that they need of a plain remote, with what the folders among that hold.

    Raises:
        DamagedVaultError: what one said cannot be read.
        StoreError: the remote cannot be read.
    """
    store, own = world.remote(name).store, clone_id(world.project)
    told = {key_of(oid) for one in registrations(store, REMOTE_ROOTS) if one.clone != own for oid in one.files}
    read = _remote_members(store)
    for hash_name, oid in sorted(key for key in told if key[1].endswith(LISTING_SUFFIX)):
        told.update((hash_name, member) for _, member in read(hash_name, oid) or ())
    return told


def _ahead(world: World, name: str) -> float:
    """Seconds that a remote's clock is ahead of the one here; 0 where it cannot be asked."""
    place = world.place("remote", name)
    try:
        return place.now().timestamp() - time.time()
    except StoreError:
        return 0.0  # whoever may not write there cannot take anything away either


def _remotes(request: Request) -> Sequence[str]:
    return request.remotes if "remote" in request.scopes else ()


def _vaults(request: Request) -> Sequence[str]:
    return request.vaults if "vault" in request.scopes else ()


def _first(readers: Sequence[Members]) -> Members:
    def read(hash_name: str, oid: str) -> Sequence[tuple[str, str]] | None:
        return next((members for reader in readers if (members := reader(hash_name, oid)) is not None), None)

    return read


def _remote_members(store: ObjectStore) -> Members:
    def read(hash_name: str, oid: str) -> Sequence[tuple[str, str]] | None:
        try:
            return read_listing(store.get(remote_key(hash_name, oid)))
        except (ObjectNotFoundError, UnreadableFileError):
            return None

    return read
