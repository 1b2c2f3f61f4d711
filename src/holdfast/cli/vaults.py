"""Which vault a command means, and opening it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.cli.caches import cache_folder
from holdfast.cli.naming import open_objects
from holdfast.cli.output import plural, warn
from holdfast.errors import UsageError
from holdfast.objectstore.location import is_url
from holdfast.repo.dvc import default_remote, remotes
from holdfast.repo.workspace import Project, find_config
from holdfast.vault.repository import Vault, open_vault

# a vault lies beside DVC's own files, below one prefix
VAULT_FOLDER = "vault"


def open_project_vault(project: Project, remote: str | None = None, *, jobs: int) -> Vault:
    """The vault that a project's commands use; to be closed.

    Raises:
        UsageError: none is named, or the remote is none.
        NoVaultError: there is none.
        StoreError: it cannot be reached.
    """
    return open_vault(open_objects(vault_url(project, remote)), cache_folder(project.root), jobs=jobs)


@contextmanager
def project_vault(project: Project, remote: str | None = None, *, jobs: int) -> Iterator[Vault]:
    """The same until the ``with`` ends; what of its index could not be read is told in the end.

    Raises:
        UsageError, NoVaultError, StoreError: as of `open_project_vault`.
    """
    with open_project_vault(project, remote, jobs=jobs) as vault:
        try:
            yield vault
        finally:
            if vault.index.damaged:
                count = plural(len(vault.index.damaged), "segment")
                told = f"{count} of the index of {vault.url} cannot be read. `holdfast vault repair` mends it"
                warn(told)


def vault_url(project: Project, remote: str | None = None) -> str:
    """Where the project's vault is.

    It is ``remote`` where that is a URL, or a folder's path with a slash in it; beside the DVC remote of that name;
    what ``holdfast.yaml`` says under ``vault.url``; else beside DVC's default remote.

    Raises:
        UsageError: none is named, or there is no such remote.
    """
    if remote is not None and is_url(remote):
        return remote
    if remote is None:
        config = find_config(project.root)
        if config is not None:
            from holdfast.inventory.config import read_config  # imported here: YAML, which most projects need not load

            section = read_config(config).section("vault")
            url = section.text("url", "")
            section.close()
            if url:
                return url if is_url(url) else str((config.parent / url).resolve())
        remote = default_remote(project.root)
        if remote is None:
            raise UsageError(
                "no vault is named, and DVC has no default remote beside which it would lie",
                hint="`holdfast vault init URL` makes one, `dvc remote add -d NAME URL` sets the remote",
            )
    sections = remotes(project.root)
    if remote not in sections:
        if os.sep in remote:
            return str(Path(remote).expanduser().resolve())
        raise UsageError(f"{remote} is neither a URL nor a DVC remote", hint="`dvc remote list` names them")
    url = str(sections[remote].get("url", ""))
    if url.startswith(("http://", "https://")):
        raise UsageError(
            f"no vault lies beside the DVC remote {remote}, which is the server {url}",
            hint="Name the vault by its own URL, or in holdfast.yaml under vault.url",
        )
    place = url if is_url(url) else str(Path(url).resolve())
    return f"{place.rstrip('/')}/{VAULT_FOLDER}"
