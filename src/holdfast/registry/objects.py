"""Where a version's bytes are, and bringing them: DVC's cache, a vault, DVC's remotes."""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.atomic import replacing, write_atomically
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.digest import file_md5
from holdfast.registry.entries import FOLDER_SUFFIX, Version
from holdfast.repo.cache import object_path, read_members
from holdfast.repo.dvcfiles import MD5

if TYPE_CHECKING:
    from holdfast.vault.repository import Vault

# DVC protects what is in its cache: a file that can be written is one that somebody changed
CACHED_MODE = 0o444
COPY_BYTES = 4 << 20


class NotHereError(HoldfastError):
    """What was named exists, but its bytes are not on this machine, nor where it looks for them."""


@dataclass
class Stores:
    """The places of a project's objects, asked in this order: cache, vault, remotes.

    Args:
        root: the project's folder.
        cache: the folder of DVC's cache.
        open_vault: the vault, None where the project has none; called when it is first needed.
        remote: the DVC remote to ask; None for the default one, or all where none is the default.
        offline: ask the cache alone.
    """

    root: Path
    cache: Path
    open_vault: Callable[[], "Vault | None"] = lambda: None
    remote: str | None = None
    offline: bool = False
    _vault: "list[Vault | None]" = field(default_factory=list)

    @property
    def vault(self) -> "Vault | None":
        """The vault, opened now."""
        if not self._vault:
            self._vault.append(None if self.offline else self.open_vault())
        return self._vault[0]

    def close(self) -> None:
        """Close the vault."""
        for vault in self._vault:
            if vault is not None:
                vault.close()

    def in_cache(self, oid: str) -> bool:
        """Whether the cache has an object; of a folder, its listing and all of its files."""
        if not object_path(self.cache, MD5, oid).exists():
            return False
        if not oid.endswith(FOLDER_SUFFIX):
            return True
        members = read_members(self.cache, MD5, oid)
        return members is not None and all(object_path(self.cache, MD5, member).exists() for _, member in members)

    def whereabouts(self, oids: Iterable[str]) -> dict[str, str]:
        """Where each object is: ``cache``, ``vault``, or a remote's name; those that are nowhere are not in it.

        Raises:
            HoldfastError: the vault or a remote cannot be reached.
        """
        wanted = list(dict.fromkeys(oids))
        found = {oid: "cache" for oid in wanted if self.in_cache(oid)}
        missing = [oid for oid in wanted if oid not in found]
        if missing and self.vault is not None:
            there = self.vault.exists({f"{MD5}:{oid}" for oid in missing})
            found |= {oid: "vault" for oid in missing if f"{MD5}:{oid}" in there}
            missing = [oid for oid in missing if oid not in found]
        if missing and not self.offline:
            from holdfast.repo.dvc_outs import remotes_with  # with DVC's libraries: for what is not here alone

            found |= remotes_with(self.root, missing, self.remote)
        return found

    def bring(self, oid: str, name: str) -> str:
        """Have an object in the cache, verified as it comes; of a folder all of its files.

        Args:
            oid: the object.
            name: what to call it in errors.

        Returns:
            Where it was, as of `whereabouts`.

        Raises:
            NotHereError: it is nowhere.
            IntegrityError: what came is damaged; it is not kept.
            HoldfastError: the vault or a remote cannot be reached.
            OSError: the cache cannot be written.
        """
        place = self.whereabouts([oid]).get(oid)
        if place is None:
            where = "DVC's cache" if self.offline else "DVC's cache, a vault or DVC's remote"
            hint = "One who has it sends it with `dvc push` or `holdfast push`; `dvc fetch --all-commits` looks for all"
            raise NotHereError(f"{name} (md5 {oid}) is not in {where}", hint=hint)
        if place == "vault":
            self._from_vault(oid)
            for _, member in read_members(self.cache, MD5, oid) or () if oid.endswith(FOLDER_SUFFIX) else ():
                if not object_path(self.cache, MD5, member).exists():
                    self._from_vault(member)
        elif place != "cache":
            from holdfast.repo.dvc_outs import fetch_object  # see whereabouts

            for member in fetch_object(self.root, self.cache, oid, place):
                self._check(member, place)
        return place

    def weights(self, version: Version) -> Path:
        """The cached file of weights of a version that is in the cache.

        Raises:
            IntegrityError: the folder's listing has no such file.
        """
        if not version.is_folder:
            return object_path(self.cache, MD5, version.oid)
        members = dict(read_members(self.cache, MD5, version.oid) or ())
        if version.weights_file not in members:
            raise IntegrityError(f"the folder {version.oid} has no file {version.weights_file}")
        return object_path(self.cache, MD5, members[version.weights_file])

    def write(self, version: Version, target: Path) -> list[Path]:
        """Write a version that is in the cache to a path, verified; a folder as a folder. The files.

        A file is there whole or not at all. What else lies in a folder stays.

        Raises:
            IntegrityError: the cache's bytes are not what their name says; nothing is left in their place.
            OSError: it cannot be written.
        """
        if not version.is_folder:
            _copy(object_path(self.cache, MD5, version.oid), version.oid, target)
            return [target]
        written = []
        for name, member in read_members(self.cache, MD5, version.oid) or ():
            file = target / name
            if not file.resolve().is_relative_to(target.resolve()):
                raise IntegrityError(f"the folder {version.oid} names {name!r}, which is outside of it")
            _copy(object_path(self.cache, MD5, member), member, file)
            written.append(file)
        return written

    def _check(self, oid: str, remote: str) -> None:
        file = object_path(self.cache, MD5, oid)
        found = file_md5(file)
        if found != oid.removesuffix(FOLDER_SUFFIX):
            file.unlink()
            raise IntegrityError(f"the remote {remote} has bytes of the md5 {found} under the name {oid}")

    def _from_vault(self, oid: str) -> None:
        assert self.vault is not None
        place = object_path(self.cache, MD5, oid)
        place.parent.mkdir(parents=True, exist_ok=True)
        self.vault.get(f"{MD5}:{oid}", place)
        place.chmod(CACHED_MODE)


def keep_file(cache: Path, path: Path, oid: str) -> None:
    """Have a file's bytes in the cache under their md5.

    Raises:
        IntegrityError: the file has other bytes by now.
        OSError: the cache cannot be written.
    """
    place = object_path(cache, MD5, oid)
    if place.exists():
        return
    _copy(path, oid, place)
    place.chmod(CACHED_MODE)


def keep_listing(cache: Path, data: bytes, oid: str) -> None:
    """Have a folder's listing in the cache.

    Raises:
        OSError: the cache cannot be written.
    """
    place = object_path(cache, MD5, oid)
    if not place.exists():
        write_atomically(place, data)
        place.chmod(CACHED_MODE)


def _copy(source: Path, oid: str, target: Path) -> None:
    # never a hard link: who edits the one would edit the other
    with replacing(target) as stream:
        if not _cloned(source, stream.fileno()):
            with open(source, "rb") as reader:
                shutil.copyfileobj(reader, stream, COPY_BYTES)
        stream.flush()
        found = file_md5(Path(stream.name))
        if found != oid:
            raise IntegrityError(f"{source} has the md5 {found} instead of {oid}", hint="`holdfast registry verify`")


def _cloned(source: Path, target: int) -> bool:
    """Whether the file system shares the bytes of both files until one is written."""
    import fcntl  # a reflink is Linux's; elsewhere the module may lack the call

    FICLONE = 0x40049409  # noqa: N806 - its name in linux/fs.h
    descriptor = os.open(source, os.O_RDONLY)
    try:
        fcntl.ioctl(target, FICLONE, descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
