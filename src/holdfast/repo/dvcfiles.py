"""What DVC's files say: the outs of ``dvc.lock`` and ``*.dvc``, the objects of registry versions.

Paths in results are seen from the git root, with slashes. An object is named by (hash name, oid): ``md5``, or
``md5-dos2unix`` where an entry lacks ``hash: md5``, as DVC 2 and older wrote it; the two live in different places.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from holdfast.repo.canonical import Entry

MD5 = "md5"
LEGACY_MD5 = "md5-dos2unix"
LOCK_FILE = "dvc.lock"
PIPELINE_FILE = "dvc.yaml"
DVC_SUFFIX = ".dvc"
LISTING_SUFFIX = ".dir"

_VERSION_PATH = re.compile(r"(?:^|/)registry/(?P<model>[^/]+(?:/[^/]+)+)/(?P<version>v[0-9]+)\.yaml$")


class UnreadableFileError(ValueError):
    """The bytes are not what a file of that name holds; the message says why, the caller says where."""


class Out(NamedTuple):
    """A file or folder that DVC tracks, or a registered one.

    Args:
        path: from the git root; absolute where the entry is.
        hash_name: ``md5`` or ``md5-dos2unix``.
        oid: the md5 of the file, ``<md5>.dir`` of a folder's listing.
        size: bytes in all, where recorded.
        nfiles: files in the folder, where recorded.
        stage: name of the stage in ``dvc.lock``; None for ``*.dvc`` files and registry versions.
        listed: the members of this folder stand beside it as outs of their own, so its listing need not be read.
    """

    path: str
    hash_name: str
    oid: str
    size: int | None = None
    nfiles: int | None = None
    stage: str | None = None
    listed: bool = False


@dataclass(frozen=True, slots=True)
class StageDefinition:
    """What ``dvc.yaml`` says literally about a stage: its ``wdir``, and the outs with ``cache: false``."""

    wdir: str = ""
    uncached: frozenset[str] = frozenset()


def load_yaml(data: bytes) -> Any:
    """The document in ``data``; scalars are strings, booleans or None.

    Raises:
        UnreadableFileError: it is no YAML, or a key comes twice.
    """
    # imported here: 10 ms that files in DVC's own form do without
    from holdfast.repo.yamlfiles import UnreadableYamlError, read_yaml

    try:
        return read_yaml(data)
    except UnreadableYamlError as error:
        raise UnreadableFileError(str(error)) from error


def read_lock(data: bytes, folder: str, definitions: Mapping[str, StageDefinition]) -> list[Out]:
    """The outs of a ``dvc.lock`` that lies in ``folder`` (from the git root).

    ``definitions`` are those of the sibling ``dvc.yaml``: outs that it literally declares with ``cache: false`` are
    left out. Entries of stages that ``dvc.yaml`` no longer has are kept.

    Raises:
        UnreadableFileError: it is no lock file.
    """
    from holdfast.repo.canonical import split_lock  # imported here: see read_lock_stage

    result: list[Out] = []
    for name, lines in split_lock(data) or [("", b"")]:
        outs = read_lock_stage(lines, folder, name, find_definition(definitions, name))
        if outs is None:
            return read_lock_as_yaml(data, folder, definitions)
        result += outs
    return result


def read_lock_stage(lines: bytes, folder: str, name: str, definition: StageDefinition) -> list[Out] | None:
    """The outs of one stage of a lock, from `holdfast.repo.canonical.split_lock`; None where it is not in that form."""
    # imported here: its patterns take 2 ms to compile, and mostly a cache knows what files say
    from holdfast.repo.canonical import read_stage

    entries = read_stage(lines)
    if entries is None:
        return None
    base = posixpath.join(folder, definition.wdir)
    return [out for entry in entries if entry.path not in definition.uncached for out in _canonical(entry, base, name)]


def read_lock_as_yaml(data: bytes, folder: str, definitions: Mapping[str, StageDefinition]) -> list[Out]:
    """`read_lock` of a file in any form."""
    document = _mapping(load_yaml(data))
    # locks of DVC 1 are a mapping of stages without a schema
    stages = _mapping(document.get("stages")) if "schema" in document or "stages" in document else document
    result: list[Out] = []
    for name, stage in stages.items():
        if not isinstance(name, str):
            raise UnreadableFileError(f"it holds a stage called {name!r}")
        definition = find_definition(definitions, name)
        for entry in _entries(_mapping(stage).get("outs")):
            if entry["path"] not in definition.uncached:
                result.extend(_outs(entry, posixpath.join(folder, definition.wdir), name))
    return result


def find_definition(definitions: Mapping[str, StageDefinition], stage: str) -> StageDefinition:
    """The definition of a stage, or of the ``foreach`` or ``matrix`` that it comes from."""
    return definitions.get(stage) or definitions.get(stage.rsplit("@", 1)[0], _NO_DEFINITION)


def read_dvc(data: bytes, folder: str) -> list[Out]:
    """The cached outs of a ``*.dvc`` file that lies in ``folder`` (from the git root).

    Raises:
        UnreadableFileError: it is no such file.
    """
    from holdfast.repo.canonical import read_dvc_file  # imported here: see read_lock_stage

    entries = read_dvc_file(data)
    if entries is None:
        return read_dvc_as_yaml(data, folder)
    return [out for entry in entries for out in _canonical(entry, folder, None)]


def read_dvc_as_yaml(data: bytes, folder: str) -> list[Out]:
    """`read_dvc` of a file in any form."""
    document = _mapping(load_yaml(data))
    base = posixpath.join(folder, _text(document.get("wdir")))
    result: list[Out] = []
    for entry in _entries(document.get("outs")):
        if entry.get("cache") is not False:
            result.extend(_outs(entry, base, None))
    return result


def read_definitions(data: bytes) -> dict[str, StageDefinition]:
    """What a ``dvc.yaml`` says literally about its stages; nothing where it cannot be read.

    No error: the file only ever takes outs away or gives them their folder, and DVC does not need it to be whole in
    an old commit for the objects of its lock to be wanted.
    """
    try:
        stages = _mapping(_mapping(load_yaml(data)).get("stages"))
    except UnreadableFileError:
        return {}
    return {name: _definition(stage) for name, stage in stages.items() if isinstance(stage, dict)}


def version_name(path: str) -> str | None:
    """``app/name@v3`` where ``path`` is that of a registry version's file, else None."""
    match = _VERSION_PATH.search(path)
    return f"{match['model']}@{match['version']}" if match else None


