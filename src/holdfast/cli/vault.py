"""``holdfast vault``: make a vault, and look after it."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from blake3 import blake3

from holdfast.cli import completion_values
from holdfast.cli.caches import cache_folder
from holdfast.cli.groups import Noun
from holdfast.cli.naming import open_objects, store_options
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bars, counted
from holdfast.cli.schedulers import scheduler_option, tasks
from holdfast.cli.vault_import import export_command, import_command
from holdfast.cli.vault_repack import purge_command, repack_command
from holdfast.cli.vaults import project_vault, vault_url
from holdfast.errors import IntegrityError, UsageError
from holdfast.formats.source import FileSource, Source
from holdfast.objectstore.address import StoreAddress
from holdfast.repo.cache import RUN_CACHE, object_path
from holdfast.repo.dvc import Selection, local_cache
from holdfast.repo.lineage import read_lineage
from holdfast.repo.selection import used_objects
from holdfast.repo.workspace import Project, find_project
from holdfast.vault.check import CheckResult, check_vault
from holdfast.vault.check_partitions import Spread
from holdfast.vault.explain import Explanation, explain_file
from holdfast.vault.repair import RepairResult, repair_vault
from holdfast.vault.repository import init_vault
from holdfast.vault.stats import VaultStats, vault_stats

FINDINGS_SHOWN = 30
NAMES_SHOWN = 10
BLOBS_SHOWN = 40
JOBS = 4
CHECKS = "checks"

_REMOTE = click.option(
    "-r",
    "--remote",
    metavar="NAME|URL",
    shell_complete=completion_values.remotes,
    help="A DVC remote beside which the vault lies, or its URL.",
)
_JOBS = click.option(
    "-j", "--jobs", metavar="N", type=click.IntRange(min=1), default=JOBS, show_default=True, help="Threads."
)


@click.group(cls=Noun)
def command() -> None:
    """Make a vault, and look after it."""


for _command in (import_command, export_command, purge_command, repack_command):
    command.add_command(_command)


@command.command()
@click.argument("url", required=False, shell_complete=completion_values.paths)
@form_options
def init(url: str | None, form: Form) -> None:
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
        payload = {"format": "holdfast vault init 1", "vault": vault.url, "id": vault.config.id}
        emit(form, payload, [f"Made the vault {vault.config.id} at {vault.url}."])


@command.command()
@_REMOTE
@_JOBS
@click.option("--read-data", is_flag=True, help="Fetch, decode and put together everything.")
@click.option(
    "--sample", metavar="PERCENT", type=click.FloatRange(0, 100), help="Do that for so many of the packs and files."
)
@scheduler_option
@form_options
def check(
    remote: str | None, jobs: int, read_data: bool, sample: float | None, scheduler: str | None, form: Form
) -> None:
    """Check that everything is there; with --read-data that it is what it should be. Changes nothing.

    Ends with 13 where something is damaged. On a cluster, a check that was interrupted goes on when it is run again
    within a day.

    \b
    Examples:
      holdfast vault check
      holdfast vault check --read-data
      holdfast vault check --sample 5
      holdfast vault check --read-data --scheduler tcp://10.0.0.1:8786
    """
    project = find_project(Path.cwd())
    url = vault_url(project, remote)
    address = StoreAddress(url, store_options(url))
    store, share = address.open(), 1.0 if sample is None else sample / 100
    reading = read_data or sample is not None
    # what a cluster would do is read data: nobody asks one for the rest
    with tasks(scheduler if reading else None, jobs) as executor, bars(counted, "Reading ") as progress:
        notes = cache_folder(project.root) / CHECKS / blake3(url.encode()).hexdigest(length=16)
        spread = Spread(executor, address, notes, time.time()) if executor.remote else None
        result = check_vault(store, jobs=jobs, read_data=reading, share=share, progress=progress, spread=spread)
    names = _names(project) if any(finding.oids for finding in result.findings) else {}
    payload = {"format": "holdfast vault check 1", "vault": store.url, "clean": result.clean, **asdict(result)}
    emit(form, payload, list(_checked(result, store.url, names)))
    if not result.clean:
        damaged = sum(not finding.harmless for finding in result.findings)
        raise IntegrityError(
            f"{plural(damaged, 'fault')} in {store.url}", hint="`holdfast vault repair` mends what it can"
        )


@command.command()
@_REMOTE
@_JOBS
@click.option("--read-data", is_flag=True, help="Look at all data first, as of `holdfast vault check --read-data`.")
@form_options
def repair(remote: str | None, jobs: int, read_data: bool, form: Form) -> None:
    """Mend a vault: the index out of its packs, lost objects out of DVC's cache. What is lost for good is listed.

    Nothing that can be read is overwritten. Ends with 13 where something is lost.

    \b
    Example:
      holdfast vault repair --read-data
    """
    project = find_project(Path.cwd())
    cache = local_cache(project.root).folder
    with project_vault(project, remote, jobs=jobs) as vault:
        with bars(counted, "Reading ") as progress:
            checked = check_vault(vault.store, jobs=jobs, read_data=read_data, progress=progress)
        result = repair_vault(vault, checked, lambda oid: _cached(cache, oid))
        url = vault.url
    names = _names(project) if result.lost else {}
    emit(form, {"format": "holdfast vault repair 1", "vault": url, **asdict(result)}, list(_repaired(result, names)))
    if result.lost:
        raise IntegrityError(
            f"{plural(len(result.lost), 'object')} of {url} lost", hint="Whoever has them can push them again"
        )


@command.command()
@_REMOTE
@_JOBS
@form_options
def stats(remote: str | None, jobs: int, form: Form) -> None:
    """Show what a vault holds: files, bytes, how much smaller they are by format and codec, what that costs on R2.

    \b
    Example:
      holdfast vault stats
    """
    with project_vault(find_project(Path.cwd()), remote, jobs=jobs) as vault:
        vault.refresh()
        result, url = vault_stats(vault), vault.url
    payload = {"format": "holdfast vault stats 1", "vault": url, "ratio": result.ratio, **asdict(result)}
    emit(
        form,
        {**payload, "dollars_a_month": result.dollars_a_month, "dollars_a_fetch": result.dollars_a_fetch},
        list(_stats(result, url)),
    )


@command.command()
@click.argument("target", metavar="OID|PATH", shell_complete=completion_values.paths)
@_REMOTE
@_JOBS
@click.option("--all", "everything", is_flag=True, help="List every part.")
@form_options
def explain(target: str, remote: str | None, jobs: int, everything: bool, form: Form) -> None:
    """Show what a file in the vault is made of, and what restoring it reads.

    \b
    Examples:
      holdfast vault explain models/digits/classifier.safetensors
      holdfast vault explain md5:7904a8426a93dced4ec14817340517de
    """
    project = find_project(Path.cwd())
    with project_vault(project, remote, jobs=jobs) as vault:
        result = explain_file(vault, _oid_of(project, target))
        url = vault.url
    found = asdict(result)
    payload = {"format": "holdfast vault explain 1", "vault": url, "checkpoint": found.pop("format"), **found}
    emit(form, payload, list(_explained(result, everything)))


def _oid_of(project: Project, target: str) -> str:
    if ":" in target:
        return target
    found = [item for item in used_objects(project, Selection((target,))).objects if not item.oid.endswith(".dir")]
    if len(found) != 1:
        raise UsageError(f"{target} stands for {plural(len(found), 'file')}", hint="Name one file")
    return f"{found[0].hash_name}:{found[0].oid}"


def _cached(cache: Path, oid: str) -> "contextlib.AbstractContextManager[Source] | None":
    """The object of a cache that an oid names, if it is there."""
    kind, _, value = oid.partition(":")
    if kind == "runs":
        key, _, name = value.partition("/")
        path = cache / RUN_CACHE / key[:2] / key / name
    else:
        path = object_path(cache, kind, value)
    return FileSource(path) if path.is_file() else None


def _names(project: Project) -> dict[str, str]:
    """What people call objects: a path that git's history knows, by oid."""
    lineage = read_lineage(project, local_cache(project.root).folder)
    return {f"{key[0]}:{key[1]}": paths[0] for key, paths in lineage.paths.items()}


