"""Run the console blocks of a page and paste their outputs; `--check` says where the page differs.

    python docs/outputs.py                                       all pages that ask for it
    python docs/outputs.py --check docs/tutorial/PAGE.md

A page asks for it with the line `<!-- outputs: run -->`. All its commands run in order, in one shell, in a new home
folder in which `holdfast/` is this project.

| in the page | is |
| --- | --- |
| ```` ```console ```` | commands after `$ `, goes on after a backslash; what follows is their output |
| ```` ```yaml title="params.yaml" ```` | a file, written to the shell's folder before the commands below it run |
| `<!-- outputs: skip, WHY -->` before a block | is not run |
| `$ echo $?` after a command | lets that one end with another code than 0 |
| `[…]` alone in a line of output | stands for any lines; it stays while the lines around it do |

What differs from run to run is named in `RULES`; where nothing else differs, what the page says stays as it is.
"""

import difflib
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
HOME_SHOWN = "/home/ada"
ELISION = "[…]"
COMMAND_SECONDS = 60.0
# somebody's name, and nothing that goes on in the background
GIT_CONFIG = """\
[user]
\tname = Ada
\temail = ada@example.org
[init]
\tdefaultBranch = main
[core]
\tpager = cat
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""

RUN = re.compile(r"^<!-- outputs: run -->$", re.MULTILINE)
SKIP = re.compile(r"<!-- outputs: skip, .+ -->")
FENCE = re.compile(r'(?P<fence>`{3,})(?P<language>\w+)(?: title="(?P<title>[^"]+)")?')


@dataclass(frozen=True)
class Rule:
    """What may differ between two runs of the same commands.

    Args:
        name: what it is.
        pattern: how it looks.
        shown: what stands for it where two outputs are compared.
    """

    name: str
    pattern: re.Pattern[str]
    shown: str


MOMENT_OF_GIT = r"\b[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d \d{4} [+-]\d{4}"
MOMENT = r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?)?\b"
RULES = (
    Rule("a moment, as git writes it", re.compile(MOMENT_OF_GIT), "<moment>"),
    Rule("a day or a moment", re.compile(MOMENT), "<moment>"),
    Rule("a commit, a digest, the id of a plan", re.compile(r"\b[0-9a-f]{7,64}\b"), "<digest>"),
    Rule("a duration", re.compile(r"\b\d+\.\d+ ?(?:ms|s)\b"), "<duration>"),
    Rule("an age", re.compile(r"\b(?:today|yesterday|\d+ (?:s|min|h|hours?|days?))(?!\w)"), "<age>"),
    Rule("the width of a column", re.compile(r"[ ─]{2,}"), "  "),
)


class OutputsError(Exception):
    """A page that cannot be run, with its line."""


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Args:
        line: where its output begins; lines count from 0.
        text: what the shell is given.
        output: the lines that the page has below it.
        fence: ends its block.
    """

    line: int
    text: str
    output: tuple[str, ...]
    fence: str


@dataclass(frozen=True)
class File:
    """A file that a page has its reader write."""

    line: int
    path: str
    text: str


def steps(page: str) -> Iterator[Command | File]:
    """What a page has its reader do, in order.

    Args:
        page: its Markdown.

    Raises:
        OutputsError: a block has no end, or begins with something else than a command.
    """
    lines = page.split("\n")
    at = 0
    while at < len(lines):
        opened = FENCE.fullmatch(lines[at])
        at += 1
        if opened is None:
            continue
        if opened["fence"] not in lines[at:]:
            raise OutputsError(f"line {at}: the block has no end")
        end = lines.index(opened["fence"], at)
        if not (at >= 2 and SKIP.fullmatch(lines[at - 2])):
            if opened["title"]:
                yield File(at, opened["title"], "\n".join(lines[at:end]) + "\n")
            elif opened["language"] == "console":
                yield from _commands(lines, at, end, opened["fence"])
        at = end + 1


def _commands(lines: list[str], at: int, end: int, fence: str) -> Iterator[Command]:
    while at < end:
        if not lines[at].startswith("$ "):
            raise OutputsError(f"line {at + 1}: output without a command")
        start = at
        while lines[at].endswith("\\") and at + 1 < end:
            at += 1
        at += 1
        output = at
        while at < end and not lines[at].startswith("$ "):
            at += 1
        yield Command(output, "\n".join(lines[start:output]).removeprefix("$ "), tuple(lines[output:at]), fence)


def normalised(line: str) -> str:
    """The line with what may differ replaced by its name."""
    for rule in RULES:
        line = rule.pattern.sub(rule.shown, line)
    return line.strip()


