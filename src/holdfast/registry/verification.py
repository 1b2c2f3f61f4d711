"""Is the registry true: its files, its labels, every version's bytes, and whether what is in use can be used."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from holdfast.atomic import TEMPORARY_SUFFIX
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.registry import FOLDER
from holdfast.registry.consolidation import ARCHIVE_APP
from holdfast.registry.document import EntryError
from holdfast.registry.entries import MODEL_FILE, VERSION_NAME, Model, Version
from holdfast.registry.objects import Stores
from holdfast.registry.store import Registry
from holdfast.registry.verification_findings import Finding
from holdfast.registry.verification_use import beside_faults, contract_faults, load_faults, reference_faults
from holdfast.repo.cache import object_path, read_members
from holdfast.repo.dvcfiles import (
    LOCK_FILE,
    MD5,
    PIPELINE_FILE,
    UnreadableFileError,
    read_definitions,
    read_dvc,
    read_lock,
)
from holdfast.repo.git_commands import run_git


@dataclass(frozen=True)
class Verification:
    """What was looked at, and found.

    Attributes:
        findings: faults before what could not be looked at.
        models: how many were read.
        versions: how many of them.
        read: versions whose bytes were read and are right.
        elsewhere: versions whose bytes are in a vault or a remote, by their names, and were not read.
    """

    findings: tuple[Finding, ...]
    models: int
    versions: int
    read: int
    elsewhere: int

    @property
    def faults(self) -> list[Finding]:
        """What is wrong for certain."""
        return [finding for finding in self.findings if finding.certain]


def verify(
    stores: Stores, digests: DigestCache, *, model_ids: Iterable[str] | None = None, deep: bool = True
) -> Verification:
    """Look at files, labels and bytes of models, and at what refers to them.

    Bytes in the cache are read: size, md5 and weights digest (a file that did not change since it was last read is not
    read again). Of those in a vault or a remote it is asked whether they are there. Versions with a label are loaded,
    without running code; the current one must keep the contract that the gate asks for; card, README and configuration
    must be its own, and no source may name it by a path at which it is not.

    Args:
        stores: where bytes are.
        digests: what is known of files.
        model_ids: of which models; None for all.
        deep: read bytes and sources; else sizes alone.

    Raises:
        HoldfastError: a vault or remote cannot be reached.
        OSError: a file cannot be read.
    """
    root = stores.root
    registry = Registry(root)
    findings: list[Finding] = []
    models: list[Model] = []
    changed = _changed_versions(root)
    for model_id in registry.model_ids() if model_ids is None else model_ids:
        findings += _strangers(registry, model_id)
        findings += [item for item in changed if item.where.startswith(f"{FOLDER}/{model_id}/")]
        try:
            models.append(registry.model(model_id))
        except EntryError:
            findings += _faults(registry, model_id)
    locked = _locked(root, findings)
    for model in models:
        findings += _labels(root, model, locked, digests)
    places = stores.whereabouts(version.oid for model in models for version in model.versions)
    read = elsewhere = 0
    here: dict[str, Version] = {}
    for model in models:
        for version in model.versions:
            name, place = f"{model.id}@{version.name}", places.get(version.oid)
            if place == "cache":
                faults = list(_bytes(stores, version, name, digests, deep=deep))
                findings += faults
                read += not faults
                if not faults:
                    here[name] = version
            elif place is not None:
                elsewhere += 1
            elif stores.offline:
                hint = _restoring(model, version)
                findings.append(Finding(name, "its bytes are not on this machine", hint, certain=False))
            else:
                where = "DVC's cache, a vault or DVC's remote"
                hint = "One who has them sends them with `dvc push` or `holdfast push`"
                findings.append(Finding(name, f"its bytes (md5 {version.oid}) are not in {where}", hint))
    if deep:
        findings += list(_in_use(stores, registry, models, here))
    findings.sort(key=lambda finding: not finding.certain)
    versions = sum(len(model.versions) for model in models)
    return Verification(tuple(findings), len(models), versions, read, elsewhere)


def _in_use(stores: Stores, registry: Registry, models: list[Model], here: Mapping[str, Version]) -> Iterator[Finding]:
    """What hinders the use of versions that a label is on, of those whose bytes are here and right."""
    labelled = [(f"{model.id}@{version.name}", model, version) for model in models for version in model.versions]
    labelled = [(name, model, version) for name, model, version in labelled if model.labels(version.name)]
    yield from load_faults(stores, [(name, version) for name, _, version in labelled if name in here])
    for name, model, version in labelled:
        if version.name == model.current and name in here:
            yield from contract_faults(stores, model, version)
    yield from beside_faults(stores.root, registry, models)
    yield from reference_faults(stores.root, models)


def _restoring(model: Model, version: Version) -> str:
    """What brings back the weights of a run that a consolidation archived; empty for any other version."""
    run = version.source.get("run")
    archived = model.id.startswith(f"{ARCHIVE_APP}/") and run
    return f"`holdfast registry consolidate --restore {run}` brings them back from the vault" if archived else ""


def _strangers(registry: Registry, model_id: str) -> Iterator[Finding]:
    """Files beside the registry's own that look like them."""
    folder = registry.folder / model_id
    for path in sorted(folder.iterdir()):
        if path.name == MODEL_FILE or (path.suffix == ".yaml" and VERSION_NAME.fullmatch(path.stem)):
            continue
        if path.suffix == ".sig" and path.with_suffix(".yaml").exists():
            continue  # a version's signature
        told = (
            "is left over from a writer that was killed"
            if path.name.endswith(TEMPORARY_SUFFIX)
            else "is no file of the registry"
        )
        yield Finding(f"{FOLDER}/{model_id}/{path.name}", told, "Remove it", certain=False)


