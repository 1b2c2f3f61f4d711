"""Pages of the documentation as programs: the commands of a section are run in a world, and print what the page shows."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forks import Forks
from worlds import World, run

DOCS = Path(__file__).parent.parent / "docs"

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"#.*\bends with (\d+)")
_OF_A_SHELL = re.compile(r"[|&;<>*$`~=()!{}\\]")


@dataclass(frozen=True)
class Step:
    """A command of a page.

    Attributes:
        command: the line, without its comment.
        code: how it ends: 0, or what its comment says, ``# ends with 13``.
        shown: the lines below it, as of `is_shown`.
    """

    command: str
    code: int = 0
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A page below ``docs/``.

    Args:
        path: from ``docs/``.
        forks: runs plain ``holdfast`` commands; all others are given to a shell.
    """

    path: str
    forks: Forks

    def sections(self) -> dict[str, list[Step]]:
        """The commands of each section that has any, by its heading."""
        pieces = _HEADING.split((DOCS / self.path).read_text())
        found = {
            heading: [step for block in _CONSOLE.findall(body) for step in steps_of(block)]
            for heading, body in zip(pieces[1::2], pieces[2::2], strict=True)
        }
        assert not _CONSOLE.search(pieces[0]), f"{self.path}: commands stand below a heading"
        return {heading: steps for heading, steps in found.items() if steps}

    def walk(self, heading: str, world: World, given: Mapping[str, str] | None = None) -> list[str]:
        """Run the commands of a section in a world, one after the other.

        Args:
            heading: of the section.
            world: where.
            given: as of `run`; each has to stand in the section.

        Returns:
            What each command printed.
        """
        steps = self.sections()[heading]
        for name in given or {}:
            assert any(name in line for step in steps for line in (step.command, *step.shown)), (
                f"{self.path}: {heading} has no {name}"
            )
        return [self.run(step, world, given) for step in steps]

    def run(self, step: Step, world: World, given: Mapping[str, str] | None = None) -> str:
        """Run a command, which must end and print as the page says.

        Args:
            step: the command.
            world: where.
            given: what stands in the page for what differs from world to world, such as a commit, and what it is here.

        Returns:
            What it printed, standard output before standard error.
        """
        command, shown = step.command, "\n".join(step.shown)
        for name, value in (given or {}).items():
            command, shown = command.replace(name, value), shown.replace(name, value)
        words = shlex.split(command)
        if words[0] == "holdfast" and not _OF_A_SHELL.search(command):
            done = self.forks.holdfast(world, *words[1:], code=step.code)
        else:
            done = run(["bash", "-ec", command], world.folder, world.home, code=step.code)
        printed = done.stdout + done.stderr
        assert is_shown(shown, printed), f"{self.path}: `{command}` printed\n{printed}\nand not\n{shown}"
        return printed


def is_shown(shown: str, printed: str) -> bool:
    """Whether a command printed what a page shows: nothing is shown, or all of it but for ``…`` and empty lines.

    ``…`` stands for anything in a line, and on a line of its own for any lines.
    """
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "…" else f"{re.escape(line.rstrip()).replace('…', '.*')}\n"
        for line in shown.splitlines()
    )
    lines = "".join(f"{line.rstrip()}\n" for line in printed.splitlines() if line.strip())
    return not shown or re.fullmatch(pattern, lines) is not None


def steps_of(block: str) -> list[Step]:
    """The commands of a console block."""
    found: list[Step] = []
    for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
        if line.startswith("$ "):
            code = _CODE.search(line)
            command = re.sub(r"\s+#.*$", "", line[2:])
            found.append(Step(command, int(code[1]) if code else 0))
        elif line.strip():
            assert found, f"{line!r} is printed by no command"
            last = found.pop()
            found.append(Step(last.command, last.code, (*last.shown, line)))
    return found
