"""What an interrupted push had finished, kept on this machine so that the next one goes on from there.

A folder for each session: ``session`` names it, and for each pack that is in the store a file with its size and footer.
A lock tells whether the process that began it is still at it; the system releases it however that ends.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.atomic import write_atomically
from holdfast.errors import IntegrityError
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore
from holdfast.vault.listing import Listing, listing_of
from holdfast.vault.pack import footer_entries, footer_rows, key_of, parse_key
from holdfast.vault.segment import INDEX, SESSIONS, check_session

_HEAD = struct.Struct("<Q")
_PACK_SUFFIX = ".pack"


@dataclass
class Journal:
    """What a session has finished.

    Args:
        folder: of this session; None for one that is not kept.
        session: its name.

    Attributes:
        packs: keys and sizes of the packs that are in the store.
        listing: what these hold.
        resumed: whether an earlier process began it.
    """

    folder: Path | None
    session: str
    packs: dict[str, int] = field(default_factory=dict)
    listing: Listing = field(default_factory=Listing)
    resumed: bool = False
    _lock: int = -1

    def add(self, key: str, size: int, footer: bytes) -> None:
        """A pack is in the store."""
        if self.folder is not None:
            digest, _ = parse_key(key)
            write_atomically(self.folder / f"{digest}{_PACK_SUFFIX}", _HEAD.pack(size) + footer)

    def release(self) -> None:
        """Leave the session to the next process."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def discard(self) -> None:
        """The session is decided: nothing of it is needed any more."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            _lock_path(self.folder).unlink(missing_ok=True)
        self.release()


def new_journal(sessions: Path | None, session: str) -> Journal:
    """The journal of a new session.

    Args:
        sessions: the folder of all journals of the vault; None to keep none.
        session: its name.

    Raises:
        OSError: it cannot be written.
    """
    if sessions is None:
        return Journal(None, check_session(session))
    folder = sessions / check_session(session)
    sessions.mkdir(parents=True, exist_ok=True)
    # locked before it is there: a process that looks for journals nobody is at must not find one without its owner
    lock = _locked(folder)
    assert lock is not None, session
    folder.mkdir()
    return Journal(folder, session, _lock=lock)


def left_journals(sessions: Path | None) -> list[Journal]:
    """The journals that nobody is at, of sessions that were interrupted, taken over by this process.

    What is torn in one is left out: the pack is sent again.
    """
    found: list[Journal] = []
    if sessions is None or not sessions.is_dir():
        return found
    for folder in sorted(entry for entry in sessions.iterdir() if entry.is_dir()):
        with contextlib.suppress(IntegrityError, OSError):
            check_session(folder.name)
            lock = _locked(folder)
            if lock is None:
                continue
            if not folder.is_dir():  # decided by its owner a moment ago
                os.close(lock)
                continue
            journal = Journal(folder, folder.name, resumed=True, _lock=lock)
            for path in sorted(folder.glob(f"*{_PACK_SUFFIX}")):
                with contextlib.suppress(IntegrityError, OSError, struct.error):
                    _read(journal, path)
            found.append(journal)
    return found


def check_packs(journal: Journal, store: ObjectStore) -> bool:
    """Whether all packs of a journal are in the store, as long as they were.

    Raises:
        StoreError: it cannot be asked.
    """
    try:
        return all(store.head(key).size == size for key, size in journal.packs.items())
    except ObjectNotFoundError:
        return False


def begin_session(store: ObjectStore, sessions: Path | None, session_id: str | None, *, resume: bool) -> Journal:
    """Announce a session: one of this machine that was interrupted, or a new one.

    Args:
        store: where the vault is.
        sessions: the folder of all journals of the vault; None to keep none.
        session_id: the name of a new session; None for a random one, or one that was interrupted.
        resume: whether to go on with what was interrupted.

    Raises:
        StoreError: it cannot be announced.
        OSError: the journal cannot be written.
    """
    found: Journal | None = None
    for journal in left_journals(sessions) if resume and session_id is None else ():
        if found is None and _can_go_on(store, journal):
            found = journal
        else:
            journal.release()
    if found is not None:
        return found
    session = check_session(session_id or secrets.token_hex(16))
    journal = new_journal(sessions, session)
    try:
        _announce(store, session)
    except BaseException:
        journal.discard()
        raise
    return journal


def _can_go_on(store: ObjectStore, journal: Journal) -> bool:
    # announced first: only then does the store's answer stay true
    _announce(store, journal.session)
    try:
        store.head(f"{INDEX}/{journal.session}")
    except ObjectNotFoundError:
        if check_packs(journal, store):
            return True
    # it was committed, its answer having been lost, or revoked; or its packs are gone
    journal.discard()
    store.delete(f"{SESSIONS}/{journal.session}")
    return False


def _announce(store: ObjectStore, session: str) -> None:
    store.put(f"{SESSIONS}/{session}", session.encode())


def _read(journal: Journal, path: Path) -> None:
    data = path.read_bytes()
    (size,) = _HEAD.unpack_from(data)
    key = key_of(path.name.removesuffix(_PACK_SUFFIX), journal.session)
    parse_key(key)
    rows = footer_rows(data[_HEAD.size :], key, size)
    journal.packs[key] = size
    journal.listing.add(listing_of(rows, footer_entries(rows, key)))


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock; None where another process has it."""
    descriptor = os.open(_lock_path(folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
