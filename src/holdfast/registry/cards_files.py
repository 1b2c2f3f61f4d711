"""The card of a model and the README of its application, made anew for the version that is in use."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from holdfast.registry.cards import (
    PART,
    README_PART,
    CardFacts,
    Dataset,
    card_path,
    readme_path,
    render_card,
    render_readme,
)
from holdfast.registry.cards_data import Reader, data_of, files_at, files_of
from holdfast.registry.entries import Model, Version
from holdfast.registry.history import RegistryHistory
from holdfast.registry.store import Registry


def texts_beside(
    root: Path,
    registry: Registry,
    model: Model,
    version: Version,
    config: str | None,
    description: str,
    data: Sequence[Dataset] = (),
) -> dict[str, str]:
    """The model's card and the application's README once a version is current, by their paths from the root.

    Args:
        root: the project's folder.
        registry: the registry.
        model: whose card.
        version: the one that is current then.
        config: path of its configuration, from the root; None for none.
        description: of the model, where it has none yet.
        data: what the version was trained and evaluated with.

    Raises:
        CardError: one that is there cannot be edited.
        EntryError: another model of the application is broken.
    """
    card, readme = card_path(model.id), readme_path(model.id)
    facts = CardFacts(model.id, version, model.description or description, config or "", tuple(data))
    return {
        card.as_posix(): render_card(facts, _text(root / card)),
        readme.as_posix(): readme_text(registry, facts, _text(root / readme)),
    }


def texts_in_step(
    root: Path, registry: Registry, history: RegistryHistory, model: Model, version: Version
) -> dict[str, str]:
    """As `texts_beside`, of those that are there and were made by a promotion, where they say something else by now.

    Raises:
        CardError, EntryError: as of `texts_beside`.
    """
    made = [path for path, part in _parts(model.id) if has_part(_text(root / path), part)]
    if not made:
        return {}
    facts = facts_in_use(root, history, model, version)
    texts = texts_beside(root, registry, model, version, facts.config, "", facts.data)
    return {path: texts[path] for path in made if texts[path].encode() != (root / path).read_bytes()}


def facts_in_use(
    root: Path, history: RegistryHistory, model: Model, version: Version, read: Reader | None = None
) -> CardFacts:
    """What a card says of a registered version; of one that is committed as the commit has it that brought it.

    Args:
        root: the project's folder.
        history: of its registry.
        model: whose version it is.
        version: the one that is current then.
        read: where else to look for the data and the configuration of one that is not; None for the workspace.
    """
    commit = history.introduced(model.id, version.name)
    read = files_at(history, commit) if commit is not None else read or files_of(root)
    config = "" if version.is_folder else PurePosixPath(version.path).with_suffix(".yaml").as_posix()
    if config and read(config) is None:
        config = ""
    return CardFacts(model.id, version, model.description, config, data_of(version, read))


def readme_text(registry: Registry, facts: CardFacts, existing: str | None) -> str:
    """The README of an application with one of its models as the facts say, and the others as they are in use.

    Raises:
        CardError: the one that is there cannot be edited.
        EntryError: another model of the application is broken.
    """
    app = facts.model_id.partition("/")[0]
    others = []
    for other_id in registry.model_ids():
        if other_id.partition("/")[0] == app and other_id != facts.model_id:
            other = registry.model(other_id, partial=True)
            if (current := other.version(other.current or "")) is not None:
                others.append(CardFacts(other.id, current, other.description))
    return render_readme(app, [facts, *others], existing)


def has_part(text: str | None, part: str) -> bool:
    """Whether a text has a part that is made anew."""
    begins = re.compile(rf"^<!-- holdfast: {re.escape(part)} begins\b", re.MULTILINE)
    return text is not None and begins.search(text) is not None


def _parts(model_id: str) -> list[tuple[str, str]]:
    return [(card_path(model_id).as_posix(), PART), (readme_path(model_id).as_posix(), README_PART)]


def _text(path: Path) -> str | None:
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else None
