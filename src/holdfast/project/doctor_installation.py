"""What a doctor says of an installation: versions, extras, the disk and what its file system can do."""

import platform
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

from holdfast.dedup.reflink import can_clone
from holdfast.errors import HoldfastError
from holdfast.objectstore.findings import Finding
from holdfast.project.git_state import git_version
from holdfast.repo.dvc import LocalCache

OLDEST_GIT = (2, 25)
OLDEST_PYTHON = (3, 10)
LEAST_FREE_BYTES = 5_000_000_000
LEAST_FREE_SHARE = 0.05
# what the extras for users bring, and what for
EXTRAS = {
    "train": "records and resumes training, converts torch checkpoints, runs ONNX models",
    "fast": "encodes and decodes twice as fast",
    "cluster": "works on several machines",
    "sign": "signs versions",
    "report": "writes reports as pages and pictures",
}
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+).*?(?:extra\s*==\s*[\"'](?P<extra>[^\"']+)[\"'])?\s*$")


def examine_installation(cache: LocalCache | None, root: Path | None) -> Iterator[Finding]:
    """What can be said of Python, Holdfast, what it stands on, and the disk.

    Args:
        cache: DVC's cache; None outside of a project.
        root: the project's folder, or the one to look at the disk of; None for neither.
    """
    yield _python()
    yield _holdfast()
    yield _dvc()
    yield _git()
    yield from _extras()
    yield _loops()
    yield from _torch()
    if root is not None:
        yield _space(cache.folder if cache is not None else root)
    if cache is not None and root is not None:
        yield _links(cache, root)


def _python() -> Finding:
    says = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if tuple(map(int, platform.python_version_tuple()[:2])) < OLDEST_PYTHON:
        return Finding("python", "fault", f"{says}: Holdfast needs 3.10", "install a newer Python")
    return Finding("python", "ok", says)


def _holdfast() -> Finding:
    try:
        found = distribution("holdfast")
    except PackageNotFoundError:
        says = "the package is imported from its folder and not installed, so that nobody knows what it needs"
        return Finding("holdfast", "warning", says, "`pip install holdfast`")
    return Finding("holdfast", "ok", f"holdfast {found.version}")


def _dvc() -> Finding:
    """Whether DVC's version is one that the adapter was written for: its Python API is private."""
    from packaging.requirements import Requirement  # comes with DVC; most commands do not need it

    wanted = next((Requirement(text) for text in _requirements() if re.match(r"dvc\b(?!-)", text)), None)
    try:
        there = version("dvc")
    except PackageNotFoundError:
        return Finding("dvc", "fault", "DVC is not installed", f"`pip install '{wanted or 'dvc'}'`")
    if wanted is not None and not wanted.specifier.contains(there, prereleases=True):
        says = f"DVC {there} is none that this Holdfast knows ({wanted.specifier}): what it reads of DVC is private"
        return Finding("dvc", "fault", says, f"`pip install '{wanted}'`")
    return Finding("dvc", "ok", f"DVC {there}")


def _git() -> Finding:
    there = git_version()
    if there is None:
        return Finding(
            "git", "fault", "git is not installed, and nothing works without it", "install git 2.25 or later"
        )
    numbers = tuple(int(part) for part in there.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_GIT:
        return Finding("git", "warning", f"git {there} is older than 2.25", "install a newer git")
    return Finding("git", "ok", f"git {there}")


def _extras() -> Iterator[Finding]:
    for extra, use in EXTRAS.items():
        names = [
            match["name"] for text in _requirements() if (match := _REQUIREMENT.match(text)) and match["extra"] == extra
        ]
        missing = [name for name in names if not _is_installed(name)]
        if names and missing:
            says = f"the extra {extra} is not there ({', '.join(missing)} missing): {use}"
            yield Finding(f"extra {extra}", "note", says, f"`pip install 'holdfast[{extra}]'`")
        elif names:
            yield Finding(f"extra {extra}", "ok", f"{', '.join(names)}")


def _loops() -> Finding:
    from holdfast.vault.codec import loops_in_use  # imports numba, 0.7 s

    loops = loops_in_use()
    if loops.startswith("numba"):
        return Finding("codec", "ok", f"the vault's codec runs {loops}")
    if _is_installed("numba"):
        says = f"the vault's codec runs {loops}, since numba {version('numba')} cannot be imported"
        return Finding("codec", "warning", says, "`pip install --upgrade numba numpy`")
    return Finding(
        "codec", "note", f"the vault's codec runs {loops}, at half the speed", "`pip install 'holdfast[fast]'`"
    )


def _torch() -> Iterator[Finding]:
    if not _is_installed("torch"):
        return
    from holdfast.runs.checkpoint import import_torch  # 1 s, and only where it is there

    try:
        torch = import_torch()
        count = torch.cuda.device_count()
        where = ", ".join(torch.cuda.get_device_name(place) for place in range(count)) if count else "on the CPU"
    except (HoldfastError, ImportError, OSError, RuntimeError) as error:
        says = f"torch {version('torch')} is installed and does not work: {' '.join(str(error).split())[:160]}"
        yield Finding("torch", "warning", says, "`pip install --force-reinstall torch`")
        return
    yield Finding("torch", "ok", f"torch {torch.__version__}, {where}")


def _space(folder: Path) -> Finding:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    usage = shutil.disk_usage(there)
    free = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.0f} GB are free"
    if usage.free < min(LEAST_FREE_BYTES, usage.total * LEAST_FREE_SHARE):
        return Finding("disk", "warning", f"only {free}", "`holdfast gc plan` lists what may go")
    return Finding("disk", "ok", free)


def _links(cache: LocalCache, root: Path) -> Finding:
    """How DVC puts files of its cache into the workspace, and whether each takes its room twice."""
    types = ", ".join(cache.link_types)
    place = next(folder for folder in (cache.folder, *cache.folder.parents) if folder.exists())
    if "reflink" in cache.link_types and can_clone(place, root):
        return Finding(
            "cache", "ok", f"cache.type is {types}, and the file system makes reflinks: nothing is there twice"
        )
    others = [kind for kind in cache.link_types if kind in ("hardlink", "symlink")]
    if others:
        return Finding("cache", "ok", f"cache.type is {types}: files are linked to the cache, and are not to be edited")
    says = f"cache.type is {types}, and the file system makes no reflinks: each tracked file takes its room twice"
    mend = (
        "`dvc config --local cache.type hardlink,symlink,copy`, then `dvc checkout --relink`; edit no tracked file then"
    )
    return Finding("cache", "note", says, mend)


def _requirements() -> list[str]:
    try:
        return requires("holdfast") or []
    except PackageNotFoundError:
        return []


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
