"""One session of an import or a repack, as a task of another process.

Its name is drawn before it is handed out and stays the same however often it is tried. So whoever comes second, since
the first was taken for lost, sends packs of the same bytes under the same keys, and finds the segment there: nothing is
stored twice, and nothing that counts is lost. Its announcement stays until it is decided, whoever gives up meanwhile.
"""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.objectstore.address import StoreAddress
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, StoreError
from holdfast.vault.import_order import Item, Limits
from holdfast.vault.import_sending import Sender
from holdfast.vault.import_sources import Source, task_folder, task_vault
from holdfast.vault.journal import Journal
from holdfast.vault.listing import Listing
from holdfast.vault.repository import MAX_RESTORE_RATIO, Vault
from holdfast.vault.scratch import scratch_folder
from holdfast.vault.segment import INDEX, SESSIONS, read_segment, write_segment
from holdfast.vault.session import RevokedError, Session, Statistics


@dataclass(frozen=True)
class SessionTask:
    """A session for one task.

    Attributes:
        number: its place in the order.
        session: its name.
        vault: where to.
        source: where from.
        items: the files, with their bases; none is stray.
        sizes: bytes of each, and of each claim.
        claims: files that were there when the import was planned.
        limits: how much at a time.
        delta: whether to store parts against those of other versions.
        claiming: whether somebody is told that the files are there.
        leaving: packs upon which nothing shall be built.
    """

    number: int
    session: str
    vault: StoreAddress
    source: Source
    items: tuple[Item, ...]
    sizes: dict[str, int] = field(repr=False)
    claims: tuple[str, ...]
    limits: Limits
    delta: bool
    claiming: bool = True
    leaving: tuple[str, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"session {self.session}"


@dataclass(frozen=True)
class SessionSent:
    """What became of a session.

    Attributes:
        number: its place in the order.
        statistics: what it did.
        damaged: files that are not what their names say, by oid, and why.
        failed: other files that were not taken, and why.
    """

    number: int
    statistics: Statistics
    damaged: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def send_session(task: SessionTask) -> SessionSent:
    """Do a session, to its commit; one that has committed is not done again.

    Raises:
        RevokedError: a collector ended it, and the one that took its place.
        StoreError: source or vault cannot be reached.
        OSError: the disk is full, or cannot be written.
    """
    with scratch_folder(task_folder()) as scratch, task_vault(task.vault) as vault:
        session = task.session
        for attempt in (0, 1):
            try:
                return _sent(task, vault, session, scratch)
            except RevokedError:
                if (found := committed(vault.store, session)) is not None:
                    return SessionSent(task.number, found)
                if attempt:
                    raise
                session = secrets.token_hex(16)
    raise AssertionError  # it returns or raises


def committed(store: ObjectStore, session: str) -> Statistics | None:
    """What a session did that has committed, as far as its segment tells; None for one that has not.

    Raises:
        StoreError: the store cannot be read.
        DamagedTableError, DamagedVaultError: the segment is damaged.
    """
    try:
        data = store.get(f"{INDEX}/{session}")
    except ObjectNotFoundError:
        return None
    if not data:
        return None
    segment = read_segment(session, data)
    return Statistics(
        files=len(segment.rows.oids),
        raw_bytes=int(segment.rows.sizes.sum()),
        stored_bytes=sum(segment.packs.values()),
        new_blobs=len(segment.rows.ids),
        packs=len(segment.packs),
    )


def _sent(task: SessionTask, vault: Vault, name: str, folder: Path) -> SessionSent:
    files = task.source.files(folder)
    try:
        sender = Sender(files, task.sizes, task.items, task.limits, lambda _nbytes: None)
        with _announced(task, vault, name) as session:
            if not sender.send(session, task.items, task.claims, claiming=task.claiming):
                # decided nevertheless, before its announcement goes: another process may be at it, and find more
                vault.store.put_if_absent(f"{INDEX}/{name}", write_segment(Listing(), {}))
            statistics = session.commit()
        return SessionSent(task.number, statistics, sender.damaged, sender.failed)
    finally:
        files.close()


@contextlib.contextmanager
def _announced(task: SessionTask, vault: Vault, name: str) -> Iterator[Session]:
    """A session under its name, though another process may be at it, or may have been.

    Raises:
        RevokedError: it is decided.
    """
    before = vault.store.requests
    # announced first: only then does what the store says of it stay true
    vault.store.put(f"{SESSIONS}/{name}", name.encode())
    try:
        vault.store.head(f"{INDEX}/{name}")
    except ObjectNotFoundError:
        pass
    else:
        with contextlib.suppress(StoreError):
            vault.store.delete(f"{SESSIONS}/{name}")
        raise RevokedError(f"The session {name} is decided", hint="Run the command again")
    vault.refresh()
    with Session(
        vault.store,
        vault.config,
        vault.index.leaving(task.leaving) if task.leaving else vault.index,
        # as one that goes on: whoever gives it up leaves it announced, for another one may be at it
        Journal(None, name, resumed=True),
        jobs=vault.jobs,
        max_restore_ratio=MAX_RESTORE_RATIO if task.delta else 0.0,
        claiming=task.claiming,
        requests_before=before,
    ) as session:
        yield session
