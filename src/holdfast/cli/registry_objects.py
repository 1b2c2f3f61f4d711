"""``holdfast registry get`` and ``verify``."""

from dataclasses import asdict, replace
from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options, human_bytes, plural
from holdfast.cli.registry_places import digests_of_project, here, place_name, stores_of_project
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import IntegrityError, UsageError
from holdfast.registry.entries import split_reference
from holdfast.registry.verification import Verification
from holdfast.registry.verification import verify as verify_registry

remote_option = click.option(
    "-r",
    "--remote",
    metavar="NAME",
    shell_complete=completion_values.remotes,
    help="The DVC remote to ask (default: the default one).",
)


@click.command("get", cls=Verb)
@click.argument("version", metavar="MODEL[@VERSION]", shell_complete=completion_values.models_and_versions)
@click.option(
    "-o", "--output", metavar="PATH", type=click.Path(path_type=Path), help="Where to (default: its name, here)."
)
@click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")
@remote_option
@form_options
def get(version: str, output: Path | None, force: bool, remote: str | None, form: Form) -> None:
    """Write a version's file or folder, verified, from DVC's cache, the vault or a remote, without a checkout.

    \b
    Examples:
      holdfast registry get digits/classifier@v1 -o /tmp/classifier.safetensors
      holdfast registry get digits/classifier@production
    """
    model, label = split_reference(version)
    project, registry = here()
    found = registry.model(model).named(label)
    name = f"{model}@{found.name}"
    target = output or Path(found.path.rpartition("/")[2])
    if target.is_dir() and (output is None or not found.is_folder):
        target = target / found.path.rpartition("/")[2]
    if target.exists() and not force:
        raise UsageError(f"{target} is there already", hint="Write elsewhere with -o, or overwrite it with --force")
    stores = stores_of_project(project, remote=remote)
    try:
        source = stores.bring(found.oid, name)
        written = stores.write(found, target)
    finally:
        stores.close()
    payload = {"model": model, "version": found.name, "source": source, "path": str(target), "files": len(written)}
    sentence = f"Wrote {name} to {target}, {human_bytes(found.size)} from {place_name(source)}."
    emit_quickly(form, {"format": "holdfast registry get 1", **payload}, [sentence])


@click.command("verify", cls=Verb)
@click.argument("models", nargs=-1, metavar="[MODEL...]", shell_complete=completion_values.models)
@click.option(
    "--offline", is_flag=True, help="Ask neither a vault nor a remote: for a hook, or a machine without keys."
)
@click.option("--quick", is_flag=True, help="Compare sizes; read neither bytes nor sources.")
@click.option("--reread", is_flag=True, help="Read bytes that did not change since they were last read, too.")
@click.option("--signature", is_flag=True, help="Check that every version's signature is of a key, and of its bytes.")
@click.option(
    "--public-key",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The key of --signature, PEM.",
)
@remote_option
@form_options
def verify(
    models: tuple[str, ...],
    offline: bool,
    quick: bool,
    reread: bool,
    signature: bool,
    public_key: Path | None,
    remote: str | None,
    form: Form,
) -> None:
    """Check the registry's files, that labels point to versions, every version's bytes, and what is in use.

    Bytes in DVC's cache are read: size, md5 and weights digest. Of all others it is asked whether the vault or a remote
    has them. Versions with a label must load without running code, the current one must keep the gate's contract, and
    no source may name it by a path at which it is not. With --signature all bytes are read, those elsewhere brought.
    Ends with 13 where something is wrong.

    \b
    Examples:
      holdfast registry verify
      holdfast registry verify digits/classifier --offline --quick
      holdfast registry verify --signature --public-key release.pub
    """
    if signature != (public_key is not None):
        raise UsageError("--signature and --public-key go together", hint="The key says who should have signed")
    if quick and reread:
        raise UsageError("--quick reads nothing, and --reread all", hint="Leave one of them out")
    project, registry = here()
    for model in models:
        if model not in registry.model_ids():
            registry.model(model)  # says what there is
    stores = stores_of_project(project, remote=remote, offline=offline)
    try:
        with digests_of_project(project, fresh=reread) as digests:
            result = verify_registry(stores, digests, model_ids=models or None, deep=not quick)
        if public_key is not None:
            from holdfast.registry.signing import verify_signatures  # an extra, and half a second

            found = verify_signatures(stores, registry, public_key, list(models) or None)
            findings = sorted((*result.findings, *found), key=lambda finding: not finding.certain)
            result = replace(result, findings=tuple(findings))
    finally:
        stores.close()
    payload = {"format": "holdfast registry verify 1", **asdict(result), "ok": not result.faults}
    emit_quickly(form, payload, _blocks(result, quick=quick))
    if result.faults:
        first = result.faults[0]
        more = len(result.faults) - 1
        rest = f", and {plural(more, 'more fault')}" if more else ""
        raise IntegrityError(f"{first.where}: {first.fault}{rest}", hint=first.hint or None)


def _blocks(result: Verification, *, quick: bool) -> list[str | Table]:
    faults, versions = plural(len(result.faults), "fault"), plural(result.versions, "version")
    what = "compared by size" if quick else "read"
    sentence = f"{faults} in {versions} of {plural(result.models, 'model')}: {result.read} {what} in the cache, "
    blocks: list[str | Table] = [f"{sentence}{result.elsewhere} only in a vault or remote."]
    if result.findings:
        rows = [
            ("fault" if finding.certain else "note", finding.where, finding.fault, finding.hint)
            for finding in result.findings
        ]
        blocks.append(Table(("", "where", "what", "what helps"), rows, spare=("what helps",)))
    return blocks
