"""What versions cost in a vault: the bytes that each added to those that were there before it."""

import io
from collections.abc import Iterable

from holdfast.registry.entries import Model, Version
from holdfast.repo.dvcfiles import MD5, read_listing
from holdfast.vault.repository import Vault


def new_bytes(vault: Vault, models: Iterable[Model]) -> tuple[dict[str, int], int]:
    """Stored bytes of the blobs that no earlier version of the same model has, by ``app/name@v3``.

    Deltas count as what they take; their bases, where no version has them, count to nobody.

    Returns:
        The bytes, and how many versions the vault does not have whole.

    Raises:
        IntegrityError: the vault is damaged.
        StoreError: it cannot be read.
    """
    models = list(models)
    there = vault.exists({f"{MD5}:{version.oid}" for model in models for version in model.versions})
    found: dict[str, int] = {}
    missing = 0
    for model in models:
        seen: set[bytes] = set()
        for version in model.versions:
            oids = _files(vault, version) if f"{MD5}:{version.oid}" in there else []
            if not oids or len(vault.exists(oids)) < len(set(oids)):
                missing += 1
                continue
            added = 0
            for oid in oids:
                recipe = vault.recipe(oid)
                entries = vault.plan(recipe).entries
                blobs = {piece.blob for piece in recipe.pieces} - seen
                added += sum(entries[blob].stored for blob in blobs)
                seen |= blobs
            found[f"{model.id}@{version.name}"] = added
    return found, missing


def _files(vault: Vault, version: Version) -> list[str]:
    oid = f"{MD5}:{version.oid}"
    if not version.is_folder:
        return [oid]
    listing = io.BytesIO()
    vault.get(oid, listing)
    return [oid, *(f"{MD5}:{member}" for _, member in read_listing(listing.getvalue()))]