def read_version(data: bytes, path: str) -> Out | None:
    """The object that the registry version in ``path`` names; None for a file without ``schema``, which is none.

    Raises:
        UnreadableFileError: it is no YAML mapping, or its ``oid`` is none.
    """
    document = _mapping(load_yaml(data))
    if "schema" not in document:
        return None  # other programs have files of that name too
    oid = _oid(document.get("oid"))
    base = path[: match.start()] if (match := _VERSION_PATH.search(path)) else ""
    where = posixpath.normpath(posixpath.join(base, str(document.get("path") or path)))
    return Out(where, MD5, oid, _number(document.get("size")))


def read_listing(data: bytes) -> list[tuple[str, str]]:
    """The members of a folder's listing, as (path in the folder, oid).

    Raises:
        UnreadableFileError: it is no listing.
    """
    try:
        return [(entry["relpath"], entry["md5"]) for entry in json.loads(data) if entry.get("md5")]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableFileError(f"it is no listing of a folder ({type(error).__name__})") from error


def listing_oid(members: list[dict[str, Any]]) -> str:
    """The name of the listing of a folder whose files an entry lists itself (``files:``)."""
    # dvc_data.hashfile.tree.Tree.digest: the md5 of the listing as DVC would write it
    listing = [
        ({"md5": str(member["md5"]).lower()} if member.get("md5") else {}) | {"relpath": member["relpath"]}
        for member in sorted(members, key=lambda member: str(member["relpath"]))
    ]
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + LISTING_SUFFIX


