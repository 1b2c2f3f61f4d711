"""What is put into a vault, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from holdfast.errors import HoldfastError

Failure: TypeAlias = Callable[[str, HoldfastError], object]
OnPut: TypeAlias = Callable[[str, int], object]


class UnreadableFileError(HoldfastError):
    """A file cannot be read."""


class FileToPut(NamedTuple):
    """A file for `Session.put_many`.

    Attributes:
        oid: its name.
        path: where it is.
        base_oid: another version of it, against which its parts may be stored; None for what the session's families
            know, empty for none at all.
        base_path: where that is, if it is on this machine; saves fetching it.
        max_restore_ratio: as of `Session`, for this file; None for the session's.
        cast_oid: a file of which it may be a cast, with the same tensors in wider numbers; None for what the session's
            casts know.
    """

    oid: str
    path: "str | Path"
    base_oid: str | None = None
    base_path: "str | Path | None" = None
    max_restore_ratio: float | None = None
    cast_oid: str | None = None


@dataclass(frozen=True)
class Statistics:
    """What a session did.

    Attributes:
        files: put.
        skipped: files that were there already.
        raw_bytes: of the files that were put.
        stored_bytes: of the packs that were sent.
        new_blobs: sent.
        known_blobs: parts of files that were there already.
        packs: sent.
        requests: to the store.
    """

    files: int = 0
    skipped: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    new_blobs: int = 0
    known_blobs: int = 0
    packs: int = 0
    requests: int = 0


class Failures:
    """Tells what went wrong with files, or keeps it until it can be raised: in the pipeline it would end all of it."""

    def __init__(self, told: Failure | None = None) -> None:
        self._told = told
        self._errors: list[HoldfastError] = []

    def add(self, oid: str, error: HoldfastError) -> None:
        """Something is wrong with a file."""
        if self._told is not None:
            self._told(oid, error)
        else:
            self._errors.append(error)

    def check(self) -> None:
        """Raise what nobody was told."""
        if self._errors:
            raise self._errors.pop(0)


def nobody(_oid: str, _size: int) -> None:
    """Is told, and says nothing."""
