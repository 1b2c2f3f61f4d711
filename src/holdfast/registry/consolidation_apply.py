"""Carrying out a consolidation: first that nothing changed, then each step so that a kill leaves the old or the new.

Whether a step is done is read from what is there, never from a note that it was begun: a version with its oid is
registered, its folder is in place, its weights are gone. So a run that was killed goes on by running it again. The
journal is a copy of the plan, from which that can be done, too.

First all goes to the vault, is committed, and is read back from its store; then versions are registered; weights are
removed last. The version in git is what keeps them in the vault.
"""

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from holdfast.atomic import leftovers, sync_folder, write_atomically
from holdfast.errors import IntegrityError, LockedError, StalePlanError
from holdfast.formats.cache import DigestCache, Key, key_of
from holdfast.formats.source import MemorySource
from holdfast.registry.consolidation import ConsolidationPlan, Step
from holdfast.registry.consolidation_check import NEW_PLAN, check_plan, is_sent, is_there, oids_of, version_of
from holdfast.registry.entries import CURRENT, FOLDER_SUFFIX, Version
from holdfast.registry.objects import Stores, keep_file, keep_listing
from holdfast.registry.store import Registry
from holdfast.repo.dvcfiles import MD5
from holdfast.repo.git_commands import add_to_index, head_commit, run_git
from holdfast.repo.workspace import Project
from holdfast.vault.repository import Vault, open_vault
from holdfast.vault.session import FileToPut

JOURNAL = Path(".dvc") / "tmp" / "holdfast" / "consolidating.json"
STAGING_PREFIX, STAGING_SUFFIX = ".", ".consolidating"

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Consolidated:
    """What was done.

    Attributes:
        registered: versions that are new, as ``app/name@v1``.
        copied: folders that are new, from the project's root.
        archived: runs whose weights left the workspace.
        freed: the bytes of these.
        stored: bytes that the vault took for them.
    """

    registered: tuple[str, ...]
    copied: tuple[str, ...]
    archived: tuple[str, ...]
    freed: int
    stored: int


def unfinished(root: Path) -> Path | None:
    """The journal of a consolidation that was cut off, which is its plan; None where there is none."""
    return JOURNAL if (root / JOURNAL).is_file() else None


def apply_consolidation(
    project: Project,
    plan: ConsolidationPlan,
    stores: Stores,
    digests: DigestCache,
    *,
    now: datetime,
    progress: Progress = lambda _done, _total: None,
) -> Consolidated:
    """Carry out a plan. One that was killed half-way is ended by carrying it out again.

    Args:
        project: whose.
        plan: from `plan_consolidation`.
        stores: where bytes are; its vault is the one that the plan names.
        digests: what is known of files.
        now: when; has a time zone.
        progress: told how many of how many bytes are in the vault.

    Raises:
        StalePlanError: something that the plan rests on has changed; nothing was done.
        LockedError: another process carries out a consolidation here.
        IntegrityError: a file changed meanwhile, or the vault did not give back what it was given; no weights were
            removed then.
        HoldfastError: the vault or git refuses.
        OSError: a file cannot be read or written.
    """
    with _locked(project.root):
        registry = Registry(project.root)
        done = check_plan(project, plan, stores, digests, now)
        journal = project.root / JOURNAL
        write_atomically(journal, plan.as_bytes())
        work = _Work(project, registry, stores, digests, now.date().isoformat(), head_commit(project.root))
        copied, registered, archived = [], [], []
        sent = [step for step, is_done in zip(plan.steps, done, strict=True) if not is_done and is_sent(step, plan)]
        stored = work.put(sent, progress) if sent else 0
        for step, is_done in zip(plan.steps, done, strict=True):
            if step.kind == "archive" or step.known:
                continue
            if not is_done:
                work.keep_bytes(step)
                if step.is_copied:
                    copied += [step.path] if work.copy(step) else []
                work.register(step)
                registered.append(step.name)
            work.add_to_git(step)
        archives = [(step, is_done) for step, is_done in zip(plan.steps, done, strict=True) if step.kind == "archive"]
        leaving = [step for step, is_done in archives if not is_done]
        for step in leaving:
            if work.version(step) is None:
                work.register(step)
                registered.append(step.name)
            work.add_to_git(step)
            work.remove(step)
            archived.append(step.source)
        for step in (step for step, is_done in archives if is_done):
            work.add_to_git(step)  # the kill may have come before it
        journal.unlink()
    freed = sum(step.freed for step in leaving)
    return Consolidated(tuple(registered), tuple(copied), tuple(archived), freed, stored)


