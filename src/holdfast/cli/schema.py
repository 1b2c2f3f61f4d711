"""``holdfast schema``: what ``--json`` of a command prints, as JSON Schema."""

from importlib.resources import files
from typing import TYPE_CHECKING

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from importlib.abc import Traversable  # in importlib.resources.abc from Python 3.11 on

SUFFIX = ".schema.json"


@click.command("schema", cls=Verb)
@click.argument("words", nargs=-1, metavar="[COMMAND]...", shell_complete=completion_values.schemas)
def command(words: tuple[str, ...]) -> None:
    """Print the JSON Schema of what a command prints with --json; without COMMAND, list the commands that have one.

    \b
    Examples:
      holdfast schema
      holdfast schema registry show
      holdfast schema gc plan > gc-plan.schema.json
    """
    if words:
        click.echo(read_schema(words), nl=False)
    else:
        click.echo("\n".join(" ".join(known) for known in commands_with_schema()))


def commands_with_schema() -> list[tuple[str, ...]]:
    """The words of each command that has a schema, in alphabetical order."""
    names = [place.name for place in _folder().iterdir() if place.name.endswith(SUFFIX)]
    return sorted(tuple(name.removesuffix(SUFFIX).split("-")) for name in names)


def read_schema(words: tuple[str, ...]) -> str:
    """The text of a command's schema.

    Args:
        words: the command's, without ``holdfast``.

    Raises:
        UsageError: it has none.
    """
    if words not in commands_with_schema():
        raise UsageError(f"`holdfast {' '.join(words)}` has no schema", hint="`holdfast schema` lists those that have")
    return (_folder() / f"{'-'.join(words)}{SUFFIX}").read_text(encoding="utf-8")


def _folder() -> "Traversable":
    return files("holdfast.cli") / "schemas"
