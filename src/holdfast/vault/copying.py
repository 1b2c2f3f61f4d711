"""The session in which a collector copies: announced with the process that does it, and again each minute.

Nobody was told of what it copies, and nobody goes on with it: where its process has ended, another collector need not
wait. It revokes the session as any other one, by creating its empty segment. Whom it takes for dead by mistake finds
his commit refused.
"""

import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from datetime import timedelta

from holdfast.objectstore.store import ObjectInfo, ObjectNotFoundError, ObjectStore, StoreError
from holdfast.removal.holders import Holder, read_holder, this_process
from holdfast.vault.records import DamagedVaultError
from holdfast.vault.segment import INDEX, SESSIONS
from holdfast.vault.session import RevokedError

# one that was not announced again for so long, by the store's clock, has ended
ENDED_AFTER = timedelta(minutes=10)
RENEWED_SECONDS = 60.0
# that of a push is its name
_NAME_BYTES, _MAX_BYTES = 32, 4096
_COLLECTOR = "collector"


@contextlib.contextmanager
def copying(store: ObjectStore, renewed_seconds: float = RENEWED_SECONDS) -> Iterator[str]:
    """Announce a session of this collector, again and again until the ``with`` ends; its name.

    Args:
        store: where the vault is.
        renewed_seconds: how long from one time to the next.

    Raises:
        RevokedError: another collector has revoked it, and purged what was to be copied.
        StoreError: it cannot be announced.
    """
    session = secrets.token_hex(16)
    key = f"{SESSIONS}/{session}"
    said = json.dumps({_COLLECTOR: this_process().as_json(), "session": session}, sort_keys=True).encode()
    over = threading.Event()

    def renew() -> None:
        while not over.wait(renewed_seconds):
            with contextlib.suppress(StoreError):  # there are ten attempts
                store.put(key, said)

    thread = threading.Thread(target=renew, name="holdfast-copying", daemon=True)
    try:
        store.put(key, said)
        thread.start()
        yield session
    except DamagedVaultError as error:
        if _is_decided(store, session):
            raise revoked() from error
        raise
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()  # what it announced last is not to come after the deletion
        with contextlib.suppress(StoreError):  # another collector takes away what is left
            store.delete(key)


def revoked() -> RevokedError:
    """What ends a collector whose session is decided already."""
    return RevokedError("Another collector took the copying for abandoned", hint="Run the command again")


def read_collector(store: ObjectStore, info: ObjectInfo) -> Holder | None:
    """The process whose copies an announced session is for; None where it is a push.

    Raises:
        ObjectNotFoundError: the session has just ended.
        StoreError: the announcement cannot be read.
    """
    if not _NAME_BYTES < info.size <= _MAX_BYTES:
        return None
    try:
        said = json.loads(store.get(info.key))
    except (ValueError, RecursionError):
        return None
    return read_holder(said.get(_COLLECTOR)) if isinstance(said, dict) else None


def patience(collector: Holder | None, grace: timedelta) -> timedelta:
    """How long after its announcement a session is waited for.

    Args:
        collector: of `read_collector`.
        grace: how long a push is.
    """
    if collector is None:
        return grace
    return timedelta(0) if collector.is_gone else min(grace, ENDED_AFTER)


def _is_decided(store: ObjectStore, session: str) -> bool:
    with contextlib.suppress(ObjectNotFoundError):
        store.head(f"{INDEX}/{session}")
        return True
    return False
