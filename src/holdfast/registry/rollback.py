"""Back to the version before: labels, the stable file, what lies beside it, and what DVC has written down of them."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.digest import file_md5
from holdfast.registry.cards import card_path, readme_path
from holdfast.registry.cards_files import texts_in_step
from holdfast.registry.cards_markdown import CardError
from holdfast.registry.document import EntryError
from holdfast.registry.entries import CURRENT, Model, Version
from holdfast.registry.history import RegistryHistory
from holdfast.registry.labels import check_protection
from holdfast.registry.objects import NotHereError, Stores
from holdfast.registry.promotion_source import predictions_path
from holdfast.registry.store import LockedModel, Registry
from holdfast.repo.dvc_outs import OutState, StaleStageError, put_in_outs, read_outs
from holdfast.repo.workspace import Project

CHAMPION = "production"
# of a version's `source`: the md5 of its predictions
PREDICTIONS = "predictions"


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
        texts: the model's card and the application's README, as far as they are made anew.
        predictions: the predictions beside it that are that version's again; None where they stay.
        notes: what is left as it was though it should follow, and why.
    """

    model: str
    before: str
    after: str
    labels: tuple[str, ...]
    path: str
    source: str
    stage: str | None
    config: str | None
    texts: tuple[str, ...] = ()
    predictions: str | None = None
    notes: tuple[str, ...] = ()


@dataclass
class _Steps:
    """What is to be done, worked out before anything is written.

    Args:
        outs: DVC's outs among the paths, by path.
        files: new content of files in git, by path from the root.
        cached: objects for outs' places, by path.
        stable: whether the stable file is another one.
        labels: those that move.
    """

    outs: Mapping[str, OutState]
    files: dict[str, bytes] = field(default_factory=dict)
    cached: dict[str, str] = field(default_factory=dict)
    stable: bool = False
    labels: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        return bool(self.files or self.cached or self.stable or self.labels)


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
    is ended by running it again. The configuration, the predictions, the model's card and the application's README
    follow, as far as a promotion made them.

    Args:
        project: whose.
        stores: where the bytes are.
        model_id: ``app/name``.
        to: the version, or a label of it; None for the version before.
        force: also where ``production`` is protected, what would be overwritten is nowhere else, or a card cannot be
            edited, which then stays.
        dry_run: find out what would be done, and refuse what would be refused.

    Raises:
        UsageError: there is no version before, or it is in use.
        ProtectedAliasError: the alias ``production`` is protected.
        StaleStageError: the stage that has the stable path as an out would run again.
        UnknownContentError: the stable path, or the configuration or predictions beside it, holds what is nowhere else.
        CardError: the card or the README cannot be edited.
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
        predictions = predictions_path(model_id).as_posix()
        texts = [card_path(model_id).as_posix(), readme_path(model_id).as_posix()]
        steps = _Steps(read_outs(project.root, [after.path, *_configs(after), predictions, *texts]), labels=labels)
        out = steps.outs.get(after.path)
        if out is not None and out.stale:
            raise StaleStageError(
                f"the stage {out.stage} is not up to date: {', '.join(out.stale)}",
                hint="Run `dvc repro` first, or take the change back: what it wrote down must stay true",
            )
        steps.stable = _oid_at(project.root, after) != after.oid or (out is not None and out.oid != after.oid)
        if steps.stable and not force:
            _check_known(project.root, stores, model, after.path, out)
        config = config_to_restore(project.root, history, model_id, after, steps.outs)
        if config is not None:
            if not force:
                _check_config(project.root, history, model, before, *config)
            steps.files[config[0]] = config[1]
        notes = []
        try:
            made = texts_in_step(project.root, registry, history, model, after)
        except (CardError, EntryError) as error:
            if not force:
                raise
            made = {}
            notes.append(f"the card and the README stay as they were: {error.message}")
        steps.files |= {path: text.encode() for path, text in made.items()}
        foretold = _predictions_to_restore(project.root, after, predictions, steps.outs.get(predictions))
        if not steps.any and foretold is None:
            raise UsageError(f"{model_id}@{after.name} is in use already", hint="--to names another version")
        if foretold is not None and not force:
            _check_known(project.root, stores, model, predictions, steps.outs[predictions])
        name = f"{model_id}@{after.name}"
        source = _source(stores, after.oid, name, dry_run=dry_run) if steps.stable else ""
        if foretold is not None:
            try:
                _source(stores, foretold, f"{name}: its predictions", dry_run=dry_run)
                steps.cached[predictions] = foretold
            except NotHereError as error:
                notes.append(f"{predictions} stays as it was: {error.message}")
        if not dry_run:
            _carry_out(project, stores, held, after, steps)
        return Rollback(
            model_id,
            before.name,
            after.name,
            labels,
            after.path,
            source,
            None if out is None else out.stage,
            config[0] if config else None,
            tuple(made),
            predictions if predictions in steps.cached else None,
            tuple(notes),
        )


def _source(stores: Stores, oid: str, name: str, *, dry_run: bool) -> str:
    return stores.whereabouts([oid]).get(oid, "nowhere") if dry_run else stores.bring(oid, name)


def _carry_out(project: Project, stores: Stores, held: LockedModel, after: Version, steps: _Steps) -> None:
    for path, content in steps.files.items():
        write_atomically(project.root / path, content)
    cached = dict(steps.cached)
    if steps.stable and after.path in steps.outs:
        cached[after.path] = after.oid
    uncached = [path for path in steps.files if path in steps.outs and not steps.outs[path].cached]
    if cached or uncached:
        put_in_outs(project.root, cached, uncached)
    if steps.stable and after.path not in steps.outs:
        stores.write(after, project.root / after.path)
    changes: dict[str, object] = {}
    if CURRENT in steps.labels:
        changes[CURRENT] = after.name
    if CHAMPION in steps.labels:
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


def _check_known(root: Path, stores: Stores, model: Model, name: str, out: OutState | None) -> None:
    path = root / name
    if not path.exists() or path.is_dir():
        return  # DVC compares a folder with what it has written down for it, and asks the cache for each file
    oid = file_md5(path)
    known = {version.oid for version in model.versions} | {out.oid if out else None}
    if oid not in known and not stores.in_cache(oid):
        raise UnknownContentError(
            f"{name} (md5 {oid}) is no version of {model.id} and is nowhere else",
            hint="Register it, or `dvc commit` it; --force overwrites it",
        )


def _predictions_to_restore(root: Path, after: Version, path: str, out: OutState | None) -> str | None:
    """The md5 of a version's predictions, where DVC tracks others beside the stable path."""
    oid = after.source.get(PREDICTIONS)
    if oid is None or out is None or not out.cached:
        return None
    there = file_md5(root / path) if (root / path).is_file() else None
    return None if out.oid == there == oid else oid


def _configs(version: Version) -> Iterator[str]:
    if not version.is_folder:
        yield PurePosixPath(version.path).with_suffix(".yaml").as_posix()


def config_to_restore(
    root: Path, history: RegistryHistory, model_id: str, after: Version, outs: Mapping[str, OutState]
) -> tuple[str, bytes] | None:
    """The configuration beside the stable path as it was committed with a version, where it is another one now.

    It is another one, too, where DVC has written down other bytes: a rollback was killed in between.

    Args:
        root: the project's folder.
        history: of its registry.
        model_id: ``app/name``.
        after: the version.
        outs: DVC's outs, by path; empty where DVC writes them down itself.
    """
    commit = history.introduced(model_id, after.name)
    for path in _configs(after) if commit is not None else ():
        assert commit is not None
        content = history.file_at(commit, path)
        if content is None:
            continue
        out = outs.get(path)
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
