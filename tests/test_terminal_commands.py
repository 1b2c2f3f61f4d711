"""Every command: its help has a sentence and examples that run, and its ``--json`` keeps to its schema."""

import contextlib
import json
import re
import shlex
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from inspect import cleandoc
from pathlib import Path

import click
import jsonschema
import pytest

from holdfast.cli.main import root
from holdfast.cli.schema import commands_with_schema, read_schema
from holdfast.objectstore.opening import open_store
from holdfast.vault.repository import init_vault
from servers import S3Server
from terminal_world import MODEL, SOURCES, build, cached_oid, call, copy_of, done
from worlds import TOOLS, World, environment
from worlds import run as sh

COLLECTING = ".dvc/tmp/holdfast/collecting.json"
LINKED = ("holdfast dedup plan outputs -o plan.json", "holdfast dedup apply plan.json --yes")
COLLECTED = ("holdfast gc plan -o collected.json", "holdfast gc apply collected.json")
SIGNED = tuple(
    f"holdfast registry sign digits/classifier@{version} --private-key release.pem" for version in ("v1", "v2", "v3")
)


def merging(world: World) -> None:
    """A merge of two branches that both took a number."""
    for branch, value in (("theirs", 8), ("main", 9)):
        world.git("checkout", "--quiet", *(("-b", branch) if branch == "theirs" else (branch,)))
        world.write(f"{branch}.safetensors", (world.root / MODEL).read_bytes()[:-4] + bytes([value, 0, 0, 64]))
        done(world, f"holdfast registry register digits/classifier {branch}.safetensors --no-current")
        world.commit(branch)
    world.git("merge", "--quiet", "theirs", code=1)


def without_vault(world: World) -> None:
    """The storage alone."""
    (world.root.parent / "storage/vault").rename(world.root.parent / "vault")


# what a command's examples need that the world has not
GIVEN: dict[str, tuple[str | Callable[[World], None], ...]] = {
    "dedup apply": ("holdfast dedup plan outputs -o plan.json",),
    "dedup list": LINKED,
    "dedup purge": LINKED,
    "dedup restore": LINKED,
    "gc list": COLLECTED,
    "gc purge": COLLECTED,
    "gc restore": COLLECTED,
    "registry consolidate": (
        "holdfast registry consolidate experiments -o done.json",
        "holdfast registry consolidate --apply done.json",
    ),
    "registry import": ("holdfast registry tag",),
    "registry resolve": (merging,),
    "registry sign": SIGNED[:2],
    "registry verify": SIGNED,
    "vault init": (without_vault,),
}
# the same for a line, done just before it
BEFORE: dict[str, tuple[str, ...]] = {
    # what was interrupted has left its plan here
    "holdfast gc apply": (f"holdfast gc restore {MODEL}", f"holdfast gc plan -o {COLLECTING}"),
    f"holdfast gc restore {MODEL}": COLLECTED,
    "holdfast dedup restore 1f0c3ab2 outputs/run_18/best_model.pt": LINKED,
}
# a command that finds something, or leaves something to people, says so
CODES: dict[str, int] = {
    "holdfast check": 1,
    "holdfast registry import mlruns": 3,
    "holdfast sources verify --remote": 1,
}
# what makes an example take less time
QUICKLY: dict[str, str] = {"holdfast remote doctor": " --rounds 2 --sizes 1KB"}
# of which tests/test_*_cluster.py have a real one
CLUSTER = "tcp://10.0.0.1:8786"
# they run until they are ended
SERVERS = ("serve", "ui")
# how a command is asked for JSON in further ways, or in others, as its examples take long
LABELLED = (
    "holdfast registry deprecate digits/classifier@v1 --reason old",
    "holdfast registry protect digits/classifier@production",
)
MORE: dict[str, tuple[str, ...]] = {
    "code archive": ("holdfast code archive --canonical src/package/loader.py",),
    "gc plan": ("holdfast gc plan --scope cache,remote,runs,vault,workspace",),
    "registry export": (*LABELLED, "holdfast registry export"),
    "registry rm": ("holdfast registry rm digits/classifier@v3",),
    "registry show": (*LABELLED, "holdfast registry show"),
    "show": ("holdfast show outputs/train/best_model.pt",),
    "sources pull": ("holdfast sources pull climate --dry-run",),
    "vault export": ("holdfast vault export storage --dry-run",),
}
INSTEAD: dict[str, tuple[str, ...]] = {
    "remote doctor": ("holdfast remote doctor",),
    "report pr": ("holdfast report pr --base main --head feature",),
}
# commands without --json, and why
WITHOUT: dict[str, str] = {
    "completion": "it prints a script",
    "report cleanup": "it writes Markdown; `scan --json` has the figures",
    "report consolidation": "it writes Markdown; `runs classify --json` has the figures",
    "schema": "it prints JSON as it is",
    "report html": "it writes a page",
    "serve": "it runs until it is ended",
    "sources schema": "it prints JSON as it is",
    "ui": "it runs until it is ended",
}
# what changes neither the project nor its storage, and needs no copy of them
READING = frozenset(
    name
    for names in (
        ("check", "diff", "equivalence", "refs", "status", "version"),
        ("code inventory", "code variants", "dedup report", "gc roots list"),
        ("registry diff", "registry history", "registry list", "registry select"),
        ("remote cost", "remote du", "remote ls", "runs classify", "runs list", "runs validate"),
        ("sources list", "sources verify", "vault check", "vault explain", "vault stats"),
    )
    for name in names
)


