"""The files of a repack, stored anew in sessions of some gigabytes: here, one by one, or by other processes."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from holdfast.errors import IntegrityError
from holdfast.executor.executor import Executor
from holdfast.executor.partitions import Shards
from holdfast.objectstore.address import StoreAddress
from holdfast.vault.casts import CastFiles
from holdfast.vault.import_ledger import Work, make_ledger, send_all
from holdfast.vault.import_order import Item, Limits, sessions_of
from holdfast.vault.import_sources import VaultSource
from holdfast.vault.importing import add
from holdfast.vault.repository import Vault
from holdfast.vault.session import FileToPut, Statistics

Progress = Callable[[str, int, int], None]
STORING = "Storing anew"


@dataclass(frozen=True)
class RepackSpread:
    """Where else a repack stores files anew.

    Attributes:
        executor: what runs its tasks.
        vault: where the vault is, for them.
    """

    executor: Executor
    vault: StoreAddress


@dataclass(frozen=True)
class Anew:
    """Files that are to be stored anew.

    Attributes:
        items: in their order.
        sizes: bytes of each, by oid.
        leaving: packs upon which nothing shall be built.
        limits: how much a session has.
    """

    items: Sequence[Item]
    sizes: Mapping[str, int]
    leaving: Collection[str]
    limits: Limits

    def size(self, item: Item) -> int:
        """An item's bytes."""
        return self.sizes[item.oid]


def store_here(vault: Vault, anew: Anew, scratch: Path | None, progress: Progress) -> Statistics:
    """Put the files again, each while its base is at hand.

    Args:
        vault: where they are.
        anew: the files.
        scratch: a folder that has room for two of them; None for the system's.
        progress: told how many bytes of how many were put.

    Raises:
        DamagedVaultError: something cannot be read.
        RevokedError: a collector ended a session.
        StoreError: the store cannot be read or written.
        OSError: a file could not be kept here for a moment.
    """
    total, done = sum(map(anew.size, anew.items)), 0
    statistics, casts = Statistics(), CastFiles()
    vault.refresh()
    with TemporaryDirectory(prefix="holdfast-repack-", dir=scratch) as folder:
        before: tuple[str, Path] | None = None
        for group in sessions_of(anew.items, anew.size, anew.limits, total):
            with vault.session(claiming=False, leaving=anew.leaving, casts=casts) as session:
                session.expect(sum(map(anew.size, group)))
                for item in group:
                    if not session.known([item.oid]):
                        path = Path(folder, str(done))
                        vault.get(item.oid, path)
                        base_path = before[1] if before is not None and before[0] == item.base else None
                        ratio = math.inf if item.cold else None
                        session.put_many([FileToPut(item.oid, path, item.base or "", base_path, ratio)])
                        if before is not None:
                            before[1].unlink()
                        before = (item.oid, path)
                    done += anew.size(item)
                    progress(STORING, done, total)
                statistics = add(statistics, session.commit())
    return statistics


def store_elsewhere(vault: Vault, anew: Anew, spread: RepackSpread, progress: Progress) -> Statistics:
    """The same by other processes, to the same packs.

    Args:
        vault: where they are.
        anew: the files.
        spread: where it is done.
        progress: told what is done, and how many bytes of how many.

    Raises:
        WorkersLostError: what was to do it is gone.
        IntegrityError: something cannot be read.
        RevokedError, StoreError, OSError: as of `store_here`.
    """
    vault.refresh()
    # what is chosen for a file depends on all of the one before: files are put one at a time, as they are here
    limits = replace(anew.limits, batch_files=1)
    work = Work(
        VaultSource(spread.vault), spread.vault, anew.sizes, (), limits, delta=True, claiming=False,
        leaving=tuple(sorted(anew.leaving)), verb=STORING, looked_at=anew.limits,
    )  # fmt: skip
    with TemporaryDirectory(prefix="holdfast-repack-") as folder:
        looked, done = Shards(Path(folder, "looked"), ".parquet"), Shards(Path(folder, "done"), ".json")
        ledger = make_ledger("repack", vault, work, anew.items, spread.executor, looked, progress)
        _check(ledger.damaged, ledger.failed)
        statistics = Statistics()
        for one in send_all(ledger, work, {}, spread.executor, done, progress):
            _check(one.damaged, one.failed)
            statistics = add(statistics, one.statistics)
    return statistics


def _check(*wrong: Mapping[str, str]) -> None:
    for found in wrong:
        for oid, reason in found.items():
            raise IntegrityError(
                f"{oid} cannot be stored anew: {reason}", hint="`holdfast vault check --read-data` tells of all of it"
            )
