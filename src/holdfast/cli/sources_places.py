"""What the verbs of the catalogue share: where it is, what DVC has of it, where the bucket is."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from holdfast.data.catalogue import INDEX_FILE, Catalogue, CatalogueError, find_catalogue
from holdfast.data.catalogue_reading import read_catalogue
from holdfast.errors import NotARepositoryError, UsageError

if TYPE_CHECKING:  # imported where they are needed: a look at the catalogue alone asks neither git nor a bucket
    from holdfast.data.sources_verification import Tracked
    from holdfast.objectstore.store import ObjectStore
    from holdfast.repo.workspace import Project

FIRST = "`holdfast sources add` makes one with its first source, `holdfast sources import` with many"


def catalogue_root() -> Path:
    """The folder of the catalogue around the working directory.

    Raises:
        CatalogueError: there is none.
    """
    root = find_catalogue(Path.cwd())
    if root is None:
        raise CatalogueError(f"there is no {INDEX_FILE} here or above, in this repository", hint=FIRST)
    return root


def catalogue_here() -> Catalogue:
    """The catalogue around the working directory, all of which can be read.

    Raises:
        CatalogueError: there is none, or something in it is wrong.
    """
    return read_catalogue(catalogue_root()).refuse_problems()


def open_bucket(catalogue: Catalogue, url: str | None = None) -> "ObjectStore":
    """The store in which the catalogue's prefixes lie; ``url`` is another one.

    Raises:
        UsageError: the catalogue names none.
        HoldfastError: there are no credentials.
    """
    from holdfast.cli.naming import open_objects

    url = url or bucket_url(catalogue)
    if not url:
        hint = f"Write `bucket: s3://…` into {INDEX_FILE}, or name it with --bucket"
        raise UsageError("the catalogue names no bucket", hint=hint)
    return open_objects(url)


def bucket_url(catalogue: Catalogue) -> str:
    """The URL of the catalogue's bucket, or the path of its folder; empty where it names none."""
    from holdfast.objectstore.location import is_url

    if not catalogue.bucket or is_url(catalogue.bucket):
        return catalogue.bucket
    return str((catalogue.root / Path(catalogue.bucket).expanduser()).resolve())


def project_of(catalogue: Catalogue) -> "Project | None":
    """The DVC project around the catalogue; None where there is none."""
    from holdfast.repo.workspace import find_project

    try:
        return find_project(catalogue.root)
    except NotARepositoryError:
        return None


def tracked_paths(catalogue: Catalogue) -> "dict[str, Tracked]":
    """What DVC has written down at the catalogue's paths; nothing where no entry has one, or there is no project.

    Raises:
        UnreadableDvcFileError: a DVC file cannot be read.
    """
    from holdfast.data.sources_verification import Tracked, find_tracked

    paths = [source.dvc for source in catalogue.sources if source.dvc]
    project = project_of(catalogue) if paths else None
    if project is None:
        return {}
    import pygit2  # imported here: 60 ms that a catalogue without tracked paths need not pay

    from holdfast.repo.dvcfiles import MD5
    from holdfast.repo.history import read_workspace

    base = catalogue.root.resolve()
    outs: dict[str, Tracked] = {}
    # not through its history: the machines that train most often have a shallow clone
    for sighting in read_workspace(pygit2.Repository(str(project.git_root))).sightings:
        # what other worktrees and registered versions name is not what lies here
        if sighting.origin.ref or sighting.version:
            continue
        path = _seen_from(base, project.git_root, sighting.out.path)
        if path is not None:
            oid = sighting.out.oid if sighting.out.hash_name == MD5 else None
            outs.setdefault(path, Tracked(oid, sighting.out.size))
    return find_tracked(paths, outs)


def pushed_oids(catalogue: Catalogue, oids: set[str]) -> frozenset[str]:
    """Which of the objects the vault or a DVC remote has.

    Raises:
        HoldfastError: one of them cannot be reached.
    """
    from holdfast.cli.registry_places import project_vault
    from holdfast.repo.dvc_outs import remotes_with
    from holdfast.repo.dvcfiles import MD5

    project = project_of(catalogue)
    if project is None or not oids:
        return frozenset()
    found: set[str] = set()
    vault = project_vault(project)
    if vault is not None:
        try:
            there = vault.exists({f"{MD5}:{oid}" for oid in oids})
        finally:
            vault.close()
        found = {oid for oid in oids if f"{MD5}:{oid}" in there}
    return frozenset(found | set(remotes_with(project.root, oids - found)))


def _seen_from(base: Path, git_root: Path, path: str) -> str | None:
    """A path of the repository as seen from the catalogue's folder; None where it lies elsewhere."""
    if not path.startswith("/"):
        prefix = base.relative_to(git_root).as_posix() if base.is_relative_to(git_root) else ""
        if prefix in ("", "."):
            return path
        return path.removeprefix(f"{prefix}/") if path.startswith(f"{prefix}/") else None
    whole = PurePosixPath(path)
    return whole.relative_to(base).as_posix() if whole.is_relative_to(base) else None