def commands() -> dict[str, click.Command]:
    """Every command that does something, by its words."""
    found = {}

    def walk(command: click.Command, words: tuple[str, ...]) -> None:
        if not isinstance(command, click.Group):
            found[" ".join(words)] = command
            return
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            walk(child, (*words, name))

    walk(root, ())
    return found


def examples(command: click.Command) -> list[str]:
    """The lines below ``Example:`` in a command's help, those that go on joined."""
    _, _, text = cleandoc(command.help or "").partition("\b\nExample")
    lines = re.sub(r" \\\n\s*", " ", text).split("\n")[1:]
    return [line.strip().replace(f"--scheduler {CLUSTER}", "--scheduler none") for line in lines if line.strip()]


def takes_json(command: click.Command) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


COMMANDS = commands()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = build(tmp_path_factory.mktemp("terminal"))
    before = contents(world)
    yield world
    assert contents(world) == before, "a command of READING changes something"


def contents(world: World) -> dict[str, bytes]:
    """Every file of the project and its storage but what Holdfast remembers."""
    return {
        str(path.relative_to(world.root.parent)): path.read_bytes()
        for top in (world.root, world.root.parent / "storage")
        for path in top.rglob("*")
        if path.is_file() and ".dvc/tmp" not in str(path) and ".git/" not in str(path)
    }


class Terminal:
    """Runs lines as they stand in the help, with the names that this world has for what differs from world to world."""

    def __init__(self, world: World, name: str, request: pytest.FixtureRequest) -> None:
        self.world, self.name, self.request = world, name, request
        for step in GIVEN.get(name, ()):
            done(world, step) if isinstance(step, str) else step(world)

    def run(self, line: str, suffix: str = "") -> str:
        """Run it; what it printed."""
        for step in BEFORE.get(line, ()):
            call(self.world, step)
        if line.startswith("eval "):
            command = ["bash", "-c", f"{line} && complete -p holdfast"]
            return sh(command, self.world.root, self.world.home).stdout
        shown, variables = self.made_real(line)
        result = call(self.world, shown + QUICKLY.get(line, "") + suffix, **variables)
        wanted = next((code for start, code in CODES.items() if line.startswith(start)), 0)
        assert result.code == wanted, f"$ {shown}{suffix}\n{result.out}{result.err}"
        return result.out

    def made_real(self, line: str) -> tuple[str, dict[str, str]]:
        """The line with this world's ids and places, and the variables that lead to its bucket."""
        shown = self._settled(line)
        if "s3://models/" not in shown:
            return shown, {}
        server: S3Server = self.request.getfixturevalue("s3_server")
        folder = server.make_folder()
        fill(folder, server, self.world, vault=self.name == "serve")
        if self.name.startswith("sources "):  # a catalogue has one bucket
            (self.world.root / "sources.yaml").write_text(SOURCES.replace("../storage", f"{folder}/sources"))
        return shown.replace("s3://models/", f"{folder}/"), server.environment()

    def _settled(self, line: str) -> str:
        for word, place in (("/tmp/", "tmp/"), ("/srv/models/", "srv/"), ("/mnt/models", "mnt")):
            line = line.replace(f" {word}", f" {self.world.root.parent}/{place}")
        for word, (command, key, field) in {
            "3f2a91c04b7d": ("holdfast gc list --json", "held", "plan"),
            "1f0c3ab2": ("holdfast dedup list --json", "plans", "id"),
            "5768cb2bbca4": ("holdfast gc roots list --json", "clones", "clone"),
        }.items():
            if word in line:
                line = line.replace(word, json.loads(done(self.world, command))[key][0][field][:12])
        today = datetime.now(timezone.utc).date().isoformat()
        return line.replace("7904a8426a93dced4ec14817340517de", cached_oid(self.world)).replace("2026-11-20", today)


