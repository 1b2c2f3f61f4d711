"""What a pull request changes in the registry: versions, labels, deprecations."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.registry import FOLDER
from holdfast.registry.document import EntryError
from holdfast.registry.entries import MODEL_FILE, MODEL_ID, VERSION_NAME, Model, Version, parse_model, parse_version
from holdfast.registry.history import Event
from holdfast.registry.history import _events as events_between
from holdfast.report.pull_sides import Side


@dataclass(frozen=True)
class ModelChange:
    """A model that differs.

    Attributes:
        id: ``app/name``.
        base: as the base side has it; None where that has none, or a broken one.
        head: the same of the head side.
        events: what changed, versions before labels.
    """

    id: str
    base: Model | None
    head: Model | None
    events: tuple[Event, ...]

    @property
    def registered(self) -> tuple[Version, ...]:
        """The versions that the head side has and the base side has not."""
        known = {version.name for version in self.base.versions} if self.base else set()
        return tuple(version for version in (self.head.versions if self.head else ()) if version.name not in known)


def models_of(side: Side) -> dict[str, Model | None]:
    """The models of a side by name; one that is broken is noted as a fault, and None."""
    found: dict[str, Model | None] = {}
    for app, is_folder in sorted(side.names(FOLDER).items()):
        names = side.names(posixpath.join(FOLDER, app)) if is_folder else {}
        for name in sorted(name for name, below in names.items() if below):
            if MODEL_FILE in side.names(posixpath.join(FOLDER, app, name)):
                found[f"{app}/{name}"] = _model(side, f"{app}/{name}")
    return found


def compare_registries(base: Mapping[str, Model | None], head: Mapping[str, Model | None]) -> list[ModelChange]:
    """The models that differ, in the order of their names; of one that is broken on a side nothing can be said."""
    found = []
    broken = {name for side in (base, head) for name, model in side.items() if model is None}
    for name in sorted({*base, *head} - broken):
        events = tuple(events_between(base.get(name), head.get(name)))
        if events or (name in base) != (name in head):
            found.append(ModelChange(name, base.get(name), head.get(name), events))
    return found


def _model(side: Side, model_id: str) -> Model | None:
    folder = posixpath.join(FOLDER, model_id)
    names = side.names(folder)
    if not MODEL_ID.fullmatch(model_id):
        side.fault(folder, "it is no name of a model")
        return None
    versions = []
    place = folder
    try:
        for name in names:
            stem = name.removesuffix(".yaml")
            if stem != name and VERSION_NAME.fullmatch(stem):
                place = posixpath.join(folder, name)
                versions.append(parse_version(_text(side, place), stem, place))
        ordered = tuple(sorted(versions, key=lambda version: version.number))
        place = posixpath.join(folder, MODEL_FILE)
        return parse_model(_text(side, place), model_id, ordered, place)
    except (EntryError, UnicodeDecodeError, OSError) as error:
        told = " ".join((error.message if isinstance(error, EntryError) else str(error)).split())
        side.fault(place, told.removeprefix(f"{place} ").removeprefix(f"{place}:"))
        return None


def _text(side: Side, path: str) -> str:
    return (side.read(path) or b"").decode("utf-8-sig")
