"""One batch in a quarantine that is a folder."""

import os
import stat
from pathlib import Path

from holdfast.atomic import write_atomically
from holdfast.removal.batches import COMING, GONE, KEYS, THINGS, is_batch
from holdfast.removal.folders import Folders, LinkAboveError, make_folders
from holdfast.removal.names import MAX_KEY_BYTES, digest_in, key_bytes, key_of
from holdfast.removal.place import Thing
from holdfast.removal.trees import CannotCarryError, Spot, delete, names_in, opened, state, status


class BatchFolder:
    """The folders of a batch, made as they are asked for.

    Args:
        quarantine: the folders that it is in.
        batch: its id.
    """

    def __init__(self, quarantine: Folders, batch: str) -> None:
        self._quarantine, self._batch = quarantine, batch

    @property
    def things(self) -> int:
        """Where things wait."""
        return self._own(THINGS)

    @property
    def coming(self) -> int:
        """Where copies are that are not whole yet."""
        return self._own(COMING)

    @property
    def gone(self) -> int:
        """Where folders are that are being deleted."""
        return self._own(GONE)

    def waiting(self) -> dict[str, str]:
        """The names of what waits by their keys. What has no key's name was put there by somebody else."""
        try:
            spot = self._quarantine.spot(f"{self._batch}/{THINGS}/x")
        except LinkAboveError:
            return {}
        names = names_in(spot.folder) if spot is not None else []
        found = ((key_of(name, self._long_key(name)), name) for name in names)
        return {key: name for key, name in found if key is not None}

    def look(self, key: str, name: str) -> Thing | None:
        """What waits under a name."""
        try:
            now = state(Spot(self.things, name))
        except CannotCarryError:
            return Thing(key, 0, "")
        return Thing(key, now.size, now.stamp, now.links) if now is not None else None

    def keep_key(self, key: str, name: str) -> None:
        """Keep the key of a name that does not say it, durably, before the thing comes."""
        digest = digest_in(name)
        if digest is not None:
            path = self._keys / digest
            make_folders(path.parent)
            write_atomically(path, key_bytes(key))

    def forget_key(self, name: str) -> None:
        """The thing of that name is gone."""
        digest = digest_in(name)
        if digest is not None:
            (self._keys / digest).unlink(missing_ok=True)

    @property
    def _keys(self) -> Path:
        return self._quarantine.path / self._batch / KEYS

    def _long_key(self, name: str) -> bytes | None:
        """What is kept beside a name that is a digest; None for another name."""
        digest = digest_in(name)
        if digest is None:
            return None
        try:
            spot = self._quarantine.spot(f"{self._batch}/{KEYS}/{digest}")
            if spot is None:
                return b""
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(spot.name, flags, dir_fd=spot.folder)
        except (OSError, LinkAboveError):
            return b""  # no name of a key fits that
        try:
            return os.read(descriptor, MAX_KEY_BYTES)
        finally:
            os.close(descriptor)

    def _own(self, name: str) -> int:
        spot = self._quarantine.spot(f"{self._batch}/{name}/x", make=True)
        assert spot is not None
        return spot.folder


def clear(quarantine: Folders) -> None:
    """Delete what was left half done, and batches in which nothing waits; only who holds the quarantine may."""
    for batch in filter(is_batch, names_in(quarantine.top)):
        whole = Spot(quarantine.top, batch)
        found = status(whole)
        if found is None or not stat.S_ISDIR(found.st_mode):
            continue
        with opened(whole) as folder:
            delete(Spot(folder, COMING))
            delete(Spot(folder, GONE))
            try:
                with opened(Spot(folder, THINGS)) as things:
                    empty = not names_in(things)
            except FileNotFoundError:
                empty = True
        if empty:
            delete(whole)