def read_run_cache_entry(data: bytes) -> tuple[str, list[Out]]:
    """Command and outs of a run cache entry, which has the form of a stage in ``dvc.lock``.

    Raises:
        UnreadableFileError: it is no such entry.
    """
    document = _mapping(load_yaml(data))
    command = document.get("cmd")
    outs = [out for entry in _entries(document.get("outs")) for out in _outs(entry, "", None)]
    return " && ".join(command) if isinstance(command, list) else str(command or ""), outs


def _canonical(entry: "Entry", base: str, stage: str | None) -> Iterator[Out]:
    where = _joined(base, entry.path)
    for name in _hash_names(entry.hashed, entry.path):
        yield Out(where, name, entry.oid, entry.size, entry.nfiles, stage)


def _joined(base: str, path: str) -> str:
    # nearly all paths are whole already, and to make them so takes as long as all else that is done with an out
    if path[0] not in "./" and "//" not in path and "/." not in path and path[-1] != "/":
        if not base:
            return path
        if _WHOLE.fullmatch(base):
            return f"{base}/{path}"
    return posixpath.normpath(posixpath.join(base, path))


def _hash_names(hashed: bool, path: str) -> tuple[str, ...]:
    # DVC reads an external path's md5 under its own name even where `hash` is missing: in doubt both are meant
    return (MD5,) if hashed else (MD5, LEGACY_MD5) if posixpath.isabs(path) else (LEGACY_MD5,)


def _outs(entry: dict[str, Any], base: str, stage: str | None) -> Iterator[Out]:
    path = entry["path"]
    oid = entry.get("md5")
    names = _hash_names(bool(entry.get("hash")), path)
    where = posixpath.normpath(posixpath.join(base, path))
    size, nfiles = _number(entry.get("size")), _number(entry.get("nfiles"))
    members = [member for member in entry.get("files") or [] if isinstance(member, dict) and member.get("relpath")]
    for name in names:
        if oid:
            yield Out(where, name, _oid(oid), size, nfiles, stage, listed=bool(members))
        if members:
            yield Out(where, name, listing_oid(members), None, len(members), stage, listed=True)
        for member in members:
            if md5 := member.get("md5"):
                joined = posixpath.join(where, member["relpath"])
                yield Out(joined, name, _oid(md5), _number(member.get("size")), None, stage)


def _oid(value: Any) -> str:
    oid = str(value).lower()
    if not _OID.fullmatch(oid):
        raise UnreadableFileError(f"{value!r} is no md5 of a file or folder")
    return oid


def _definition(stage: dict[str, Any]) -> StageDefinition:
    if isinstance(stage.get("do"), dict):  # `foreach`
        stage = stage["do"]
    wdir = stage.get("wdir")
    flags: dict[str, list[Any]] = {}
    for section in ("outs", "metrics", "plots"):
        entries = stage.get(section)
        for entry in entries if isinstance(entries, list) else []:
            for path, options in entry.items() if isinstance(entry, dict) else [(entry, None)]:
                given = options if isinstance(options, dict) else {}
                flags.setdefault(str(path), []).append(given.get("cache"))
    return StageDefinition(
        wdir if isinstance(wdir, str) and "${" not in wdir else "",
        frozenset(path for path, caches in flags.items() if all(cache is False for cache in caches)),
    )


_NO_DEFINITION = StageDefinition()
_WHOLE = re.compile(r"[^./][^/]*(?:/[^./][^/]*)*")
_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")


def _mapping(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnreadableFileError(f"it holds a {type(value).__name__} where a mapping belongs")
    return value


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise UnreadableFileError(f"it holds a {type(value).__name__} where a path belongs")
    return value or ""


def _entries(value: Any) -> list[dict[str, Any]]:
    entries = [] if value is None else value
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("path"), str) for entry in entries
    ):
        raise UnreadableFileError("its outs are no list of entries with a path")
    return entries


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None
