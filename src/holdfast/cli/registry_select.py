"""``holdfast registry select``."""

from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, form_options
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import UsageError
from holdfast.registry.snapshot import load_registry
from holdfast.repo.workspace import DVC_FOLDER


@click.command("select", cls=Verb)
@click.argument("model", shell_complete=completion_values.models)
@click.argument("criteria", nargs=-1, metavar="[CRITERION...]", shell_complete=completion_values.metrics)
@click.option(
    "--best",
    "metric",
    metavar="METRIC",
    shell_complete=completion_values.metrics,
    help="The best by this metric (default: the newest).",
)
@click.option("--max", "direction", flag_value="max", default=None, help="More is better.")
@click.option("--min", "direction", flag_value="min", help="Less is better (default for losses, errors, times, sizes).")
@click.option("--ab", metavar="LABEL=SHARE,…", help="Split keys among labels by their shares.")
@click.option("--key", metavar="KEY", help="Of --ab: a user, a session, a request.")
@click.option("--deprecated", is_flag=True, help="Deprecated versions count, too.")
@click.option(
    "--from",
    "source",
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    help="Read this project, or a file of `registry export`.",
)
@form_options
def select(
    model: str,
    criteria: tuple[str, ...],
    metric: str | None,
    direction: str | None,
    ab: str | None,
    key: str | None,
    deprecated: bool,
    source: Path | None,
    form: Form,
) -> None:
    """Say which version of MODEL to use: the best by a metric, of those that meet CRITERIA, or a key's share.

    A split is stable: the same key always gets the same label, anywhere (its formula stands in the reference). Git is
    not needed.

    \b
    Examples:
      holdfast registry select digits/classifier 'accuracy>=0.9' --best test_loss
      holdfast registry select digits/classifier --ab production=0.9,staging=0.1 --key user-17
    """
    if (ab is None) != (key is None) or (ab is not None and (criteria or metric or direction)):
        raise UsageError("--ab and --key go together, and alone", hint="`holdfast registry select --help` has examples")
    if direction and metric is None:
        raise UsageError("--max and --min belong to --best", hint=f"--best METRIC --{direction}")
    if key == "":
        raise UsageError("--key is empty", hint="All whose key is not known would get the same label")
    registry = load_registry(source or _root())
    chosen = None if direction is None else "max" if direction == "max" else "min"
    found = registry.select(
        model,
        metric=metric,
        direction=chosen,  # type: ignore[arg-type]
        criteria=criteria,
        ab=_shares(ab) if ab is not None else None,
        key=key,
        deprecated=deprecated,
    )
    payload = {
        "format": "holdfast registry select 1",
        "model": found.model,
        "labels": list(found.labels),
        **found.version.as_json(),
    }
    emit_quickly(form, payload, [found.name])


def _root() -> Path:
    here = Path.cwd()
    places = (here, *here.parents)
    return next((place for place in places if (place / DVC_FOLDER).is_dir() or (place / "registry").is_dir()), here)


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        label, equals, share = part.strip().partition("=")
        percent = share.endswith("%")
        try:
            value = float(share.removesuffix("%")) / (100 if percent else 1)
        except ValueError:
            value = -1.0
        if not label or not equals or value < 0 or label in shares:
            raise UsageError(f"{part!r} is no share", hint="Write --ab production=0.9,staging=0.1, or 90% and 10%")
        shares[label] = value
    return shares
