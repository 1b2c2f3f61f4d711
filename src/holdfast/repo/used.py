"""The objects that are in use, exactly as ``dvc gc`` has them.

`holdfast.repo.history` keeps more, since doubt keeps: here a stage that ``dvc.yaml`` no longer has counts for nothing,
and neither does an out with ``cache: false`` or an import from another repository.
"""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import IntegrityError
from holdfast.repo.cache import read_members
from holdfast.repo.canonical import read_dvc_file, read_stage, split_lock
from holdfast.repo.dvc import local_cache
from holdfast.repo.dvcfiles import (
    LEGACY_MD5,
    LISTING_SUFFIX,
    LOCK_FILE,
    MD5,
    PIPELINE_FILE,
    UnreadableFileError,
    listing_oid,
    load_yaml,
)
from holdfast.repo.gitfolder import GitFolder, find_git_folder
from holdfast.repo.history import unreadable_file
from holdfast.repo.objects import GitObjects
from holdfast.repo.refs import Origin, list_tips, order_commits
from holdfast.repo.roots import Roots
from holdfast.repo.trees import CommitFiles, Files, Folder, Met, WorkspaceFiles
from holdfast.repo.workspace import Project

ObjectKey = tuple[str, str]


class MissingListingError(IntegrityError):
    """The cache lacks the listing of a folder that is in use, so what is in it cannot be known."""


@dataclass(frozen=True, slots=True)
class UsedOut:
    """An out that is in use.

    Args:
        path: from the git root.
        key: hash name and oid.
        members: oids of the files in it, where the DVC file itself lists them; else None.
        remote: the remote that it is kept at, where that is not the default one.
        pushed: whether it is sent there.
    """

    path: str
    key: ObjectKey
    members: tuple[str, ...] | None
    remote: str | None
    pushed: bool


@dataclass(frozen=True, slots=True)
class _Declared:
    path: str
    cached: bool
    remote: str | None
    pushed: bool


