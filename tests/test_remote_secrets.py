"""The key that a remote is reached with is in one file, and nowhere else."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import Fault
from remote_world import QUICK, Remote, strict_remote
from servers import SECRET_KEY, S3Server

SECONDS = 60


@pytest.fixture
def remote(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with strict_remote(tmp_path, s3_server, monkeypatch) as found:
        yield found


def arguments_of_all() -> Iterator[str]:
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield line.read_bytes().decode(errors="replace")
        except OSError:
            continue


def test_no_secret_anywhere(remote: Remote, tmp_path: Path) -> None:
    """Not in what git keeps, in what is printed and written, in arguments; whatever goes wrong."""
    texts: list[str] = []
    world = remote.world
    for more in (("-o", str(tmp_path / "r.json")), ("-o", str(tmp_path / "r.md"), "--json"), ("--md", "-v")):
        with remote.start_doctor(*QUICK, *more) as process:
            while process.poll() is None:
                texts += arguments_of_all()
                time.sleep(0.2)
            texts += process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    # a server that repeats what it was sent
    for code in ("SignatureDoesNotMatch", "AccessDenied", "NotImplemented"):
        remote.link.inject(Fault("status", 403, code, "no", f"<StringToSign>{SECRET_KEY}</StringToSign>", times=10**9))
        for more in ((), ("--json",)):
            texts += remote.start_doctor("-v", *QUICK, *more).communicate(timeout=SECONDS)
    remote.link.inject()
    for verb in ("du", "ls", "cost"):
        done = world.holdfast("remote", verb, "--json")
        texts += [done.stdout, done.stderr]
    done = world.holdfast(*remote.setup, "--offline", "--yes", "--json")
    texts += [done.stdout, done.stderr]
    world.commit("set up")
    texts.append(world.git("log", "--all", "-p"))
    texts.append(world.git("config", "--list"))
    for path in [*world.home.rglob("*"), *tmp_path.glob("r.*"), *world.root.rglob("*")]:
        if path.is_file() and path.name != "config.local":
            texts.append(path.read_bytes().decode(errors="replace"))
    assert not [text for text in texts if SECRET_KEY in text]
    assert SECRET_KEY in (world.root / ".dvc" / "config.local").read_text()
    assert any("remote\0doctor" in text for text in texts), "the arguments were seen"
    assert "config.local" not in world.git("ls-files")
    assert (world.root / ".dvc" / "config.local").stat().st_mode & 0o077 == 0
