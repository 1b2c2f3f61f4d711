"""Back to the version before: labels, the stable file, and what DVC has written down of it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.digest import file_md5
from holdfast.registry.entries import CURRENT, Model, Version
from holdfast.registry.history import RegistryHistory
from holdfast.registry.labels import check_protection
from holdfast.registry.objects import Stores
from holdfast.registry.store import LockedModel, Registry
from holdfast.repo.dvc_outs import OutState, StaleStageError, put_in_outs, read_out
from holdfast.repo.workspace import Project

CHAMPION = "production"


class UnknownContentError(HoldfastError):
    """What would be overwritten is nowhere else."""


@dataclass(frozen=True)
class Rollback:
    """What a rollback does, or did.

    Attributes:
        model: ``app/name``.
        before: the version that was in use.
        after: the version that is in use then.
        labels: those that move: ``current``, ``production``.
        path: the stable path.
        source: where the bytes are: ``cache``, ``vault``, a DVC remote; empty where the file has them already.
        stage: the stage or ``.dvc`` file that has the path as an out; None where DVC does not track it.
        config: the configuration beside it that is set back to what it was with that version; None where it stays.
    """

    model: str
    before: str
    after: str
    labels: tuple[str, ...]
    path: str
    source: str
    stage: str | None
    config: str | None


def roll_back(
    project: Project,
    stores: Stores,
    model_id: str,
    *,
    to: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Rollback:
    """Put the version before into use again.

    That is, of the versions with a lower number which are not deprecated, the newest that was in use on this branch;
    where none was, the newest. What the stable path holds comes first and the labels last: a rollback that was killed
    is ended by running it again.

    Args:
        project: whose.
        stores: where the bytes are.
        model_id: ``app/name``.
        to: the version, or a label of it; None for the version before.
        force: also where ``production`` is protected, or the stable path holds what is nowhere else.
        dry_run: find out what would be done, and refuse what would be refused.

    Raises:
        UsageError: there is no version before, or it is in use.
        ProtectedAliasError: the alias ``production`` is protected.
        StaleStageError: the stage that has the stable path as an out would run again.
        UnknownContentError: the stable path, or the configuration beside it, holds what is nowhere else.
        NotHereError: the version's bytes are nowhere.
        IntegrityError: they are damaged.
        UnknownModelError, UnknownVersionError, EntryError, LockedError: as their names say.
    """
    registry = Registry(project.root)
    registry.model(model_id)
    with registry.lock(model_id) as held:
        model = held.model
        history = RegistryHistory(project)
        before = model.champion
        if before is None:
            raise UsageError(f"{model_id} has no version in use", hint=f"`holdfast registry show {model_id}`")
        after = model.named(to) if to is not None else _version_before(model, before, history)
        labels = tuple(
            label
            for label, name in ((CURRENT, model.current), (CHAMPION, model.aliases.get(CHAMPION)))
            if name is not None and name != after.name
        )
        check_protection(model, [label for label in labels if label != CURRENT], force=force)
        out = read_out(project.root, after.path)
        if out is not None and out.stale:
            raise StaleStageError(
                f"the stage {out.stage} is not up to date: {', '.join(out.stale)}",
                hint="Run `dvc repro` first, or take the change back: what it wrote down must stay true",
            )
        in_place = _oid_at(project.root, after) == after.oid and (out is None or out.oid == after.oid)
        config = _config_to_restore(project.root, history, model, after)
        if not labels and in_place and config is None:
            raise UsageError(f"{model_id}@{after.name} is in use already", hint="--to names another version")
        if not in_place and not force:
            _check_known(project.root, stores, model, after, out)
        if config is not None and not force:
            _check_config(project.root, history, model, before, *config)
        name = f"{model_id}@{after.name}"
        if in_place:
            source = ""
        elif dry_run:
            source = stores.whereabouts([after.oid]).get(after.oid, "nowhere")
        else:
            source = stores.bring(after.oid, name)
        if not dry_run:
            _carry_out(project, stores, held, after, labels, out, config, in_place=in_place)
        stage = None if out is None else out.stage
        return Rollback(
            model_id, before.name, after.name, labels, after.path, source, stage, config[0] if config else None
        )


def _carry_out(
    project: Project,
    stores: Stores,
    held: LockedModel,
    after: Version,
    labels: tuple[str, ...],
    out: OutState | None,
    config: tuple[str, bytes] | None,
    *,
    in_place: bool,
) -> None:
    uncached = []
    if config is not None:
        state = read_out(project.root, config[0])
        if state is not None and not state.cached:
            uncached.append(config[0])
        write_atomically(project.root / config[0], config[1])
    cached = {after.path: after.oid} if out is not None and not in_place else {}
    if cached or uncached:
        put_in_outs(project.root, cached, uncached)
    if out is None and not in_place:
        stores.write(after, project.root / after.path)
    changes: dict[str, object] = {}
    if CURRENT in labels:
        changes[CURRENT] = after.name
    if CHAMPION in labels:
        changes["aliases"] = {**held.aliases, CHAMPION: after.name}
    if changes:
        held.change(changes)


def _version_before(model: Model, before: Version, history: RegistryHistory) -> Version:
    older = {
        version.name: version
        for version in model.versions
        if version.number < before.number and version.name not in model.deprecations
    }
    if not older:
        hint = f"--to names another version; `holdfast registry show {model.id}` lists them"
        raise UsageError(f"{model.id} has no version before {before.name} that is not deprecated", hint=hint)
    used = [older[name] for name in history.champions(model.id) if name in older]
    return max(used or older.values(), key=lambda version: version.number)


def _oid_at(root: Path, version: Version) -> str | None:
    """The md5 of what lies at a version's path; None where nothing does, or a folder."""
    path = root / version.path
    return file_md5(path) if path.is_file() else None


