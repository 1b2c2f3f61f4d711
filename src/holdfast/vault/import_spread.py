"""An import whose sessions other processes do, to the same packs and recipes as this one alone would make."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from holdfast.atomic import write_atomically
from holdfast.errors import LockedError
from holdfast.executor.executor import Executor
from holdfast.executor.partitions import Shards
from holdfast.objectstore.address import StoreAddress
from holdfast.repo.workspace import Project
from holdfast.vault.downloading import files_of
from holdfast.vault.folder_lock import held_folder
from holdfast.vault.import_ledger import Ledger, Progress, Work, make_ledger, read_ledger, send_all, sent_before
from holdfast.vault.import_order import Item, Limits
from holdfast.vault.import_session import SessionSent
from holdfast.vault.import_sources import RemoteSource
from holdfast.vault.importing import Imported, ImportPlan, add, imported, items_of
from holdfast.vault.repository import Vault
from holdfast.vault.scratch import scratch_folder
from holdfast.vault.session import Statistics

_FORM = "holdfast import 1"
_LEDGER = "import.json"


@dataclass(frozen=True)
class ImportSpread:
    """Where else an import works.

    Attributes:
        executor: what runs its tasks.
        vault: where the vault is, for them.
        source: where the remote is, for them.
        folder: where it is noted what was done; of this vault and this remote alone.
    """

    executor: Executor
    vault: StoreAddress
    source: StoreAddress
    folder: Path


def import_elsewhere(
    vault: Vault,
    plan: ImportPlan,
    project: Project | None,
    spool: Path,
    spread: ImportSpread,
    *,
    delta: bool = True,
    limits: Limits | None = None,
    progress: Progress = lambda _what, _done, _total: None,
) -> Imported:
    """Take what a plan names into a vault, as `holdfast.vault.importing.import_files` does.

    Interrupted, it goes on when it is called again with a new plan.

    Args:
        vault, plan, project, spool, delta, limits: as there.
        spread: where it is done.
        progress: told what is done, and how many bytes of how many.

    Raises:
        LockedError: another process is at the same import.
        WorkersLostError: what was to do it is gone.
        ShallowCloneError, RevokedError, StoreError, OSError: as there.
    """
    limits = limits or Limits()
    made_for = _digest_of((_FORM, vault.config.id, spread.source.url, delta, limits), plan)
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(held_folder(spread.folder)):
            raise LockedError(
                f"Another process imports {spread.source.url} into {vault.url}", hint="Wait until it has ended"
            )
        looked, done = Shards(spread.folder / "looked", ".parquet"), Shards(spread.folder / "done", ".json")
        source = RemoteSource(spread.source)
        work = Work(source, spread.vault, plan.sizes, tuple(sorted(plan.known)), limits, delta)
        ledger = _left_ledger(spread.folder / _LEDGER, made_for)
        before = sent_before(vault, ledger, done) if ledger is not None else {}
        if ledger is None or not _is_true(ledger, before, plan):
            (spread.folder / _LEDGER).unlink(missing_ok=True)
            done.forget(())
            before = {}
            items = _items(vault, plan, project, spool, limits, delta=delta)
            ledger = make_ledger(made_for, vault, work, items, spread.executor, looked, progress)
            write_atomically(spread.folder / _LEDGER, ledger.as_json())
        looked.forget(())
        old = {item.oid for group in ledger.items for item in group}
        work = replace(work, claims=tuple(oid for oid in work.claims if oid not in old))
        sent = send_all(ledger, work, before, spread.executor, done, progress)
        (spread.folder / _LEDGER).unlink()
        done.forget(())
        for left in (looked.folder, done.folder):
            _remove_empty(left)
    total, damaged, failed = Statistics(), dict[str, str](), dict[str, str]()
    for one in sent:
        total = add(total, one.statistics)
        damaged |= one.damaged
        failed |= one.failed
    return imported(replace(plan, known=work.claims), total, len(sent), damaged, failed)


def _digest_of(asked: tuple[object, ...], plan: ImportPlan) -> str:
    """What tells an import from others, and from itself before its source changed."""
    digest = blake3(repr(asked).encode())
    for oid, size in sorted(plan.sizes.items()):
        digest.update(f"{oid} {size}\n".encode())
    return digest.hexdigest()


def _items(
    vault: Vault, plan: ImportPlan, project: Project | None, spool: Path, limits: Limits, *, delta: bool
) -> list[Item]:
    with scratch_folder(spool) as scratch:
        files = files_of(plan.source, scratch, vault.jobs)
        try:
            return items_of(plan, project, files, limits, delta=delta)
        finally:
            files.close()


def _left_ledger(path: Path, made_for: str) -> Ledger | None:
    """What an interrupted import of the same files has left."""
    try:
        ledger = read_ledger(path.read_bytes())
    except FileNotFoundError:
        return None
    return ledger if ledger.made_for == made_for else None


def _is_true(ledger: Ledger, sent: Mapping[int, SessionSent], plan: ImportPlan) -> bool:
    """Whether what a ledger says was stored has not been collected since, nor what it says was there."""
    known = set(plan.known)
    waiting = {item.oid for number, group in enumerate(ledger.items) if number not in sent for item in group}
    wrong = {oid for one in sent.values() for oid in (*one.damaged, *one.failed)}
    return plan.sizes.keys() <= known | waiting | wrong


def _remove_empty(folder: Path) -> None:
    for below in (*sorted(folder.glob("*")), folder):
        with contextlib.suppress(OSError):
            below.rmdir()
