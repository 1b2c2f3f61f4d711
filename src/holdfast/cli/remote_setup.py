"""``holdfast remote setup``: write what DVC and Holdfast need to reach a bucket, and what the bucket needs."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast.atomic import write_atomically
from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options
from holdfast.cli.remote_places import find_remote
from holdfast.errors import HoldfastError, PartlyDoneError, UsageError
from holdfast.inventory.config import read_config
from holdfast.objectstore.setup import (
    AWS_CONFIG,
    Jurisdiction,
    RemotePlan,
    check_domains,
    plan_azure,
    plan_gcs,
    plan_local,
    plan_r2,
    plan_s3,
    quiet_config,
    read_keys,
)
from holdfast.objectstore.setup_bucket import CLOUDFLARE, LOCKED_PREFIX, Cloudflare, end_uploads, make_layout
from holdfast.repo.dvc import default_remote
from holdfast.repo.dvc_remotes import RemoteChange, level_options, needed_changes, write_remote
from holdfast.repo.workspace import DVC_FOLDER, Project, find_config, find_project

Callback = TypeVar("Callback", bound=Callable[..., Any])

# what a variable gives stays there: it is not written down
VARIABLES = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "account_key": "AZURE_STORAGE_ACCOUNT_KEY",
}
SAS_VARIABLE = "AZURE_STORAGE_SAS_TOKEN"
TOKEN_VARIABLE, API_VARIABLE = "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_API_BASE_URL"


@dataclass(frozen=True)
class Wishes:
    """What the options that all kinds have say."""

    name: str
    default: bool
    domains: tuple[str, ...]
    credentials: Path | None
    offline: bool
    force: bool
    dry_run: bool
    yes: bool
    form: Form


def _common(name: str, *, keys: bool = True) -> Callable[[Callback], Callback]:
    """The options that all kinds have."""

    def add(function: Callback) -> Callback:
        options = [
            click.option("--name", metavar="NAME", default=name, show_default=True, help="What DVC calls the remote."),
            click.option("--default", is_flag=True, help="Make it DVC's default; the first one is so anyway."),
            click.option(
                "--domain", "domains", metavar="NAME", multiple=True,
                help="A folder for data of that domain; besides remote.domains of holdfast.yaml.",
            ),
            click.option("--offline", is_flag=True, help="Write the configuration alone; ask no server."),
            click.option("-f", "--force", is_flag=True, help="Point an existing remote elsewhere."),
            click.option("-n", "--dry-run", is_flag=True, help="Show what would be written."),
            click.option("-y", "--yes", is_flag=True, help="Write it without asking."),
        ]  # fmt: skip
        if keys:
            options.insert(
                2,
                click.option(
                    "--credentials", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
                    help="Read the keys from FILE, - for standard input.",
                ),
            )  # fmt: skip
        function = form_options(function)
        for option in reversed(options):
            function = option(function)
        return function

    return add


@click.group(cls=Noun)
def setup() -> None:
    """Set up a remote for DVC and Holdfast: R2, S3, Google's, Azure's, or a folder.

    Shows what it will write, then writes .dvc/config and .dvc/aws-config, which git keeps, and keys to
    .dvc/config.local alone, which git ignores. Keys come from --credentials FILE, from the environment, where they
    stay, or are asked for; never from an option, which the shell would remember. May be run again.
    """


@setup.command()
@click.option("--account-id", metavar="ID", required=True, help="Of Cloudflare: 32 hex digits.")
@click.option("--bucket", metavar="NAME", required=True, help="It has to exist.")
@click.option("--prefix", metavar="FOLDER", default="", help="A folder in the bucket.")
@click.option("--jurisdiction", type=click.Choice(["eu", "fedramp"]), help="Where the bucket was made to stay.")
@click.option("--endpoint", metavar="URL", help="Another server that is as R2 is, such as an emulator.")
@click.option(
    "--lock-releases", metavar="DAYS", type=click.IntRange(min=1),
    help="Let nothing below releases/ be replaced or deleted for so long; takes an API token.",
)  # fmt: skip
@click.option(
    "--api-token", "token_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Read Cloudflare's API token from FILE; else it is CLOUDFLARE_API_TOKEN.",
)  # fmt: skip
@_common("r2")
def r2(
    account_id: str,
    bucket: str,
    prefix: str,
    jurisdiction: Jurisdiction | None,
    endpoint: str | None,
    lock_releases: int | None,
    token_file: Path | None,
    **common: Any,
) -> None:
    """A bucket of Cloudflare R2.

    \b
    Example:
      holdfast remote setup r2 --account-id 0123456789abcdef0123456789abcdef --bucket models
    """
    plan = plan_r2(account_id, bucket, prefix, jurisdiction, endpoint)
    lock = None
    if lock_releases is not None:
        if prefix:
            raise UsageError("--lock-releases is for a remote at the bucket's top", hint="Leave --prefix out")
        token = token_file.read_text().strip() if token_file else os.environ.get(TOKEN_VARIABLE, "")
        if not token:
            raise UsageError("a lock takes an API token", hint=f"Set {TOKEN_VARIABLE}, or name a file by --api-token")
        base = os.environ.get(API_VARIABLE) or CLOUDFLARE
        cloudflare = Cloudflare(account_id.lower(), bucket, token, jurisdiction or "", base.rstrip("/"))
        lock = (cloudflare, lock_releases)
    _set_up(plan, Wishes(**common), lock)


@setup.command()
@click.option("--bucket", metavar="NAME", required=True, help="It has to exist.")
@click.option("--prefix", metavar="FOLDER", default="", help="A folder in the bucket.")
@click.option("--region", metavar="REGION", help="Of the bucket.")
@click.option("--endpoint", metavar="URL", help="Of a server that is not Amazon's.")
@click.option("--profile", metavar="NAME", help="Of AWS's configuration, in place of keys.")
@_common("s3")
def s3(bucket: str, prefix: str, region: str | None, endpoint: str | None, profile: str | None, **common: Any) -> None:
    """A bucket of Amazon S3, or of a server with its API.

    \b
    Example:
      holdfast remote setup s3 --bucket models --region eu-central-1
    """
    _set_up(plan_s3(bucket, prefix, region, endpoint, profile), Wishes(**common))


@setup.command()
@click.option("--bucket", metavar="NAME", required=True, help="It has to exist.")
@click.option("--prefix", metavar="FOLDER", default="", help="A folder in the bucket.")
@click.option("--project", metavar="NAME", help="Of Google Cloud.")
@_common("gcs", keys=False)
def gcs(bucket: str, prefix: str, project: str | None, **common: Any) -> None:
    """A bucket of Google Cloud Storage; credentials are those of gcloud.

    \b
    Example:
      holdfast remote setup gcs --bucket models
    """
    _set_up(plan_gcs(bucket, prefix, project), Wishes(credentials=None, **common))


@setup.command()
@click.option("--container", metavar="NAME", required=True, help="It has to exist.")
@click.option("--account", metavar="NAME", required=True, help="Of the storage account.")
@click.option("--prefix", metavar="FOLDER", default="", help="A folder in the container.")
@_common("azure")
def azure(container: str, account: str, prefix: str, **common: Any) -> None:
    """A container of Azure Blob Storage.

    \b
    Example:
      holdfast remote setup azure --container models --account ada
    """
    _set_up(plan_azure(container, account, prefix), Wishes(**common))


@setup.command()
@click.option(
    "--folder", metavar="DIR", required=True, type=click.Path(path_type=Path, file_okay=False), help="Made if missing."
)
@_common("local", keys=False)
def local(folder: Path, **common: Any) -> None:
    """A folder of this machine, or one that is mounted.

    \b
    Example:
      holdfast remote setup local --folder /mnt/models
    """
    project = find_project(Path.cwd())
    place = folder.expanduser().resolve()
    inside = place.is_relative_to(project.root.resolve())
    # DVC takes paths from .dvc/; within the project they are the same for everybody
    written = os.path.relpath(place, project.root.resolve() / DVC_FOLDER) if inside else str(place)
    wishes = Wishes(credentials=None, **common)
    if _set_up(plan_local(written), wishes):
        place.mkdir(parents=True, exist_ok=True)


def _set_up(plan: RemotePlan, wishes: Wishes, lock: tuple[Cloudflare, int] | None = None) -> bool:
    """Show what would be written and, where that is agreed to, write it; whether it was."""
    project = find_project(Path.cwd())
    name = wishes.name.lower()  # as DVC has it
    domains = check_domains((*_configured_domains(project), *wishes.domains))
    url = level_options(project.root, name, "repo").get("url")
    if url is not None and url != plan.url and not wishes.force:
        hint = "`--name` gives this one another name, `--force` points that one here"
        raise UsageError(f"the remote {name} exists and is at {url}", hint=hint)
    private, keys_are = _keys(project, name, plan, wishes)
    wanted = RemoteChange(
        name, {"url": plan.url, **plan.options}, private, wishes.default or default_remote(project.root) is None
    )
    change = needed_changes(project.root, wanted)
    quiet = _quiet(project) if plan.quiet else None
    rows = list(_rows(change, quiet))
    asked = [] if wishes.offline or (plan.kind == "local" and not domains) else list(_asked(plan, domains, lock))
    payload: dict[str, Any] = {
        "format": "holdfast remote setup 1",
        "remote": name,
        "url": plan.url,
        "writes": [{"file": file, "option": option, "value": value} for file, option, value in rows],
        "keys": keys_are,
        "bucket": [],
    }
    blocks: list[str | Table] = [f"The remote {name}: {plan.url}"]
    blocks.append(Table(("file", "option", "value"), rows) if rows else "The configuration is as it should be.")
    if keys_are:
        blocks.append(f"Keys: {keys_are}.")
    blocks += [f"At the bucket: {', '.join(asked)}."] if asked else []
    on_terminal = wishes.form == "text" and sys.stdin.isatty() and not wishes.yes and not wishes.dry_run
    agreed = wishes.yes and not wishes.dry_run
    if on_terminal:
        emit("text", {}, blocks)
        blocks = []
        agreed = click.confirm("Write this?", default=True, err=True)
    if not agreed:
        emit(wishes.form, payload, [*blocks, "Nothing is written." + ("" if on_terminal else " `--yes` writes it.")])
        return False
    if quiet is not None:
        write_atomically(project.root / DVC_FOLDER / AWS_CONFIG, quiet)
    if change.committed or change.private or change.default:
        write_remote(project.root, change)
    failure = None
    if asked:
        failure = _at_the_bucket(name, plan, domains, lock, payload["bucket"])
        blocks.append(
            Table(("at the bucket", "outcome"), [(item["what"], item["outcome"]) for item in payload["bucket"]])
        )
    written = "Written" if rows else "Nothing had to be written"
    blocks.append(f"{written}. `holdfast remote doctor {name}` examines it; commit {DVC_FOLDER}/.")
    emit(wishes.form, payload, blocks)
    if failure is not None:
        raise PartlyDoneError(
            f"the configuration is written, but not everything at the bucket: {failure.message}",
            hint=f"`holdfast remote doctor {name}` says why",
        )
    return True


def _keys(project: Project, name: str, plan: RemotePlan, wishes: Wishes) -> tuple[Mapping[str, str], str]:
    """The credentials to write down, and in words where they are."""
    if not plan.keys:
        return {}, ""
    if wishes.credentials is not None:
        given = str(wishes.credentials) == "-"
        text = sys.stdin.read() if given else wishes.credentials.read_text(encoding="utf-8")
        return read_keys(text), f"from {'standard input' if given else wishes.credentials}, for .dvc/config.local"
    signed = plan.kind == "azure" and os.environ.get(SAS_VARIABLE)
    if signed or all(os.environ.get(VARIABLES[key]) for key in plan.keys):
        return {}, "in the environment, where they stay"
    there = level_options(project.root, name, "local")
    if all(key in there for key in plan.keys):
        return {}, "in .dvc/config.local already"
    if wishes.dry_run or not sys.stdin.isatty():
        return {}, "none; `--credentials FILE` or the environment gives them"
    found = {
        key: click.prompt(key.replace("_", " "), hide_input=key != "access_key_id", err=True).strip()
        for key in plan.keys
    }
    return found, "as typed, for .dvc/config.local"


def _quiet(project: Project) -> str | None:
    """The text that the AWS configuration is to have; None where it has it."""
    path = project.root / DVC_FOLDER / AWS_CONFIG
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted = quiet_config(text)
    return wanted if wanted != text else None


def _rows(change: RemoteChange, quiet: str | None) -> Iterator[tuple[str, str, str]]:
    for option, value in change.committed.items():
        yield f"{DVC_FOLDER}/config", option, "(taken away)" if value is None else value
    if change.default:
        yield f"{DVC_FOLDER}/config", "core.remote", change.name
    for option in change.private:
        yield f"{DVC_FOLDER}/config.local", option, "(not shown)"
    for line in quiet.splitlines() if quiet else ():
        option, equals, value = line.partition(" = ")
        if equals:
            yield f"{DVC_FOLDER}/{AWS_CONFIG}", option, value


def _asked(plan: RemotePlan, domains: tuple[str, ...], lock: tuple[Cloudflare, int] | None) -> Iterator[str]:
    yield from (f"{domain}/" for domain in domains)
    if plan.kind in ("r2", "s3"):
        yield "an end for unfinished uploads after 7 days"
    if lock is not None:
        yield f"a lock of {lock[1]} days on {LOCKED_PREFIX}"


def _at_the_bucket(
    name: str,
    plan: RemotePlan,
    domains: tuple[str, ...],
    lock: tuple[Cloudflare, int] | None,
    done: list[dict[str, str]],
) -> HoldfastError | None:
    """Do what is to be done there, each as far as it goes; the first failure."""
    failure: HoldfastError | None = None

    def attempt(what: str, act: Callable[[], Mapping[str, str]]) -> None:
        nonlocal failure
        try:
            done.extend({"what": item, "outcome": outcome} for item, outcome in act().items())
        except HoldfastError as error:
            failure = failure or error
            done.append({"what": what, "outcome": f"failed: {error.message}"})

    def uploads() -> Mapping[str, str]:
        outcome: str = end_uploads(store)
        if outcome in ("not allowed", "not known"):
            by_itself = "; R2 does it by itself" if plan.kind == "r2" else "; set it by the bucket's own tools"
            outcome = f"{outcome}{by_itself}"
        return {"an end for unfinished uploads": outcome}

    try:
        store = find_remote(name).open()
    except HoldfastError as error:
        done.append({"what": "opened", "outcome": f"failed: {error.message}"})
        return error
    if domains:
        attempt("folders", lambda: make_layout(store, domains))
    if plan.kind in ("r2", "s3"):
        attempt("an end for unfinished uploads", uploads)
    if lock is not None:
        cloudflare, days = lock
        attempt(f"a lock on {LOCKED_PREFIX}", lambda: {f"a lock on {LOCKED_PREFIX}": cloudflare.lock_releases(days)})
    return failure


def _configured_domains(project: Project) -> tuple[str, ...]:
    config = find_config(project.root)
    if config is None:
        return ()
    section = read_config(config).section("remote")
    domains = section.texts("domains", ())
    section.close()
    return domains