def _check_known(root: Path, stores: Stores, model: Model, after: Version, out: OutState | None) -> None:
    path = root / after.path
    if not path.exists() or path.is_dir():
        return  # DVC compares a folder with what it has written down for it, and asks the cache for each file
    oid = file_md5(path)
    known = {version.oid for version in model.versions} | {out.oid if out else None}
    if oid not in known and not stores.in_cache(oid):
        raise UnknownContentError(
            f"{after.path} (md5 {oid}) is no version of {model.id} and is nowhere else",
            hint="Register it, or `dvc commit` it; --force overwrites it",
        )


def _configs(version: Version) -> Iterator[str]:
    if not version.is_folder:
        yield PurePosixPath(version.path).with_suffix(".yaml").as_posix()


def _config_to_restore(root: Path, history: RegistryHistory, model: Model, after: Version) -> tuple[str, bytes] | None:
    """The configuration beside the stable path as it was committed with a version, where it is another one now.

    It is another one, too, where DVC has written down other bytes: a rollback was killed in between.
    """
    commit = history.introduced(model.id, after.name)
    for path in _configs(after) if commit is not None else ():
        assert commit is not None
        content = history.file_at(commit, path)
        if content is None:
            continue
        out = read_out(root, path)
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        is_there = (root / path).is_file() and (root / path).read_bytes() == content
        if not is_there or (out is not None and not out.cached and out.oid != digest):
            return path, content
    return None


def _check_config(
    root: Path, history: RegistryHistory, model: Model, before: Version, path: str, wanted: bytes
) -> None:
    if not (root / path).is_file():
        return
    content = (root / path).read_bytes()
    commits = ["HEAD", history.introduced(model.id, before.name)]
    if content not in [wanted, *(history.file_at(commit, path) for commit in commits if commit)]:
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        raise UnknownContentError(
            f"{path} (md5 {digest}) has changes that no commit holds", hint="Commit it; --force overwrites it"
        )
