"""The adapter to DVC: the only module that imports it.

DVC's Python API is private, so what is used of it stands here, and the version range is pinned.
"""

import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.errors import HoldfastError, LockedError, PartlyDoneError, UsageError
from holdfast.repo.settings import read_settings
from holdfast.repo.workspace import DVC_FOLDER

DEFAULT_LINK_TYPES = ("reflink", "copy")
# what DVC imports only when it is at work
_LOADED_LATE = (
    *("dvc.repo", "dvc.lock", "dvc.scm", "scmrepo.git", "dvc.cachemgr", "dvc.data_cloud", "dvc.dirs", "dvc.repo.plots"),
    *(
        "dvc.repo.index",
        "dvc.repo.stage",
        "dvc.utils.strictyaml",
        "dvc_data.index.checkout",
        "dvc_data.hashfile.db.local",
    ),
)
CONFIG_HINT = "See `dvc config --list --show-origin`"


class DvcConfigError(HoldfastError):
    """DVC's configuration cannot be read."""


@dataclass(frozen=True)
class LocalCache:
    """DVC's local cache as the project's configuration has it.

    Args:
        folder: absolute, links resolved; it need not exist.
        outside: it lies outside the project's folder, so that other projects may use it too.
        link_types: how DVC puts cached files in the workspace, in the order it tries them
            (``reflink``, ``hardlink``, ``symlink``, ``copy``).
    """

    folder: Path
    outside: bool
    link_types: tuple[str, ...]


def local_cache(root: Path) -> LocalCache:
    """The local cache of the DVC project at ``root``, from all levels of DVC's configuration (system to local).

    Raises:
        DvcConfigError: the configuration is not readable, or names a cache that is not a local folder.
    """
    config = _config(root)
    section = config["cache"]
    configured = section.get("dir")
    if named := section.get("local"):  # before DVC 1 the cache could be a named remote; DVC still honours it
        configured = config["remote"].get(named, {}).get("url")
        if not configured:
            raise DvcConfigError(
                f"{root}: cache.local names the remote {named!r}, which does not exist",
                hint="`dvc config --unset cache.local`, or `dvc remote add` it",
            )
    if configured and "://" in str(configured):
        raise DvcConfigError(f"the cache {configured} is not a local folder", hint="See `dvc cache dir`")
    folder = Path(configured or root / DVC_FOLDER / "cache").expanduser().resolve()
    return LocalCache(
        folder=folder,
        outside=not folder.is_relative_to(root.resolve()),
        link_types=tuple(section.get("type") or DEFAULT_LINK_TYPES),
    )


def local_remotes(root: Path) -> dict[str, Path]:
    """The DVC remotes of the project at ``root`` that are local folders, by name; absolute.

    Raises:
        DvcConfigError: the configuration is not readable.
    """
    urls = {name: str(remote.get("url", "")) for name, remote in sorted(_config(root)["remote"].items())}
    return {name: Path(url).expanduser().resolve() for name, url in urls.items() if url and "://" not in url}


def default_remote(root: Path) -> str | None:
    """The name of DVC's default remote; None where none is set.

    Raises:
        DvcConfigError: the configuration is not readable.
    """
    name = _config(root)["core"].get("remote")
    return str(name) if name else None


def remotes(root: Path) -> dict[str, dict[str, Any]]:
    """The DVC remotes of the project at ``root`` by name: each with its options as DVC's configuration has them.

    ``url`` is among them; a remote that builds on another one (``remote://other/path``) has that one's options too, as
    DVC has it. Secrets are among them where ``.dvc/config.local`` holds any.

    Raises:
        DvcConfigError: the configuration is not readable, or a remote builds on one that does not exist.
    """
    sections = _config(root)["remote"]
    return {name: _resolved(sections, name, root) for name in sorted(sections)}


