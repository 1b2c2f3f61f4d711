"""DVC's outs one by one: is the stage up to date, bring an object from a remote, put another one in an out's place.

The second half of the adapter to DVC; see `holdfast.repo.dvc`.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.repo.cache import object_path, read_members
from holdfast.repo.dvc import _opened as opened
from holdfast.repo.dvc import default_remote, remotes
from holdfast.repo.dvcfiles import LISTING_SUFFIX, MD5
from holdfast.repo.workspace import DVC_FOLDER


class StaleStageError(HoldfastError):
    """A stage's dependencies, params or command are not those that its outs in ``dvc.lock`` were made with."""


@dataclass(frozen=True)
class OutState:
    """An out of the workspace.

    Args:
        path: from the project's root.
        stage: the stage or the ``.dvc`` file that it belongs to, for people.
        oid: what DVC has written down for it; None where nothing yet.
        cached: whether DVC keeps it in its cache.
        stale: why the stage would run again, of its inputs alone; empty where it would not.
    """

    path: str
    stage: str
    oid: str | None
    cached: bool
    stale: tuple[str, ...]


def read_out(root: Path, path: str) -> OutState | None:
    """What DVC knows of the out at a path from the project's root; None where it tracks no such out.

    Raises:
        LockedError: another DVC process works here.
        HoldfastError: DVC cannot read the project.
    """
    with opened(root) as repo:
        out = _find(repo, root / path)
        if out is None:
            return None
        return _state(path, out)


def read_outs(root: Path, paths: Collection[str]) -> dict[str, OutState]:
    """As `read_out`, of several at once; those that DVC does not track are not in it.

    Raises:
        LockedError: another DVC process works here.
        HoldfastError: DVC cannot read the project.
    """
    with opened(root) as repo:
        found = {path: _find(repo, root / path) for path in paths}
        return {path: _state(path, out) for path, out in found.items() if out is not None}


def add_outs(root: Path, paths: Collection[str]) -> None:
    """Track files or folders with DVC, each in a ``.dvc`` file of its own beside it, as ``dvc add`` does.

    Raises:
        LockedError: another DVC process works here.
        HoldfastError: DVC refuses, for one because git tracks the file.
    """
    with _quietly(), opened(root) as repo:
        repo.add([str(root / path) for path in paths])


def put_in_outs(root: Path, oids: Mapping[str, str], uncached: Collection[str] = ()) -> None:
    """Put cached objects in outs' places, and write them down in ``dvc.lock`` or the ``.dvc`` file, and nothing else.

    What lies there is overwritten. Afterwards the outs are up to date for DVC, if their stages' inputs are.

    Args:
        root: the project's folder.
        oids: the object of each out, by the out's path from the root; the cache has it.
        uncached: outs that DVC keeps no copy of, whose new content is in the workspace already.

    Raises:
        StaleStageError: the stage of one would run again; nothing is changed.
        LockedError: another DVC process works here.
        HoldfastError: DVC tracks no such out, or refuses.
    """
    from dvc_data.hashfile.hash_info import HashInfo  # imported here: see holdfast.repo.dvc
    from dvc_data.hashfile.meta import Meta

    with _quietly(), opened(root) as repo:
        outs = {path: _find(repo, root / path) for path in (*oids, *uncached)}
        for path, out in outs.items():
            if out is None:
                raise HoldfastError(f"DVC tracks no out {path}", hint="`dvc list . -R --dvc-only` names what it tracks")
            if reasons := list(_stale(out.stage)):
                raise StaleStageError(
                    f"the stage {out.stage.addressing} is not up to date: {', '.join(reasons)}",
                    hint="Run `dvc repro` first, or take the change back: what it wrote down must stay true",
                )
        for path, oid in oids.items():
            out = outs[path]
            out.hash_info = HashInfo(MD5, oid)
            out.meta = Meta(isdir=oid.endswith(LISTING_SUFFIX))
            out.files = out.obj = None
            out.checkout(force=True)
        stages = {}
        for path, out in outs.items():
            out.save()
            if path in oids and out.hash_info.value != oids[path]:
                raise IntegrityError(f"{path} has the md5 {out.hash_info.value} instead of {oids[path]}")
            # two outs of one stage are two objects of it, unless DVC found both in the same graph
            stages[id(out.stage)] = out.stage
        for stage in stages.values():
            stage.dump(update_pipeline=False)


