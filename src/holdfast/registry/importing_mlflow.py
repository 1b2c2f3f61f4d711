"""MLflow's file store: registered models, their versions, aliases and stages, and what their runs recorded.

Read are the folders and ``meta.yaml`` files that MLflow keeps below ``mlruns/``, without MLflow. A version's files are
looked for where its ``source`` points, inside of the store alone; a store that was moved is read where it is now.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.cache import DigestCache
from holdfast.nesting import check_nesting
from holdfast.registry.entries import CURRENT, Version
from holdfast.registry.importing_found import FoundVersion, can_be_alias, model_id_of
from holdfast.registry.registration import keep_bytes, make_draft

META = "meta.yaml"
MODELS = "models"
STAGES = {"Production": "production", "Staging": "staging"}
ARCHIVED, DELETED = "Archived", "Deleted_Internal"
READY = "READY"
LARGEST_VALUE_BYTES = 10_000

_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,256}")
_VERSION_FOLDER = re.compile(r"version-([1-9][0-9]*)")
_IN_RUN = re.compile(r"(?:^|/)(?P<place>[^/]+/[0-9a-f]{32}/artifacts(?:/.*)?)$")
_IN_MODEL = re.compile(r"(?:^|/)(?P<place>[^/]+/models/m-[0-9a-f]+/artifacts(?:/.*)?)$")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def find_store(folder: Path) -> Path | None:
    """The file store that a folder is, or has as ``mlruns``; None where there is none."""
    places = (folder, folder / "mlruns")
    return next((place for place in places if any((place / MODELS).glob(f"*/{META}"))), None)


def read_store(store: Path, root: Path, app: str | None) -> list[FoundVersion]:
    """The registered versions of a store, model by model, each model's in the order of its versions.

    Args:
        store: the folder with ``models/``.
        root: the project's folder, from which paths are seen.
        app: the application of the models, since MLflow's have none.

    Raises:
        UsageError: it lists none, an application is missing, or a file is none of MLflow's.
        OSError: a file cannot be read.
    """
    found: list[FoundVersion] = []
    for meta in sorted((store / MODELS).glob(f"*/{META}")):
        fields = _read(meta)
        name = str(fields.get("name") or meta.parent.name)
        found += _versions(store.resolve(), root, meta.parent, fields, model_id_of(name, app))
    if not found:
        raise UsageError(
            f"{store} has no registered versions", hint="Name the folder with models/ and its runs: mlruns"
        )
    return found


def draft_of_stored(
    found: FoundVersion, root: Path, cache: Path, digests: DigestCache, weights_file: str | None = None
) -> Version:
    """The version of a store; its bytes are in DVC's cache afterwards.

    Args:
        found: one of `read_store`.
        root: the project's folder.
        cache: the folder of DVC's cache.
        digests: what is known of files.
        weights_file: of folders with more than one checkpoint the file of weights.

    Raises:
        HoldfastError: it holds no weights, or which file of them does is unclear.
        IntegrityError: it is damaged, or was changed while it was read.
        OSError: it cannot be read, or the cache cannot be written.
    """
    assert found.files is not None
    inside = found.files.resolve().is_relative_to(root.resolve())
    draft = make_draft(
        root if inside else found.files.parent,
        found.files,
        digests,
        today=date.fromisoformat(found.date),
        params=found.params,
        metrics=found.metrics,
        weights_file=weights_file if found.files.is_dir() else None,
    )
    keep_bytes(cache, found.files, draft, digests)
    return replace(draft, path=found.path, source=found.source)


def _versions(store: Path, root: Path, folder: Path, model: Mapping[str, Any], model_id: str) -> Iterator[FoundVersion]:
    name = str(model.get("name") or folder.name)
    metas = {int(match[1]): path / META for path in folder.iterdir() if (match := _VERSION_FOLDER.fullmatch(path.name))}
    versions = {number: _read(metas[number]) for number in sorted(metas)}
    versions = {number: meta for number, meta in versions.items() if meta.get("current_stage") != DELETED}
    labels = _labels(_aliases(folder, model), versions)
    for number, meta in versions.items():
        files, reason = _files(store, meta)
        if meta.get("status", READY) != READY:
            reason = f"MLflow calls it {meta['status']}"
        run = _run_folder(store, meta.get("run_id"))
        logged = _logged_model(store, meta.get("model_id"))
        records = [place for place in (run, logged) if place is not None]
        archived = meta.get("current_stage") == ARCHIVED and not labels.get(number)
        yield FoundVersion(
            model_id,
            f"{name} version {number}",
            name=f"v{number}",
            path=_path(root, files, model_id),
            files=files,
            date=_day(meta),
            params={key: value for place in records for key, value in _params(place).items()},
            metrics={key: value for place in records for key, value in _metrics(place).items()},
            source=_source(root, run, meta),
            description=" ".join(str(model.get("description") or "").split()),
            labels=tuple(labels.get(number, ())),
            deprecated="archived in MLflow" if archived else "",
            reason=reason,
        )


def _labels(aliases: Mapping[str, int], versions: Mapping[int, Mapping[str, Any]]) -> dict[int, list[str]]:
    """``current`` and aliases of each version; a stage is the alias of its name, of the newest version in it."""
    targets = dict(aliases)
    for number, meta in versions.items():
        stage = STAGES.get(str(meta.get("current_stage")))
        if stage is not None and stage not in aliases:
            targets[stage] = number
    current = targets.get("production", targets.get("champion", max(versions, default=0)))
    labels: dict[int, list[str]] = {current: [CURRENT]}
    for alias, number in sorted(targets.items()):
        if can_be_alias(alias):
            labels.setdefault(number, []).append(alias)
    return labels


def _aliases(folder: Path, model: Mapping[str, Any]) -> dict[str, int]:
    told = {path.name: _text(path) for path in sorted((folder / "aliases").glob("*")) if path.is_file()}
    if not told and isinstance(model.get("aliases"), dict):
        told = {str(alias): str(number) for alias, number in model["aliases"].items()}
    return {alias: int(number) for alias, number in told.items() if number.strip().isdecimal()}


def _files(store: Path, meta: Mapping[str, Any]) -> tuple[Path | None, str]:
    """Where a version's files are, or why they are not there."""
    places = [str(meta[key]) for key in ("storage_location", "source") if meta.get(key)]
    for place in places:
        for candidate in _candidates(store, place):
            if candidate.exists() and _is_within(candidate, store):
                return candidate, ""
    return None, f"its files are not in the store: {places[0]}" if places else "it does not say where its files are"


