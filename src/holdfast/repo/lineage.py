"""Which object was which file before: the versions of each path in git's history, the base for what is stored next."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from holdfast.errors import IntegrityError
from holdfast.repo.cache import read_members
from holdfast.repo.dvcfiles import LISTING_SUFFIX
from holdfast.repo.history import HistoryReader, Sighting, read_workspace
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project

ObjectKey = tuple[str, str]
TIPS = frozenset({"workspace", "branch", "tag"})


@dataclass
class Lineage:
    """The objects that each path had, and the paths of each object.

    Args:
        versions: objects (hash name, oid) of a path from the git root, newest first, each once.
        paths: the paths of an object, the best known first.
        tips: the objects in the workspace, at the tip of a branch, or tagged.
    """

    versions: dict[str, list[ObjectKey]] = field(default_factory=dict)
    paths: dict[ObjectKey, list[str]] = field(default_factory=dict)
    tips: set[ObjectKey] = field(default_factory=set)

    def older(self, key: ObjectKey) -> list[ObjectKey]:
        """What the object's paths held before it, the version right before it first."""
        return self._beside(key, 1)

    def newer(self, key: ObjectKey) -> list[ObjectKey]:
        """What the object's paths held after it, the version right after it first."""
        return self._beside(key, -1)

    def oldest_first(self, keys: Iterable[ObjectKey]) -> list[ObjectKey]:
        """The objects in an order in which each comes after those that its paths held before it; otherwise as given."""
        given = {key: place for place, key in enumerate(keys)}
        old = {key: age for key in given if (age := self._age(key))}
        # most of many thousand files never changed
        young = (key for key in given if key not in old) if old else given
        return [*sorted(old, key=lambda key: (-old[key], given[key])), *young]

    def _age(self, key: ObjectKey) -> int:
        """How many versions of one of its paths came after it, at most."""
        return max((self.versions[path].index(key) for path in self.paths.get(key, ())), default=0)

    def add(self, path: str, key: ObjectKey) -> None:
        """A path's next older object."""
        known = self.versions.setdefault(path, [])
        if key not in known:
            known.append(key)
        paths = self.paths.setdefault(key, [])
        if path not in paths:
            paths.append(path)

    def _beside(self, key: ObjectKey, step: int) -> list[ObjectKey]:
        found: dict[ObjectKey, None] = {}
        for path in self.paths.get(key, ()):
            versions = self.versions[path]
            place = versions.index(key)
            found.update(dict.fromkeys(versions[place + step :: step] if step > 0 or place else ()))
        return list(found)


def read_lineage(project: Project, cache_folder: Path) -> Lineage:
    """The versions of all DVC outs in the workspace and in every commit that a ref reaches.

    Files in folders count under their own path where the cache has the folder's listings; a folder of which there is
    one version has no history and is left out. What cannot be read is passed over: a base that is not found costs
    bytes, not data.

    Raises:
        ShallowCloneError: git's history ends early.
        UnreadableRefError: the repository cannot be opened.
    """
    repository = open_repository(project.git_root)
    lineage = Lineage()
    folders: dict[str, list[ObjectKey]] = {}
    reader = HistoryReader(repository)
    for sighting in _readable(chain(read_workspace(repository).sightings, reader.read_refs())):
        key = (sighting.out.hash_name, sighting.out.oid)
        if sighting.origin.kind in TIPS and not sighting.origin.back:
            lineage.tips.add(key)
        if sighting.out.oid.endswith(LISTING_SUFFIX):
            versions = folders.setdefault(sighting.out.path, [])
            if key not in versions:
                versions.append(key)
        else:
            lineage.add(sighting.out.path, key)
    for path, versions in folders.items():
        if len(versions) < 2:
            continue
        for hash_name, oid in versions:
            for name, member in read_members(cache_folder, hash_name, oid) or ():
                lineage.add(f"{path}/{name}", (hash_name, member))
                if (hash_name, oid) in lineage.tips:
                    lineage.tips.add((hash_name, member))
    return lineage


def _readable(sightings: Iterable[Sighting]) -> Iterable[Sighting]:
    rest = iter(sightings)
    while True:
        try:
            yield next(rest)
        except StopIteration:
            return
        except IntegrityError:
            return  # a generator that raised is at its end