def _checked(result: CheckResult, url: str, names: dict[str, str]) -> Iterator[str | Table]:
    read = ""
    if result.packs_read or result.files_read:
        read = f"; read {plural(result.packs_read, 'pack')} and {plural(result.files_read, 'file')}"
    holds = f"{plural(result.files, 'file')} in {plural(result.packs, 'pack')}{read}"
    yield f"{url} is {'clean' if result.clean else 'damaged'}: {holds}."
    rows = [
        (finding.kind, finding.key, finding.reason, _listed([names.get(oid, oid) for oid in finding.oids]))
        for finding in result.findings[:FINDINGS_SHOWN]
    ]
    if rows:
        yield Table(("what", "where", "why", "files"), rows, spare=("why",))
    if len(result.findings) > len(rows):
        yield f"… and {plural(len(result.findings) - len(rows), 'finding')} more; `--json` lists all."


def _repaired(result: RepairResult, names: dict[str, str]) -> Iterator[str | Table]:
    done = [
        (result.packs_named, "pack", "named again"),
        (result.segments_emptied, "damaged segment", "put aside"),
        (result.packs_condemned, "damaged pack", "condemned"),
        (result.healed, "file", "put again"),
    ]
    told = [f"{plural(len(items), noun)} {what}" for items, noun, what in done if items]
    yield f"{'; '.join(told)}." if told else "There was nothing to mend."
    if result.lost:
        rows = [(names.get(oid, oid), reason) for oid, reason in list(result.lost.items())[:FINDINGS_SHOWN]]
        yield Table(("lost", "why"), rows)