def _changed_versions(root: Path) -> list[Finding]:
    """Committed versions whose files were changed since; none outside of git."""
    told = run_git(root, "diff", "--name-only", "--relative", "--diff-filter=M", "-z", "HEAD", "--", FOLDER) or ""
    paths = [PurePosixPath(name) for name in told.split("\0") if name]
    names = [path.as_posix() for path in paths if path.suffix == ".yaml" and VERSION_NAME.fullmatch(path.stem)]
    fault = "is a committed version, and was changed: versions do not change"
    return [Finding(name, fault, f"`git checkout HEAD -- {name}` takes it back") for name in names]


def _faults(registry: Registry, model_id: str) -> Iterator[Finding]:
    """Every broken file of a model that has one."""
    broken = False
    for path in sorted((registry.folder / model_id).glob("v*.yaml")):
        if VERSION_NAME.fullmatch(path.stem):
            try:
                registry.read_version(model_id, path.stem)
            except EntryError as error:
                broken = True
                yield _told(error)
    if not broken:
        try:
            registry.model(model_id)
        except EntryError as error:
            yield _told(error)


def _told(error: HoldfastError) -> Finding:
    where, _, fault = error.message.partition(": ")
    return Finding(where, fault or error.message, error.hint or "")


def _locked(root: Path, findings: list[Finding]) -> dict[str, str]:
    """The oid of each out in the ``dvc.lock`` of the project's root."""
    lock, pipeline = root / LOCK_FILE, root / PIPELINE_FILE
    if not lock.is_file():
        return {}
    try:
        definitions = read_definitions(pipeline.read_bytes()) if pipeline.is_file() else {}
        return {out.path: out.oid for out in read_lock(lock.read_bytes(), "", definitions)}
    except UnreadableFileError as error:
        findings.append(Finding(LOCK_FILE, str(error), "`holdfast registry resolve` mends it during a merge"))
        return {}


def _labels(root: Path, model: Model, locked: dict[str, str], digests: DigestCache) -> Iterator[Finding]:
    for name in model.removed:
        if model.version(name) is not None:
            fault = "model.yaml says that it was removed, and its file is there"
            yield Finding(f"{model.id}@{name}", fault, f"`holdfast registry rm {model.id}@{name}` ends it")
    for label in (label for label, name in model.aliases.items() if name in model.deprecations):
        name = f"{model.id}@{label}"
        yield Finding(
            name, f"{model.aliases[label]} is deprecated", "Assign the alias to another version", certain=False
        )
    current = model.version(model.current or "")
    if current is None:
        if model.versions:
            yield Finding(f"{FOLDER}/{model.id}/{MODEL_FILE}", "no version is current", certain=False)
        return
    tracked, file = _tracked(root, current.path, locked)
    # DVC brings what its own file names: that need not be this version's, nor anything
    brings = f"`dvc checkout {current.path}` brings its own"
    if tracked is None:
        brings = f"`holdfast registry get {model.id}@{current.name} -o {current.path}` brings its own"
    elif tracked != current.oid:
        fault = f"{current.name} is current, and {file} has other bytes at {current.path}"
        brings = f"`holdfast registry rollback {model.id} --to {current.name}` makes both say the same"
        yield Finding(f"{model.id}@{current.name}", fault, brings)
    path = root / current.path
    if not path.exists():
        fault = f"{current.path} is not checked out"
        hint = _restoring(model, current) or brings
        yield Finding(f"{model.id}@{current.name}", fault, hint, certain=False)
    elif not current.is_folder and (
        path.stat().st_size != current.size or digests_of(path, digests, md5=True).md5 != current.oid
    ):
        fault = f"{current.path} holds other bytes than the current version"
        yield Finding(f"{model.id}@{current.name}", fault, brings)


def _tracked(root: Path, path: str, locked: dict[str, str]) -> tuple[str | None, str]:
    """The oid that DVC has for a path, and the file that says so; None where it tracks no such path."""
    if path in locked:
        return locked[path], LOCK_FILE
    file = f"{path}.dvc"
    try:
        outs = read_dvc((root / file).read_bytes(), posixpath.dirname(path))
    except (FileNotFoundError, UnreadableFileError):  # DVC itself tells what is wrong with its files
        return None, file
    return next((out.oid for out in outs if out.path == path), None), file


def _bytes(stores: Stores, version: Version, name: str, digests: DigestCache, *, deep: bool) -> Iterator[Finding]:
    hint = "Remove it from the cache, and `dvc fetch` or `holdfast fetch` it again"
    try:
        if version.is_folder:
            members = [member for _, member in read_members(stores.cache, MD5, version.oid) or ()]
        else:
            members = [version.oid]
        paths = [object_path(stores.cache, MD5, member) for member in members]
        size = sum(path.stat().st_size for path in paths)
        if size != version.size:
            yield Finding(name, f"its bytes in the cache are {size:,} instead of {version.size:,}", hint)
            return
        for member, path in zip(members, paths, strict=True) if deep else ():
            found = digests_of(path, digests, md5=True).md5
            if found != member:
                yield Finding(name, f"the cache has {found} under the name {member}", hint)
                return
        weights = digests_of(stores.weights(version), digests, weights=True) if deep else None
        if weights is not None and weights.weights != version.weights:
            told = weights.weights or weights.no_weights
            yield Finding(name, f"its weights digest is {told}, and its file says {version.weights}")
    except IntegrityError as error:
        yield Finding(name, error.message, error.hint or hint)