def fill(folder: str, server: S3Server, world: World, *, vault: bool) -> None:
    """Put what the examples name in s3://models into the folder of a bucket."""
    store = open_store(folder, server.options())
    store.put("checkpoints/classifier.safetensors", (world.root / MODEL).read_bytes())
    store.put("sources/climate/ghcn/a.csv", b"data")
    oid = cached_oid(world)
    store.put(f"dvc/files/md5/{oid[:2]}/{oid[2:]}", (world.root / MODEL).read_bytes())
    if vault:
        init_vault(open_store(f"{folder}/vault", server.options()), world.root.parent / "indexes").close()


@pytest.fixture
def terminal(request: pytest.FixtureRequest, made: World, tmp_path: Path) -> Terminal:
    name = request.getfixturevalue("name")
    return Terminal(made if name in READING else copy_of(made, tmp_path), name, request)


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str) -> None:
    first = cleandoc(COMMANDS[name].help or "").split("\n\n")[0]
    assert re.fullmatch(r"[A-Z][^\n]*\.", first), "the first paragraph is a sentence or two in one line"
    found = examples(COMMANDS[name])
    assert found, f"holdfast {name} has no example"
    assert all("holdfast " in line for line in found)
    assert any(f"holdfast {name}" in line for line in found)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in SERVERS])
def test_examples(terminal: Terminal, name: str) -> None:
    for line in examples(COMMANDS[name]):
        terminal.run(line)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if takes_json(command)])
def test_json(terminal: Terminal, name: str) -> None:
    schema = json.loads(read_schema(tuple(name.split())))
    lines = INSTEAD.get(name) or (*examples(COMMANDS[name]), *MORE.get(name, ()))
    found = []
    for line in lines:
        asked = line.startswith(f"holdfast {name}")
        text = terminal.run(line, " --json" if asked else "")
        found += [json.loads(text)] if asked and text else []
    for payload in found:
        jsonschema.validate(payload, schema)
    # a schema of several forms: each of them is seen
    for form in schema.get("oneOf", [schema]):
        whole = {**form, "$defs": schema.get("$defs", {})}
        assert any(jsonschema.Draft202012Validator(whole).is_valid(payload) for payload in found), form.get(
            "description"
        )


@pytest.mark.parametrize("name", [name for name in SERVERS if name in COMMANDS])
def test_servers(terminal: Terminal, name: str) -> None:
    """They answer, and end when they are told to."""
    for line in examples(COMMANDS[name]):
        if "--print-dvc-config" in line:
            assert terminal.run(line)
            continue
        shown, variables = terminal.made_real(line)
        with (terminal.world.root.parent / "log").open("w+") as log:
            process = subprocess.Popen(
                [str(TOOLS / "holdfast"), *shlex.split(shown)[1:], "--port", "0"],
                cwd=terminal.world.root,
                env=environment(terminal.world.home) | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            try:
                url = wait_for_url(process, Path(log.name))
                with urllib.request.urlopen(f"{url}/", timeout=10) if name == "ui" else contextlib.nullcontext():
                    pass
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()
                process.wait()


def wait_for_url(process: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_each_command_prints_json_or_says_why_not() -> None:
    have = {name for name, command in COMMANDS.items() if takes_json(command)}
    assert set(COMMANDS) - have == set(WITHOUT)
    assert {" ".join(words) for words in commands_with_schema()} == have
