"""Which paths an object has or had: in the workspace and in every commit that a ref reaches."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.repo.cache import read_members
from holdfast.repo.dvcfiles import LISTING_SUFFIX
from holdfast.repo.history import HistoryReader, Sighting, read_workspace
from holdfast.repo.lineage import TIPS, Lineage, ObjectKey
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project


def read_names(project: Project, cache: Path, notes: list[str]) -> Lineage:
    """The versions of all DVC outs and of the files in folders, newest first, as far as they can be read.

    Unlike `holdfast.repo.lineage.read_lineage`, which looks for bases, folders of one version are among them: their
    files have names, too. What cannot be read gets a line in ``notes``.
    """
    lineage = Lineage()
    missing = 0
    known: dict[ObjectKey, list[tuple[str, str]] | None] = {}
    for sighting in _sightings(project, notes):
        key = (sighting.out.hash_name, sighting.out.oid)
        tip = sighting.origin.kind in TIPS and not sighting.origin.back
        if not sighting.out.oid.endswith(LISTING_SUFFIX):
            _add(lineage, sighting.out.path, key, tip=tip)
            continue
        if key not in known:
            known[key] = read_members(cache, *key)
            missing += known[key] is None and not sighting.out.listed
        for name, member in known[key] or ():
            _add(lineage, f"{sighting.out.path}/{name}", (key[0], member), tip=tip)
    if missing:
        what, it = (f"listings of {missing:,} folders are", "them") if missing > 1 else ("listing of a folder is", "it")
        notes.append(f"the {what} not in the cache: what was in {it} is unknown; `dvc fetch` brings {it}")
    return lineage


def _add(lineage: Lineage, path: str, key: ObjectKey, *, tip: bool) -> None:
    lineage.add(path, key)
    if tip:
        lineage.tips.add(key)


def _sightings(project: Project, notes: list[str]) -> Iterator[Sighting]:
    try:
        repository = open_repository(project.git_root)
        sources: Iterable[Sighting] = chain(read_workspace(repository).sightings, HistoryReader(repository).read_refs())
        yield from sources
    except HoldfastError as error:
        notes.append(f"not all names are known: {error.message}")
