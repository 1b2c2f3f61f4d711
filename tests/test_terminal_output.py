"""What a terminal shows: tables in its width, colours that mean something, how far things are."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from holdfast.cli.output import Table
from holdfast.cli.progress import _duration
from registry_world import weights
from worlds import TOOLS, World, environment, make_repository

TABLE = """
from holdfast.cli.output import Table, emit
rows = [("accuracy", "pass", "0.93 +0.01 ✓"), ("loss", "fail", "0.5 +0.1 ✗"), ("f1", "inconclusive", "0.9")]
emit("text", {}, [Table(("metric", "verdict", "value"), rows)])
"""
STEPS = """
import time
from holdfast.cli.progress import bar, bars, counted
with bar("Pushing") as update:
    for step in range(1, STEPS + 1):
        time.sleep(0.1)
        update(step * 1_000_000_000 // STEPS, 1_000_000_000, step * 250_000_000 // STEPS)
with bars(counted, "Reading ") as update:
    update("packs", 1, 2)
    update("files", 3, 0)
with bar("Small", least=10) as update:
    update(5, 9)
print("done")
"""
# a table in a terminal is as wide as that
PATHS = """
from holdfast.cli.output import Table, emit
rows = [("models/" + "deep/" * 12 + "classifier.safetensors", "registered", "8.1 kB")]
emit("text", {}, [Table(("file", "status", "size"), rows, right=frozenset({"size"}))])
"""


# of this process; what runs several at a time tells them a width of its own
SET_HERE = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


def in_terminal(program: str, folder: Path, *, columns: int = 80, **variables: str) -> str:
    """What a Python program writes to a terminal, standard error included."""
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in environment(folder).items() if name not in SET_HERE}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=kept | {"TERM": "xterm-256color"} | variables,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux says so where the other end is closed
            break
        if not data:
            break
        seen += data
    os.close(terminal)
    assert process.wait() == 0, seen.decode()
    return seen.decode()


def piped(program: str, folder: Path, **variables: str) -> str:
    kept = {name: value for name, value in environment(folder).items() if name not in SET_HERE}
    done = subprocess.run(
        [sys.executable, "-c", program], env=kept | variables, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def test_colours_say_what_words_say(tmp_path: Path) -> None:
    shown = in_terminal(TABLE, tmp_path)
    for colour, text in ((32, "pass"), (31, "fail"), (33, "inconclusive"), (32, "✓"), (31, "✗")):
        assert f"\x1b[{colour}m{text}\x1b[0m" in shown
    without = in_terminal(TABLE, tmp_path, NO_COLOR="1")
    assert not re.search(r"\x1b\[3\dm", without)
    assert bare(without) == bare(shown)


def test_a_pipe_has_colours_where_it_is_told_to(tmp_path: Path) -> None:
    plain = piped(TABLE, tmp_path)
    assert "\x1b" not in plain
    forced = piped(TABLE, tmp_path, FORCE_COLOR="1")
    assert "\x1b[32mpass\x1b[0m" in forced
    assert "\x1b[31m✗\x1b[0m" in forced
    assert bare(forced) == plain
    assert piped(TABLE, tmp_path, FORCE_COLOR="1", NO_COLOR="1") == plain


def test_paths_are_broken_at_slashes(tmp_path: Path) -> None:
    lines = bare(in_terminal(PATHS, tmp_path)).splitlines()
    assert max(map(len, lines)) <= 80
    first = next(number for number, line in enumerate(lines) if line.startswith(" models/"))
    assert lines[first].split()[0].endswith("deep/")
    assert re.fullmatch(r" (deep/)+classifier\.safetensors *", lines[first + 1])
    wide = bare(in_terminal(PATHS, tmp_path, columns=120))
    assert "deep/deep/classifier.safetensors   registered   8.1 kB" in wide
    assert "deep/deep/classifier.safetensors   registered   8.1 kB" in piped(PATHS, tmp_path)


def test_a_narrow_column_stays_where_a_wide_one_went() -> None:
    table = Table(("a", "b", "c", "d"), [("x" * 40, "12", "y" * 60, "z" * 4)], spare=("b", "c", "d"))
    assert table.fitted(200) is table
    assert table.fitted(80).columns == ["a", "b", "d"]
    assert table.fitted(52).columns == ["a", "d"]
    assert table.fitted(45).columns == ["a"]
    assert table.fitted(10).columns == ["a"]  # what is not spare stays, and is folded


def test_how_far_how_fast_and_how_long_yet(tmp_path: Path) -> None:
    shown = in_terminal(f"STEPS = 20\n{STEPS}", tmp_path, columns=100)
    lines = [bare(line) for line in shown.split("\r\x1b[K")]
    assert not any("/s" in line for line in lines[:8])  # too early to tell
    found = [
        re.fullmatch(r"Pushing +(\d+)% .* of 1\.0 GB, (\d+\.\d) MB/s, (\d+) s left; .* sent, .* saved", line)
        for line in lines
    ]
    told = [match for match in found if match]
    assert len(told) >= 5
    assert all(100 < float(match[2]) < 501 for match in told)  # 500 MB/s, less where the machine is busy
    for match in told:
        assert abs(int(match[3]) - 10 * (100 - int(match[1])) / float(match[2])) <= 1.5
    last = [line for line in lines if line.startswith("Pushing")][-1]
    assert last.startswith("Pushing 100% 1.0 GB of 1.0 GB, ")
    assert last.endswith("/s; 250.0 MB sent, 750.0 MB saved")
    assert {"Reading packs  50% 1 of 2", "Reading files 3"} <= set(lines)
    assert not any("Small" in line for line in lines)
    assert lines[-1].strip() == "done"  # the line is gone before the result comes
    short = f"STEPS = 2\n{STEPS}"
    narrow = in_terminal(short, tmp_path, columns=40)
    assert max(len(bare(line)) for line in narrow.split("\r\x1b[K")) < 40
    assert piped(short, tmp_path) == "done\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (99, "99 s"), (100, "2 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_times_left(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_a_command_on_a_terminal(tmp_path: Path) -> None:
    """In 80 columns no line is wider, and the end of a long path is in one piece."""
    world = make_repository(tmp_path)
    for name in ("a", "b"):
        weights(world.root / f"outputs/a_folder_with_a_long_name/and_one_below_it/{name}/best_model.safetensors", 1.0)
    for line in ("scan", "dedup report --min-size 0"):
        # what was wiped is not seen
        shown = bare(re.sub("[^\n]*\r\x1b\\[K", "", in_terminal(_holdfast(world, line), tmp_path)))
        assert max(map(len, shown.splitlines())) <= 80, line
        assert "best_model.safetensors" in shown


def _holdfast(world: World, line: str) -> str:
    return (
        f"import os, subprocess\nos.chdir({str(world.root)!r})\n"
        f"assert subprocess.run([{str(TOOLS / 'holdfast')!r}, *{line.split()!r}]).returncode in (0, 1, 3)\n"
    )
