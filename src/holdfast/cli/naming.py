"""What a user calls a checkpoint: a file, a registered model, a file of a commit."""

import re
from pathlib import Path

import pygit2

from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.source import FileSource, MemorySource, Source
from holdfast.registry.store import Registry
from holdfast.repo.cache import read_members
from holdfast.repo.dvc import local_cache
from holdfast.repo.dvcfiles import MD5
from holdfast.repo.history import HistoryReader
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project, find_project

MODEL = re.compile(r"(?P<model>[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_-]*)(?:@(?P<label>[A-Za-z0-9_-]+))?")


class NotHereError(HoldfastError):
    """What was named exists, but its bytes are not on this machine."""


def open_named(name: str) -> Source:
    """Open what ``name`` stands for; the caller closes it.

    Args:
        name: a file; ``app/name``, ``app/name@v3`` or ``app/name@alias`` of the registry; or ``REV:path`` of git's
            history, tracked by git or by DVC.

    Raises:
        UsageError: it is none of these.
        NotARepositoryError: it is no file, and there is no project to look it up in.
        NotHereError: its bytes are neither in the workspace nor in DVC's cache.
        HoldfastError: the model, version or commit is unknown, or a file cannot be read.
    """
    if Path(name).exists():
        return FileSource(Path(name))
    project = find_project(Path.cwd())
    if match := MODEL.fullmatch(name):
        return _registered(project, match["model"], match["label"])
    revision, colon, path = name.partition(":")
    if colon and revision and path:
        return _committed(project, revision, path)
    raise UsageError(
        f"{name} is no file", hint="Name a file, a registered model (app/name@v3) or a file of a commit (REV:path)"
    )


def _registered(project: Project, model_id: str, label: str | None) -> Source:
    model = Registry(project.root).model(model_id)
    wanted = model.current if label in (None, "current") else model.aliases.get(label or "", label)
    version = model.version(wanted or "")
    if version is None:
        hint = f"`holdfast registry show {model_id}` lists its versions and aliases"
        raise UsageError(f"{model_id} has no version or alias {label or 'current'}", hint=hint)
    return _cached(project, version.oid, f"{model_id}@{version.name}")


def _committed(project: Project, revision: str, path: str) -> Source:
    repository = open_repository(project.git_root)
    # as with `git show`: from the top of the repository, or with ./ from here
    place = path
    if path.startswith(("./", "../")):
        place = (Path.cwd() / path).resolve().relative_to(project.git_root).as_posix()
    outs = {sighting.out.path: sighting.out for sighting in HistoryReader(repository).read_revision(revision)}
    name = f"{revision}:{path}"
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
    path = local_cache(project.root).folder / "files" / "md5" / oid[:2] / oid[2:]
    if not path.exists():
        raise NotHereError(f"{name} (md5 {oid}) is not in DVC's cache", hint="`dvc fetch --all-commits` brings it")
    return FileSource(path)
