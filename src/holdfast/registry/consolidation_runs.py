"""The runs that a consolidation is about, and what their folders say: both for the plan and for its check."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

import pygit2

from holdfast.errors import UsageError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.inventory.references import find_references
from holdfast.inventory.run_record import WEIGHT_ROLES, Run
from holdfast.inventory.run_rules import Rules, find_rules
from holdfast.inventory.run_scan import Scan, scan_runs
from holdfast.inventory.run_verdicts import Sorting, sort_runs
from holdfast.registry import FOLDER
from holdfast.registry.consolidation import MODELS_FOLDER, PlannedFile
from holdfast.registry.entries import Model
from holdfast.repo.history import read_workspace
from holdfast.repo.workspace import Project


@dataclass(frozen=True)
class Looked:
    """What lies in some folders of a project.

    Attributes:
        root: the project's folder.
        folders: from there; none lies in another one.
        scan: all of them as one; runs are absolute, other files are seen from the root.
        rules: what runs are sorted by.
    """

    root: Path
    folders: tuple[str, ...]
    scan: Scan
    rules: Rules

    def sort(self, now: datetime) -> Sorting:
        """The runs, sorted and compared with one another."""
        return sort_runs(self.scan, self.rules, now)

    def path(self, run: Run) -> str:
        """A run as seen from the root."""
        return run.path.relative_to(self.root).as_posix()

    @property
    def rules_digest(self) -> str:
        """SHA-256 of the rules."""
        return hashlib.sha256(repr(self.rules).encode()).hexdigest()


def look(project: Project, folders: Sequence[str], app: str, models: Iterable[Model]) -> Looked:
    """Look at folders of a project. What was put into ``models/<app>`` or registered as a copy is no run any more.

    Args:
        project: whose.
        folders: from its root, ``.`` for all of it.
        app: the application of the models that are kept.
        models: those that are registered.

    Raises:
        UsageError: a folder lies outside of the project, or is none, or has rules of its own.
        holdfast.inventory.config.ConfigError: ``holdfast.yaml`` says something that Holdfast does not know.
        OSError: a folder cannot be read.
    """
    root = project.root
    chosen = _outermost(root, folders)
    rules = [find_rules(root / folder) for folder in chosen]
    if any(other != rules[0] for other in rules[1:]):
        raise UsageError("the folders have rules of their own", hint="Consolidate them one after the other")
    copies = {f"{MODELS_FOLDER}/{app}"}
    copies |= {v.path for model in models for v in model.versions if v.source.get("run", v.path) not in (v.path, "")}
    # a single file's path names the file: the run around it is one still
    copies = {path for path in copies if (root / path).is_dir() or path == f"{MODELS_FOLDER}/{app}"}
    scans = [(folder, scan_runs(root / folder, percent=frozenset(rules[0].percent))) for folder in chosen]
    runs = [
        # two folders may be called alike
        replace(run, group=f"{folder}/{run.group}") if len(chosen) > 1 else run
        for folder, scan in scans
        for run in scan.runs
        if not _is_within(run.path.relative_to(root).as_posix(), copies)
    ]
    scan = Scan(
        top=root,
        runs=tuple(sorted(runs, key=lambda run: run.path.as_posix())),
        loose=(),
        registries=tuple(
            replace(file, path=(PurePosixPath(folder) / file.path).as_posix())
            for folder, found in scans
            for file in found.registries
        ),
        notes=tuple(note for _, found in scans for note in found.notes),
    )
    return Looked(root, tuple(chosen), scan, rules[0])


def fingerprint(run: Run, digests: DigestCache, *, weights: bool) -> str:
    """SHA-256 over all that a run says: path and md5 of each of its files, of those with weights path and bytes.

    Args:
        run: the run.
        digests: what is known of files.
        weights: whether the files with weights count; they do not where they are to leave.

    Raises:
        IntegrityError: a file was changed while it was read.
    """
    told: list[object] = []
    for file in run.files:
        path = run.path / file.path
        try:
            if path.is_symlink():
                told.append([file.path, "link", str(path.readlink())])
            elif file.role not in WEIGHT_ROLES:
                told.append([file.path, file.size, digests_of(path, digests, md5=True).md5])
            elif weights:
                told.append([file.path, file.size])
        except OSError as error:  # what cannot be read says as much now as later
            told.append([file.path, "unreadable", error.errno])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def planned_file(folder: Path, name: str, digests: DigestCache) -> PlannedFile:
    """A file as it is now.

    Raises:
        IntegrityError: it was changed while it was read.
        OSError: it cannot be read.
    """
    found = digests_of(folder / name, digests, md5=True)
    assert found.md5 is not None
    return PlannedFile(name, (folder / name).stat().st_size, found.md5)


def tracked_outs(project: Project) -> Mapping[str, str]:
    """What DVC tracks in the workspace, from the project's root, with the file that says so.

    Raises:
        UnreadableDvcFileError: a DVC file cannot be read.
    """
    workspace = read_workspace(pygit2.Repository(str(project.git_root)))
    prefix = f"{project.prefix}/" if project.prefix else ""
    return {
        sighting.out.path[len(prefix) :]: sighting.file[len(prefix) :]
        for sighting in workspace.sightings
        if sighting.version is None and not sighting.origin.ref and sighting.out.path.startswith(prefix)
    }


def tracker_of(path: str, outs: Mapping[str, str]) -> str | None:
    """The DVC file by which a path is tracked, or something in it or around it; None where there is none."""
    for out, file in outs.items():
        if out == path or out.startswith(f"{path}/") or path.startswith(f"{out}/"):
            return file
    return None


def uses_of(root: Path, paths: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Where files of runs are named by their paths, outside of their runs and the registry, as ``file:line``.

    Args:
        root: the project's folder.
        paths: of each run the files that are asked about, from the root.
    """
    owners = {path: run for run, files in paths.items() for path in files}
    found: dict[str, list[str]] = {}
    for reference in find_references(root, owners).references if owners else ():
        for target in reference.targets if reference.how == "path" else ():
            place = f"{reference.file}:{reference.line}"
            if not _is_within(reference.file, (owners[target], FOLDER)) and place not in found.get(target, ()):
                found.setdefault(target, []).append(place)
    return found


def _outermost(root: Path, folders: Sequence[str]) -> list[str]:
    places = []
    for folder in folders:
        place = (root / folder).resolve()
        if not place.is_relative_to(root.resolve()):
            raise UsageError(f"{folder} is not in the project {root}", hint="Name folders of the project")
        if not place.is_dir():
            raise UsageError(f"{folder} is no folder", hint="Name folders of the project")
        places.append(place.relative_to(root.resolve()).as_posix())
    return [place for place in sorted(set(places)) if not _is_within_another(place, places)]


def _is_within_another(place: str, places: Iterable[str]) -> bool:
    return any(other != place and (other == "." or place.startswith(f"{other}/")) for other in places if other != place)


def _is_within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
