"""Git's own answers that a set-up needs: where the repository is, what is committed, what is ignored, whose it is."""

import subprocess
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from holdfast.errors import HoldfastError, NotARepositoryError
from holdfast.repo.workspace import find_git_root

BIG_BYTES = 10_000_000


def find_repository(start: Path) -> Path:
    """The top of the git working tree around a folder, which git itself works in.

    Raises:
        NotARepositoryError: there is none, it is a bare one, or git refuses it.
    """
    start = start.resolve()
    done = _run(start, "rev-parse", "--show-toplevel")
    if done.returncode == 0:
        return Path(done.stdout.rstrip("\n")).resolve()
    bare = _run(start, "rev-parse", "--is-bare-repository")
    if bare.returncode == 0:
        hint = f"`git clone {start} FOLDER` makes a working tree; run it there"
        raise NotARepositoryError(f"{start} is a git repository without a working tree", hint=hint)
    root = find_git_root(start)
    if root is None:
        hint = "Run `git init` there, or name another folder with `holdfast --cd DIR`"
        raise NotARepositoryError(f"{start} is not inside a git repository", hint=hint)
    reason = " ".join(done.stderr.split())
    if "safe.directory" in done.stderr:  # in whatever language git speaks
        hint = f"`git config --global --add safe.directory {root}` says that you trust it"
        raise NotARepositoryError(f"{root} belongs to somebody else, and git does not work in it", hint=hint)
    raise NotARepositoryError(f"git does not work in {root}: {reason}", hint="See `git status`")


def uncommitted(git_root: Path, paths: Collection[str]) -> list[str]:
    """Those of the paths whose files git could not bring back: changed, staged, or not tracked at all."""
    if not paths:
        return []
    tracked = set(_names(git_root, "ls-files", "-z", "--", *paths))
    status = _run(git_root, "--literal-pathspecs", "status", "--porcelain", "-z", "--no-renames", "--", *paths)
    changed = {entry[3:] for entry in status.stdout.split("\0") if entry}
    return [path for path in paths if path not in tracked or path in changed]


def ignored(git_root: Path, paths: Collection[str]) -> list[str]:
    """Those of the files that git's rules ignore."""
    if not paths:
        return []
    return sorted(_names(git_root, "ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *paths))


def tracked_files(git_root: Path) -> list[str]:
    """The files of git's index, from the top."""
    return list(_names(git_root, "ls-files", "-z"))


def big_files(git_root: Path, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Of files, those of 10 MB or more in the working tree, each with its bytes."""
    for name in names:
        try:
            size = (git_root / name).lstat().st_size
        except OSError:
            continue  # it is not checked out
        if size >= BIG_BYTES:
            yield name, size


def hooks_folder(git_root: Path) -> Path | None:
    """The folder in which git looks for hooks."""
    done = _run(git_root, "rev-parse", "--git-path", "hooks")
    return git_root / done.stdout.rstrip("\n") if done.returncode == 0 else None


def git_version() -> str | None:
    """Git's version, ``2.43.0``; None where there is no git."""
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return next((word for word in done.stdout.split() if word[:1].isdigit()), None)


def _names(git_root: Path, *arguments: str) -> Iterator[str]:
    done = _run(git_root, "--literal-pathspecs", *arguments)
    return (name for name in done.stdout.split("\0") if name)


def _run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError as error:
        raise HoldfastError("git is not installed", hint="Install git 2.25 or later") from error
