"""What a doctor says of a repository: git, settings, registry, hooks, and what is unfinished in it."""

import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.dedup.apply import House
from holdfast.dedup.apply import unfinished as dedup_unfinished
from holdfast.errors import HoldfastError
from holdfast.formats.cache import DigestCache
from holdfast.gc.applying import unfinished as gc_unfinished
from holdfast.gc.policy import find_policy
from holdfast.gc.quarantine import list_held
from holdfast.gc.workspace_rules import read_workspace_rules
from holdfast.gc.world import World
from holdfast.inventory.canonical import find_canon
from holdfast.inventory.run_rules import find_rules
from holdfast.inventory.scan import read_scan_rules
from holdfast.objectstore.findings import Finding
from holdfast.project.git_state import big_files, hooks_folder, tracked_files
from holdfast.project.survey import PRE_COMMIT
from holdfast.registry import FOLDER
from holdfast.registry.consolidation_apply import unfinished as consolidation_unfinished
from holdfast.registry.gate_rules import read_rules
from holdfast.registry.objects import Stores
from holdfast.registry.verification import verify
from holdfast.repo.git import is_shallow
from holdfast.repo.git_commands import run_git
from holdfast.repo.workspace import CONFIG_FILE, DVC_FOLDER, Project, find_config

SHOWN = 3
STALE_SECONDS = 600
PARAMS_FILE = "params.yaml"


def examine_repository(project: Project, world: World, stores: Stores, digests: DigestCache) -> Iterator[Finding]:
    """What can be said of a project without a network.

    Args:
        project: whose.
        world: its stores, to see what waits in quarantine.
        stores: where objects are; asked offline.
        digests: what is known of files.
    """
    yield from _git(project)
    yield from _settings(project)
    yield from _registry(project, stores, digests)
    yield from _hooks(project)
    yield from _uncommitted(project)
    yield from _large(project)
    yield from _experiments(project)
    yield from _locks(project)
    yield from _unfinished(project)
    yield from _quarantine(world)


def _git(project: Project) -> Iterator[Finding]:
    if is_shallow(project.git_root):
        says = (
            "this clone is shallow: without the history nobody can tell what is still needed, and `holdfast gc` refuses"
        )
        yield Finding("history", "warning", says, "`git fetch --unshallow`")
    else:
        yield Finding("history", "ok", "the whole history is here")


def _settings(project: Project) -> Iterator[Finding]:
    """Every section is read by the reader that the commands use."""
    config = find_config(project.root)
    readers: list[Callable[[], object]] = [
        lambda: find_canon(project.root),
        lambda: find_rules(project.root),
        lambda: read_scan_rules(project.root),
        lambda: find_policy(project.root),
        lambda: read_workspace_rules(project.root, project.git_root),
    ]
    faults: dict[str, str] = {}
    for read in readers:
        try:
            read()
        except (HoldfastError, OSError) as error:
            hint = error.hint if isinstance(error, HoldfastError) and error.hint else ""
            faults[error.message if isinstance(error, HoldfastError) else str(error)] = hint
    for fault, hint in faults.items():
        yield Finding(
            "settings", "fault", fault, hint or f"edit {CONFIG_FILE}: docs/reference says what each key may be"
        )
    if not faults:
        says = f"{config.relative_to(project.git_root)} is right" if config else f"no {CONFIG_FILE}: the defaults count"
        yield Finding("settings", "ok", says)
    params = project.root / PARAMS_FILE
    if params.is_file():
        try:
            read_rules(params)
        except (HoldfastError, OSError) as error:
            yield Finding("gate", "fault", str(error), "docs/reference/gates.md says what `promote:` may hold")


def _registry(project: Project, stores: Stores, digests: DigestCache) -> Iterator[Finding]:
    if not (project.root / FOLDER).is_dir():
        yield Finding("registry", "note", "there is no registry yet", "`holdfast registry register APP/NAME FILE`")
        return
    try:
        found = verify(stores, digests, deep=False)
    except (HoldfastError, OSError) as error:
        yield Finding("registry", "fault", str(error), "`holdfast registry verify` shows more")
        return
    for item in found.faults[:SHOWN]:
        mend = f"{item.hint}; " if item.hint else ""
        yield Finding("registry", "fault", f"{item.where}: {item.fault}", f"{mend}`holdfast registry verify` lists all")
    if not found.faults:
        says = f"{_count(found.models, 'model')} with {_count(found.versions, 'version')}: labels and sizes are right"
        yield Finding("registry", "ok", says if found.models else "nothing is registered yet")
    away = len(found.findings) - len(found.faults)
    if away:
        says = f"the bytes of {_count(away, 'version')} are not on this machine, and were not looked for elsewhere"
        yield Finding("registry", "note", says, "`holdfast registry verify` looks in vault and remote")


