"""``holdfast completion SHELL``."""

import click
from click.shell_completion import get_completion_class

from holdfast.cli.main import COMPLETION_VARIABLE, root


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Example:
      eval "$(holdfast completion bash)"
    """
    completion = get_completion_class(shell)
    assert completion is not None, "click knows the three shells that the argument allows"
    click.echo(completion(root, {}, "holdfast", COMPLETION_VARIABLE).source())
