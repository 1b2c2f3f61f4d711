"""What a shell offers: commands, options, and names out of the project, in the shells themselves and as click asks."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class

from holdfast.cli.main import COMPLETION_VARIABLE, root
from terminal_world import MODEL, build, copy_of, done, inside
from worlds import World, environment, make_repository

NAME = "digits/classifier"
VERSIONS = [f"{NAME}@v3", f"{NAME}@v2", f"{NAME}@v1"]
# in the order in which a table of them is read
REFERENCES = [NAME, f"{NAME}@current", f"{NAME}@production", f"{NAME}@staging", *VERSIONS]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """With plans in the project, and what they took."""
    world = build(tmp_path_factory.mktemp("completion"))
    done(world, "holdfast dedup plan outputs -o plans/links.json")
    done(world, "holdfast dedup apply plans/links.json --yes")
    done(world, "holdfast gc plan -o plans/gc.json")
    done(world, "holdfast gc apply plans/gc.json")
    return world


def offered(world: World, line: str) -> list[str]:
    """What is offered for the last word of a line; kinds of paths in brackets."""
    kind = get_completion_class("zsh")
    *words, last = line.split(" ")
    with inside(world):
        found = kind(root, {}, "holdfast", COMPLETION_VARIABLE).get_completions(words[1:], last)
    return [item.value if item.type == "plain" else f"({item.type})" for item in found]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("holdfast reg", ["registry"]),
        ("holdfast registry s", ["select", "show", "sign"]),
        ("holdfast registry show --me", ["--metrics"]),
        ("holdfast registry show dig", REFERENCES),
        ("holdfast registry show digits/classifier@v", VERSIONS),
        ("holdfast registry get digits/classifier@p", ["digits/classifier@production"]),
        ("holdfast registry rm digits/classifier@v1", ["digits/classifier@v1"]),
        ("holdfast registry assign digits/classifier@v3 ", ["production", "staging"]),
        ("holdfast registry unassign ", ["digits/classifier@production", "digits/classifier@staging"]),
        ("holdfast registry rollback digits/classifier --to v", ["v3", "v2", "v1"]),
        ("holdfast registry diff digits/classifier v1 s", ["staging"]),
        ("holdfast registry select digits/classifier --best a", ["accuracy"]),
        ("holdfast registry show --metrics accuracy,t", ["accuracy,test_loss"]),
        ("holdfast registry promote a.pt --as d", ["digits/classifier"]),
        ("holdfast diff digits/classifier@s", ["digits/classifier@staging"]),
        ("holdfast diff outputs/", ["(file)"]),
        ("holdfast push --remote ", ["storage"]),
        ("holdfast gc plan -r st", ["storage"]),
        ("holdfast remote du ", ["storage"]),
        ("holdfast push t", ["train"]),
        ("holdfast push outputs/t", ["(file)"]),
        ("holdfast gc apply plans/", ["plans/gc.json"]),
        ("holdfast dedup apply plans/", ["plans/links.json"]),
        ("holdfast vault repack --apply plans/", ["(file)"]),
        ("holdfast sources list ", ["astronomy", "climate"]),
        ("holdfast sources pull climate/", ["climate/era5"]),
        ("holdfast schema registry sh", ["show"]),
        ("holdfast runs list out", ["(dir)"]),
        ("holdfast completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_values(world: World, line: str, values: list[str]) -> None:
    assert offered(world, line) == values


def test_what_was_taken_away(world: World) -> None:
    """Ids of what waits, each kind for its own command."""
    (collected,) = [value for value in offered(world, "holdfast gc restore ") if value != "(file)"]
    (linked,) = [value for value in offered(world, "holdfast dedup restore ") if value != "(file)"]
    assert collected != linked
    assert all(re.fullmatch("[0-9a-f]{12}", value) for value in (collected, linked))
    done(copied := world, f"holdfast gc restore {collected}")
    assert offered(copied, f"holdfast gc restore {collected[:3]}") == ["(file)"]
    done(world, "holdfast gc apply plans/gc.json")


def test_from_elsewhere_and_a_folder_below(world: World) -> None:
    below = World(world.root / "scripts", world.home)
    assert offered(below, "holdfast registry show digits/classifier@v") == VERSIONS
    assert offered(below, "holdfast push -r ") == ["storage"]
    outside = World(world.root.parent, world.home)
    assert offered(outside, "holdfast registry show d") == []
    assert offered(outside, "holdfast --cd repository registry show d") == REFERENCES


@pytest.mark.parametrize("file", ["registry/digits/classifier/v2.yaml", ".dvc/config", "dvc.yaml"])
def test_what_is_broken_offers_nothing(world: World, tmp_path: Path, file: str) -> None:
    broken = copy_of(world, tmp_path)
    (broken.root / file).write_bytes(b"\x00\xff [not: what it should be")
    found = [
        offered(broken, f"holdfast {line}")
        for line in ("registry show d", "push -r s", "push t", "registry select digits/classifier --best a")
    ]
    whole = [REFERENCES, ["storage"], ["train"], ["accuracy"]]
    assert sum(a != b for a, b in zip(found, whole, strict=True)) == (2 if file.startswith("registry") else 1)
    assert all(values in ([], ["(file)"], expected) for values, expected in zip(found, whole, strict=True))


def test_names_that_a_shell_would_not_take_for_one_word(world: World, tmp_path: Path) -> None:
    copied = copy_of(world, tmp_path)
    plan = (copied.root / "plans/gc.json").read_bytes()
    for name in ("a plan.json", "$(touch owned).json", "b\n.json", "c;d.json", "good-plan_2.json"):
        (copied.root / "plans" / name).write_bytes(plan)
    assert offered(copied, "holdfast gc apply plans/") == ["plans/gc.json", "plans/good-plan_2.json"]


def test_a_secret_in_a_url_is_not_shown(world: World, tmp_path: Path) -> None:
    copied = copy_of(world, tmp_path)
    with (copied.root / ".dvc/config").open("a") as file:
        file.write("['remote \"private\"']\n    url = https://ada:secret@example.org/dvc\n")
    kind = get_completion_class("zsh")
    with inside(copied):
        found = kind(root, {}, "holdfast", COMPLETION_VARIABLE).get_completions(["push", "-r"], "")
    assert [(item.value, item.help) for item in found] == [("storage", "../../storage"), ("private", None)]


def test_no_command_is_loaded_to_list_commands() -> None:
    program = (
        "import sys\nfrom click.shell_completion import get_completion_class\nfrom holdfast.cli.main import root\n"
        "found = get_completion_class('bash')(root, {}, 'holdfast', 'X').get_completions([], '')\n"
        "assert len(found) > 20, found\n"
        "found = get_completion_class('bash')(root, {}, 'holdfast', 'X').get_completions(['gc'], 'pl')\n"
        "assert [item.value for item in found] == ['plan'], found\n"
        "loaded = {'rich', 'yaml', 'numpy', 'dvc', 'holdfast.cli.registry_show', 'holdfast.cli.dedup'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_large_registry_in_time(tmp_path: Path) -> None:
    """A thousand versions: the first time they are read, the next ones out of what is known."""
    world = make_repository(tmp_path)
    folder = world.root / "registry/digits/classifier"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text("schema: 1\ndescription: many\ncurrent: v1000\naliases: {}\n")
    for number in range(1, 1001):
        (folder / f"v{number}.yaml").write_text(
            f'schema: 1\npath: models/a.pt\noid: "{number:032x}"\nsize: 1\nweights: "blake3:{number:064x}"\n'
            f'date: "2026-11-20"\nsource: {{}}\nparams: {{}}\nmetrics:\n  accuracy: 0.9\n'
        )
    done(world, "holdfast registry list")
    assert len(offered(world, "holdfast registry show digits/classifier@v")) == 1000


# a shell in a terminal of its own


class Shell:
    """An interactive shell on a pseudo-terminal."""

    def __init__(self, command: list[str], world: World, variables: dict[str, str]) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(world.root)
            os.execvpe(command[0], command, environment(world.home) | variables)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def until(self, pattern: str, seconds: float = 20) -> str:
        """What came since the last time, up to what fits; escapes that steer a terminal left out."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            if time.monotonic() > end or not select.select([self.terminal], [], [], end - time.monotonic())[0]:
                raise AssertionError(f"{pattern!r} did not come: {self.seen!r}")
            self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r|\x07", "", os.read(self.terminal, 65536).decode())
            while "\b" in self.seen.lstrip("\b"):  # what a shell takes back
                self.seen = re.sub("[^\b]\b", "", self.seen)
        whole, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return whole

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@contextmanager
def shell(kind: str, world: World) -> Iterator[Shell]:
    """A shell that has read what ``holdfast completion`` prints."""
    if shutil.which(kind) is None:
        pytest.skip(f"there is no {kind} here")
    script = world.home / f"completion.{kind}"
    script.write_text(done(world, f"holdfast completion {kind}"))
    commands = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"], "fish": ["fish", "--no-config", "-i"]}
    begin = {
        "bash": f"PS1='READY> '; source {script}",
        "zsh": f"PS1='READY> '; autoload -Uz compinit; compinit -u -D; source {script}",
        "fish": f"function fish_prompt; echo 'READY> '; end; source {script}",
    }
    started = Shell(commands[kind], world, {"TERM": "dumb" if kind != "fish" else "xterm", "COLUMNS": "200"})
    try:
        started.type(f"{begin[kind]}\n")
        started.until("READY> '")
        started.until("READY> ")
        yield started
    finally:
        started.close()


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_in_the_shell(world: World, kind: str) -> None:
    with shell(kind, world) as terminal:
        for typed, becomes in (
            ("holdfast regi\tsho\tdigits/classifier@prod\t", r"holdfast registry show digits/classifier@production "),
            ("holdfast vault repac\t", r"holdfast vault repack "),
            ("holdfast registry assign digits/classifier@v2 stag\t", r"digits/classifier@v2 staging "),
            ('holdfast registry deprecate --reason "the wrong split" digits/classifier@v1\t', r"classifier@v1 ?"),
        ):
            terminal.type(typed)
            terminal.until(becomes)
            terminal.type("\x15")  # the line is given up


def test_bash_lists_versions_and_goes_on_with_paths(world: World) -> None:
    with shell("bash", world) as terminal:
        terminal.type("holdfast registry show digits/classifier@v\t\t")
        listed = terminal.until("@v1[^0-9]")
        assert re.search(r"@v3\s+@v2\s+@v1", listed), listed
        terminal.type("\x15holdfast show models/dig\tclassifier.safet\t")
        assert terminal.until(re.escape(f"holdfast show {MODEL}"))
        terminal.type("\x15holdfast gc apply plans/\t")
        terminal.until(re.escape("holdfast gc apply plans/gc.json "))
