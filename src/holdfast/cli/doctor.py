"""``holdfast doctor``: what is amiss with the installation and the repository, and what mends it."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from holdfast.cli.caches import digest_cache
from holdfast.cli.gc_world import world_of
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, one_line, printable
from holdfast.cli.registry_places import stores_of_project
from holdfast.cli.remote_places import RemotePlace, find_remote
from holdfast.cli.vaults import open_project_vault
from holdfast.errors import HoldfastError, NotARepositoryError, UsageError
from holdfast.objectstore.doctor_configuration import check_configuration
from holdfast.objectstore.findings import Finding, health
from holdfast.project.doctor_installation import examine_installation
from holdfast.project.doctor_repository import examine_repository
from holdfast.project.git_state import find_repository
from holdfast.repo.dvc import LocalCache, default_remote, local_cache, remotes
from holdfast.repo.workspace import Project, find_git_root, find_project
from holdfast.vault.repository import NoVaultError

EXIT_CODES = {"healthy": 0, "impaired": 3, "broken": 1}
SAID = {"healthy": "All is well", "impaired": "It works, but not as well as it could", "broken": "It does not work"}
# from where a store of each kind takes credentials, besides the remote's own options
CREDENTIALS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"),
    "az": (
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_CLIENT_ID",
    ),
}
OPTIONS = frozenset(
    {"access_key_id", "profile", "credentialpath", "allow_anonymous_login", "account_key", "sas_token",
     "connection_string", "client_id"}
)  # fmt: skip


@click.command("doctor", cls=Verb)
@click.option("--remote", "network", is_flag=True, help="Ask remotes and vault, too: whether they answer.")
@form_options
def command(network: bool, form: Form) -> int:
    """Check the installation and the repository, and say what mends each fault.

    Looks at versions, extras and the disk; in the repository around the current folder at git, DVC's remotes,
    holdfast.yaml, the gate, the registry, hooks, and at what is not committed, unfinished or waiting. Changes nothing,
    and asks no network without --remote. Outside of a repository it looks at the installation alone.

    Ends with 0 where all is well, 3 where something is not as it should be, 1 where something does not work.

    \b
    Examples:
      holdfast doctor
      holdfast doctor --remote
    """
    project, found = _project(Path.cwd())
    cache: LocalCache | None = None
    if project is not None:
        try:
            cache = local_cache(project.root)
        except HoldfastError as error:
            found.append(Finding("dvc settings", "fault", error.message, error.hint or ""))
    installation = list(examine_installation(cache, project.root if project else find_git_root(Path.cwd())))
    repository = [*found]
    if project is not None and cache is not None:
        with world_of(project) as world, digest_cache(project.root) as digests:
            stores = stores_of_project(project, offline=True)
            repository += examine_repository(project, world, stores, digests)
        repository += _remotes(project, network=network)
    state = health([*installation, *repository])
    payload = {
        "format": "holdfast doctor 1",
        "health": state,
        "root": str(project.root) if project is not None else None,
        "installation": [_json(item) for item in installation],
        "repository": [_json(item) for item in repository],
    }
    blocks, mends = list(_blocks(state, installation, repository)), list(_mends([*installation, *repository]))
    if form == "text":
        emit("text", {}, blocks)
        # not through a console, which would break commands at the width of the terminal
        click.echo("".join(f"{printable(text)}\n" for text in mends), nl=False)
    else:
        emit(form, payload, [*blocks, *mends])
    return EXIT_CODES[state]


def _project(start: Path) -> tuple[Project | None, list[Finding]]:
    """The project around a folder, and what hinders it; None where there is none."""
    bare_or_none = find_git_root(start) is None
    try:
        top = find_repository(start)
    except NotARepositoryError as error:
        if bare_or_none:
            return None, [Finding("repository", "note", f"{error.message}: the installation alone is looked at")]
        return None, [Finding("repository", "fault", error.message, error.hint or "")]
    try:
        project = find_project(start)
    except NotARepositoryError:
        says = f"{top} is a git repository without DVC, which most commands need"
        return None, [Finding("repository", "fault", says, "`holdfast init` prepares it")]
    return project, [Finding("repository", "ok", str(project.root))]


def _remotes(project: Project, *, network: bool) -> Iterator[Finding]:
    """What the configuration of each remote says, and with a network whether it and the vault answer."""
    names = list(remotes(project.root))
    default = default_remote(project.root)
    if not names:
        says = "DVC has no remote: nothing that it tracks is anywhere but here"
        yield Finding("remote", "warning", says, "`holdfast remote setup r2|s3|gcs|azure|local …`")
        return
    if default is None:
        says = f"DVC has remotes ({', '.join(names)}), and none is its default"
        yield Finding("remote", "warning", says, f"`dvc remote default {names[0]}`")
    for name in names:
        try:
            place = find_remote(name)
            found = [*check_configuration(place.subject(), os.environ), *_credentials(place), *_checksums(place)]
            if network:
                found.append(_answering(place))
        except UsageError as error:
            found = [Finding("", "note", f"is not looked into: {error.message}")]
        except HoldfastError as error:
            found = [Finding("", "fault", error.message, error.hint or "")]
        yield from _named(f"remote {name}", found)
    if network:
        yield _vault(project)


def _named(name: str, found: Iterable[Finding]) -> Iterator[Finding]:
    for item in found:
        yield Finding(f"{name}: {item.check}" if item.check else name, item.verdict, item.says, item.mend)


def _credentials(place: RemotePlace) -> Iterator[Finding]:
    subject = place.subject()
    scheme = subject.location.scheme
    if scheme not in CREDENTIALS:
        return
    if any(place.section.get(name) for name in OPTIONS):
        yield Finding("credentials", "ok", "DVC's configuration says where they are")
        return
    variable = next((name for name in CREDENTIALS[scheme] if os.environ.get(name)), None)
    if variable is not None:
        yield Finding("credentials", "ok", f"{variable} is set")
        return
    usual = {"s3": ".aws/credentials", "gs": ".config/gcloud/application_default_credentials.json"}.get(scheme, "")
    if usual and (Path.home() / usual).is_file():
        yield Finding("credentials", "ok", f"~/{usual} is there")
        return
    says = "there are no credentials in DVC's configuration, the environment or their usual file"
    mend = f"`{subject.setup} --credentials FILE`" if scheme == "s3" else f"`{subject.setup}`"
    yield Finding("credentials", "warning", says, mend)


def _checksums(place: RemotePlace) -> Iterator[Finding]:
    subject = place.subject()
    setting = subject.checksums
    if subject.r2 and setting is not None and not setting.quiet:
        says = f"R2 refuses the checksums that boto adds: {', '.join(setting.missing)} is missing in {setting.origin}"
        yield Finding("checksums", "fault", says, f"`{subject.setup}`")


def _answering(place: RemotePlace) -> Finding:
    try:
        folders = place.open().list_folders()
    except (HoldfastError, OSError) as error:
        hint = error.hint if isinstance(error, HoldfastError) and error.hint else ""
        told = error.message if isinstance(error, HoldfastError) else str(error)
        mend = f"{hint}; " if hint else ""
        return Finding("answers", "fault", told, f"{mend}`holdfast remote doctor {place.name}` examines it")
    return Finding("answers", "ok", "it can be listed" if folders else "it can be listed, and is empty")


def _vault(project: Project) -> Finding:
    try:
        with open_project_vault(project, jobs=1) as vault:
            return Finding("vault", "ok", f"{vault.url} answers")
    except (NoVaultError, UsageError):
        return Finding(
            "vault", "note", "there is no vault beside the default remote", "`holdfast vault init` makes one"
        )
    except (HoldfastError, OSError) as error:
        hint = error.hint if isinstance(error, HoldfastError) and error.hint else "`holdfast vault check` shows more"
        return Finding("vault", "fault", error.message if isinstance(error, HoldfastError) else str(error), hint)


def _json(finding: Finding) -> dict[str, Any]:
    return {"check": finding.check, "verdict": finding.verdict, "says": finding.says, "mend": finding.mend}


def _blocks(state: str, installation: list[Finding], repository: list[Finding]) -> Iterator[str | Table]:
    worst = {"broken": "fault", "impaired": "warning"}.get(state)
    named = dict.fromkeys(item.check for item in (*installation, *repository) if item.verdict == worst)
    yield f"{SAID[state]}{': see ' + ', '.join(named) if named else ''}."
    for title, found in (("Installation", installation), ("Repository", repository)):
        if found:
            rows = [(item.check, item.verdict, one_line(item.says)) for item in found]
            yield Table(("check", "verdict", "finding"), rows, title=title)


def _mends(found: list[Finding]) -> Iterator[str]:
    """What mends what is wrong; then what may be done besides."""
    for header, notes in (("What mends it:", False), ("Where you like:", True)):
        lines = [f"- {item.check}: {one_line(item.mend)}" for item in found if item.mend and _is_note(item) == notes]
        if lines:
            yield "\n".join([header, "", *lines, ""])


def _is_note(finding: Finding) -> bool:
    return finding.verdict == "note"