@dataclass
class _Work:
    project: Project
    registry: Registry
    stores: Stores
    digests: DigestCache
    day: str
    revision: str | None
    _seen: "dict[Path, Key] | None" = None

    @property
    def root(self) -> Path:
        return self.project.root

    def version(self, step: Step) -> Version | None:
        """The version that a step registers, where it is there."""
        if step.model not in self.registry.model_ids():
            return None
        return version_of(step, self.registry.model(step.model))

    def keep_bytes(self, step: Step) -> None:
        """Have the bytes of a step's files in DVC's cache, which is verified as it is written."""
        for file in step.files:
            keep_file(self.stores.cache, self.root / step.source / file.path, file.md5)
        if step.oid.endswith(FOLDER_SUFFIX):
            keep_listing(self.stores.cache, step.listing(), step.oid)

    def copy(self, step: Step) -> bool:
        """Put the files of a step in their place, all at once, and have DVC track them; whether that was to be done."""
        target = self.root / step.path
        staging = target.with_name(f"{STAGING_PREFIX}{target.name}{STAGING_SUFFIX}")
        shutil.rmtree(staging, ignore_errors=True)  # of one who was killed
        is_new = not target.exists()
        if is_new:
            # out of the cache: shared with it where the file system can, and never linked with the run's own files
            self.stores.write(step.draft(self.day, None), staging)
            staging.rename(target)
            sync_folder(target.parent)
        if run_git(self.root, "check-ignore", "--quiet", "--no-index", step.path) is None:
            _add_line(target.with_name(".gitignore"), f"/{target.name}")
        write_atomically(target.with_name(f"{target.name}.dvc"), _pointer(step))
        return is_new

    def register(self, step: Step) -> None:
        """Register the version of a step."""
        draft = step.draft(self.day, self.revision)
        with self.registry.lock(step.model) as held:
            if version_of(step, held.model) is None:
                if held.model.next_name != step.version:
                    told = f"{step.name} was registered by somebody else meanwhile"
                    raise StalePlanError(told, hint=NEW_PLAN)
                aliases = [label for label in step.labels if label != CURRENT]
                held.add(draft, step.description, current=CURRENT in step.labels, aliases=aliases)

    def add_to_git(self, step: Step) -> None:
        """Add what a step wrote to git's index, and take away what one who was killed left of writing it."""
        paths = [*self.registry.files(step.model, step.version)]
        with self.registry.lock(step.model):  # so that nobody is at it
            for leftover in [leftover for path in paths for leftover in leftovers(path)]:
                leftover.unlink()
        if step.is_copied:
            target = self.root / step.path
            paths += [target.with_name(f"{target.name}.dvc"), target.with_name(".gitignore")]
            for leftover in [leftover for path in paths[2:] for leftover in leftovers(path)]:
                leftover.unlink(missing_ok=True)
        add_to_index(self.root, [path for path in paths if path.exists()])

    def put(self, steps: Sequence[Step], progress: Progress) -> int:
        """Put the files of steps into the vault, and read them back from its store; the bytes that it took.

        Raises:
            IntegrityError: a file is not what was planned, or does not come back.
        """
        vault = self.stores.vault
        assert vault is not None
        files = [
            (f"{MD5}:{file.md5}", self.root / step.source / file.path, file.size)
            for step in steps
            for file in step.files
            if is_there(self.root / step.source / file.path)
        ]
        # before they are read: what changes from here on is seen before it is removed
        self._seen = {path: key_of(path.stat()) for _, path, _ in files}
        total, put = sum(size for _, _, size in files), 0

        def on_put(oid: str, _: int) -> None:
            nonlocal put
            put += next((size for name, _, size in files if name == oid), 0)
            progress(min(put, total), total)

        with vault.session() as session:
            session.put_many([FileToPut(oid, path) for oid, path, _ in files], on_put=on_put)
            for step in steps:
                if step.oid.endswith(FOLDER_SUFFIX):
                    session.put(f"{MD5}:{step.oid}", MemorySource(step.listing(), step.source))
            stored = session.commit().stored_bytes
        _read_back(vault, [oid for step in steps for oid in oids_of(step)])
        for step in steps:
            if step.oid.endswith(FOLDER_SUFFIX):
                # small, and what a collection of the cache asks for
                keep_listing(self.stores.cache, step.listing(), step.oid)
        return stored

    def remove(self, step: Step) -> None:
        """Remove the archived files of a step from the workspace.

        Raises:
            StalePlanError: one of them was written since it was put into the vault; it stays.
        """
        assert self._seen is not None
        for file in step.files:
            path = self.root / step.source / file.path
            if not is_there(path):
                continue
            if path not in self._seen or key_of(path.lstat()) != self._seen[path]:
                raise StalePlanError(f"{step.source}/{file.path} was written while it was archived", hint=NEW_PLAN)
            path.unlink()
            sync_folder(path.parent)


class _Comparing(io.RawIOBase):
    """Takes a file's bytes and keeps their md5."""

    def __init__(self) -> None:
        self.md5 = hashlib.md5(usedforsecurity=False)

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self.md5.update(data)
        return len(data)


def _read_back(vault: Vault, oids: Sequence[str]) -> None:
    """Read files as somebody does who has nothing but the store: no cache of the index, nothing in memory."""
    with open_vault(vault.store, None, jobs=vault.jobs) as fresh:
        for oid in dict.fromkeys(oids):
            sink = _Comparing()
            fresh.get(oid, sink)  # type: ignore[arg-type]
            if f"{MD5}:{sink.md5.hexdigest()}" != oid.removesuffix(FOLDER_SUFFIX):
                raise IntegrityError(f"{vault.url} gave back other bytes for {oid}", hint="`holdfast vault check`")


def _pointer(step: Step) -> str:
    """The ``.dvc`` file of a folder, as DVC writes it."""
    name = step.path.rpartition("/")[2]
    return f"outs:\n- md5: {step.oid}\n  size: {step.size}\n  nfiles: {len(step.files)}\n  hash: md5\n  path: {name}\n"


def _add_line(path: Path, line: str) -> None:
    text = path.read_text() if path.exists() else ""
    if line not in text.splitlines():
        gap = "" if not text or text.endswith("\n") else "\n"
        write_atomically(path, f"{text}{gap}{line}\n")


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    path = (root / JOURNAL).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LockedError("another process carries out a consolidation here", hint="Wait until it is done") from error
    try:
        yield
    finally:
        os.close(descriptor)