def same(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Whether an output is what the page says, but for what may differ; `[…]` stands for any lines."""
    parts: list[list[str]] = [[]]
    for line in expected:
        if line == ELISION:
            parts.append([])
        else:
            parts[-1].append(normalised(line))
    found = [normalised(line) for line in actual]
    first, *rest = parts
    if not rest:
        return first == found
    if found[: len(first)] != first:
        return False
    at = len(first)
    *between, last = rest
    for part in between:
        places = (n for n in range(at, len(found) - len(part) + 1) if found[n : n + len(part)] == part)
        place = next(places, None)
        if place is None:
            return False
        at = place + len(part)
    return len(found) - len(last) >= at and found[len(found) - len(last) :] == last


def shortened(expected: Sequence[str], actual: Sequence[str]) -> list[str]:
    """A new output with `[…]` where the page has one: between the same two lines, if both are still there."""
    found = [normalised(line) for line in actual]
    short: list[str] = []
    at = 0
    for place in (number for number, line in enumerate(expected) if line == ELISION):
        # an empty line is like any other empty line
        before = [normalised(line) for line in expected[:place] if line]
        after = [normalised(line) for line in expected[place + 1 :] if line]
        try:
            begin = found.index(before[-1], at) + 1 if before else 0
            end = found.index(after[0], begin) if after else len(found)
        except ValueError:
            continue
        short += [*actual[at:begin], ELISION]
        at = end
    return [*short, *actual[at:]]


class Shell:
    """A shell in a home folder of its own; what a command exports, and where it goes, holds for the next one.

    Args:
        home: an empty folder, in which the shell starts.
        tools: folders in which commands are looked for first.
    """

    def __init__(self, home: Path, tools: Sequence[Path]) -> None:
        self._home = home.resolve()
        # whatever the reader has set, DVC's and git's settings are those of a new account
        of_git = str(Path(shutil.which("git") or "git").parent)
        places = [*map(str, tools), of_git, "/usr/local/bin", "/usr/bin", "/bin"]
        settings = {
            "HOME": str(self._home),
            "PATH": os.pathsep.join(dict.fromkeys(places)),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "GIT_CONFIG_NOSYSTEM": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self._home / ".cache" / "dvc-site"),
        }
        if not (identity := self._home / ".gitconfig").exists():
            identity.write_text(GIT_CONFIG)
        read, self._script = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", f"/dev/fd/{read}"],
            cwd=self._home,
            env=settings,
            pass_fds=(read,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(read)
        self._mark = f"end-of-output-{secrets.token_hex(8)}"

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self._script)
        if kind is not None:  # a command may be at work still; the group is not gone before its leader is waited for
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def folder(self) -> Path:
        """Where the shell is."""
        return Path(self.run("pwd -P", raw=True)[0][0])

    def run(self, command: str, *, raw: bool = False) -> tuple[list[str], int]:
        """The lines that a command writes, with its home called `/home/ada` unless raw, and its exit code.

        Raises:
            OutputsError: it ran for more than a minute, or the shell ended.
        """
        script = f"{command}\n__code=$?; printf '\\n%s %s\\n' {self._mark} $__code; (exit $__code)\n"
        os.write(self._script, script.encode())
        assert self._process.stdout is not None
        data, until = b"", time.monotonic() + COMMAND_SECONDS
        ended = re.compile(rb"\n" + self._mark.encode() + rb" (\d+)\n\Z")
        while (end := ended.search(data)) is None:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not more:
                raise OutputsError(f"`{command}` did not end:\n{data.decode(errors='replace')}")
            data += more
        text = data[: end.start()].decode()
        if not raw:
            text = text.replace(str(self._home), HOME_SHOWN)
        lines = [line.rstrip() for line in text.rstrip().split("\n")]
        return ([] if lines == [""] else lines), int(end[1])


def pasted(page: str, home: Path, tools: Sequence[Path]) -> str:
    """The page with what its commands say now.

    Args:
        page: its Markdown.
        home: an empty folder for the shell to live in.
        tools: folders in which commands are looked for first.

    Raises:
        OutputsError: a command failed where the page does not look at its exit code, or did not end.
    """
    lines = page.split("\n")
    todo = list(steps(page))
    new: list[tuple[Command, list[str]]] = []
    with Shell(home, tools) as shell:
        for step, after in zip(todo, [*todo, None][1:], strict=True):
            if isinstance(step, File):
                target = shell.folder / step.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(step.text, encoding="utf-8")
                continue
            output, code = shell.run(step.text)
            looked_at = isinstance(after, Command) and after.text == "echo $?"
            if code != 0 and not looked_at:
                said = "\n".join(output)
                raise OutputsError(f"line {step.line}: `{step.text}` ended with {code}:\n{said}")
            if any(line.startswith((step.fence, "$ ")) for line in output):
                raise OutputsError(f"line {step.line}: the output of `{step.text}` would end its block")
            if not same(step.output, output):
                new.append((step, shortened(step.output, output)))
    for step, output in reversed(new):
        lines[step.line : step.line + len(step.output)] = output
    return "\n".join(lines)


def pages() -> list[Path]:
    """The pages that ask for it."""
    return [page for page in sorted(DOCS.rglob("*.md")) if RUN.search(page.read_text(encoding="utf-8"))]


def refresh(page: Path, tools: Sequence[Path] = ()) -> str:
    """The text that the page would have: its commands are run in a new home that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="holdfast-docs-") as folder:
        home = Path(folder)
        (home / "holdfast").symlink_to(DOCS.parent)
        return pasted(page.read_text(encoding="utf-8"), home, [*tools, Path(sys.executable).parent])


def main(arguments: Sequence[str]) -> int:
    """Run the pages; 1 where one differs, and is only to be checked."""
    check = "--check" in arguments
    differ = 0
    for page in [Path(word) for word in arguments if word != "--check"] or pages():
        old, new = page.read_text(encoding="utf-8"), refresh(page)
        if old == new:
            continue
        differ += 1
        if check:
            name = os.path.relpath(page)
            diff = difflib.unified_diff(old.split("\n"), new.split("\n"), name, f"{name}, as it is now", lineterm="")
            print("\n".join(diff))
        else:
            page.write_text(new, encoding="utf-8")
            print(f"Pasted new outputs into {os.path.relpath(page)}.")
    return 1 if check and differ else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except OutputsError as error:
        raise SystemExit(f"{error}") from None
