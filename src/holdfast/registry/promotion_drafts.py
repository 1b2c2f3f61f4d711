"""Drafts: versions that the checked-out commit does not have yet, and what is left where they go."""

from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from holdfast.atomic import write_atomically
from holdfast.registry.cards_files import texts_in_step
from holdfast.registry.entries import CURRENT, Model, Version
from holdfast.registry.history import RegistryHistory
from holdfast.registry.objects import Stores
from holdfast.registry.promotion_source import predictions_path
from holdfast.registry.rollback import CHAMPION, PREDICTIONS, config_to_restore
from holdfast.registry.signing import signature_file
from holdfast.registry.store import Registry
from holdfast.repo.cache import object_path
from holdfast.repo.dvcfiles import MD5
from holdfast.repo.git import committed_files
from holdfast.repo.git_commands import add_to_index, run_git
from holdfast.repo.workspace import Project, find_git_root


def drafts_of(root: Path, registry: Registry, model: Model) -> frozenset[str]:
    """Versions that the checked-out commit does not have and that no alias of one's own names."""
    committed = committed_files(root, registry.folder / model.id)
    if committed is None:
        return frozenset()
    # a promotion puts production on the draft: it is one's own where it is on another version than current
    aliases = [name for alias, name in model.aliases.items() if (alias, name) != (CHAMPION, model.current)]
    names = {version.name for version in model.versions} - set(aliases)
    return frozenset(name for name in names if registry.files(model.id, name)[1].name not in committed)


def labels_without(root: Path, model: Model, drafts: frozenset[str]) -> dict[str, str]:
    """``current`` and ``production`` without drafts: where they are on one, or on nothing, as the commit has them."""
    labels = {CURRENT: model.current, CHAMPION: model.aliases.get(CHAMPION)}
    if model.current is None or model.current in drafts:
        labels = _committed_labels(root, model)
    return {label: name for label, name in labels.items() if name is not None and name not in drafts}


def _committed_labels(root: Path, model: Model) -> dict[str, str | None]:
    git_root = find_git_root(root)
    if git_root is None:
        return {}
    moment = RegistryHistory(Project(root.resolve(), git_root)).at(datetime.max.replace(tzinfo=timezone.utc), model.id)
    found = moment.models[0] if moment is not None and moment.models else None
    return {} if found is None else {CURRENT: found.current, CHAMPION: found.aliases.get(CHAMPION)}


def drop_signatures(root: Path, registry: Registry, model_id: str, names: Iterable[str]) -> None:
    """Remove what vouches for drafts that go: their numbers are free for other bytes.

    Raises:
        GitStageError: git does not take it out of its index.
        OSError: a file cannot be removed.
    """
    files = [signature_file(registry, model_id, name) for name in sorted(names)]
    for file in files:
        file.unlink(missing_ok=True)
    forget(root, files)


def forget(root: Path, files: Iterable[Path]) -> None:
    """Let git's index forget what a draft said: of files that it has, take them as they are, or that they are gone.

    Raises:
        GitStageError: git does not.
    """
    places = [file.parent.resolve() / file.name for file in files]
    add_to_index(root, [place for place in places if run_git(root, "ls-files", "--", str(place))])


def bring_beside(root: Path, registry: Registry, model: Model, target: Version, stores: Stores | None) -> None:
    """Put what lies beside the stable path as it was with the version that a draft gives way to, in git's index, too.

    Raises:
        GitStageError: git does not take the files.
        CardError: the card or the README cannot be edited.
        EntryError: another model of the application is broken.
        OSError: a file cannot be written.
    """
    git_root = find_git_root(root)
    if git_root is None:
        return
    history = RegistryHistory(Project(root.resolve(), git_root))
    files = {path: text.encode() for path, text in texts_in_step(root, registry, history, model, target).items()}
    config = config_to_restore(root, history, model.id, target, {})
    if config is not None:
        files[config[0]] = config[1]
    oid = target.source.get(PREDICTIONS)
    if oid is not None and stores is not None and stores.in_cache(oid):
        files[predictions_path(model.id).as_posix()] = object_path(stores.cache, MD5, oid).read_bytes()
    for path, content in files.items():
        write_atomically(root / path, content)
    forget(root, [root / path for path in files])