def _stats(result: VaultStats, url: str) -> Iterator[str | Table]:
    if not result.files:
        yield f"{url} is empty."
        return
    yield (
        f"{plural(result.files, 'file')} of {human_bytes(result.raw_bytes)} take {human_bytes(result.stored_bytes)} in "
        f"{plural(result.packs, 'pack')}: {result.ratio:.2f} times smaller; {human_bytes(result.plain_bytes)} are left "
        f"once nothing is there twice. On R2 {_dollars(result.dollars_a_month)} a month; fetching all of it takes "
        f"some {plural(result.fetch_requests, 'request')}, {_dollars(result.dollars_a_fetch)}."
    )
    if result.condemned_bytes:
        yield f"Besides, {human_bytes(result.condemned_bytes)} are replaced and wait for `holdfast vault purge`."
    formats = [(name, f"{item.files:,}", human_bytes(item.raw_bytes)) for name, item in result.formats.items()]
    yield Table(("format", "files", "size"), formats, right=frozenset({"files", "size"}))
    codecs = [
        (
            name,
            f"{item.blobs:,}",
            human_bytes(item.plain_bytes),
            human_bytes(item.stored_bytes),
            f"{item.plain_bytes / item.stored_bytes:.2f}" if item.stored_bytes else "",
        )
        for name, item in result.codecs.items()
    ]
    columns = ("codec", "blobs", "plain", "stored", "ratio")
    yield Table(columns, codecs, right=frozenset(columns[1:]))


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.005 else "less than $0.01"


def _explained(result: Explanation, everything: bool) -> Iterator[str | Table]:
    yield (
        f"{result.oid}: {human_bytes(result.size)}, {result.format}, {plural(len(result.parts), 'part')} in "
        f"{plural(result.packs, 'pack')}."
    )
    share = f" ({result.read_bytes / result.size:.2f} × its size)" if result.size else ""
    yield (
        f"Restoring it reads {human_bytes(result.read_bytes)}{share}: {human_bytes(result.own_bytes)} of its own and "
        f"{human_bytes(result.base_bytes)} of bases, at most {result.depth} deep."
    )
    shown = result.parts if everything else result.parts[:BLOBS_SHOWN]
    rows = [
        (
            f"{part.offset:,}",
            f"{part.length:,}",
            f"{part.stored:,}",
            part.codec,
            str(part.depth) if part.depth else "",
            part.blob[:12],
        )
        for part in shown
    ]
    columns = ("offset", "bytes", "stored", "codec", "depth", "blob")
    yield Table(columns, rows, right=frozenset({"offset", "bytes", "stored", "depth"}))
    if len(result.parts) > len(shown):
        yield f"… and {plural(len(result.parts) - len(shown), 'part')} more; `--all` lists all."


def _listed(names: list[str]) -> str:
    more = [f"… {len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    return "\n".join([*names[:NAMES_SHOWN], *more])