@dataclass
class _Reader:
    project: Project
    _stages: dict[bytes, dict[str, dict[str, Any]] | None] = field(default_factory=dict)
    _resolved: dict[tuple[str, bytes], list[tuple[dict[str, bytes | None], dict[str, dict[str, Any]]]]] = field(
        default_factory=dict
    )
    _outs: dict[tuple[str, bytes, bytes], tuple[list[UsedOut], list[str]]] = field(default_factory=dict)

    def read(self, files: Files) -> Iterator[UsedOut]:
        """The outs of one state of the project."""
        taken: set[str] = set()
        stack: list[Folder] = [files.top]
        while stack:
            folder = stack.pop()
            for name in folder.names:
                outs, paths = self._file(files, folder.path, name)
                taken.update(paths)
                yield from outs
            stack += [below for below in reversed(files.below(folder)) if below.path not in taken]

    def _file(self, files: Files, folder: str, name: str) -> tuple[list[UsedOut], list[str]]:
        path = posixpath.join(folder, name)
        data = files.read(path) or b""
        try:
            if name != PIPELINE_FILE:
                key = (path, data, b"")
                if key not in self._outs:
                    self._outs[key] = self._read_dvc(data, folder)
                return self._outs[key]
            lock = files.read(posixpath.join(folder, LOCK_FILE)) or b""
            stages = self._literal(data)
            if stages is None:
                stages = self._filled_in(files, folder, data)
                return self._read_pipeline(stages, lock, folder)
            key = (path, data, lock)
            if key not in self._outs:
                self._outs[key] = self._read_pipeline(stages, lock, folder)
            return self._outs[key]
        except UnreadableFileError as error:
            raise unreadable_file(path, files.origin, error) from error

    def _literal(self, data: bytes) -> dict[str, dict[str, Any]] | None:
        """The stages of a ``dvc.yaml`` that has no templates; None where it has."""
        if data not in self._stages:
            stages = _mapping(_mapping(load_yaml(data)).get("stages"))
            generated = any({"foreach", "do", "matrix"} & _mapping(stage).keys() for stage in stages.values())
            self._stages[data] = None if generated or b"${" in data else stages
        return self._stages[data]

    def _filled_in(self, files: Files, folder: str, data: bytes) -> dict[str, dict[str, Any]]:
        # what a template comes to depends on the files that it names, which are noted beside it
        known = self._resolved.setdefault((folder, data), [])
        for needed, stages in known:
            if all(files.read(path) == content for path, content in needed.items()):
                return stages
        from holdfast.repo.dvc_templates import resolve_stages  # imported here: 300 ms that most projects need not pay

        asked: dict[str, bytes | None] = {}

        def read(path: str) -> bytes | None:
            asked[path] = files.read(path)
            return asked[path]

        stages = resolve_stages(data, folder, read)
        known.append((asked, stages))
        return stages

    def _read_pipeline(
        self, stages: Mapping[str, Mapping[str, Any]], lock: bytes, folder: str
    ) -> tuple[list[UsedOut], list[str]]:
        locked = _read_lock(lock)
        outs: list[UsedOut] = []
        paths: list[str] = []
        for name, stage in stages.items():
            base = posixpath.join(folder, str(stage.get("wdir") or ""))
            for declared in _declared(stage):
                paths.append(posixpath.normpath(posixpath.join(base, declared.path)))
                entry = locked.get(name, {}).get(declared.path)
                if declared.cached and entry is not None:
                    outs += self._out(entry, base, declared.remote, declared.pushed)
        return outs, paths

    def _read_dvc(self, data: bytes, folder: str) -> tuple[list[UsedOut], list[str]]:
        if (entries := read_dvc_file(data)) is not None:
            plain = [_as_mapping(entry.path, entry.oid, entry.hashed) for entry in entries]
            document: dict[str, Any] = {"outs": plain}
        else:
            document = _mapping(load_yaml(data))
        base = posixpath.join(folder, document.get("wdir") or "")
        entries_ = [entry for entry in document.get("outs") or [] if isinstance(entry, dict) and "path" in entry]
        paths = [posixpath.normpath(posixpath.join(base, entry["path"])) for entry in entries_]
        deps = document.get("deps") or []
        if len(deps) == 1 and len(entries_) == 1 and "repo" in _mapping(deps[0]):
            return [], paths
        outs: list[UsedOut] = []
        for entry in entries_:
            if entry.get("cache") is not False:
                outs += self._out(entry, base, entry.get("remote"), entry.get("push") is not False)
        return outs, paths

    def _out(self, entry: Mapping[str, Any], base: str, remote: str | None, pushed: bool) -> Iterator[UsedOut]:
        path = entry["path"]
        where = posixpath.normpath(posixpath.join(base, path))
        prefix = self.project.prefix
        inside = not posixpath.isabs(path) and (where.startswith(f"{prefix}/") if prefix else where[:3] != "../")
        name = str(entry.get("hash") or LEGACY_MD5) if inside else MD5
        if members := [item for item in entry.get("files") or [] if isinstance(item, dict)]:
            oids = tuple(str(item["md5"]) for item in members if item.get("md5"))
            yield UsedOut(where, (name, listing_oid(members)), oids, remote, pushed)
        elif entry.get("md5"):
            yield UsedOut(where, (name, str(entry["md5"])), None, remote, pushed)


