"""From a run's best checkpoint to the stable path and a registered version."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from holdfast.atomic import TEMPORARY_SUFFIX, write_atomically
from holdfast.errors import HoldfastError
from holdfast.formats.digest import file_md5
from holdfast.formats.safetensors import file_weights_digest
from holdfast.registry.entries import Version, check_model_id
from holdfast.registry.store import Registry
from holdfast.repo.git import head_revision, is_tracked, stage_files
from holdfast.runs.checkpoint import export_safetensors, load_checkpoint, weights_of

MODELS_FOLDER = "models"


class StableFileMissingError(HoldfastError):
    """The stable path should hold an older version, whose bytes are not in the workspace."""


@dataclass(frozen=True)
class Promotion:
    """What a promotion did.

    Attributes:
        version: the version that has the candidate's weights.
        registered: whether it is new; False where these weights were registered before.
        current: the version that the stable path holds.
    """

    version: Version
    registered: bool
    current: str


def stable_path(model_id: str) -> Path:
    """``models/<app>/<name>.safetensors``, relative to the project's root."""
    return Path(MODELS_FOLDER, f"{model_id}.safetensors")


def config_path(model_id: str) -> Path:
    """``models/<app>/<name>.yaml``, relative to the project's root: what the weights must be loaded into."""
    return Path(MODELS_FOLDER, f"{model_id}.yaml")


def promote_checkpoint(
    root: Path,
    model_id: str,
    checkpoint: Path,
    *,
    today: date,
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    metrics: Mapping[str, Any],
    description: str = "",
) -> Promotion:
    """Put a checkpoint's weights at the stable path as safetensors and register them.

    Weights that are registered already are not registered again. Where another version is current, someone has rolled
    back, and that stands; unless git does not know the version, which is then what a discarded experiment left behind.
    The checkpoint's folder is left untouched.

    Args:
        root: the project's folder.
        model_id: ``app/name``.
        checkpoint: a torch checkpoint, relative to the working directory or absolute.
        today: the day to register under.
        config: what a program needs to load the weights; written beside them as YAML.
        params: what the model was trained with.
        metrics: what it reached.
        description: one line for people, for a new model.

    Raises:
        UsageError: ``model_id`` is no ``app/name``.
        EntryError: the registry is broken; nothing is written.
        IntegrityError: the checkpoint is torn, or asks for code to be run.
        NoWeightsError: it holds no weights.
        StableFileMissingError: another version is current, and its bytes are not at the stable path.
        GitStageError: git does not take the registry's files into its index.
        OSError: a file cannot be written.
    """
    check_model_id(model_id)
    registry = Registry(root)
    stable = root / stable_path(model_id)
    candidate = stable.with_name(f".{stable.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        export_safetensors(weights_of(load_checkpoint(checkpoint), str(checkpoint)), candidate)
        weights = file_weights_digest(candidate)
        known = registry.find_weights(model_id, weights)
        current = registry.model(model_id, partial=True).current if known else None
        # a version that git has never seen was left behind by a discarded experiment: nobody has rolled back from it
        committed = known is not None and is_tracked(root, registry.files(model_id, known)[1])
        if known and current and known.name != current and committed:
            if not stable.exists():
                raise StableFileMissingError(
                    f"{model_id}@{current} is current, and its file {stable_path(model_id)} is not here",
                    hint=f"`dvc pull {stable_path(model_id)}` or `dvc checkout {stable_path(model_id)}` brings it",
                )
            return Promotion(known, registered=False, current=current)
        draft = Version(
            name="",
            path=stable_path(model_id).as_posix(),
            oid=file_md5(candidate),
            size=candidate.stat().st_size,
            weights=weights,
            date=today.isoformat(),
            source=_source(root, checkpoint),
            params=params,
            metrics=metrics,
        )
        candidate.replace(stable)
    finally:
        candidate.unlink(missing_ok=True)
    text = yaml.safe_dump({"model": model_id, **config}, sort_keys=False, allow_unicode=True)
    write_atomically(root / config_path(model_id), text)
    if known:
        registry.make_current(model_id, known.name)
    version = known or registry.register(model_id, draft, description)
    # an experiment of DVC's carries what git tracks: a version's file is new, and would stay behind
    stage_files(root, registry.files(model_id, version))
    return Promotion(version, registered=known is None, current=version.name)


def _source(root: Path, checkpoint: Path) -> dict[str, str]:
    folder = checkpoint.resolve().parent
    run = folder.relative_to(root.resolve()).as_posix() if folder.is_relative_to(root.resolve()) else folder.name
    revision = head_revision(root)
    return {"run": run, **({"rev": revision} if revision else {})}
