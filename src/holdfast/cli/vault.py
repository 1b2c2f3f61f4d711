"""``holdfast vault``: make a vault, and look after it."""

from pathlib import Path

import click

from holdfast.cli.caches import cache_folder
from holdfast.cli.groups import Noun
from holdfast.cli.naming import open_objects
from holdfast.cli.vaults import vault_url
from holdfast.repo.workspace import find_project
from holdfast.vault.repository import init_vault


@click.group(cls=Noun)
def command() -> None:
    """Make a vault, and look after it."""


@command.command()
@click.argument("url", required=False)
def init(url: str | None) -> None:
    """Make a vault at URL: s3://bucket/folder, r2://…, gs://…, az://… or a folder.

    Without URL it lies where the commands look for it: what holdfast.yaml says under vault.url, else below DVC's
    default remote.

    \b
    Examples:
      holdfast vault init
      holdfast vault init s3://models/vault
    """
    project = find_project(Path.cwd())
    place = url or vault_url(project)
    with init_vault(open_objects(place), cache_folder(project.root)) as vault:
        click.echo(f"Made the vault {vault.config.id} at {vault.url}.")
