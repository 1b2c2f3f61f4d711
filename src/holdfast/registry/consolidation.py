"""The plan of a consolidation: what becomes of each run, as values and as the JSON that people look through."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import Any, Literal

from holdfast.errors import UsageError
from holdfast.registry.entries import DIGEST, FOLDER_SUFFIX, OID, VERSION_NAME, Version, check_alias, check_model_id

SCHEMA = 1
KIND = "registry consolidate"
# the application of models that no command line gives another one: the folder that reports speak of, too
APP = "production"
# the application of what is kept in the vault alone
ARCHIVE_APP = "archived"
MODELS_FOLDER = "models"

StepKind = Literal["import", "keep", "archive"]
PHASES: Mapping[StepKind, str] = {"import": "register", "keep": "register", "archive": "archive"}


@dataclass(frozen=True)
class PlannedFile:
    """A file as it was when the plan was made: its path within the step's source, with ``/``, its bytes and md5."""

    path: str
    size: int
    md5: str


@dataclass(frozen=True)
class Step:
    """One version to be registered, and what becomes of its files.

    Attributes:
        kind: ``import`` registers what another registry lists; ``keep`` a run under its standard name; ``archive``
            the weights of a run, which leave the workspace.
        source: the folder that the files lie in, from the project's root: for runs the run.
        files: those of the version, in the order of their paths.
        model: ``app/name``.
        version: the number that it gets, or has.
        known: whether it is registered already.
        path: the version's path: another one than the source where the files are copied.
        oid: of the version.
        size: bytes of all files.
        weights: the weights digest.
        weights_file: of a folder the file of weights, from the folder; None for a file.
        run: what the version names as its run; empty for none.
        date: the day that another registry gives it; None for the day of the registration.
        params: what it was trained with.
        metrics: its benchmarks.
        description: of a new model.
        labels: ``current`` and aliases to put on it, where it is new.
        kind_of_run: the class of the run; empty for an import.
        why: the reason, in words.
        flags: what to look at.
    """

    kind: StepKind
    source: str
    files: tuple[PlannedFile, ...]
    model: str
    version: str
    known: bool
    path: str
    oid: str
    size: int
    weights: str
    weights_file: str | None
    run: str
    date: str | None
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    description: str
    labels: tuple[str, ...]
    kind_of_run: str
    why: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``app/name@v1``."""
        return f"{self.model}@{self.version}"

    @property
    def is_copied(self) -> bool:
        """Whether the files get a place of their own under the standard name."""
        return self.kind == "keep" and self.path != self.source

    @property
    def freed(self) -> int:
        """Bytes that leave the workspace."""
        return self.size if self.kind == "archive" else 0

    def draft(self, day: str, revision: str | None) -> Version:
        """The version, without its name.

        Args:
            day: of the registration, ISO 8601.
            revision: the commit that is checked out.
        """
        source = {**({"run": self.run} if self.run else {}), **({"rev": revision} if revision else {})}
        return Version(
            "",
            self.path,
            self.oid,
            self.size,
            self.weights,
            self.date or day,
            source,
            self.params,
            self.metrics,
            self.weights_file,
        )

    def listing(self) -> bytes:
        """The listing of the files as DVC writes it, whose md5 is the oid of a folder."""
        return listing_of(self.files)


@dataclass(frozen=True)
class Left:
    """A run, or another file, that stays as it is.

    Attributes:
        path: from the project's root.
        phase: ``gc`` for what may be removed, which nothing here does; ``register`` and ``archive`` for what that was
            not possible with, or was done before.
        kind_of_run: its class; empty for what is no run.
        size: bytes that its removal or archive would free.
        why: the reason, in words.
    """

    path: str
    phase: Literal["register", "archive", "gc"]
    kind_of_run: str
    size: int
    why: str


@dataclass(frozen=True)
class ConsolidationPlan:
    """What a consolidation would do.

    Attributes:
        folders: those that were looked at, from the project's root.
        app: the application of the models that are kept.
        vault: where weights are archived; None where the project has no vault.
        no_vault: why it has none, where phase 3 is skipped for it.
        steps: in the order in which they are carried out.
        left: what stays as it is.
        runs: a fingerprint of what each run says of itself; empty for one that is still at work.
        inputs: SHA-256 of the other files that the plan was made from.
        rules: SHA-256 of the rules that the runs were sorted by.
    """

    folders: tuple[str, ...]
    app: str
    vault: str | None
    no_vault: str
    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    runs: Mapping[str, str]
    inputs: Mapping[str, str]
    rules: str

    def of(self, kind: StepKind) -> list[Step]:
        """The steps of one kind."""
        return [step for step in self.steps if step.kind == kind]

    @property
    def freed(self) -> int:
        """Bytes that leave the workspace."""
        return sum(step.freed for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``; `read_plan` reads it."""
        return {"schema": SCHEMA, "kind": KIND, "freed": self.freed} | asdict(self)

    def as_bytes(self) -> bytes:
        """The plan's file: the same plan has the same bytes."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode("utf-8", "backslashreplace")


def listing_of(files: tuple[PlannedFile, ...]) -> bytes:
    """The listing of a folder with these files as DVC writes it (dvc_data.hashfile.tree.Tree.digest)."""
    entries = [{"md5": file.md5, "relpath": file.path} for file in sorted(files, key=lambda file: file.path)]
    return json.dumps(entries, sort_keys=True).encode()


def read_plan(data: bytes) -> ConsolidationPlan:
    """A plan that was saved.

    Raises:
        UsageError: it is none, or names what lies outside of the project.
    """
    try:
        saved = json.loads(data)
        if saved["schema"] != SCHEMA or saved["kind"] != KIND:
            raise ValueError("it is another kind of plan")
        steps = tuple(_read_step(item) for item in saved["steps"])
        left = tuple(Left(**item) for item in saved["left"])
        given = {item.name: saved[item.name] for item in fields(ConsolidationPlan)}
        given |= {"steps": steps, "left": left, "folders": tuple(saved["folders"])}
        plan = ConsolidationPlan(**given)
        for path in [*plan.folders, *plan.runs, *plan.inputs, *(place for step in steps for place in _places(step))]:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"it names {path}, which is outside of the project")
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        told = error.message if isinstance(error, UsageError) else str(error)
        hint = "Write one with `holdfast registry consolidate -o FILE`"
        raise UsageError(f"the plan cannot be read: {told}", hint=hint) from error
    return plan


def _read_step(saved: Mapping[str, Any]) -> Step:
    files = tuple(PlannedFile(**item) for item in saved["files"])
    step = Step(**{**saved, "files": files, "labels": tuple(saved["labels"]), "flags": tuple(saved["flags"])})
    check_model_id(step.model)
    for label in step.labels:
        if label != "current":
            check_alias(label)
    wrong = step.kind not in PHASES or not VERSION_NAME.fullmatch(step.version) or not DIGEST.fullmatch(step.weights)
    # what leaves the workspace must be what the version can give back
    if wrong or not files or step.oid != oid_of(step) or step.size != sum(file.size for file in files):
        raise ValueError(f"{step.name} does not fit its files")
    return step


def oid_of(step: Step) -> str:
    """The oid that the files of a step have: that of the one file, or of their listing; empty where it is unclear."""
    if not step.oid.endswith(FOLDER_SUFFIX):
        return step.files[0].md5 if len(step.files) == 1 and OID.fullmatch(step.files[0].md5) else ""
    return hashlib.md5(step.listing(), usedforsecurity=False).hexdigest() + FOLDER_SUFFIX


def _places(step: Step) -> list[str]:
    # as seen from its source, so that no file leads out of it
    return [step.source, step.path, step.run, step.weights_file or "", *(file.path for file in step.files)]
