"""Registries of others: one YAML or JSON file of models, in the forms in which people keep them.

Read are a file of `holdfast registry export`; a ``registry.yaml`` by hand (application, model, ``current``,
``versions``); and a ``models_registry.json``: models by name, or a list of them, each one version with a path, metrics
and what it was trained with. A path may be that of a file or of a folder.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.errors import HoldfastError, UsageError
from holdfast.nesting import check_nesting
from holdfast.registry.document import EntryError
from holdfast.registry.entries import ALIAS, DIGEST, MODEL_ID, OID, VERSION_NAME, Deprecation, Model, Version
from holdfast.registry.store import LockedModel, Registry

PATHS = ("path", "model_path", "checkpoint", "checkpoint_path", "file", "weights_path", "model_file")
METRICS = ("metrics", "performance", "benchmarks", "results", "scores", "evaluation")
PARAMS = ("params", "parameters", "config", "hyperparameters", "architecture", "model_config", "training_config")
DATES = ("date", "created", "created_at", "timestamp", "trained_at", "registered_at")
TEXTS = ("description", "notes", "best_for", "recommendation")
# fields of a version that no other program writes
_OWN = ("path", "date", "metrics", "params", "oid", "size", "weights", "source", "weights_file", "gate", "overridden")


@dataclass(frozen=True)
class Candidate:
    """A version that a file lists.

    Attributes:
        model: ``app/name``.
        name: ``v2`` where the file numbers its versions.
        path: its file or folder, from the project's root.
        date: the day, ISO 8601; None where the file says none.
        params: what it was trained with.
        metrics: what it reached.
        description: of the model.
        labels: ``current`` and aliases that are on it.
        known: the whole version, where the file says oid, size and weights digest.
    """

    model: str
    name: str | None
    path: str
    date: str | None
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    labels: tuple[str, ...] = ()
    known: Version | None = None


@dataclass(frozen=True)
class Imported:
    """What became of a version that a file lists.

    Attributes:
        model: ``app/name``.
        path: as the file has it.
        version: the version that it is; None where it was left out.
        new: whether it was registered now; False where these weights were registered before.
        reason: why it was left out.
    """

    model: str
    path: str
    version: str | None
    new: bool
    reason: str = ""


def read_candidates(data: bytes, file: str, app: str | None = None) -> list[Candidate]:
    """The versions that a file lists, in its order.

    Args:
        data: the file.
        file: its name, which says whether it is JSON.
        app: the application of models that the file gives no application.

    Raises:
        UsageError: it is no such file, or a name in it is none, or the application is missing.
    """
    tree = _load(data, file)
    models = tree.get("models", tree) if isinstance(tree, dict) else tree
    try:
        if isinstance(models, dict) and _is_nested(models):
            return list(_nested(models))
        return list(_flat(models, app, file))
    except (TypeError, AttributeError, KeyError) as error:
        raise UsageError(f"{file} is no registry that can be read: {error}", hint=_FORMS) from error


_FORMS = "See `holdfast registry import --help` for the forms that are"


def read_models(data: bytes, file: str) -> dict[str, Model]:
    """The models of a file in the layout of an export, by their names.

    A version that a file by hand gives no oid has an empty one, no weights digest and no size.

    Raises:
        EntryError: it is no such file, or a label names a version that is not in it.
    """
    try:
        tree = _load(data, file)
        if not isinstance(tree, dict) or not _is_nested(tree):
            raise EntryError(f"{file} has no applications with models and their versions", hint=_FORMS)
        models = [_model(str(app), str(name), fields) for app, names in tree.items() for name, fields in names.items()]
    except UsageError as error:
        raise EntryError(error.message, hint=error.hint) from error
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise EntryError(f"{file} is no registry that can be read: {error}", hint=_FORMS) from error
    for model in models:
        names = {version.name for version in model.versions}
        for label, target in {**({"current": model.current} if model.current else {}), **model.aliases}.items():
            if target not in names:
                raise EntryError(f"{file}: {label} of {model.id} names {target!r}, which is not in it")
    return {model.id: model for model in models}


def _model(app: str, name: str, fields: Mapping[str, Any]) -> Model:
    versions = []
    for label, told in fields["versions"].items():
        found = _candidate(_model_id(app, name), told, "")
        known = _known(found, told) or Version(
            "", found.path, "", 0, "", found.date or "", params=found.params, metrics=found.metrics
        )
        versions.append(replace(known, name=str(label)))
    deprecations = fields.get("deprecations") or {}
    return Model(
        _model_id(app, name),
        str(fields.get("description") or ""),
        None if fields.get("current") is None else str(fields["current"]),
        {str(alias): str(target) for alias, target in (fields.get("aliases") or {}).items()},
        tuple(versions),
        tuple(fields.get("protected") or ()),
        {str(label): Deprecation(told["reason"], told.get("date")) for label, told in deprecations.items()},
        dict(fields.get("removed") or {}),
    )


def import_versions(
    root: Path,
    candidates: list[Candidate],
    draft_of: Callable[[Path, Candidate], Version],
    keep: Callable[[Path, Version], None],
) -> list[Imported]:
    """Register what a file lists; what cannot be is left out, with the reason.

    Versions that are registered already, by their weights, are not registered again, so that an import may be run
    again. Labels are put on where the file has them and the model was made by this import; others stay.

    Args:
        root: the project's folder.
        candidates: the versions.
        draft_of: makes a version of a file or folder.
        keep: puts a file's bytes into DVC's cache.

    Raises:
        EntryError: a file of the registry is broken.
        OSError: the registry cannot be written.
    """
    registry = Registry(root)
    before = set(registry.model_ids())
    result = []
    for candidate in candidates:
        try:
            version, new = _import(registry, root, candidate, draft_of, keep)
        except HoldfastError as error:
            result.append(Imported(candidate.model, candidate.path, None, new=False, reason=str(error)))
            continue
        if candidate.model not in before and candidate.labels:
            with registry.lock(candidate.model) as held:
                _put_labels(held, version.name, candidate.labels)
        result.append(Imported(candidate.model, candidate.path, version.name, new=new))
    return result


def _import(
    registry: Registry,
    root: Path,
    candidate: Candidate,
    draft_of: Callable[[Path, Candidate], Version],
    keep: Callable[[Path, Version], None],
) -> tuple[Version, bool]:
    path = root / candidate.path
    if path.exists():
        draft = draft_of(path, candidate)
        if candidate.known is not None and candidate.known.weights == draft.weights:
            draft = candidate.known
        elif candidate.known is not None:
            raise HoldfastError(f"{candidate.path} holds other weights than the file says")
    elif candidate.known is not None:
        draft = candidate.known
    else:
        raise HoldfastError(f"{candidate.path} does not exist", hint="Bring it, and import again")
    with registry.lock(candidate.model) as held:
        known = next((version for version in held.versions if version.weights == draft.weights), None)
        if known is not None:
            return known, False
        if path.exists() and draft.weights == draft_of(path, candidate).weights:
            keep(path, draft)
        name = candidate.name
        free = name is not None and held.model.version(name) is None and name not in held.model.removed
        return held.add(draft, candidate.description, current=False, name=name if free else None), True


def _put_labels(held: LockedModel, name: str, labels: tuple[str, ...]) -> None:
    model = held.model
    changes: dict[str, Any] = {}
    if "current" in labels:
        changes["current"] = name
    aliases = [label for label in labels if label != "current"]
    if aliases:
        changes["aliases"] = {**model.aliases, **dict.fromkeys(aliases, name)}
    held.change(changes)


def _load(data: bytes, file: str) -> Any:
    try:
        check_nesting(data)
        if file.lower().endswith(".json"):
            return json.loads(data)
        import yaml  # 15 ms that JSON need not pay

        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read: {' '.join(str(error).split())}", hint=_FORMS) from error
    except Exception as error:  # PyYAML's errors have a base of their own, and its constructors raise what they like
        raise UsageError(f"{file} is no YAML: {' '.join(str(error).split())}", hint=_FORMS) from error


def _is_nested(models: Mapping[str, Any]) -> bool:
    """Application, model, versions."""
    apps = [app for app in models.values() if isinstance(app, dict)]
    return bool(apps) and all(
        isinstance(model, dict) and isinstance(model.get("versions"), dict) for app in apps for model in app.values()
    )


def _nested(apps: Mapping[str, Any]) -> Iterator[Candidate]:
    for app, models in apps.items():
        for name, model in models.items():
            labels: dict[str, list[str]] = {}
            if model.get("current") is not None:
                labels.setdefault(str(model["current"]), []).append("current")
            for alias, target in (model.get("aliases") or {}).items():
                if ALIAS.fullmatch(str(alias)):
                    labels.setdefault(str(target), []).append(str(alias))
            for version, fields in model["versions"].items():
                found = _candidate(_model_id(app, name), fields, str(model.get("description") or ""))
                number = str(version) if VERSION_NAME.fullmatch(str(version)) else None
                yield replace(
                    found, name=number, labels=tuple(labels.get(str(version), ())), known=_known(found, fields)
                )


def _flat(models: Any, app: str | None, file: str) -> Iterator[Candidate]:
    if isinstance(models, dict):
        entries = [(str(name), fields) for name, fields in models.items() if isinstance(fields, dict)]
    elif isinstance(models, list):
        entries = [
            (str(entry.get("name") or entry.get("id") or ""), entry) for entry in models if isinstance(entry, dict)
        ]
    else:
        entries = []
    if not entries:
        raise UsageError(f"{file} lists no models", hint=_FORMS)
    if app is None:
        raise UsageError(f"{file} does not say of which application its models are", hint="Name it: --app APP")
    for name, fields in entries:
        texts = [str(fields[key]) for key in TEXTS if isinstance(fields.get(key), str)]
        found = _candidate(_model_id(app, name), fields, " ".join(texts[:1]).split("\n")[0])
        status = str(fields.get("status") or fields.get("stage") or "").strip().lower()
        yield replace(found, labels=("production",) if status == "production" else ())


def _candidate(model_id: str, fields: Mapping[str, Any], description: str) -> Candidate:
    paths = [fields[key] for key in PATHS if isinstance(fields.get(key), str)]
    if not paths:
        raise UsageError(f"{model_id} has no path", hint=f"Read are {', '.join(PATHS)}")
    path = PurePosixPath(paths[0].replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(f"{model_id} lies at {paths[0]}, which is not in the project", hint="Copy it into the project")
    return Candidate(
        model_id,
        None,
        path.as_posix(),
        next((day for key in DATES if (day := _day(fields.get(key))) is not None), None),
        _mapping(fields, PARAMS),
        _mapping(fields, METRICS) or {key: value for key, value in fields.items() if isinstance(value, float)},
        description,
    )


def _known(candidate: Candidate, fields: Mapping[str, Any]) -> Version | None:
    texts = {key: fields.get(key) for key in ("oid", "weights")}
    if not all(isinstance(value, str) for value in texts.values()) or not isinstance(fields.get("size"), int):
        return None
    if not OID.fullmatch(str(texts["oid"])) or not DIGEST.fullmatch(str(texts["weights"])) or candidate.date is None:
        return None
    own = {key: fields[key] for key in _OWN if key in fields}
    return Version("", **{**own, "path": candidate.path, "date": candidate.date})


def _mapping(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        value = fields.get(name)
        if isinstance(value, dict):
            found |= _plain(value)
        elif value is not None and not isinstance(value, list):
            found[name] = value
    return found


def _plain(value: Any) -> Any:
    """Values without YAML's dates, which the registry does not keep."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else value


def _day(value: Any) -> str | None:
    if isinstance(value, dt.datetime):
        return value.date().isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    try:
        return dt.datetime.fromisoformat(str(value).replace("Z", "+00:00")).date().isoformat()
    except ValueError:
        return None


def _model_id(app: str, name: str) -> str:
    model_id = f"{app}/{name}".lower().replace(" ", "_").replace(".", "_")
    if not MODEL_ID.fullmatch(model_id):
        raise UsageError(f"{app}/{name} cannot be the name of a model", hint="Rename it in the file, or name the --app")
    return model_id
