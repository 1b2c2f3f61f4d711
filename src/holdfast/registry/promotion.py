"""From a run's best checkpoint to the stable path and a registered version."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from holdfast.atomic import TEMPORARY_SUFFIX, leftovers, write_atomically
from holdfast.errors import HoldfastError
from holdfast.formats.digest import file_md5
from holdfast.formats.safetensors import file_weights_digest
from holdfast.registry.entries import Version, check_model_id
from holdfast.registry.store import LockedModel, Registry
from holdfast.repo.git import committed_files, head_revision, stage_files
from holdfast.runs.checkpoint import export_safetensors, load_checkpoint, weights_of

MODELS_FOLDER = "models"


class StableFileError(HoldfastError):
    """The stable path should hold the current version, and holds something else or nothing."""


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
    back, and that stands.

    A version is for ever once it is committed. What was promoted since the last commit is a draft: the next promotion
    takes its place and its number, so that a commit brings one version, whatever was tried before it. A draft that an
    alias names stays.
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
        EntryError: the registry is broken, or params or metrics hold what it cannot keep; nothing is written.
        IntegrityError: the checkpoint is torn, damaged, or asks for code to be run.
        NoWeightsError: it holds no weights, or such as safetensors does not take.
        StableFileError: another version is current, and its bytes are not at the stable path.
        TorchMissingError: torch or safetensors is not installed.
        GitStageError: git does not take the registry's files into its index.
        OSError: a file cannot be written.
    """
    check_model_id(model_id)
    registry = Registry(root)
    stable = root / stable_path(model_id)
    candidate = stable.with_name(f".{stable.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    text = yaml.safe_dump({"model": model_id, **config}, sort_keys=False, allow_unicode=True)
    weights = weights_of(load_checkpoint(checkpoint), str(checkpoint))

    def put_in_place() -> None:
        candidate.replace(stable)
        write_atomically(root / config_path(model_id), text)

    with registry.lock(model_id) as held:
        for path in leftovers(stable):
            path.unlink()
        try:
            export_safetensors(weights, candidate)
            draft = Version(
                name="",
                path=stable_path(model_id).as_posix(),
                oid=file_md5(candidate),
                size=candidate.stat().st_size,
                weights=file_weights_digest(candidate),
                date=today.isoformat(),
                source=_source(root, checkpoint),
                params=params,
                metrics=metrics,
            )
            known = next((version for version in held.versions if version.weights == draft.weights), None)
            drafts = _drafts(root, registry, model_id, held)
            current = next((version for version in held.versions if version.name == held.current), None)
            if known and current and current.name != known.name and not {known.name, current.name} & drafts:
                _check_stable(root, model_id, current)
                return Promotion(known, registered=False, current=current.name)
            if known:
                put_in_place()
                held.make_current(known.name)
                held.drop(sorted(drafts - {known.name}))
                version = known
            else:
                version = held.add(draft, description, replaces=sorted(drafts), before=put_in_place)
        finally:
            candidate.unlink(missing_ok=True)
        # an experiment of DVC's carries what git tracks: a version's file is new, and would stay behind
        stage_files(root, registry.files(model_id, version.name))
    return Promotion(version, registered=known is None, current=version.name)


def _drafts(root: Path, registry: Registry, model_id: str, held: LockedModel) -> set[str]:
    """Versions that the checked-out commit does not have and no alias names."""
    committed = committed_files(root, registry.folder / model_id)
    if committed is None:
        return set()
    names = {version.name for version in held.versions} - set(held.aliases.values())
    return {name for name in names if registry.files(model_id, name)[1].name not in committed}


def _check_stable(root: Path, model_id: str, current: Version) -> None:
    path = stable_path(model_id)
    if not (root / path).exists() or file_md5(root / path) != current.oid:
        raise StableFileError(
            f"{model_id}@{current.name} is current, and {path} is not its file (md5 {current.oid})",
            hint=f"Bring it with `dvc checkout {path}` or `dvc pull {path}`, or let `current` name another version",
        )


def _source(root: Path, checkpoint: Path) -> dict[str, str]:
    folder = checkpoint.resolve().parent
    run = folder.relative_to(root.resolve()).as_posix() if folder.is_relative_to(root.resolve()) else folder.name
    revision = head_revision(root)
    return {"run": run, **({"rev": revision} if revision else {})}
