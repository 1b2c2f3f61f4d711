"""What other stores make of the same files: restic and borg, chunks with zstd, zstd alone. All sizes are bytes."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import zstandard
from blake3 import blake3
from pyfastcdc import FastCDC

from harness import NOT_INSTALLED

CHUNK_BYTES = 64 * 1024
RESTIC_PASSWORD = {"RESTIC_PASSWORD": "benchmark", "RESTIC_PROGRESS_FPS": "0"}
# borg asks where it finds a repository that it has not seen, or one that moved
BORG_YES = {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
COMPRESSIONS = {"restic": ("auto", "max"), "borg": ("lz4", "zstd,3")}  # the first is what it does unasked


class Backups:
    """Repositories of the tools that are installed, one for each compression; each `keep` is a snapshot in each.

    Args:
        folder: where the repositories are.
        environment: of the tools' processes.

    Attributes:
        versions: of the tools, or that one is not installed.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, {**environment, **RESTIC_PASSWORD, **BORG_YES}
        self._count = 0
        self.versions: dict[str, str] = dict.fromkeys(COMPRESSIONS, NOT_INSTALLED)
        if shutil.which("restic"):
            self.versions["restic"] = self._run("restic", "version").split()[1]
        if shutil.which("borg"):
            self.versions["borg"] = self._run("borg", "--version").split()[1]
        for tool, _, place in self._repositories():
            place.mkdir(parents=True)
            if tool == "restic":
                self._run("restic", "init", "--quiet", "--repo", str(place))
            else:
                self._run("borg", "init", "--encryption", "none", str(place))

    def keep(self, root: Path, targets: Iterable[str]) -> None:
        """A snapshot of some files or folders below ``root``."""
        self._count += 1
        for tool, compression, place in self._repositories():
            if tool == "restic":
                how = ("--repo", str(place), "--compression", compression, "--no-cache", "--quiet")
                self._run("restic", "backup", *how, *targets, cwd=root)
            else:
                self._run("borg", "create", "--compression", compression, f"{place}::{self._count}", *targets, cwd=root)

    def sizes(self) -> dict[str, int]:
        """What each repository takes, by the name of its tool and the compression."""
        return {
            f"{tool}, {compression}": sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            for tool, compression, place in self._repositories()
        }

    def _repositories(self) -> Iterator[tuple[str, str, Path]]:
        for tool in (tool for tool, found in self.versions.items() if found != NOT_INSTALLED):
            for compression in COMPRESSIONS[tool]:
                yield tool, compression, self._folder / f"{tool} {compression}"

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(command, cwd=cwd, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
        return done.stdout


def file_sizes(files: Iterable[Path]) -> dict[str, int]:
    """zstd -3 of each file, and of each chunk that no file before had."""
    compressor = zstandard.ZstdCompressor(level=3)
    cutter = FastCDC(CHUNK_BYTES, min_size=CHUNK_BYTES // 4, max_size=CHUNK_BYTES * 4)
    whole = chunked = 0
    seen = set()
    for path in files:
        data = path.read_bytes()
        whole += len(compressor.compress(data))
        for chunk in cutter.cut_buf(data):
            part = data[chunk.offset : chunk.offset + chunk.length]
            digest = blake3(part).digest()
            if digest not in seen:
                seen.add(digest)
                chunked += min(len(part), len(compressor.compress(part)))
    return {"zstd -3 a file": whole, "CDC 64 KiB + zstd -3": chunked}
