"""``holdfast registry sign``."""

from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, form_options
from holdfast.cli.registry_places import here, stores_of_project
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import UsageError
from holdfast.registry.entries import split_reference
from holdfast.registry.signing import sign_version
from holdfast.repo.git_commands import add_to_index

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("sign", cls=Verb)
@click.argument("version", metavar="MODEL@VERSION", shell_complete=completion_values.versions)
@click.option(
    "--private-key", required=True, metavar="FILE", type=_FILE, help="The key, PEM, of the curve P-256, P-384 or P-521."
)
@click.option("--password-file", metavar="FILE", type=_FILE, help="The first line is the key's password.")
@click.option(
    "-r",
    "--remote",
    metavar="NAME",
    shell_complete=completion_values.remotes,
    help="The DVC remote to ask (default: the default one).",
)
@click.option("-f", "--force", is_flag=True, help="Replace a signature that is there.")
@form_options
def sign(
    version: str, private_key: Path, password_file: Path | None, remote: str | None, force: bool, form: Form
) -> None:
    """Sign a version's bytes with a private key: who has the public one can tell that they are the ones.

    The signature lies beside the version's file, v3.sig, and is added to git's index. It is a Sigstore bundle, which
    `model_signing verify key` reads, too. It covers the bytes, all files of a folder, and not what the registry says of
    them. Needs `pip install 'holdfast[sign]'`.

    \b
    Examples:
      holdfast registry sign digits/classifier@v3 --private-key release.pem
      holdfast registry verify digits/classifier --signature --public-key release.pub
    """
    model, label = split_reference(version)
    if label is None:
        raise UsageError(f"{version} names no version", hint="Write app/name@v3")
    project, registry = here()
    found = registry.model(model).named(label)
    password = None
    if password_file is not None:
        password = password_file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    stores = stores_of_project(project, remote=remote)
    try:
        written = sign_version(stores, registry, model, found, private_key, password, force=force)
    finally:
        stores.close()
    add_to_index(project.root, [written])
    place = written.relative_to(project.root).as_posix()
    payload = {"format": "holdfast registry sign 1", "model": model, "version": found.name, "signature": place}
    emit_quickly(form, payload, [f"Signed {model}@{found.name}: {place}."])