def _is_within(place: Path, store: Path) -> bool:
    """Whether a file, or a folder with all of its files, is the store's: links may lead anywhere."""
    files = [place, *(place.rglob("*") if place.is_dir() else ())]
    return all(path.resolve().is_relative_to(store) for path in files)


def _candidates(store: Path, place: str) -> Iterator[Path]:
    parts = urlsplit(place)
    path = unquote(parts.path)
    if parts.scheme == "runs":
        run, _, rest = path.strip("/").partition("/")
        folder = _run_folder(store, run)
        if folder is not None:
            yield folder / "artifacts" / rest
        return
    if parts.scheme == "models":
        folder = _logged_model(store, path.strip("/"))
        if folder is not None:
            yield folder / "artifacts"
        return
    if parts.scheme in ("file", "") and path.startswith("/"):
        yield Path(path)
    if parts.scheme in ("file", "", "mlflow-artifacts"):
        # a store that was moved, or one whose files a server of MLflow's handed out
        for pattern in (_IN_RUN, _IN_MODEL):
            if (match := pattern.search(path)) is not None and ".." not in Path(path).parts:
                yield store / match["place"]


def _run_folder(store: Path, run: object) -> Path | None:
    if not isinstance(run, str) or not _IDENTIFIER.fullmatch(run):
        return None
    return next((meta.parent for meta in sorted(store.glob(f"*/{run}/{META}"))), None)


def _logged_model(store: Path, model: object) -> Path | None:
    if not isinstance(model, str) or not _IDENTIFIER.fullmatch(model):
        return None
    return next((meta.parent for meta in sorted(store.glob(f"*/{MODELS}/{model}/{META}"))), None)


def _params(record: Path) -> dict[str, Any]:
    return {name: _value(_text(path)) for name, path in _entries(record / "params")}


def _metrics(record: Path) -> dict[str, float]:
    """Of each metric the value of its last step, of which the newest, as MLflow takes it."""
    result = {}
    for name, path in _entries(record / "metrics"):
        values = []
        for line in path.read_text(errors="replace").splitlines():
            try:
                when, value, *rest = line.split()
                values.append((int(rest[0]) if rest else 0, int(when), float(value)))
            except ValueError as error:
                raise UsageError(f"{path} is no metric of MLflow's: {line[:80]!r}", hint="Mend or remove it") from error
        if values:
            last = max(values, key=lambda item: (item[:2], -math.inf if math.isnan(item[2]) else item[2]))
            result[name] = last[2]
    return result


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _source(root: Path, run: Path | None, meta: Mapping[str, Any]) -> dict[str, str]:
    source = {}
    if run is not None and run.is_relative_to(root.resolve()):
        source["run"] = run.relative_to(root.resolve()).as_posix()
    if meta.get("run_id"):
        source["mlflow_run"] = str(meta["run_id"])
    tag = run / "tags" / "mlflow.source.git.commit" if run is not None else None
    if tag is not None and tag.is_file() and _COMMIT.fullmatch(revision := _text(tag).strip()):
        source["rev"] = revision
    return source


def _path(root: Path, files: Path | None, model_id: str) -> str:
    """Where the files are in the project; of those outside of it, the model's stable path."""
    if files is None:
        return ""
    place = files.resolve()
    if place.is_relative_to(root.resolve()):
        return place.relative_to(root.resolve()).as_posix()
    return f"models/{model_id}{'' if files.is_dir() else files.suffix}"


def _day(meta: Mapping[str, Any]) -> str:
    try:
        return datetime.fromtimestamp(int(meta["creation_timestamp"]) / 1000, timezone.utc).date().isoformat()
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        told = meta.get("creation_timestamp")
        raise UsageError(
            f"version {meta.get('version')} of {meta.get('name')} has the creation_timestamp {told!r}",
            hint="Milliseconds since 1970 are meant",
        ) from error


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    try:
        check_nesting(data)
        fields = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError, HoldfastError) as error:
        told = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read: {told}", hint="It should be a meta.yaml of MLflow's") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{path} holds no mapping", hint="It should be a meta.yaml of MLflow's")
    return fields


def _text(path: Path) -> str:
    with open(path, "rb") as stream:
        return stream.read(LARGEST_VALUE_BYTES).decode("utf-8", "replace")


def _value(text: str) -> Any:
    """A number or truth value where it looks like one, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float)) else text