def _resolved(sections: dict[str, Any], name: str, root: Path, depth: int = 0) -> dict[str, Any]:
    section = dict(sections[name])
    base, _, below = str(section.get("url", "")).removeprefix("remote://").partition("/")
    if not str(section.get("url", "")).startswith("remote://"):
        return section
    base = base.lower()  # as DVC has it
    if base not in sections or depth > len(sections):
        raise DvcConfigError(f"{root}: the remote {name!r} builds on {base!r}, which leads nowhere", hint=CONFIG_HINT)
    found = _resolved(sections, base, root, depth + 1)
    return {**found, **section, "url": f"{str(found.get('url', '')).rstrip('/')}/{below}".rstrip("/")}


@dataclass(frozen=True)
class Selection:
    """Which outs are meant, in DVC's words.

    Args:
        targets: stages, ``dvc.yaml`` and ``.dvc`` files, outs or files in them, from the current folder; all if none.
        all_branches: of the tips of all branches, besides the workspace.
        all_tags: of all tags.
        all_commits: of all commits.
        with_deps: the stages before the targets, too.
        recursive: targets that are folders stand for all in them.
        glob: targets are patterns.
    """

    targets: Sequence[str] = ()
    all_branches: bool = False
    all_tags: bool = False
    all_commits: bool = False
    with_deps: bool = False
    recursive: bool = False
    glob: bool = False


class UsedObject(NamedTuple):
    """An object that outs need.

    Attributes:
        hash_name: ``md5`` or ``md5-dos2unix``.
        oid: its name; that of a folder's listing ends in ``.dir``.
        path: one that it has, from the project's root, with slashes.
        size: bytes, where DVC has written them down; of a folder of all that is in it.
    """

    hash_name: str
    oid: str
    path: str
    size: int | None = None


@dataclass
class UsedObjects:
    """What outs need.

    Args:
        objects: each once, folders' listings before what is in them.
        missing: listings that are nowhere to be found, so that what is in them is unknown.
        elsewhere: outs that DVC keeps at a remote of their own (``remote:``), by path.
        unread: commits whose DVC files cannot be read, and why.
    """

    objects: list[UsedObject] = field(default_factory=list)
    missing: list[UsedObject] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SelectedOut:
    """An out that a selection means.

    Args:
        used: its object.
        part: what of a folder is meant, from there; empty for all of it.
        remote: the remote that it is kept at, where that is not the default one.
    """

    used: UsedObject
    part: str = ""
    remote: str | None = None


@contextmanager
def selected_outs(
    root: Path, selection: Selection, *, for_push: bool, unread: list[str]
) -> Iterator[Iterator[SelectedOut]]:
    """The outs that a selection means, as DVC collects them, while it is locked.

    Args:
        root: the project's folder.
        selection: see there.
        for_push: leave out those with ``push: false``.
        unread: gets the commits whose DVC files cannot be read.

    Raises:
        UsageError: a target is none.
        LockedError: another DVC process works here.
        HoldfastError: DVC cannot read the project.
    """
    with _opened(root) as repo:
        yield (
            SelectedOut(
                UsedObject(str(out.hash_info.name), out.hash_info.value, _path(repo, out), out.meta.size),
                part,
                out.remote,
            )
            for out, part in _outs(repo, selection, for_push, unread)
        )


def load() -> None:
    """Load what a checkout needs of DVC, which takes 0.3 s; for a thread, while others wait for the network."""
    for name in _LOADED_LATE:
        with suppress(ImportError):  # what is missed here is told where it is needed
            import_module(name)


@dataclass(frozen=True)
class CheckedOut:
    """What a checkout changed, by path from the current folder."""

    added: tuple[str, ...]
    modified: tuple[str, ...]
    deleted: tuple[str, ...]