def config_files(root: Path) -> list[Path]:
    """The files that DVC's configuration of the project is read from, those that do not exist, too."""
    from dvc.config import Config  # imported here: see holdfast.repo.dvc

    return sorted(Path(path) for path in Config(str(root / DVC_FOLDER)).files.values())


def remotes_with(root: Path, oids: Collection[str], remote: str | None = None) -> dict[str, str]:
    """The first DVC remote that has each object; those that none has are not in it.

    Args:
        root: the project's folder.
        oids: md5s, or ``<md5>.dir``.
        remote: the remote to ask; None for the default one, or all where none is the default.

    Raises:
        HoldfastError: a remote cannot be reached.
    """
    found: dict[str, str] = {}
    names = _names(root, remote)
    if not names or not oids:
        return found
    with opened(root) as repo:
        for name in names:
            odb = repo.cloud.get_remote_odb(name)
            missing = [oid for oid in oids if oid not in found]
            with _as_ours(name):
                found |= dict.fromkeys(odb.oids_exist(missing, jobs=None), name)
    return found


def fetch_object(root: Path, cache: Path, oid: str, remote: str) -> list[str]:
    """Bring an object from a DVC remote into the cache; of a folder all of its files, too.

    DVC trusts what a remote sends; the caller compares each file with its name.

    Returns:
        The objects that the cache has now.

    Raises:
        HoldfastError: the remote cannot be reached, or does not have it.
    """
    from dvc_data.hashfile.hash_info import HashInfo  # imported here: see holdfast.repo.dvc

    with _quietly(), opened(root) as repo, _as_ours(remote):
        repo.cloud.pull({HashInfo(MD5, oid)}, remote=remote)
        # of a folder that brings the listing alone
        members = {member for _, member in read_members(cache, MD5, oid) or ()}
        if missing := {HashInfo(MD5, member) for member in members if not object_path(cache, MD5, member).exists()}:
            repo.cloud.pull(missing, remote=remote)
    names = [oid, *dict.fromkeys(member for _, member in read_members(cache, MD5, oid) or ())]
    for name in names:
        if not object_path(cache, MD5, name).exists():
            raise HoldfastError(f"the remote {remote} does not have {name}", hint="`dvc status -c` says what is where")
    return names


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep DVC from printing what it does: its log goes to standard output, which belongs to our caller."""
    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class _as_ours:  # noqa: N801 - used as a function
    """What remotes' libraries raise, as one error that names the remote."""

    def __init__(self, remote: str) -> None:
        self._remote = remote

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, HoldfastError):
            told = " ".join(str(error).split()) or type(error).__name__
            hint = "`dvc remote list` shows its URL"
            raise HoldfastError(f"the DVC remote {self._remote} cannot be read: {told}", hint=hint) from error


def _names(root: Path, remote: str | None) -> list[str]:
    if remote is not None:
        return [remote]
    default = default_remote(root)
    return [default] if default else list(remotes(root))


def _find(repo: Any, path: Path) -> Any:
    from dvc.exceptions import OutputNotFoundError  # imported here: see holdfast.repo.dvc

    try:
        return repo.find_outs_by_path(str(path.resolve()))[0]
    except OutputNotFoundError:
        return None


def _state(path: str, out: Any) -> OutState:
    oid = out.hash_info.value if out.hash_info else None
    return OutState(path, str(out.stage.addressing), oid, bool(out.use_cache), tuple(_stale(out.stage)))


def _stale(stage: Any) -> Iterator[str]:
    if stage.changed_stage():
        yield "its command changed"
    if stage.frozen:
        return
    for dep in stage.deps:
        for name, state in dep.status().items():
            if isinstance(state, dict):
                yield from (f"{name}:{param} is {told}" for param, told in state.items())
            else:
                yield f"{name} is {state}"
