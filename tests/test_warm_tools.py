"""A copy of a process with a tool's imports does what a new process does: what it prints, how it ends, what it leaves."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import warm_tools
from servers import S3Server
from worlds import World, environment, make_repository

HOLDFAST = str(warm_tools.FOLDER / "holdfast")
DVC = str(warm_tools.FOLDER / "dvc")
# the process that runs a stage's command is the shell's parent
STAGES = """\
stages:
  told:
    cmd: tr '\\0' ' ' < /proc/$PPID/cmdline > cmdline; ps -o pgid= -o sid= $PPID > group; umask > mask; env > names;
      sleep 0.5; grep -E 'Sig(Blk|Ign|Cgt)' /proc/$PPID/status > signals
    outs: [cmdline, group, mask, names, signals]
  trained:
    cmd: cp params.yaml model.bin
    params: [size]
    outs: [model.bin]
  failed:
    cmd: echo in vain; exit 3
  killed:
    cmd: kill -KILL $PPID
"""


class Pair:
    """Two equal projects in folders of equal names, one for the new processes and one for the copies."""

    def __init__(self, folder: Path) -> None:
        self.new = make_repository(folder / "new")
        self.new.write("dvc.yaml", STAGES)
        self.new.write("params.yaml", "size: 1\n")
        self.new.commit("stages")
        self.new.write("data.txt", "some data")
        shutil.copytree(folder / "new", folder / "warm")
        self.warm = World(folder / "warm/repository", folder / "warm/home")

    def __call__(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run DVC both ways; what it did, which must be the same."""
        return self.both(DVC, *arguments, **more)

    def both(self, tool: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """The same with any tool."""
        command = [tool, *arguments]
        variables = environment(self.new.home) | more
        new = subprocess.run(
            command, cwd=self.new.root, env=variables, capture_output=True, text=True, check=False, stdin=0
        )
        warm = warm_tools.run(command, self.warm.root, environment(self.warm.home) | more)
        assert warm.returncode == new.returncode, (new.stderr, warm.stderr)
        assert [masked(warm.stdout), masked(warm.stderr)] == [masked(new.stdout), masked(new.stderr)]
        return warm


def masked(text: str) -> str:
    """Without the places of the two, and without what differs from run to run, as the order of a set does."""
    text = re.sub(r"git add .*", lambda found: " ".join(sorted(found[0].split())), text)
    text = re.sub(r"\S*/(new|warm)/(repository|home)", "", text)
    text = re.sub(r"\b[a-z]+-[a-z]+\b(?= to|'|\]|$)|\b(?:[0-9a-f]{7}|[0-9a-f]{40})\b", "", text)
    return re.sub(r"line \d+, in main|\d\d:\d\d \w\w|\d+:\d+:\d+|\d+\.\d+|\d+[.\d]* ?[kM]?B/s|0x[0-9a-f]+", "", text)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    return Pair(tmp_path_factory.mktemp("pair"))


def test_what_is_printed_and_how_it_ends(pair: Pair, s3_server: S3Server, s3_folder: str, tmp_path: Path) -> None:
    assert pair("add", "data.txt").returncode == 0
    assert pair("status", "data.txt.dvc").stdout == "Data and pipelines are up to date.\n"
    for name, world in (("new", pair.new), ("warm", pair.warm)):
        world.write(".dvc/config", f"[core]\n    remote = store\n['remote \"store\"']\n    url = {s3_folder}/{name}\n")
    assert pair("push", "data.txt.dvc", **s3_server.environment()).stdout == "1 file pushed\n"
    for world in (pair.new, pair.warm):
        world.git("add", "--all")
        world.git("commit", "-q", "-m", "data")
    assert "Ran experiment(s): larger" in pair("exp", "run", "trained", "-n", "larger", "-S", "size=2").stdout
    assert (pair.warm.root / "model.bin").read_text() == "size: 2\n"
    assert pair("exp", "list", "--name-only").stdout == "larger\n"

    assert pair("remote", "modify", "none", "url", "x").returncode == 251
    assert pair("nonsense").returncode == 254
    assert pair("repro", "failed").returncode == 255
    assert pair("--cd", str(tmp_path), "status").returncode == 253
    assert pair("repro", "killed").returncode == -signal.SIGKILL
    assert pair("status", "data.txt.dvc").returncode == 0  # nothing was left behind by those


def test_holdfast_is_the_same(pair: Pair) -> None:
    vault = "file:///nowhere/at/all"
    np.savez(pair.new.root / "weights.npz", weight=np.arange(100.0))
    shutil.copy2(pair.new.root / "weights.npz", pair.warm.root)
    for code, words in (
        (0, "version"),
        (2, "nonsense"),
        (0, "scan --json"),
        (0, "dedup report --md"),
        (0, "registry register a/b weights.npz --json"),
        (0, "registry show"),
        (0, "registry tag --dry-run"),
        (0, "registry verify --offline"),
        (2, "registry rollback a/b"),
        (0, "gc list --local --json"),
        (1, f"vault stats -r {vault}"),
        (0, "runs list"),
    ):
        assert warm_tools.warms([HOLDFAST, *words.split()])
        done = pair.both(HOLDFAST, *words.split())
        assert done.returncode == code, done.stderr
        assert done.stdout or done.stderr, words
    assert not warm_tools.warms([HOLDFAST, "equivalence", "a", "b"])
    assert not warm_tools.warms(["/usr/bin/dvc", "status"])


def test_it_is_the_callers_process(pair: Pair) -> None:
    """Its group and session, its umask, its variables and no others, and the signals that it heeds."""
    warm_tools.run([DVC, "--version"], pair.warm.root, environment(pair.warm.home))  # it has been started before
    before = os.umask(0o027)
    try:
        pair("repro", "told", OURS="ä\udc80")
    finally:
        os.umask(before)
    names = ("cmdline", "group", "mask", "names", "signals")
    new, warm = ({name: (world.root / name).read_bytes() for name in names} for world in (pair.new, pair.warm))
    assert new["cmdline"].endswith(b"/dvc repro told ")
    assert b"warm_tools.py" in warm["cmdline"]
    assert warm["group"] == new["group"] != b""
    assert warm["signals"] == new["signals"] != b""
    assert warm["mask"] == new["mask"] == b"0027\n"
    assert b"OURS=\xc3\xa4\x80\n" in warm["names"]

    def variables(world: World, text: bytes) -> set[str]:
        own = text.decode(errors="surrogateescape").replace(str(world.root.parent), "")
        return {line for line in own.splitlines() if not line.startswith("_=")}

    assert variables(pair.warm, warm["names"]) == variables(pair.new, new["names"])


@pytest.mark.parametrize("case", ["variable", "beginning", "home", "same"])
def test_what_imports_have_read_is_nobody_elses(case: str, tmp_path: Path) -> None:
    """A new process where a variable or a file would have made other modules of them."""
    world = make_repository(tmp_path)
    world.write("dvc.yaml", STAGES)
    variables = environment(world.home)
    if case == "variable":
        variables["DVC_SHOW_TRACEBACK"] = "1"
    elif case == "beginning":
        variables["TQDM_DISABLE"] = "1"
    elif case == "home":
        (world.home / ".aws").mkdir()
    done = warm_tools.run([DVC, "repro", "told"], world.root, variables)
    assert done.returncode == 0, done.stderr
    assert ("warm_tools.py" in (world.root / "cmdline").read_text()) == (case == "same")


def test_several_at_once(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(
        "dvc.yaml", "stages:\n  slow:\n    cmd: touch begun; for i in $(seq 400); do test -e go || sleep 0.05; done\n"
    )
    variables = environment(world.home)
    ended: list[subprocess.CompletedProcess[str]] = []
    slow = threading.Thread(target=lambda: ended.append(warm_tools.run([DVC, "repro"], world.root, variables)))
    slow.start()
    end = time.monotonic() + 60
    while not (world.root / "begun").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert warm_tools.run([DVC, "version", "-q"], world.root, variables).returncode == 0
    assert not ended
    (world.root / "go").touch()
    slow.join(60)
    assert [done.returncode for done in ended] == [0]


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_it_ends_with_who_started_it(how: str, tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    script = (
        "import os, signal, sys, time, warm_tools; from pathlib import Path; "
        f"print(warm_tools.run([{DVC!r}, '--version'], Path({str(world.root)!r}), dict(os.environ)).stdout.strip()); "
        "print(warm_tools._RUNNING['dvc'].process.pid, flush=True); "
        + ("os.kill(os.getpid(), signal.SIGKILL)" if how == "killed" else "")
    )
    place = {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env=environment(world.home) | place, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == (-signal.SIGKILL if how == "killed" else 0), done.stderr
    assert done.stderr == ""
    version, process = done.stdout.split()
    assert version.startswith("3.")
    end = time.monotonic() + 10
    while Path(f"/proc/{process}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not Path(f"/proc/{process}").exists()
