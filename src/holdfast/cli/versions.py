"""Checkpoints that only a project knows: of the registry, and of git's history."""

from pathlib import Path

import pygit2

from holdfast.errors import HoldfastError, IntegrityError, NotARepositoryError, UsageError
from holdfast.formats.source import FileSource, MemorySource, Source
from holdfast.registry.store import Registry
from holdfast.repo.cache import read_members
from holdfast.repo.dvc import local_cache
from holdfast.repo.dvcfiles import MD5
from holdfast.repo.history import HistoryReader
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project, find_project


class NotHereError(HoldfastError):
    """What was named exists, but its bytes are not on this machine."""


def open_registered(name: str, model_id: str, label: str | None) -> Source:
    """Open the weights of a registered version.

    Args:
        name: as the user wrote it.
        model_id: ``app/name``.
        label: a version, an alias, or None for the current one.

    Raises:
        NotARepositoryError: there is no project here.
        UsageError: the model has no such version or alias.
        NotHereError: the bytes are not in DVC's cache.
        IntegrityError: the version's folder has no such weights.
        HoldfastError: there is no such model.
    """
    project = _project(name)
    model = Registry(project.root).model(model_id)
    wanted = model.current if label in (None, "current") else model.aliases.get(label or "", label)
    version = model.version(wanted or "")
    if version is None:
        hint = f"`holdfast registry show {model_id}` lists its versions and aliases"
        raise UsageError(f"{model_id} has no version or alias {label or 'current'}", hint=hint)
    known_as = f"{model_id}@{version.name}"
    if not version.is_folder:
        return _cached(project, version.oid, known_as)
    _find(project, version.oid, known_as)
    oid = dict(read_members(local_cache(project.root).folder, MD5, version.oid) or ()).get(version.weights_file or "")
    if oid is None:
        raise IntegrityError(f"the folder {version.oid} of {known_as} has no file {version.weights_file}")
    return _cached(project, oid, known_as)


def open_committed(name: str, revision: str, path: str) -> Source:
    """Open a file of a commit, tracked by git or by DVC.

    Args:
        name: as the user wrote it.
        revision: whatever git takes for one.
        path: from the top of the repository, or with ``./`` from here.

    Raises:
        NotARepositoryError: there is no project here.
        UsageError: the commit has no such file.
        NotHereError: the bytes are not in DVC's cache.
        HoldfastError: there is no such commit.
    """
    project = _project(name)
    repository = open_repository(project.git_root)
    # as with `git show`: from the top of the repository, or with ./ from here
    place = path
    if path.startswith(("./", "../")):
        place = (Path.cwd() / path).resolve().relative_to(project.git_root).as_posix()
    outs = {sighting.out.path: sighting.out for sighting in HistoryReader(repository).read_revision(revision)}
    if place in outs:
        return _cached(project, outs[place].oid, name)
    for folder in map(str, Path(place).parents):
        if folder in outs and outs[folder].oid.endswith(".dir"):
            members = dict(read_members(local_cache(project.root).folder, MD5, outs[folder].oid) or ())
            inside = Path(place).relative_to(folder).as_posix()
            if inside in members:
                return _cached(project, members[inside], name)
    try:
        blob = repository.revparse_single(f"{revision}:{place}")
    except (KeyError, ValueError, pygit2.GitError):
        blob = None
    if isinstance(blob, pygit2.Blob):
        return MemorySource(blob.data, name)
    raise UsageError(
        f"commit {revision} has no file {place}", hint=f"`git ls-tree -r {revision}` lists what git tracks"
    )


def _cached(project: Project, oid: str, name: str) -> Source:
    return FileSource(_find(project, oid, name))


def _find(project: Project, oid: str, name: str) -> Path:
    path = local_cache(project.root).folder / "files" / "md5" / oid[:2] / oid[2:]
    if not path.exists():
        raise NotHereError(f"{name} (md5 {oid}) is not in DVC's cache", hint="`dvc fetch --all-commits` brings it")
    return path


def _project(name: str) -> Project:
    try:
        return find_project(Path.cwd())
    except NotARepositoryError as error:
        raise NotARepositoryError(f"{name} is no file, and {error.message}", hint=error.hint) from error
