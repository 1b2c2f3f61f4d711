"""Registering versions that were found elsewhere, in other programs' stores, one after the other.

What cannot be registered is left out with the reason. What is registered already, by its weights, is not registered
again, so that an import may be run again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, UsageError
from holdfast.registry.entries import ALIAS, CURRENT, MODEL_ID, VERSION_NAME, Deprecation, Model, Version
from holdfast.registry.importing import Imported
from holdfast.registry.store import LockedModel, Registry
from holdfast.registry.writing import plain_deprecations


@dataclass(frozen=True)
class FoundVersion:
    """A version of another program's.

    Attributes:
        model: ``app/name``; where there is no such name, what the other program calls it.
        place: what it is called there, for people.
        name: ``v3``, where it has a number that can be kept.
        path: where its file or folder is, from the project's root; empty where that is not known.
        files: the file or folder on this machine, where it is outside of git and DVC.
        date: the day, ISO 8601.
        params: what it was trained with.
        metrics: what it reached.
        source: where it comes from, as of a version.
        description: of the model.
        labels: ``current`` and aliases that are on it.
        deprecated: why it is not to be used any more; empty where it may be.
        reason: why it cannot be registered; empty where it can.
    """

    model: str
    place: str
    name: str | None = None
    path: str = ""
    files: Path | None = None
    date: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    labels: tuple[str, ...] = ()
    deprecated: str = ""
    reason: str = ""


def model_id_of(name: str, app: str | None) -> str:
    """The name that a model gets here: with the application before it where it has none.

    Raises:
        UsageError: it has none and ``app`` is None, or the name cannot be one of ours.
    """
    if "/" not in name and app is None:
        raise UsageError(f"{name} does not say of which application it is", hint="Name it: --app APP")
    model_id = (name if "/" in name else f"{app}/{name}").lower().replace(" ", "_").replace(".", "_")
    if not MODEL_ID.fullmatch(model_id):
        raise UsageError(
            f"{name} cannot be the name of a model", hint="A model is app/name in letters, digits, - and _"
        )
    return model_id


def can_be_alias(name: str) -> bool:
    """Whether a label of another program's can be an alias here."""
    return ALIAS.fullmatch(name) is not None and VERSION_NAME.fullmatch(name) is None and name != CURRENT


def register_found(
    registry: Registry, found: Iterable[FoundVersion], draft_of: Callable[[FoundVersion], Version], today: str
) -> list[Imported]:
    """Register versions in the order in which they come.

    Labels and deprecations are taken over where the model was made by this import; those of others stay.

    Args:
        registry: the registry.
        found: the versions.
        draft_of: makes the version, and has its bytes in DVC's cache.
        today: the day of deprecations, ISO 8601.

    Raises:
        EntryError: a file of the registry is broken.
        OSError: the registry cannot be written.
    """
    before = set(registry.model_ids())
    result = []
    for item in found:
        try:
            if item.reason:
                raise HoldfastError(item.reason)
            version, new = _register(registry, item, draft_of(item))
        except HoldfastError as error:
            result.append(Imported(item.model, item.place, None, new=False, reason=str(error)))
            continue
        if item.model not in before:
            with registry.lock(item.model) as held:
                _put_labels(held, version.name, item, today)
        result.append(Imported(item.model, item.place, version.name, new=new))
    return result


def _register(registry: Registry, item: FoundVersion, draft: Version) -> tuple[Version, bool]:
    with registry.lock(item.model) as held:
        model = held.model
        known = next((version for version in model.versions if version.weights == draft.weights), None)
        if known is not None:
            return known, False
        name = item.name if item.name is not None and _is_free(model, item.name) else None
        return held.add(draft, item.description, current=False, name=name), True


def _is_free(model: Model, name: str) -> bool:
    return model.version(name) is None and name not in model.removed


def _put_labels(held: LockedModel, name: str, item: FoundVersion, today: str) -> None:
    model = held.model
    changes: dict[str, Any] = {}
    if CURRENT in item.labels:
        changes[CURRENT] = name
    aliases = [label for label in item.labels if label != CURRENT]
    if aliases:
        changes["aliases"] = {**model.aliases, **dict.fromkeys(aliases, name)}
    if item.deprecated:
        changes["deprecations"] = plain_deprecations({**model.deprecations, name: Deprecation(item.deprecated, today)})
    if changes:
        held.change(changes)
