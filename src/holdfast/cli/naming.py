"""What a user calls a checkpoint: a file, an object, a registered model, a file of a commit."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from holdfast.errors import NotARepositoryError, UsageError
from holdfast.formats.source import FileSource, Source
from holdfast.objectstore.location import Location, is_url, locate
from holdfast.objectstore.opening import open_object, open_store
from holdfast.objectstore.options import StoreOptions, from_dvc, from_environment
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.dvc import remotes
from holdfast.repo.workspace import find_project

MODEL = re.compile(r"(?P<model>[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_-]*)(?:@(?P<label>[A-Za-z0-9_-]+))?")

NAMES = (
    "Name a file, a registered model (app/name@v3), a file of a commit (REV:path) or an object (s3://bucket/path/file)"
)


def open_named(name: str) -> Source:
    """Open what ``name`` stands for; the caller closes it.

    Args:
        name: a file; an object (``s3://bucket/key``); ``app/name``, ``app/name@v3`` or ``app/name@alias`` of the
            registry; or ``REV:path`` of git's history, tracked by git or by DVC.

    Raises:
        UsageError: it is none of these.
        NotARepositoryError: it can only be something of a project, and there is none.
        NotHereError: its bytes are neither in the workspace nor in DVC's cache.
        HoldfastError: the model, version, commit or object is unknown, or a file cannot be read.
    """
    location = locate(name)
    if location.scheme != "file":
        return open_object(name, store_options(name))
    path = Path(location.path if is_url(name) else name)
    if path.is_dir():
        raise UsageError(f"{name} is a directory", hint=NAMES)
    if path.exists():
        return FileSource(path)
    if is_url(name):
        raise UsageError(f"{name} does not exist", hint=NAMES)
    if match := MODEL.fullmatch(name):
        from holdfast.cli.versions import open_registered  # with pygit2, 60 ms that a file need not pay

        return open_registered(name, match["model"], match["label"])
    revision, colon, inside = name.partition(":")
    if colon and revision and inside:
        from holdfast.cli.versions import open_committed  # likewise

        return open_committed(name, revision, inside)
    raise UsageError(f"{name} is no file: it does not exist", hint=NAMES)


def open_objects(url: str) -> ObjectStore:
    """The store of objects that a URL names, or a folder, with the credentials that go with it; see `store_options`.

    Raises:
        UsageError: the URL is of no store.
        HoldfastError: there are no credentials.
    """
    return open_store(url, store_options(url))


def store_options(url: str) -> StoreOptions:
    """How the store at ``url`` is reached and as whom: as DVC reaches it, where a DVC remote of the project is there.

    That is the remote whose URL lies above, the deepest of several; else one of the same bucket, since the bucket's
    server is most likely said nowhere else. What it leaves open comes from the environment.
    """
    environment = from_environment(os.environ)
    location = locate(url)
    if location.scheme == "file":
        return environment
    try:
        sections = remotes(find_project(Path.cwd()).root)
    except NotARepositoryError:
        return environment
    section = remote_of(location, sections.values())
    return environment if section is None else from_dvc(section).or_else(environment)


def remote_of(location: Location, sections: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The one of DVC's remotes that a location belongs to, or None."""
    found: list[tuple[int, dict[str, Any]]] = []
    for section in sections:
        try:
            place = locate(str(section.get("url", "")))
        except UsageError:  # ssh, HTTP and what else DVC knows
            continue
        server = place.endpoint or section.get("endpointurl")
        if (place.scheme, place.bucket) != (location.scheme, location.bucket):
            continue
        if location.endpoint and str(server or "").rstrip("/") != location.endpoint:
            continue
        above = not place.path or f"{location.path}/".startswith(f"{place.path}/")
        found.append((len(place.path) if above else -1, section))
    return max(found, key=lambda item: item[0])[1] if found else None
