"""Archived weights back into their runs, out of the vault."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from holdfast.errors import HoldfastError, IntegrityError, UsageError
from holdfast.formats.digest import file_md5
from holdfast.registry.consolidation import ARCHIVE_APP
from holdfast.registry.entries import FOLDER_SUFFIX, Version
from holdfast.registry.objects import NotHereError
from holdfast.registry.store import Registry
from holdfast.repo.dvcfiles import MD5, UnreadableFileError, read_listing
from holdfast.vault.repository import UnknownFileError, Vault


class InTheWayError(HoldfastError):
    """Something else lies where an archived file belongs."""


@dataclass(frozen=True)
class Restored:
    """A run whose weights are back.

    Attributes:
        run: its folder, from the project's root.
        version: ``archived/name@v1``.
        files: those that were written, from the root; none where all were there.
        size: bytes of these.
    """

    run: str
    version: str
    files: tuple[str, ...]
    size: int


def restore_run(root: Path, run: str, vault: Vault) -> Restored:
    """Write the archived weights of a run where they were, verified; each is there whole or not at all.

    The version stays registered: the weights may be archived again, and take no more of the vault then.

    Args:
        root: the project's folder.
        run: the run's folder, from there.
        vault: the project's vault.

    Raises:
        UsageError: no weights of this run are archived.
        InTheWayError: another file lies where one belongs; nothing is written.
        NotHereError: the vault does not have them.
        IntegrityError: they are damaged.
        OSError: a file cannot be written.
    """
    model, version = _archived(root, run)
    name = f"{model}@{version.name}"
    files = _files(vault, version, name)
    missing = []
    for path, oid in files:
        place = root / path
        if not place.resolve().is_relative_to((root / run).resolve()):
            raise IntegrityError(f"{name} names {path}, which is outside of {run}")
        if not place.exists():
            missing.append((path, oid))
        elif not place.is_file() or file_md5(place) != oid:
            hint = f"Move it away; `holdfast registry get {name} -o FOLDER` writes elsewhere"
            raise InTheWayError(f"{path} is there, with other bytes than {name} has", hint=hint)
    size = 0
    for path, oid in missing:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            size += vault.get(f"{MD5}:{oid}", root / path, durable=True)
        except UnknownFileError as error:
            raise _not_here(name, vault) from error
    return Restored(run, name, tuple(path for path, _ in missing), size)


def _archived(root: Path, run: str) -> tuple[str, Version]:
    """The newest archived version of a run, and its model."""
    registry = Registry(root)
    models = [registry.model(name) for name in registry.model_ids() if name.startswith(f"{ARCHIVE_APP}/")]
    found = [(model.id, version) for model in models for version in model.versions if version.source.get("run") == run]
    if not found:
        known = sorted({version.source.get("run", "") for model in models for version in model.versions} - {""})
        hint = f"Archived are: {', '.join(known)}" if known else "No run of this project is archived"
        raise UsageError(f"no weights of {run} are archived", hint=hint)
    return max(found, key=lambda item: item[1].number)


def _files(vault: Vault, version: Version, name: str) -> list[tuple[str, str]]:
    """Path and md5 of each file of a version."""
    if not version.is_folder:
        return [(version.path, version.oid)]
    listing = io.BytesIO()
    try:
        vault.get(f"{MD5}:{version.oid}", listing)
        data = listing.getvalue()
        if hashlib.md5(data, usedforsecurity=False).hexdigest() + FOLDER_SUFFIX != version.oid:
            raise IntegrityError(f"the listing of {name} is not what it should be")
        return [((PurePosixPath(version.path) / path).as_posix(), oid) for path, oid in read_listing(data)]
    except UnknownFileError as error:
        raise _not_here(name, vault) from error
    except UnreadableFileError as error:
        raise IntegrityError(f"the listing of {name} cannot be read: {error}") from error


def _not_here(name: str, vault: Vault) -> NotHereError:
    hint = f"`holdfast registry get {name} -o FOLDER` looks in DVC's cache and remotes, too"
    return NotHereError(f"the bytes of {name} are not in {vault.url}", hint=hint)
