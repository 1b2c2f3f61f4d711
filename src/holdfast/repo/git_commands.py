"""Git as a process, for commands that ask it one small thing: a library takes ten times as long to import."""

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from holdfast.repo.git import INDEX_WAITS_SECONDS, GitStageError

# 50 processes that add at once wait for one another
LAST_WAITS_SECONDS = (2.0, 3.0, 5.0)
# git's exit code for what it cannot do at all
NO_REPOSITORY = 128


def head_commit(folder: Path) -> str | None:
    """The commit (40 hex digits) that is checked out around ``folder``; None outside of git and before the first."""
    return run_git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")


def add_to_index(folder: Path, paths: Iterable[Path]) -> None:
    """Add files to git's index, as ``git add`` does, also that they are gone; nothing happens outside of git.

    Raises:
        GitStageError: git refuses, because the files are ignored or another git process holds the index.
    """
    names = [str(path) for path in paths]
    if not names:
        return
    for wait in (*INDEX_WAITS_SECONDS, *LAST_WAITS_SECONDS, None):
        done = _git(folder, "add", "--all", "--", *names)
        if done.returncode == 0:
            return
        reason = " ".join(done.stderr.split())
        if done.returncode == NO_REPOSITORY and run_git(folder, "rev-parse", "--git-dir") is None:
            return
        if "index.lock" not in reason or wait is None:
            break
        time.sleep(wait)
    hint = "Everything else is done: run `git add` on them when git is free"
    raise GitStageError(f"git does not add {', '.join(names)}: {reason}", hint=hint)


def run_git(folder: Path, *arguments: str) -> str | None:
    """What git prints, without the last line end; None where it fails, or where there is no git."""
    try:
        done = _git(folder, *arguments)
    except OSError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
