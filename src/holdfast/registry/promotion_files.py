"""The files of a promotion: the stable one, its configuration, card and predictions, and DVC's record of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.digest import file_md5
from holdfast.registry.cards import card_path
from holdfast.registry.entries import Model, Version
from holdfast.registry.objects import Stores, keep_file, keep_listing
from holdfast.registry.promotion_source import (
    Candidate,
    Staged,
    config_path,
    folder_listing,
    predictions_path,
    put_in_place,
)
from holdfast.registry.rollback import UnknownContentError
from holdfast.registry.store import Registry
from holdfast.repo.dvc_outs import OutState, StaleStageError, add_outs, put_in_outs, read_outs
from holdfast.repo.dvcfiles import DVC_SUFFIX, LOCK_FILE
from holdfast.repo.git_commands import run_git

METRICS_FILE = "metrics/promotion.json"
# in the folder of a model that has no version yet
NOTICE_FILE = "NO_VERSION.txt"


class StableFileError(HoldfastError):
    """The stable path should hold the current version, and holds something else or nothing."""


@dataclass(frozen=True)
class Tracking:
    """What DVC knows of a promotion's paths before it begins.

    Attributes:
        stores: the project's cache, and where else its objects are.
        outs: the outs among the paths, by path.
    """

    stores: Stores
    outs: Mapping[str, OutState] = field(default_factory=dict)

    @property
    def stages(self) -> set[str]:
        """Stages of pipelines that have one of the paths as an out."""
        return {out.stage for out in self.outs.values() if not out.stage.endswith(DVC_SUFFIX)}


def config_of(model_id: str, candidate: Candidate, stable: str) -> str:
    """Where a candidate's configuration goes, from the root.

    Raises:
        UsageError: the stable path has that name.
    """
    path = config_path(model_id, candidate.config_suffix).as_posix()
    if path in (stable, card_path(model_id).as_posix()):
        raise UsageError(f"the configuration would lie at {path}, which is taken", hint="Give it another suffix: .yaml")
    return path


def look_up(root: Path, model_id: str, model: Model, staged: Staged, stores: Stores, paths: Iterable[str]) -> Tracking:
    """What DVC knows of the paths; refuses what could not be carried out.

    Raises:
        StaleStageError: the stage that has the stable path as an out would run again.
        UsageError: git tracks the stable path.
        UnknownContentError: it holds what is nowhere else.
        LockedError, HoldfastError: as of `holdfast.repo.dvc_outs.read_outs`.
    """
    outs = read_outs(root, list(paths))
    out = outs.get(staged.stable)
    if out is not None and out.stale:
        raise StaleStageError(
            f"the stage {out.stage} is not up to date: {', '.join(out.stale)}",
            hint="Run `dvc repro` first, or take the change back: what it wrote down must stay true",
        )
    if out is None and run_git(root, "ls-files", "--error-unmatch", "--", staged.stable) is not None:
        raise UsageError(
            f"git tracks {staged.stable}", hint=f"`git rm --cached -r {staged.stable}`: DVC is to track it"
        )
    path = root / staged.stable
    if path.exists():
        oid = _oid_of(path)
        known = {version.oid for version in model.versions} | {staged.oid, out.oid if out else None}
        if oid not in known and not stores.in_cache(oid):
            raise UnknownContentError(
                f"{staged.stable} (md5 {oid}) is no version of {model_id} and is nowhere else",
                hint=f"`holdfast registry register {model_id} {staged.stable}` keeps it; or move it away",
            )
    return Tracking(stores, outs)


def place(
    root: Path,
    model_id: str,
    candidate: Candidate,
    staged: Staged,
    texts: Mapping[str, str | bytes],
    tracking: Tracking | None,
) -> None:
    """Put everything in its place and have DVC write it down; each file is the old one or the new one at any time.

    Args:
        root: the project's folder.
        model_id: ``app/name``.
        candidate: what is promoted.
        staged: its copy, which goes to the stable path.
        texts: other files by their paths from the root.
        tracking: None where DVC tracks the outs itself, in a stage.

    Raises:
        StaleStageError, LockedError, HoldfastError: DVC refuses.
        OSError: a file cannot be written.
    """
    if tracking is not None:
        _keep(tracking.stores.cache, staged)
    put_in_place(staged.path, root / staged.stable)
    predictions = predictions_path(model_id).as_posix()
    oids = {staged.stable: staged.oid}
    if candidate.predictions is not None:
        content = candidate.predictions.read_bytes()
        _write(root / predictions, content)
        oids[predictions] = file_md5(root / predictions)
        if tracking is not None:
            keep_file(tracking.stores.cache, root / predictions, oids[predictions])
    for path, text in texts.items():
        _write(root / path, text)
    if tracking is not None:
        cached = {path: oid for path, oid in oids.items() if path in tracking.outs}
        uncached = [path for path in texts if path in tracking.outs and not tracking.outs[path].cached]
        if cached or uncached:
            put_in_outs(root, cached, uncached)
        if new := [path for path in oids if path not in tracking.outs]:
            add_outs(root, new)


def bring_current(root: Path, current: Version, stores: Stores | None) -> None:
    """Have the current version's bytes at its path; what lies there and is nowhere else stays.

    Raises:
        StableFileError: another file is there, or none, and the version's bytes are not at hand.
        OSError: it cannot be written.
    """
    path = root / current.path
    found = _oid_of(path) if path.exists() else None
    if found == current.oid:
        return
    if stores is not None and stores.in_cache(current.oid) and (found is None or stores.in_cache(found)):
        stores.write(current, path)
        return
    raise StableFileError(
        f"{current.name} is current, and {current.path} is not its file (md5 {current.oid})",
        hint=f"Bring it with `dvc checkout {current.path}` or `dvc pull {current.path}`, "
        "or let `current` name another version",
    )


def paths_of(
    root: Path, registry: Registry, model_id: str, version: str, stable: str, others: Iterable[str]
) -> list[str]:
    """The files in git that a promotion wrote, as far as they are there and git does not ignore them."""
    predictions = predictions_path(model_id).as_posix()
    files = [path.relative_to(registry.folder.parent).as_posix() for path in registry.files(model_id, version)]
    beside = [f"{stable}{DVC_SUFFIX}", f"{predictions}{DVC_SUFFIX}", Path(stable).with_name(".gitignore").as_posix()]
    there = [path for path in [*files, *beside, *others] if (root / path).is_file()]
    ignored = set((run_git(root, "check-ignore", "--", *there) or "").split("\n"))
    return sorted({path for path in there if path not in ignored})


def lock_files(tracking: Tracking | None) -> list[str]:
    """``dvc.lock``, where a stage has one of the paths as an out."""
    folders = {stage.partition(":")[0] for stage in tracking.stages if ":" in stage} if tracking else set()
    beside = {f"{Path(folder).parent.as_posix()}/{LOCK_FILE}".removeprefix("./") for folder in folders}
    plain = tracking is not None and any(":" not in stage for stage in tracking.stages)
    return sorted(beside | ({LOCK_FILE} if plain else set()))


def _keep(cache: Path, staged: Staged) -> None:
    if not staged.path.is_dir():
        keep_file(cache, staged.path, staged.oid)
        return
    for member in (path for path in staged.path.rglob("*") if path.is_file()):
        keep_file(cache, member, file_md5(member))
    keep_listing(cache, staged.listing, staged.oid)


def _oid_of(path: Path) -> str:
    return folder_listing(path)[1] if path.is_dir() else file_md5(path)


def _write(path: Path, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    if not path.is_file() or path.read_bytes() != data:  # a file that need not change keeps its time
        write_atomically(path, data)


def hold_places(root: Path, model_id: str, candidate: Candidate, staged: Staged, config: str | None) -> None:
    """Put a notice wherever a promotion would put a file and there is none: DVC wants every out of a stage to exist.

    A notice is text that no loader takes for a model, and it never replaces anything.

    Raises:
        OSError: a file cannot be written.
    """
    notice = f"# There is no version of {model_id} yet: its candidates were refused, see {METRICS_FILE}.\n"
    stable = f"{staged.stable}/{NOTICE_FILE}" if staged.weights_file is not None else staged.stable
    beside = [predictions_path(model_id).as_posix()] if candidate.predictions is not None else []
    if not (root / staged.stable).exists():
        _write(root / stable, notice)
    for path in [*beside, *([config] if config else [])]:
        if not (root / path).exists():
            _write(root / path, notice)
