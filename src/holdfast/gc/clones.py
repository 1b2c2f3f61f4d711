"""What this clone needs of a vault or a remote, said there, so that a collection elsewhere leaves it alone."""

from holdfast.gc.evidence import gather
from holdfast.gc.policy import Policy
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.clone import clone_id
from holdfast.repo.dvc import LocalCache
from holdfast.repo.workspace import Project
from holdfast.vault.roots import ROOTS, register, words


def register_clone(
    project: Project, cache: LocalCache, store: ObjectStore, policy: Policy, *, now: float, folder: str = ROOTS
) -> int:
    """Say in a store what this clone needs; what it said before counts no more.

    Args:
        project: whose clone.
        cache: DVC's.
        store: a vault's, or a remote's.
        policy: what keeps objects.
        now: seconds since the epoch.
        folder: of the registrations.

    Returns:
        How many objects it needs.

    Raises:
        HoldfastError: what it needs cannot be known.
        StoreError: the store cannot be written.
    """
    clone = clone_id(project)
    replaced = words(store, clone, folder)
    needed = gather(project, cache, policy, now=now).needed()
    oids = [f"{hash_name}:{oid}" for hash_name, oid in needed]
    register(store, clone, project.root.name, oids, replaced, folder)
    return len(needed)