def used_set(project: Project, roots: Roots, *, force: bool = False) -> dict[str | None, set[ObjectKey]]:
    """The objects that ``dvc gc`` would keep, by the out's ``remote:``; None stands for the default one.

    Folders' listings are expanded. Objects are named by (hash name, oid). Templates are resolved by DVC's own resolver.
    An out that lists its files itself (of a remote that keeps versions) counts with all of them.

    Args:
        project: from `holdfast.repo.workspace.find_project`.
        roots: what is meant; ``forgotten`` and ``behind`` go beyond DVC.
        force: leave out folders whose listing the cache lacks, as ``dvc gc --force`` does.

    Raises:
        MissingListingError: the cache lacks a listing, and ``force`` is not set.
        UnreadableDvcFileError: a DVC file in a commit or in the workspace is none.
        UnreadableRefError: a ref or git object cannot be read.
        ShallowCloneError: git's history ends early.
        UnknownRevisionError: git and DVC know no such revision.
        DvcConfigError: DVC's configuration cannot be read.
    """
    cache = local_cache(project.root).folder
    listings: dict[ObjectKey, list[str] | None] = {}
    result: dict[str | None, set[ObjectKey]] = {}
    for out, origin in used_outs(project, roots):
        hash_name, oid = out.key
        members: list[str] = list(out.members or ())
        if out.members is None and oid.endswith(LISTING_SUFFIX):
            if out.key not in listings:
                listings[out.key] = _members(cache, out.key)
            found = listings[out.key]
            if found is None and not force:
                raise _missing_listing(out.path, oid, origin)
            if found is None:
                continue
            members = found
        used = result.setdefault(out.remote, set())
        used.add(out.key)
        used.update((hash_name, member) for member in members)
    return result


def used_outs(project: Project, roots: Roots) -> Iterator[tuple[UsedOut, Origin]]:
    """The outs that `used_set` counts, in the order in which they are met; those of many commits come many times.

    Raises:
        the same but for `MissingListingError`: no listing is read.
    """
    reader = _Reader(project)
    for files in _states(project, roots):
        for out in reader.read(files):
            yield out, files.origin


def _states(project: Project, roots: Roots) -> Iterator[Files]:
    folder: GitFolder = find_git_folder(project.git_root)
    objects = GitObjects(folder)
    if roots.workspace:
        yield WorkspaceFiles(project, folder, Origin("workspace", ""))
    met = Met()
    for origin in order_commits(objects, list_tips(folder, objects), roots):
        files = CommitFiles.open(project, objects, origin, met)
        if files is not None:
            yield files


def _members(cache: Path, key: ObjectKey) -> list[str] | None:
    found = read_members(cache, *key)
    return None if found is None else [oid for _, oid in found]


def _read_lock(data: bytes) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The outs of every stage by their paths."""
    result: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, lines in split_lock(data) or ():
        entries = read_stage(lines)
        if entries is None:
            break
        result[name] = {entry.path: _as_mapping(entry.path, entry.oid, entry.hashed) for entry in entries}
    else:
        if result or not data:
            return result
    stages = _mapping(_mapping(load_yaml(data)).get("stages"))
    return {
        name: {entry["path"]: entry for entry in _mapping(stage).get("outs") or [] if "path" in _mapping(entry)}
        for name, stage in stages.items()
    }


def _as_mapping(path: str, oid: str, hashed: bool) -> dict[str, Any]:
    return {"path": path, "md5": oid, "hash": MD5 if hashed else None}


def _declared(stage: Mapping[str, Any]) -> Iterator[_Declared]:
    for section in ("outs", "metrics", "plots"):
        flags: dict[str, dict[str, Any]] = {}
        for item in stage.get(section) or []:
            for path, options in item.items() if isinstance(item, dict) else [(item, {})]:
                flags.setdefault(str(path), {}).update(options if isinstance(options, dict) else {})
        for path, options in flags.items():
            yield _Declared(
                path, options.get("cache") is not False, options.get("remote"), options.get("push") is not False
            )


def _mapping(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnreadableFileError(f"it holds a {type(value).__name__} where a mapping belongs")
    return value


def _missing_listing(path: str, oid: str, origin: Origin) -> MissingListingError:
    where = f"commit {origin.commit[:8]}, {origin.ref}" if origin.commit else "workspace"
    way_out = f"`git checkout {origin.commit[:8]} && dvc fetch {path}`" if origin.commit else f"`dvc fetch {path}`"
    return MissingListingError(
        f"the listing {oid[:8]}{LISTING_SUFFIX} of {path} ({where}) is missing, so what is in it is unknown",
        hint=f"{way_out} brings it",
    )
