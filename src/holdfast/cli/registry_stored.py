"""What each version added to the bytes that are stored: out of the vault, or of what DVC stores where there is none.

`registry show` says it each time, so it asks no network for it: the index of the vault as this machine last saw it
serves, and what follows from that is remembered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from holdfast.cli.caches import cache_folder
from holdfast.cli.output import plural
from holdfast.cli.registry_places import cache_of_project, of_configuration
from holdfast.errors import HoldfastError, UsageError
from holdfast.registry.cache import RegistryCache, digest_of
from holdfast.registry.entries import FOLDER_SUFFIX
from holdfast.registry.storage import Members, index_state, known_index, new_bytes, vault_members
from holdfast.registry.table import VersionTable
from holdfast.repo.workspace import Project

# as of holdfast.vault.repository and config, which take 0.3 s to import
INDEX_FILE, CONFIG_FILE = "index.sqlite", "config.json"


@dataclass(frozen=True)
class Added:
    """What versions added.

    Attributes:
        models: by ``app/name`` the bytes of each version in the order of their numbers, None where that is not known.
        source: ``vault``: stored bytes there; ``files``: bytes of whole files, as DVC stores them.
        note: for people; empty where all is as they expect.
    """

    models: Mapping[str, Sequence[int | None]]
    source: Literal["vault", "files"]
    note: str = ""


def added_bytes(project: Project, cache: RegistryCache, tables: Sequence[VersionTable], *, ask: bool) -> Added:
    """What the versions of models added.

    Args:
        project: whose.
        cache: remembers answers.
        tables: of the models.
        ask: look into the vault anew; else it is asked only where this machine has no index of it.

    Raises:
        HoldfastError: ``ask``, and the configuration of DVC or Holdfast cannot be read.
    """
    try:
        url = of_configuration(project, "vault", lambda: known_vault_url(project))
    except HoldfastError as error:
        if ask:
            raise
        return replace(_of_files(tables, ask=False), note=f"Whether there is a vault is not known: {_line(error)}.")
    if not url or not (ask or _is_used(project, cache, url)):
        return _of_files(tables, ask=ask)
    note = ""
    index = index_file(project, cache, url)
    if ask or index is None or index_state(index) is None:
        try:
            return _asked(project, cache, url, tables)
        except _NoVaultHereError:
            cache.keep_facts({"vault": (_place_state(project, url), "")})
            return _of_files(tables, ask=ask)
        except (HoldfastError, OSError) as error:
            note = f"The vault could not be asked: {_line(error)}."
    state = index_state(index) if index is not None else None
    if index is None or state is None:
        return Added({table.id: [None] * len(table.names) for table in tables}, "vault", note)
    found = {table.id: known for table in tables if (known := cache.fact(_fact(table), _state(url, state, table)))}
    rest = [table for table in tables if table.id not in found]
    if rest:
        opened = known_index(index)
        try:
            more = new_bytes(opened, rest, _cached_members(project))
        finally:
            opened.close()
        _keep(cache, url, state, rest, more)
        found |= more
    missing = _missing(found)
    if missing and not note:
        told = f"The vault does not have {plural(missing, 'version')}, as far as is known here"
        note = f"{told}: `holdfast push` sends what DVC tracks, `--stored` looks again."
    return Added(found, "vault", note)


def _of_files(tables: Sequence[VersionTable], *, ask: bool) -> Added:
    note = "New bytes are those of whole files, as DVC stores them: the project has no vault (`holdfast vault init`)."
    return Added({table.id: table.whole for table in tables}, "files", note if ask else "")


def _asked(project: Project, cache: RegistryCache, url: str, tables: Sequence[VersionTable]) -> Added:
    """What the vault says now.

    Raises:
        _NoVaultHereError: there is none.
        HoldfastError: it cannot be read.
    """
    from holdfast.cli.vaults import open_project_vault  # 0.3 s that what is remembered need not pay
    from holdfast.vault.repository import NoVaultError

    try:
        vault = open_project_vault(project, jobs=4)
    except (UsageError, NoVaultError) as error:
        raise _NoVaultHereError(str(error)) from error
    with vault:
        vault.refresh()
        found = new_bytes(vault.index, tables, vault_members(vault))
        cache.keep_facts({"vault": (_place_state(project, url), vault.config.id)})
    index = index_file(project, cache, url)
    state = index_state(index) if index is not None else None
    if state is not None:
        _keep(cache, url, state, tables, found)
    missing = _missing(found)
    told = f"New bytes are left out for {plural(missing, 'version')} that the vault does not have: `holdfast push`."
    return Added(found, "vault", told if missing else "")


def known_vault_url(project: Project) -> str:
    """Where the vault is, or would be; empty where the project names no place.

    Raises:
        HoldfastError: the configuration cannot be read.
    """
    from holdfast.repo.dvc import default_remote
    from holdfast.repo.workspace import find_config  # with YAML, and DVC's configuration

    if find_config(project.root) is None and default_remote(project.root) is None:
        return ""
    from holdfast.cli.vaults import vault_url  # with the vault's modules, see above

    try:
        return vault_url(project)
    except UsageError:
        return ""


def _is_used(project: Project, cache: RegistryCache, url: str) -> bool:
    """Whether there is a vault, as far as can be said without a network."""
    if "://" not in url:
        return (Path(url) / CONFIG_FILE).exists()
    # a clone that never looked into any vault has a DVC remote, and most likely nothing beside it
    return cache.fact("vault", _place_state(project, url)) != "" and bool(_indexes(project))


def index_file(project: Project, cache: RegistryCache, url: str) -> Path | None:
    """The index of the vault at a URL, by the vault's id, which is known once it was asked."""
    name = cache.fact("vault", _place_state(project, url))
    return cache_folder(project.root) / name / INDEX_FILE if name else None


def _place_state(project: Project, url: str) -> str:
    """What the answer to the question which vault is at a URL holds for: until this machine sees another one."""
    return digest_of((url, tuple(_indexes(project))))


def _indexes(project: Project) -> list[str]:
    return sorted(file.parent.name for file in cache_folder(project.root).glob(f"*/{INDEX_FILE}"))


def _cached_members(project: Project) -> Members:
    """Reads listings out of DVC's cache."""

    def read(oid: str) -> list[str] | None:
        from holdfast.repo.cache import read_members  # with YAML, which versions of one file need not pay

        members = read_members(cache_of_project(project), "md5", oid)
        return None if members is None else [member for _, member in members]

    return read


def _keep(
    cache: RegistryCache,
    url: str,
    state: str,
    tables: Sequence[VersionTable],
    found: Mapping[str, Sequence[int | None]],
) -> None:
    """Remember what follows from the index alone: a folder may be unknown only because its listing is not here."""
    cache.keep_facts(
        {
            _fact(table): (_state(url, state, table), found[table.id])
            for table in tables
            if not any(
                count is None and oid.endswith(FOLDER_SUFFIX)
                for count, oid in zip(found[table.id], table.oids, strict=True)
            )
        }
    )


def _fact(table: VersionTable) -> str:
    return f"new bytes of {table.id}"


def _state(url: str, state: str, table: VersionTable) -> str:
    return digest_of((url, state, tuple(table.oids)))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _missing(found: Mapping[str, Sequence[int | None]]) -> int:
    return sum(count is None for counts in found.values() for count in counts)


class _NoVaultHereError(HoldfastError):
    """The place where the vault would be has none."""
