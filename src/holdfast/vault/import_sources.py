"""Where the files of a session come from, told to a process that opens it for itself: a remote, or the vault itself."""

import atexit
import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from holdfast.errors import HoldfastError
from holdfast.objectstore.address import StoreAddress
from holdfast.vault.downloading import DownloadedFiles, LocalFiles, files_of
from holdfast.vault.repository import Vault, open_vault
from holdfast.vault.scratch import scratch_folder

# requests and threads of a task: one that works, and one that waits for the store
TASK_JOBS = 2


@dataclass(frozen=True)
class RemoteSource:
    """The files of a remote, or of a cache."""

    address: StoreAddress

    @property
    def url(self) -> str:
        """Where it is."""
        return self.address.url

    def files(self, scratch: Path) -> LocalFiles:
        """Its files; `scratch` is of nobody else."""
        return files_of(self.address.open(), scratch, TASK_JOBS)


@dataclass(frozen=True)
class VaultSource:
    """The files of a vault, to be stored anew."""

    address: StoreAddress

    @property
    def url(self) -> str:
        """Where it is."""
        return self.address.url

    def files(self, scratch: Path) -> LocalFiles:
        """As of `RemoteSource.files`."""
        return StoredFiles(task_vault(self.address), scratch)


Source: TypeAlias = RemoteSource | VaultSource


class StoredFiles(DownloadedFiles):
    """The files of a vault, for as long as they are needed.

    Args:
        vault: closed with these.
        folder: as of `DownloadedFiles`.
    """

    def __init__(self, vault: Vault, folder: Path) -> None:
        super().__init__(vault.store, folder, vault.jobs)
        self._vault = vault

    def fetch(self, sizes: Mapping[str, int]) -> dict[str, HoldfastError]:
        """Have files at hand, verified; why not, for those that cannot be put together."""
        failed: dict[str, HoldfastError] = {}
        wanted = [(oid, path) for oid in sizes if not (path := self.path(oid)).exists()]
        for _, path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
        for _ in self._vault.get_many(wanted, failed.__setitem__):
            pass
        self._sizes.update((oid, size) for oid, size in sizes.items() if oid not in failed)
        return failed

    def close(self) -> None:
        """Close the vault."""
        super().close()
        self._vault.close()


def task_vault(address: StoreAddress) -> Vault:
    """A vault for one task; its index is kept from one task of this process to the next."""
    return open_vault(address.open(), _index_folder(), jobs=TASK_JOBS)


@lru_cache(maxsize=1)
def task_folder() -> Path:
    """Where tasks keep what is on its way; what killed processes leave there is removed by the next.

    Raises:
        OSError: the system's folder for temporary files cannot be written.
    """
    folder = Path(tempfile.gettempdir()) / f"holdfast-tasks-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="holdfast-tasks-"))  # others may write to that one, or made it


@lru_cache(maxsize=1)
def _index_folder() -> Path:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(scratch_folder(task_folder()))
