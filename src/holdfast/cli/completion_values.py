"""What a shell offers where a command wants a model, a version, an alias, a remote, a plan: read from files here alone.

Nothing here asks a network, and nothing raises: a shell that completes has nowhere to show an error.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # imported where they are made: every command names functions of this module, and starts sooner
    from configparser import SectionProxy

    from click.shell_completion import CompletionItem

    from holdfast.registry.table import VersionTable

    Offer = list[CompletionItem[str]]

DVC_FOLDER = ".dvc"
# of a plan's file, within which it says what it is
HEAD_BYTES = 400
PLAN_MARKS = {
    "code archive": '"code archive"',
    "consolidation": '"registry consolidate"',
    "dedup": '"holdfast dedup plan ',
    "gc": '"holdfast gc plan ',
    "removal": '"registry rm"',
    "repack": '"holdfast vault repack plan ',
}
# where collections and links leave what went: below the cache, and below the project
QUARANTINES = ("holdfast/quarantine", ".dvc/tmp/holdfast/quarantine")
ID_CHARACTERS = 12
_BATCH = re.compile(r"[0-9a-f]{16,64}")
_STAGE = re.compile(r"^  ([\w@.-]+):", re.MULTILINE)
_SOURCE = re.compile(r"^\s*- *\{? *name: *[\"']?([^\s\"',}]+)", re.MULTILINE)

Values = Callable[[click.Context, str], Iterable[tuple[str, str]]]
Complete = Callable[[click.Context, click.Parameter, str], "Offer"]


def _offer(*, or_files: bool = False, in_list: bool = False) -> Callable[[Values], Complete]:
    """Make what gives (value, help) pairs a completion of click's.

    Args:
        or_files: let the shell complete paths where no value fits.
        in_list: values stand in one word, separated by commas.
    """

    def make(values: Values) -> Complete:
        @wraps(values)
        def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> "Offer":
            from click.shell_completion import CompletionItem

            before, comma, last = incomplete.rpartition(",") if in_list else ("", "", incomplete)
            given = set(before.split(","))
            try:
                found = dict(pair for pair in values(context, last) if pair[0].startswith(last) and _is_word(pair[0]))
            except Exception:  # a broken registry, a folder that cannot be read: see above
                found = {}
            items = [
                CompletionItem(f"{before}{comma}{value}", help=" ".join(text.split()) or None)
                for value, text in found.items()
                if value not in given or not in_list
            ]
            if or_files and (not items or not incomplete):
                items.append(CompletionItem(incomplete, type="file"))
            return items

        return complete

    return make


@_offer()
def models(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of models: ``app/name``."""
    yield from ((table.id, table.description) for table in _tables(context))


