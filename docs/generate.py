"""Write docs/reference/cli.md from the commands' own --help, so that it cannot drift; `make docs` runs it."""

from pathlib import Path

import click
from click.testing import CliRunner

from holdfast.cli.main import root

PAGE = Path(__file__).parent / "reference" / "cli.md"
HEAD = """# Command line

Written by `make docs` from each command's `--help`; a test fails where it differs.

Results go to standard output, messages and errors to standard error. An error is one line that names the object and the
way out; `-v` adds the traceback.

| exit code | meaning |
| --: | --- |
| 0 | done |
| 1 | error |
| 2 | usage: an unknown command or option, or arguments that do not fit together |
| 3 | partly done |
| 10 | not inside a git repository with DVC |
| 11 | locked by another process |
| 12 | a promotion gate refused |
| 13 | integrity: data is corrupt, truncated or not what its name says |
| 14 | the plan is stale |
| 130 | interrupted |
"""


def page() -> str:
    """The whole page."""
    sections = [HEAD]
    for path in command_paths(root, ()):
        name = " ".join(("holdfast", *path))
        result = CliRunner().invoke(root, [*path, "--help"], prog_name="holdfast", terminal_width=100)
        assert result.exit_code == 0, result.output
        sections.append(f"## `{name}`\n\n```\n{result.output.rstrip()}\n```\n")
    return "\n".join(sections)


def command_paths(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The command's own path and those of all below it, in alphabetical order."""
    paths = [path]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            child = command.get_command(context, name)
            assert child is not None
            paths += command_paths(child, (*path, name))
    return paths


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
