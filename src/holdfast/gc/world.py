"""The places that a collection looks at and takes from: cache, workspace, remotes, vaults."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.gc.planned import Scope
from holdfast.repo.dvc import LocalCache
from holdfast.repo.workspace import Project

if TYPE_CHECKING:  # imported where they are opened: a plan for the cache needs none of them
    from holdfast.executor.executor import Executor
    from holdfast.formats.cache import DigestCache
    from holdfast.inventory.ref_memory import ReferenceMemory
    from holdfast.objectstore.address import StoreAddress
    from holdfast.objectstore.store import ObjectStore
    from holdfast.removal.place import Place
    from holdfast.vault.repository import Vault

# below the cache's folder and below a remote; DVC takes nothing there for an object
QUARANTINE = "holdfast/quarantine"
# what other clones need of a plain remote; of a vault they say it in the vault
REMOTE_ROOTS = "holdfast/roots"
STATE = Path(".dvc") / "tmp" / "holdfast"
FOLDERS = 32  # of a remote that are listed at the same time


@dataclass(frozen=True)
class Remote:
    """A plain DVC remote.

    Attributes:
        name: of it.
        store: its objects.
        folder: where it is, for one that is a local folder.
        address: of the store, for who opens it in another process; None where it can be used here alone.
    """

    name: str
    store: "ObjectStore"
    folder: Path | None = None
    address: "StoreAddress | None" = None


@dataclass
class World:
    """A project and its stores, each opened when it is first asked for.

    Args:
        project: whose.
        cache: DVC's.
        open_digests: opens what is known of files.
        open_remote: opens the DVC remote of a name.
        open_vault: opens the vault beside the DVC remote of a name, or at a URL; the project's own for an empty name.
        default_remote: the name of DVC's default remote; empty where there is none.
        open_memory: opens what is known of sources that may name files.
        open_executor: opens what lists remotes; None for threads here.
    """

    project: Project
    cache: LocalCache
    open_digests: "Callable[[], DigestCache]"
    open_remote: Callable[[str], Remote]
    open_vault: Callable[[str], "Vault"]
    default_remote: str = ""
    open_memory: "Callable[[], ReferenceMemory] | None" = None
    open_executor: "Callable[[], AbstractContextManager[Executor]] | None" = None
    _remotes: dict[str, Remote] = field(default_factory=dict)
    _vaults: "dict[str, Vault]" = field(default_factory=dict)
    _closing: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Close what was opened."""
        self._closing.close()

    @cached_property
    def digests(self) -> "DigestCache":
        """What is known of files, opened now."""
        return self._closing.enter_context(self.open_digests())

    @cached_property
    def memory(self) -> "ReferenceMemory | None":
        """What is known of sources that may name files, opened now."""
        if self.open_memory is None:
            return None
        return self._closing.enter_context(closing(self.open_memory()))

    @cached_property
    def executor(self) -> "Executor":
        """What lists remotes, opened now.

        Raises:
            HoldfastError: it cannot be opened.
        """
        if self.open_executor is None:
            from holdfast.executor.local import LocalExecutor  # imported here: see above

            return LocalExecutor(FOLDERS)
        return self._closing.enter_context(self.open_executor())

    def remote(self, name: str) -> Remote:
        """The DVC remote of that name.

        Raises:
            UsageError: there is none.
            HoldfastError: it cannot be opened.
        """
        if name not in self._remotes:
            self._remotes[name] = self.open_remote(name)
        return self._remotes[name]

    def vault(self, name: str) -> "Vault":
        """The vault of that name.

        Raises:
            UsageError: nothing of that name may have one.
            NoVaultError: there is none.
            StoreError: it cannot be reached.
        """
        if name not in self._vaults:
            self._vaults[name] = self._closing.enter_context(self.open_vault(name))
        return self._vaults[name]

    def place(self, scope: Scope, name: str) -> "Place":
        """Where the things of a scope lie, with its quarantine; a vault has none, its condemned packs are one.

        Raises:
            HoldfastError: it cannot be opened.
        """
        from holdfast.removal.folder import FolderPlace  # imported here: see above

        if scope == "cache":
            return FolderPlace(self.cache.folder, self.cache.folder / QUARANTINE)
        if scope in ("runs", "workspace"):
            return FolderPlace(self.project.root, self.project.root / STATE / "quarantine")
        remote = self.remote(name)
        if remote.folder is not None:
            return FolderPlace(remote.folder, remote.folder / QUARANTINE)
        from holdfast.removal.bucket import BucketPlace  # likewise

        return BucketPlace(remote.store, QUARANTINE)

    def places(self, remotes: tuple[str, ...]) -> "Iterator[tuple[Scope, str, Place]]":
        """The places here, and those of remotes, each once; ``workspace`` stands for ``runs``, too."""
        yield "workspace", "", self.place("workspace", "")
        yield "cache", "", self.place("cache", "")
        for name in remotes:
            yield "remote", name, self.place("remote", name)
