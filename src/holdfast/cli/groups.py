"""The three kinds of command: the root that loads nouns when they are called, nouns, and verbs."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """A click group over a table ``{name: (module, summary)}``.

    ``--help`` shows the summaries without importing a single command module; a module is imported when its command is
    called, completed or asked for its own help. The command is the module's attribute ``command``, or the one that is
    named behind a colon.
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in alphabetical order."""
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None where there is none, as click wants it while completing."""
        if cmd_name in self.table:
            module, _, name = self.table[cmd_name][0].partition(":")
            command = getattr(importlib.import_module(module), name or "command")
            assert isinstance(command, click.Command)
            return command
        if ctx.resilient_parsing or cmd_name.startswith("-"):
            return None
        # click suggests from the commands it has loaded, which are none
        raise click.exceptions.NoSuchCommand(cmd_name, possibilities=self.list_commands(ctx), ctx=ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """The table's names and summaries; click would load every command to see which are hidden."""
        from click.shell_completion import CompletionItem  # imported here: no command needs it

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=self.table[name][1]) for name in names), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from the summaries alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.table[name][1]) for name in self.list_commands(ctx)])


class Verb(click.Command):
    """A command that does something; takes ``-v`` as the root does, so that it may stand at the end of the line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, help="Show the traceback of an error.")
        )


class Noun(click.Group):
    """A group of verbs: ``holdfast NOUN VERB``."""

    command_class = Verb
