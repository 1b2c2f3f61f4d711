"""The key that a remote is reached with is in one file, and nowhere else: whatever runs, and whatever goes wrong."""

import base64
import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import click
import pytest

from holdfast.cli.main import root as command_line
from proxy import Fault
from remote_world import QUICK, Remote, lose, strict_remote
from servers import BUCKET, SECRET_KEY, S3Server
from vault_servers import ask, path_of, serving
from vaults import oid_of
from worlds import TOOLS, environment

SECONDS = 120
# as it is, and as it would be in a header, in a URL, in a dump
FORMS = (SECRET_KEY, base64.b64encode(SECRET_KEY.encode()).decode().rstrip("=")[:-1], quote(SECRET_KEY, safe="")[:-1])
SECRET_WORDS = ("secret", "password", "passphrase", "token", "credential")
# a server that repeats what it was sent, as S3's do
REPEATED = f"<StringToSign>{SECRET_KEY}</StringToSign><AWSAccessKeyId>{SECRET_KEY}</AWSAccessKeyId>"


@pytest.fixture
def remote(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with strict_remote(tmp_path, s3_server, monkeypatch) as found:
        yield found


def arguments_below(pid: int) -> Iterator[str]:
    """The arguments of a process and of those that it started, as everybody on the machine can read them."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    own = {pid}
    while more := {child for child, parent in parents.items() if parent in own} - own:
        own |= more
    for process in own:
        with contextlib.suppress(OSError):
            yield Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")


def watched(remote: Remote, *command: str, code: int | None = 0) -> list[str]:
    """What a command prints, and the arguments of all processes while it runs."""
    texts = []
    tool, *arguments = command
    process = subprocess.Popen(
        [str(TOOLS / tool), *arguments],
        cwd=remote.world.folder,
        env=environment(remote.world.home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while process.poll() is None:
            texts += arguments_below(process.pid)
            time.sleep(0.05)
        texts += process.communicate(timeout=SECONDS)
    assert code is None or process.returncode == code, texts[-2:]
    assert any("\0".join(arguments) in text for text in texts), "its own arguments were seen"
    return texts


def files_below(folder: Path, *apart: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path not in apart:
            yield path.read_bytes().decode(errors="replace")


def check(remote: Remote, texts: Iterable[str]) -> None:
    """The key is in none of these, in no file but the one that is for it, in no commit, and not at the bucket."""
    world = remote.world
    world.git("add", "--all")
    world.git("commit", "--quiet", "--allow-empty", "-m", "whatever there is")
    private = world.root / ".dvc" / "config.local"
    every = [
        *texts,
        world.git("log", "--all", "-p"),
        world.git("config", "--list"),
        *files_below(world.root.parent, private, remote.keys),
        *(remote.store.get(info.key).decode(errors="replace") for info in remote.store.list_objects()),
    ]
    assert not [text for text in every if any(form in text for form in FORMS)]
    assert SECRET_KEY in private.read_text(), "it is the key that all of it was done with"
    assert private.stat().st_mode & 0o077 == 0
    assert "config.local" not in world.git("ls-files")


def add_model(remote: Remote) -> None:
    remote.world.write("model.bin", b"weights" * 10_000)
    remote.world.dvc("add", "-q", "model.bin")
    remote.world.commit("model")


def test_the_doctor(remote: Remote, tmp_path: Path) -> None:
    texts: list[str] = []
    for more in (("-o", str(tmp_path / "r.json"), "--md", "-v"), ("-o", str(tmp_path / "r.md"), "--json")):
        texts += watched(remote, "holdfast", "remote", "doctor", *QUICK, *more)
    for code, report in (("SignatureDoesNotMatch", "refused.md"), ("NotImplemented", "refused.json")):
        remote.link.inject(Fault("status", 403, code, details=REPEATED, times=10**9))
        texts += watched(remote, "holdfast", "remote", "doctor", "-v", *QUICK, "-o", str(tmp_path / report), code=1)
        assert code in (tmp_path / report).read_text()
    remote.link.inject()
    check(remote, texts)


def test_setup_du_ls_and_cost(remote: Remote) -> None:
    texts = watched(remote, "holdfast", *remote.setup, "--offline", "--yes", "--json", "--force")
    texts += watched(remote, "holdfast", *remote.setup, "--offline", "--dry-run")
    remote.link.inject(Fault("status", 403, "AccessDenied", details=REPEATED, times=10**9))
    texts += watched(remote, "holdfast", *remote.setup, "--domain", "climate", "--yes", "-v", code=3)
    for verb in ("du", "ls", "cost"):
        texts += watched(remote, "holdfast", "remote", verb, "-v", code=1)
    remote.link.inject()
    for verb in ("du", "ls", "cost"):
        texts += watched(remote, "holdfast", "remote", verb, "--json")
    check(remote, texts)


def test_push_pull_and_gc(remote: Remote, tmp_path: Path) -> None:
    """Plans, journals, indexes, tracebacks: with a server that works, and one that repeats what it was sent."""
    world, plan = remote.world, str(tmp_path / "plan.json")
    add_model(remote)
    world.write("holdfast.yaml", "gc:\n  minimum_age: 0d\n  quarantine: 0d\n")
    oid = oid_of(b"nobody's").removeprefix("md5:")
    remote.store.put(f"files/md5/{oid[:2]}/{oid[2:]}", b"nobody's")
    texts = []
    for command in (
        ("dvc", "push", "-v"),
        ("holdfast", "vault", "init", "-v"),
        ("holdfast", "push", "-v", "--json"),
        ("holdfast", "vault", "check", "-v"),
        ("holdfast", "gc", "plan", "--scope", "remote,vault", "-o", plan, "-v"),
        ("holdfast", "gc", "apply", plan, "--allow-last-copy", "-v"),
        ("holdfast", "gc", "list", "--json"),
    ):
        texts += watched(remote, *command)
    assert remote.link.count("DELETE") > 0, "the plan was carried out"
    lose(world, "model.bin")
    for code in ("SignatureDoesNotMatch", "AccessDenied"):
        remote.link.inject(Fault("status", 403, code, details=REPEATED, times=10**9))
        for command in (
            ("holdfast", "pull", "-v"),
            ("holdfast", "push", "-v", "--json"),
            ("holdfast", "vault", "check", "-v"),
            ("holdfast", "gc", "plan", "--scope", "remote,vault", "-v"),
            ("holdfast", "gc", "purge", "--yes", "-v"),
        ):
            texts += watched(remote, *command, code=None)
            assert "Traceback" in texts[-1] or "Traceback" in texts[-2] or "denied" in texts[-1]
    remote.link.inject()
    texts += watched(remote, "holdfast", "pull", "-v")
    check(remote, texts)


def test_serve(remote: Remote) -> None:
    """Its log, its answers, its figures, and its arguments."""
    remote.world.holdfast("vault", "init")
    data = b"through the server" * 1000
    texts: list[str] = []
    url = f"s3://{BUCKET}/{remote.folder}/vault"
    with serving(url, remote.world.root, remote.world.home) as server:
        assert ask(server.port, "PUT", path_of(data), data).status in (200, 201)
        texts += arguments_below(os.getpid())
        assert any("\0serve\0" in text for text in texts)
        remote.link.inject(Fault("status", 403, "SignatureDoesNotMatch", details=REPEATED, times=10**9))
        for reply in (
            ask(server.port, "GET", path_of(b"another")),
            ask(server.port, "PUT", path_of(b"third"), b"third"),
            ask(server.port, "GET", path_of(data)),
            ask(server.port, "GET", "/metrics"),
        ):
            texts += [reply.body.decode(errors="replace"), *map(str, reply.headers.values())]
        remote.link.inject()
        assert server.end() == 0
        assert server.log.read_text(), "the log is among the files that are looked at"
    check(remote, texts)


def test_no_option_takes_a_key() -> None:
    """What is typed is remembered by the shell: keys come from a file, the environment, or are asked for."""

    def options(command: click.Command, path: str) -> Iterator[tuple[str, click.Option]]:
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield path, parameter
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from options(child, f"{path} {name}")

    every = list(options(command_line, "holdfast"))
    assert len(every) > 200
    named = [
        (path, option)
        for path, option in every
        if any(word in name for word in SECRET_WORDS for name in (option.name or "", *option.opts))
    ]
    assert any(path == "holdfast remote setup r2" for path, _ in named)
    for path, option in named:
        assert option.is_flag or isinstance(option.type, click.Path), f"{path} {option.opts[0]}"
