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
from typing import Any

import yaml

from holdfast.nesting import TooDeepError, check_nesting

MD5 = "md5"
LEGACY_MD5 = "md5-dos2unix"
LOCK_FILE = "dvc.lock"
PIPELINE_FILE = "dvc.yaml"
DVC_SUFFIX = ".dvc"
LISTING_SUFFIX = ".dir"

_VERSION_PATH = re.compile(r"(?:^|/)registry/(?P<model>[^/]+(?:/[^/]+)+)/(?P<version>v[0-9]+)\.yaml$")


class UnreadableFileError(ValueError):
    """The bytes are not what a file of that name holds; the message says why, the caller says where."""


@dataclass(frozen=True, slots=True)
class Out:
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


class _Loader(yaml.CSafeLoader):
    """YAML with scalars as strings, but for null and the two booleans; a key that comes twice is an error.

    An md5 of digits alone is a string and nothing else, and a merge that kept both sides must not hide one.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, unless a key comes twice."""
        merged = any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value)
        result: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(result) != len(node.value) and not merged:
            raise UnreadableFileError("a key comes twice")
        return result


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def load_yaml(data: bytes) -> Any:
    """The document in ``data``; scalars are strings, booleans or None.

    Raises:
        UnreadableFileError: it is no YAML, or a key comes twice.
    """
    try:
        check_nesting(data)
        return yaml.load(data, Loader=_Loader)
    except TooDeepError as error:
        raise UnreadableFileError(str(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        if re.search(rb"^<{7} ", data, re.MULTILINE):
            raise UnreadableFileError("it has merge conflict markers") from error
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        raise UnreadableFileError(f"{problem}{f' in line {mark.line + 1}' if mark else ''}") from error


def read_lock(data: bytes, folder: str, definitions: Mapping[str, StageDefinition]) -> list[Out]:
    """The outs of a ``dvc.lock`` that lies in ``folder`` (from the git root).

    ``definitions`` are those of the sibling ``dvc.yaml``: outs that it literally declares with ``cache: false`` are
    left out. Entries of stages that ``dvc.yaml`` no longer has are kept.

    Raises:
        UnreadableFileError: it is no lock file.
    """
    document = _mapping(load_yaml(data))
    # locks of DVC 1 are a mapping of stages without a schema
    stages = _mapping(document.get("stages")) if "schema" in document or "stages" in document else document
    result: list[Out] = []
    for name, stage in stages.items():
        definition = definitions.get(name) or definitions.get(name.rsplit("@", 1)[0], _NO_DEFINITION)
        for entry in _entries(_mapping(stage).get("outs")):
            if entry["path"] not in definition.uncached:
                result.extend(_outs(entry, posixpath.join(folder, definition.wdir), name))
    return result


def read_dvc(data: bytes, folder: str) -> list[Out]:
    """The cached outs of a ``*.dvc`` file that lies in ``folder`` (from the git root).

    Raises:
        UnreadableFileError: it is no such file.
    """
    document = _mapping(load_yaml(data))
    base = posixpath.join(folder, document.get("wdir") or "")
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


def read_run_cache_entry(data: bytes) -> tuple[str, list[Out]]:
    """Command and outs of a run cache entry, which has the form of a stage in ``dvc.lock``.

    Raises:
        UnreadableFileError: it is no such entry.
    """
    document = _mapping(load_yaml(data))
    command = document.get("cmd")
    outs = [out for entry in _entries(document.get("outs")) for out in _outs(entry, "", None)]
    return " && ".join(command) if isinstance(command, list) else str(command or ""), outs


def _outs(entry: dict[str, Any], base: str, stage: str | None) -> Iterator[Out]:
    path = entry["path"]
    oid = entry.get("md5")
    # DVC reads an external path's md5 under its own name even where `hash` is missing: in doubt both are meant
    names = (MD5,) if entry.get("hash") else (MD5, LEGACY_MD5) if posixpath.isabs(path) else (LEGACY_MD5,)
    where = posixpath.normpath(posixpath.join(base, path))
    size, nfiles = _number(entry.get("size")), _number(entry.get("nfiles"))
    members = [member for member in entry.get("files") or [] if isinstance(member, dict) and member.get("relpath")]
    for name in names:
        if oid:
            yield Out(where, name, _oid(oid), size, nfiles, stage, listed=bool(members))
        if members:
            yield Out(where, name, _listing_oid(members), None, len(members), stage, listed=True)
        for member in members:
            if md5 := member.get("md5"):
                joined = posixpath.join(where, member["relpath"])
                yield Out(joined, name, _oid(md5), _number(member.get("size")), None, stage)


def _oid(value: Any) -> str:
    oid = str(value).lower()
    if not _OID.fullmatch(oid):
        raise UnreadableFileError(f"{value!r} is no md5 of a file or folder")
    return oid


def _listing_oid(members: list[dict[str, Any]]) -> str:
    # dvc_data.hashfile.tree.Tree.digest: the md5 of the listing as DVC would write it
    listing = [
        ({"md5": str(member["md5"]).lower()} if member.get("md5") else {}) | {"relpath": member["relpath"]}
        for member in sorted(members, key=lambda member: str(member["relpath"]))
    ]
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + LISTING_SUFFIX


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
_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")


def _mapping(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnreadableFileError(f"it holds a {type(value).__name__} where a mapping belongs")
    return value


def _entries(value: Any) -> list[dict[str, Any]]:
    entries = [] if value is None else value
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("path"), str) for entry in entries
    ):
        raise UnreadableFileError("its outs are no list of entries with a path")
    return entries


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None