def _hooks(project: Project) -> Iterator[Finding]:
    folder = hooks_folder(project.git_root)
    there = [name for name in ("pre-commit", "pre-push") if folder is not None and (folder / name).is_file()]
    config = project.git_root / PRE_COMMIT
    if config.is_file():
        pushes = b"pre-push" in _read(config)
        if "pre-commit" in there and ("pre-push" in there or not pushes):
            yield Finding("hooks", "ok", "git runs pre-commit's hooks")
        else:
            says = f"git does not run all of {PRE_COMMIT}: a commit is not checked, or a push leaves DVC's objects here"
            yield Finding("hooks", "warning", says, f"`pre-commit install -t pre-commit{' -t pre-push' * pushes}`")
    elif "pre-push" in there:
        yield Finding("hooks", "ok", "git has a hook before a push")
    else:
        says = "no hook: a push of git's may name objects that nobody else has"
        yield Finding("hooks", "note", says, "`holdfast init` proposes hooks, `dvc install` sets DVC's own")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # what cannot be read asks for nothing


def _uncommitted(project: Project) -> Iterator[Finding]:
    done = run_git(project.git_root, "status", "--porcelain", "-z", "--no-renames", "-uall")
    names = [entry[3:] for entry in (done or "").split("\0") if entry]
    files = [name for name in names if name.endswith((".dvc", "/dvc.lock")) or name == "dvc.lock"]
    if files:
        shown = f"{', '.join(files[:SHOWN])}{', …' if files[SHOWN:] else ''}"
        says = f"{shown} {'is' if len(files) == 1 else 'are'} not committed: what they name is nobody else's yet"
        yield Finding("uncommitted", "warning", says, f"`git add {shlex.quote(files[0])}` and so on, then `git commit`")


def _large(project: Project) -> Iterator[Finding]:
    found = sorted(big_files(project.git_root, tracked_files(project.git_root)), key=lambda item: (-item[1], item[0]))
    if not found:
        return
    shown = ", ".join(f"{name} ({size / 1e6:.0f} MB)" for name, size in found[:SHOWN])
    says = f"git keeps {_count(len(found), 'file')} of 10 MB or more for ever: {shown}{', …' if found[SHOWN:] else ''}"
    first = shlex.quote(found[0][0])
    mend = f"`git rm --cached {first}`, then `dvc add {first}`; history keeps what it has"
    yield Finding("large files", "warning", says, mend)


def _experiments(project: Project) -> Iterator[Finding]:
    refs = (run_git(project.git_root, "for-each-ref", "--format=%(refname)", "refs/exps") or "").split()
    count = sum(len(ref.split("/")) == 5 for ref in refs)  # refs/exps/ab/cdef…/name
    if count:
        says = f"{_count(count, 'experiment')} in this clone; whether another one has them is not known here"
        yield Finding("experiments", "note", says, "`dvc exp list --name-only origin`; `dvc exp push origin NAME`")


def _locks(project: Project) -> Iterator[Finding]:
    git = run_git(project.git_root, "rev-parse", "--git-path", "index.lock")
    lock = project.git_root / git if git else None
    if lock is not None and lock.exists() and time.time() - lock.stat().st_mtime > STALE_SECONDS:
        says = f"{git} is there for more than ten minutes: a git process was killed, or still works"
        yield Finding("locks", "fault", says, f"where none works: `rm {git}`")
    for pid, command, path in _dvc_locks(project.root / DVC_FOLDER / "tmp" / "rwlock"):
        if not _is_alive(pid):
            says = f"DVC's lock on {path} is of process {pid} ({command}), which is gone"
            yield Finding("locks", "warning", says, "the next `dvc` command that waits for it takes it away")
            break


def _dvc_locks(path: Path) -> Iterator[tuple[int, str, str]]:
    """Process, command and place of each entry of DVC's file of locks."""
    try:
        values = json.loads(path.read_bytes())
        for place, kinds in values.items():
            holders = [*kinds.get("read", []), *([kinds["write"]] if kinds.get("write") else [])]
            for holder in holders:
                yield int(holder["pid"]), str(holder.get("cmd", ""))[:80], str(place)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _unfinished(project: Project) -> Iterator[Finding]:
    found = []
    if (plan := gc_unfinished(project.root)) is not None:
        found.append(("a collection", f"`holdfast gc apply {plan}`"))
    if (plan := consolidation_unfinished(project.root)) is not None:
        found.append(("a consolidation", f"`holdfast registry consolidate --apply {plan}`"))
    found += [
        ("a deduplication", f"`holdfast dedup apply {os.path.relpath(plan, project.root)}`")
        for plan in dedup_unfinished(House(project.root, project))
    ]
    for what, mend in found:
        yield Finding("unfinished", "warning", f"{what} was cut off in the middle", f"{mend} ends it")


def _quarantine(world: World) -> Iterator[Finding]:
    try:
        held = list_held(world)
    except (HoldfastError, OSError) as error:
        yield Finding("quarantine", "warning", str(error), "`holdfast gc list` shows more")
        return
    if held:
        size = sum(item.size for item in held)
        says = f"{_count(len(held), 'thing')}, {size / 1e6:.1f} MB in all, waiting to be deleted for good"
        yield Finding("quarantine", "note", says, "`holdfast gc restore` brings back, `holdfast gc purge` deletes")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
