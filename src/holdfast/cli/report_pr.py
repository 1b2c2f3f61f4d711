"""``holdfast report pr``."""

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.atomic import write_atomically
from holdfast.cli.caches import PROJECT_PLACE, cache_folder
from holdfast.cli.groups import Verb
from holdfast.cli.output import finite, human_bytes, write_or_print
from holdfast.errors import GateRefusedError, HoldfastError, UsageError
from holdfast.repo.workspace import Project, find_project

if TYPE_CHECKING:
    from holdfast.report.pull_request import PullRequest, Stored

INDEX_FILE = "index.sqlite"  # as of holdfast.vault.repository, which takes 0.3 s to import
KEY = re.compile(r"[A-Za-z0-9._/-]{1,60}")
TITLES = {
    "curves.png": "Curves: base grey, head blue",
    "confusion.png": "Confusion matrix: head less base",
}


@click.command("pr", cls=Verb)
@click.option("--base", required=True, metavar="REV", help="The branch or commit to merge into.")
@click.option("--head", default="HEAD", show_default=True, metavar="REV", help="The branch or commit to merge.")
@click.option("--workspace", is_flag=True, help="Judge the files as they lie, committed or not, instead of --head.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write to FILE.")
@click.option(
    "--plots",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw curves and confusion matrix as PNG files in DIR.",
)
@click.option("--plots-url", metavar="URL", help="Show the pictures in the report, from this place.")
@click.option("--key", default="", metavar="NAME", help="Mark the report as NAME's, so that CI finds its own comment.")
@click.option("--check", is_flag=True, help="End with 12 where the gate fails, or leaves open what it requires.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pull_request(
    base: str,
    head: str,
    workspace: bool,
    output: Path | None,
    plots: Path | None,
    plots_url: str | None,
    key: str,
    check: bool,
    as_json: bool,
) -> None:
    """Write what a pull request changes, as Markdown: verdict, metrics, classes, params, registry, data, bytes.

    Compared are HEAD and the commit that it has in common with --base, as GitHub does it. Everything is read out of
    git and DVC's cache; nothing is checked out or fetched. The same commits and the same cache give the same report.

    \b
    Examples:
      holdfast report pr --base main
      holdfast report pr --base origin/main --head feature -o report.md --plots plots --check
    """
    if key and (not KEY.fullmatch(key) or "--" in key):
        raise UsageError(f"{key!r} is no key", hint="It is made of letters, digits and . _ / -")
    if plots_url is not None and plots is None:
        raise UsageError("--plots-url says where pictures are shown from, and none are drawn", hint="Add --plots DIR")
    if plots_url is not None and not re.fullmatch(r"[^\s<>]+", plots_url):
        raise UsageError("--plots-url holds white space or brackets")
    # imported here: NumPy and the gate take 0.2 s, which a wrong option need not pay
    from holdfast.repo.dvc import local_cache
    from holdfast.report.pull_json import pull_request_json
    from holdfast.report.pull_markdown import Picture, render_pull_request
    from holdfast.report.pull_request import read_pull_request

    project = find_project(Path.cwd())
    found, pictures = read_pull_request(
        project,
        local_cache(project.root).folder,
        base,
        head,
        workspace=workspace,
        stored=stored_bytes(project),
        plots=plots is not None,
    )
    drawn = []
    for name, data in pictures.items():
        assert plots is not None
        write_atomically(plots / name, data)
        url = posixpath.join(plots_url, name) if plots_url is not None else ""
        drawn.append(Picture(TITLES[name], (plots / name).as_posix(), url))
    if as_json:
        payload = finite(pull_request_json(found, tuple(picture.file for picture in drawn)))
        text = json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        text = render_pull_request(found, size_text=human_bytes, key=key, pictures=drawn)
    # names need not be text
    write_or_print(text.encode("utf-8", "backslashreplace").decode(), output)
    if check and found.gate.stops:
        raise _refused(found)


def stored_bytes(project: Project) -> "Stored":
    """Asks the index of the project's vault, as this machine last saw it; nothing is asked of the vault."""

    def ask(known: list[str], fresh: list[str]) -> int | None:
        file = _index_of_vault(project)
        if file is None:
            return None
        # imported here: a project without a vault need not pay for one
        from holdfast.registry.storage import known_index
        from holdfast.report.pull_outs import vault_bytes

        index = known_index(file)
        try:
            return vault_bytes(index, known, fresh)
        except HoldfastError:
            return None  # the estimate says as much as can be known
        finally:
            index.close()

    return ask


def _index_of_vault(project: Project) -> Path | None:
    """The index of the project's vault on this machine; None where it has none, or several and nothing tells which."""
    indexes = list(cache_folder(project.root).glob(f"*/{INDEX_FILE}"))
    if len(indexes) < 2:
        return indexes[0] if indexes else None
    from holdfast.cli.registry_places import of_configuration  # see above
    from holdfast.cli.registry_stored import index_file, known_vault_url
    from holdfast.registry.cache import RegistryCache

    try:
        url = of_configuration(project, "vault", lambda: known_vault_url(project))
    except HoldfastError:
        return None
    return index_file(project, RegistryCache(project.root / PROJECT_PLACE / "registry.sqlite"), url)


def _refused(found: "PullRequest") -> GateRefusedError:
    gate = found.gate
    first = next(iter(gate.stopping), None)
    reason = f"{first.rule}: {first.reason}" if first is not None else gate.note
    more = f" (and {len(gate.stopping) - 1} more)" if len(gate.stopping) > 1 else ""
    return GateRefusedError(f"the gate says {gate.outcome}: {reason}{more}", hint="The report says all of it")