def _versions(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    tables = [table for table in _tables(context) if table.id.startswith(incomplete.partition("@")[0])]
    for table in tables:
        # a registry of very many versions is listed once the model is clear
        listed = "@" in incomplete or len(tables) == 1
        yield f"{table.id}@", table.description
        for label, version in _labels(table):
            yield f"{table.id}@{label}", version
        for name, date in reversed([*zip(table.names, table.dates, strict=True)]) if listed else ():
            yield f"{table.id}@{name}", " ".join((date, *table.labels.get(name, ())))


@_offer()
def versions(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Versions: ``app/name@v3``, ``app/name@production``."""
    yield from (pair for pair in _versions(context, incomplete) if not pair[0].endswith("@") or "@" not in incomplete)


@_offer()
def models_and_versions(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Models, and versions of them."""
    yield from ((value.removesuffix("@"), text) for value, text in _versions(context, incomplete))


@_offer(or_files=True)
def checkpoints(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Versions, or files."""
    if not incomplete:  # the files of the folder are what most mean
        yield from ((table.id, table.description) for table in _tables(context))
        return
    yield from ((value.removesuffix("@"), text) for value, text in _versions(context, incomplete))


@_offer()
def labelled(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Aliases with their model: ``app/name@production``."""
    for table in _tables(context):
        for label, version in _labels(table):
            if label != "current":
                yield f"{table.id}@{label}", version


@_offer()
def aliases(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Aliases alone: those of the model that the line names already, else of all."""
    named = _named(context)
    for table in _tables(context):
        if named in ("", table.id):
            yield from (pair for pair in _labels(table) if pair[0] != "current")


@_offer()
def versions_of_model(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Versions and labels of the model that the line names already; whole references where it names none."""
    named = _named(context)
    table = next((table for table in _tables(context) if table.id == named), None)
    if table is None:
        yield from (pair for pair in _versions(context, incomplete) if not pair[0].endswith("@"))
        return
    yield from reversed([*zip(table.names, table.dates, strict=True)])
    yield from _labels(table)


def _metrics(context: click.Context) -> Iterator[tuple[str, str]]:
    named = _named(context)
    for table in _tables(context):
        if named in ("", table.id):
            yield from ((name, "") for name in table.metrics)


@_offer()
def metrics(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of metrics that versions have."""
    yield from _metrics(context)


@_offer(in_list=True)
def metric_lists(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """The same, separated by commas."""
    yield from _metrics(context)


@_offer()
def remotes(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """DVC's remotes, as the project's own configuration has them."""
    for section, options in _configuration(context):
        if named := re.fullmatch(r"'?remote \"(.+)\"'?", section):
            url = options.get("url", "")
            yield named[1], "" if "@" in url else url  # what stands before it may be a secret


@_offer(or_files=True)
def remotes_or_files(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """DVC's remotes, or folders."""
    yield from ((item.value, item.help or "") for item in remotes(context, click.Option(["--remote"]), incomplete))


@_offer(or_files=True)
def targets(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Stages of the pipeline here, or paths."""
    file = _here(context) / "dvc.yaml"
    _, _, stages = file.read_text(encoding="utf-8").partition("stages:\n")
    block = re.split(r"^\S", stages, maxsplit=1, flags=re.MULTILINE)[0]
    yield from ((name, "stage") for name in _STAGE.findall(block))


@_offer(or_files=True)
def paths(_context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Paths, where the command takes other things, too."""
    yield from ()


def plans(kind: str) -> Complete:
    """Plans of one kind, a key of `PLAN_MARKS`, in the folder that is being typed; else any file."""

    @_offer(or_files=True)
    def complete(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
        yield from ((path, "") for path in _plan_files(context, incomplete, kind))

    return complete


@_offer(or_files=True)
def collected(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Plans of collections whose objects wait here, or paths."""
    yield from _waiting(context, "gc", incomplete)


@_offer(or_files=True)
def linked(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Plans of links whose originals wait here, or plans' files."""
    yield from _waiting(context, "dedup", incomplete)
    yield from ((path, "") for path in _plan_files(context, incomplete, "dedup"))


@_offer()
def domains(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Domains of the catalogue of sources."""
    yield from ((name, "") for name, _ in _catalogue(context))


@_offer()
def sources(context: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Domains of the catalogue, and sources of the one that is being typed."""
    for name, file in _catalogue(context):
        if "/" not in incomplete:
            yield name, "domain"
        if incomplete.startswith(f"{name}/"):
            text = file.read_text(encoding="utf-8")
            yield from ((f"{name}/{source}", "") for source in _SOURCE.findall(text))


@_offer()
def schedulers(_context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """What runs tasks, where it is no address."""
    yield "local", "processes of this machine"
    yield "none", "threads of this process"


@_offer()
def schemas(context: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """The words of commands that have a schema, one after the other."""
    from holdfast.cli.schema import commands_with_schema

    given = tuple(context.params.get("words") or ())
    for words in commands_with_schema():
        if words[: len(given)] == given and len(words) > len(given):
            yield words[len(given)], ""


def _is_word(value: str) -> bool:
    """Whether it can stand in a line of any shell as it is; names of files need not."""
    return value.isprintable() and not set(value) & set(" \t'\"`$\\;|&<>()*?[]#!~")


def _here(context: click.Context) -> Path:
    """Where the command would run: ``--cd`` is not carried out while completing."""
    return Path.cwd() / str(context.find_root().params.get("folder") or "")


def _root(context: click.Context) -> Path:
    """The project's folder, else where we are."""
    here = _here(context)
    return next((place for place in (here, *here.parents) if (place / DVC_FOLDER).is_dir()), here)


def _named(context: click.Context) -> str:
    """The model that the line names already, alone or in a reference; empty for none."""
    given = [context.params.get(name) for name in ("model", "version", "first")]
    # where an option's value is being typed, click has not yet told arguments apart
    return next((str(text).partition("@")[0] for text in (*given, *context.args) if text and "/" in str(text)), "")


def _tables(context: click.Context) -> "list[VersionTable]":
    # imported here: 20 ms, and a command's own start needs none of it
    from holdfast.cli.caches import PROJECT_PLACE
    from holdfast.registry.cache import RegistryCache
    from holdfast.registry.store import Registry

    root = _root(context)
    known = root / PROJECT_PLACE / "registry.sqlite"
    return Registry(root, RegistryCache(known) if known.exists() else None).tables()


def _labels(table: "VersionTable") -> list[tuple[str, str]]:
    return [(label, name) for name, labels in table.labels.items() for label in labels if label != "deprecated"]


def _configuration(context: click.Context) -> Iterator[tuple[str, "SectionProxy"]]:
    from configparser import ConfigParser  # imported here: no command needs it to start

    folder = _root(context) / DVC_FOLDER
    parser = ConfigParser(interpolation=None, strict=False)
    parser.read([folder / "config", folder / "config.local"], encoding="utf-8")
    for name in parser.sections():
        yield name, parser[name]


def _plan_files(context: click.Context, incomplete: str, kind: str) -> Iterator[str]:
    folder = incomplete.rpartition("/")[0]
    prefix = f"{folder}/" if folder or incomplete.startswith("/") else ""
    for path in sorted((_here(context) / (prefix or ".")).glob("*.json")):
        with open(path, "rb") as file:
            if PLAN_MARKS[kind].encode() in file.read(HEAD_BYTES):
                yield f"{prefix}{path.name}"


def _waiting(context: click.Context, kind: str, incomplete: str) -> Iterator[tuple[str, str]]:
    root = _root(context)
    cache = next((options.get("dir", "cache") for name, options in _configuration(context) if name == "cache"), "cache")
    for place in (root / DVC_FOLDER / cache / QUARANTINES[0], root / QUARANTINES[1]):
        for batch in sorted(place.glob("*")):
            if _BATCH.fullmatch(batch.name):
                with open(batch / "plan.json", "rb") as file:
                    if PLAN_MARKS[kind].encode() in file.read(HEAD_BYTES):
                        shown = max(ID_CHARACTERS, len(incomplete))
                        yield batch.name[:shown], "waits in the quarantine"


def _catalogue(context: click.Context) -> Iterator[tuple[str, Path]]:
    here = _here(context)
    folder = next((place / "sources" for place in (here, *here.parents) if (place / "sources").is_dir()), None)
    for file in sorted(folder.glob("*.yaml")) if folder is not None else ():
        if file.stem != "index":
            yield file.stem, file