def checkout(root: Path, selection: Selection, *, force: bool = False, allow_missing: bool = False) -> CheckedOut:
    """Put cached objects in the workspace, as ``dvc checkout`` does.

    Raises:
        PartlyDoneError: some outs are not in the cache.
        UsageError: a target is none.
        LockedError: another DVC process works here.
        HoldfastError: DVC refuses, for one because it would overwrite a file that it does not know.
    """
    from dvc.exceptions import CheckoutError  # imported here: see _config
    from dvc.utils import glob_targets

    with _opened(root) as repo:
        try:
            result = repo.checkout(
                targets=glob_targets(list(selection.targets), glob=selection.glob),
                with_deps=selection.with_deps,
                recursive=selection.recursive,
                force=force,
                allow_missing=allow_missing,
            )
        except CheckoutError as error:
            names = ", ".join(map(str, error.target_infos))
            raise PartlyDoneError(
                f"not checked out: {names}", hint="Their objects are not in the cache; `holdfast status` tells which"
            ) from error
    return CheckedOut(*(tuple(map(str, result.get(kind, ()))) for kind in ("added", "modified", "deleted")))


def _outs(repo: Any, selection: Selection, for_push: bool, unread: list[str]) -> Iterator[tuple[Any, str]]:
    """Outs with a cache, and the part of a folder that is meant, from there; empty for all of it.

    Commits that do not know a target are passed over, as DVC does it, unless none knows it.
    """
    from dvc.exceptions import DvcException  # imported here: see _config
    from dvc.utils import glob_targets

    unknown: DvcException | None = None
    known = False
    targets = glob_targets(list(selection.targets), glob=selection.glob) if selection.targets else None
    for revision in repo.brancher(
        all_branches=selection.all_branches, all_tags=selection.all_tags, all_commits=selection.all_commits
    ):
        try:
            infos = repo.index.collect_targets(targets, recursive=selection.recursive, with_deps=selection.with_deps)
        except DvcException as error:
            unknown = unknown or error
            if not isinstance(_as_ours(error), UsageError):
                unread.append(f"{revision or 'workspace'}: {' '.join(str(error).split())}")
            continue
        known = True
        for stage, filter_info in infos:
            if stage.is_repo_import:
                continue
            for out in stage.filter_outs(filter_info):
                if out.use_cache and out.hash_info and (out.can_push or not for_push):
                    inside = filter_info and filter_info != out.fs_path and out.hash_info.isdir
                    prefix = posixpath.join(*out.fs.parts(out.fs.relpath(filter_info, out.fs_path))) if inside else ""
                    yield out, prefix
    if unknown is not None and not known:
        raise unknown


def _path(repo: Any, out: Any) -> str:
    """From the project's root; absolute for an out that lies elsewhere."""
    if out.fs.isin_or_eq(out.fs_path, repo.root_dir):
        return str(out.fs.relpath(out.fs_path, repo.root_dir)).replace("\\", "/")
    return str(out.fs_path)


@contextmanager
def _opened(root: Path) -> Iterator[Any]:
    """DVC's own view of the project, locked as its commands lock it, with its errors as ours."""
    # imported here: 400 ms, see _config
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    try:
        with Repo(str(root)) as repo, lock_repo(repo):
            yield repo
    except LockError as error:
        raise LockedError(f"another DVC process works in {root}", hint="Wait for it to end") from error
    except HoldfastError:
        raise
    except DvcException as error:
        raise _as_ours(error) from error


def _as_ours(error: Exception) -> HoldfastError:
    from dvc.exceptions import CheckoutErrorSuggestGit, NoOutputOrStageError
    from dvc.stage.exceptions import StageFileDoesNotExistError, StageNotFound

    if isinstance(error, CheckoutErrorSuggestGit) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, NoOutputOrStageError | StageFileDoesNotExistError | StageNotFound):
        return UsageError(text, hint="`dvc stage list` and `dvc list . -R --dvc-only` name what there is")
    return HoldfastError(text)


def _config(root: Path) -> dict[str, Any]:
    plain = read_settings(root, os.environ)  # noqa: TID251 - DVC asks the environment, and so does its adapter
    if plain is not None:
        return plain
    # imported here: 60 ms that commands which need no DVC must not pay; `dvc.config` is a third of `dvc.repo`, and
    # Repo makes its configuration with the same class and arguments
    from dvc.config import Config, ConfigError

    try:
        config: dict[str, Any] = Config(str(root / DVC_FOLDER))
    except ConfigError as error:
        raise DvcConfigError(f"{root}: {error}", hint=CONFIG_HINT) from error
    return config
