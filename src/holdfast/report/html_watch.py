"""Whether a project has changed, by the times and sizes of its files."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from holdfast.inventory.run_scan import SKIPPED_FOLDERS
from holdfast.repo.gitfolder import find_git_folder
from holdfast.repo.workspace import DVC_FOLDER, Project

FILES_MAX = 50_000  # beyond which files are passed over, and the page follows folders alone
STATE_DIGITS = 32
_GIT_FILES = ("HEAD", "packed-refs", "MERGE_HEAD")
_OBJECTS = Path(DVC_FOLDER) / "cache" / "files" / "md5"


def state_of(project: Project) -> str:
    """What names the state of a project: its refs, its files, its settings, what DVC's cache holds.

    Nothing is read but folders: 50,000 files take a tenth of a second. What is written to a file within the same tick
    of the file system's clock, with as many bytes, is not seen until the next change.

    Raises:
        HoldfastError: git's folder cannot be found.
    """
    known = blake3()
    folder = find_git_folder(project.git_root)
    tops = {folder.path, folder.common}
    for path in (*(top / name for top in sorted(tops) for name in _GIT_FILES), *_settings(project)):
        known.update(_line(path))
    for path in _below(folder.common / "refs", frozenset()):
        known.update(_line(path))
    for path in _below(project.root, SKIPPED_FOLDERS | {DVC_FOLDER}):
        known.update(_line(path))
    known.update(_folders(project.root / _OBJECTS))
    return known.hexdigest()[:STATE_DIGITS]


def _settings(project: Project) -> Iterable[Path]:
    return (project.root / DVC_FOLDER / name for name in ("config", "config.local"))


def _below(top: Path, skipped: frozenset[str]) -> Iterator[Path]:
    """Every file and folder, in order."""
    seen = 0
    waiting = [str(top)]
    while waiting:
        place = waiting.pop()
        yield Path(place)
        try:
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue  # gone, or not for us
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in skipped:
                    waiting.append(entry.path)
            elif seen < FILES_MAX:
                seen += 1
                yield Path(entry.path)


def _folders(top: Path) -> bytes:
    """The folders that DVC spreads its objects over."""
    try:
        return b"".join(map(_line, sorted(top.iterdir())))
    except OSError:
        return b""


def _line(path: Path) -> bytes:
    try:
        status = os.lstat(path)
    except OSError:
        return f"{path}\n".encode(errors="surrogateescape")
    return f"{path}\0{status.st_ino} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape")
