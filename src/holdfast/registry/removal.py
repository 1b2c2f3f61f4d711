"""Taking a version out of the registry: a plan with what stands in the way, then its file and its signature."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, StalePlanError, UsageError
from holdfast.inventory.canonical import check
from holdfast.inventory.canonical_rules import Canon, Deprecation
from holdfast.registry import FOLDER
from holdfast.registry.entries import Model, Version, check_model_id
from holdfast.registry.signing import signature_file
from holdfast.registry.store import Registry
from holdfast.registry.writing import plain_deprecations, quoted
from holdfast.repo.git_commands import add_to_index, run_git

SCHEMA = 1
KIND = "registry rm"


class StillNeededError(HoldfastError):
    """The version cannot go: something needs it."""


@dataclass(frozen=True)
class Need:
    """What stands in the way.

    Attributes:
        kind: ``label``, ``reference`` or ``version``.
        place: the label, ``file:line:column``, or ``app/name@v3``.
        why: in words.
    """

    kind: str
    place: str
    why: str


@dataclass(frozen=True)
class RemovalPlan:
    """What removing a version would do.

    Attributes:
        model: ``app/name``.
        version: ``v3``.
        file: its file, from the project's root.
        signature: that of its signature; None where it was not signed.
        uncommitted: those of these files, and ``model.yaml``, which no commit has as they are: git cannot bring them
            back.
        oid: its bytes, which stay where they are until a collection finds that nothing keeps them.
        size: of these.
        shared: other versions with the same bytes, as ``app/name@v1``.
        needs: what stands in the way; empty where it can go.
        digests: SHA-256 of the files that the plan was made from.
    """

    model: str
    version: str
    file: str
    signature: str | None
    uncommitted: tuple[str, ...]
    oid: str
    size: int
    shared: tuple[str, ...]
    needs: tuple[Need, ...]
    digests: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``; `read_plan` reads it."""
        return {"schema": SCHEMA, "kind": KIND} | asdict(self)


def read_plan(data: bytes) -> RemovalPlan:
    """A plan that was saved.

    Raises:
        UsageError: it is none.
    """
    try:
        saved = json.loads(data)
        if saved["schema"] != SCHEMA or saved["kind"] != KIND:
            raise ValueError("it is another kind of plan")
        needs = tuple(Need(**item) for item in saved["needs"])
        names = ("model", "version", "file", "signature", "oid", "size", "digests")
        fields = {name: saved[name] for name in names} | {"uncommitted": tuple(saved["uncommitted"])}
        plan = RemovalPlan(**fields, shared=tuple(saved["shared"]), needs=needs)
        check_model_id(plan.model)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "Write one with `holdfast registry rm MODEL@VERSION --json`"
        raise UsageError(f"the plan cannot be read: {error}", hint=hint) from error
    return plan


def plan_removal(root: Path, model_id: str, label: str) -> RemovalPlan:
    """What removing a version would do, and what stands in the way.

    In its way are a label on it, a source that refers to its path (unless another version has the same) or to
    ``app/name@v3``, and a version of any model whose ``source`` names it.

    Raises:
        UnknownModelError, UnknownVersionError: there is no such model or version.
        EntryError: a file of the registry is broken.
        OSError: a source cannot be read.
    """
    registry = Registry(root)
    models = registry.models()
    model = registry.model(model_id)
    version = model.named(label)
    name = f"{model_id}@{version.name}"
    others = [
        (item.id, other)
        for item in models
        for other in item.versions
        if (item.id, other.name) != (model_id, version.name)
    ]
    needs = [
        *(Need("label", label, "this label is on it") for label in model.labels(version.name)),
        *(
            Need("version", f"{other_id}@{other.name}", f"its source names {name}")
            for other_id, other in others
            if name in other.source.values()
        ),
        *_references(root, model, version),
    ]
    files = list(registry.files(model_id, version.name))
    signature = signature_file(registry, model_id, version.name)
    signed = signature.is_file()
    files += [signature] if signed else []
    names = [path.relative_to(root).as_posix() for path in files]
    return RemovalPlan(
        model=model_id,
        version=version.name,
        file=names[1],
        signature=names[2] if signed else None,
        uncommitted=_uncommitted(root, names),
        oid=version.oid,
        size=version.size,
        shared=tuple(f"{other_id}@{other.name}" for other_id, other in others if other.oid == version.oid),
        needs=tuple(needs),
        digests={name: _digest(path) for name, path in zip(names, files, strict=True)},
    )


def apply_removal(root: Path, plan: RemovalPlan, today: str) -> None:
    """Remove the version and its signature. Its number is not used again.

    ``model.yaml`` first notes that it is gone, and the version's own file goes last: a removal that was killed in
    between is ended by planning and applying it again.

    Raises:
        StillNeededError: something needs it.
        StalePlanError: the registry changed since the plan was made, or something needs the version by now.
        EntryError: a file of the model is broken; nothing is changed.
        OSError: a file cannot be written.
    """
    if plan.needs:
        first = plan.needs[0]
        raise StillNeededError(
            f"{plan.model}@{plan.version} is still needed: {first.place}: {first.why}",
            hint=f"`holdfast registry rm {plan.model}@{plan.version}` lists all that stands in the way",
        )
    registry = Registry(root)
    with registry.lock(plan.model) as held:
        for name, digest in plan.digests.items():
            path = root / name
            if (
                not path.resolve().is_relative_to(registry.folder.resolve())
                or not path.exists()
                or _digest(path) != digest
            ):
                raise StalePlanError(f"{name} changed since the plan was made", hint="Make a new plan")
        now = plan_removal(root, plan.model, plan.version)
        if now.needs:
            first = now.needs[0]
            raise StalePlanError(f"since the plan was made, {first.place}: {first.why}", hint="Make a new plan")
        if now.digests != plan.digests:
            told = f"{plan.model}@{plan.version} was signed since the plan was made"
            raise StalePlanError(told, hint="Make a new plan")
        model = held.model
        removed = {**model.removed, plan.version: today}
        changes: dict[str, Any] = {"removed": {name: quoted(day) for name, day in removed.items()}}
        if plan.version in model.deprecations:
            kept = {name: item for name, item in model.deprecations.items() if name != plan.version}
            changes["deprecations"] = plain_deprecations(kept)
        held.change(changes)
        signature = signature_file(registry, plan.model, plan.version)
        signature.unlink(missing_ok=True)
        held.drop([plan.version])
        files = [*registry.files(plan.model, plan.version), signature]
        add_to_index(root, [path for path in files if _is_tracked_or_here(path)])


def _references(root: Path, model: Model, version: Version) -> Iterator[Need]:
    shared = any(other.path == version.path for other in model.versions if other.name != version.name)
    gone = Deprecation(model.id, version.name, "" if shared else version.path, why="to be removed")
    report = check(root, Canon(archives=()), deprecations=[gone], skipped=frozenset({FOLDER}))
    for finding in report.findings:
        yield Need("reference", finding.place, f"it names {finding.text}")


def _uncommitted(root: Path, names: list[str]) -> tuple[str, ...]:
    committed = (run_git(root, "ls-tree", "--name-only", "-z", "HEAD", "--", *names) or "").split("\0")
    changed = (run_git(root, "diff", "--name-only", "--relative", "-z", "HEAD", "--", *names) or "").split("\0")
    return tuple(name for name in names if name not in committed or name in changed)


def _is_tracked_or_here(path: Path) -> bool:
    return path.exists() or run_git(path.parent, "ls-files", "--error-unmatch", "--", path.name) is not None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
