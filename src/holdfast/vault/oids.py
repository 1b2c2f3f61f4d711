"""Names of files: DVC's md5, with what it stands for checked while a file is read.

=================================  ====================================================================================
oid                                names
=================================  ====================================================================================
``md5:<32 hex>``                   a file by the md5 of its bytes
``md5:<32 hex>.dir``               the listing of a folder, in the same way
``md5-dos2unix:<32 hex>[.dir]``    the same of DVC before 3.0: the line ends of text count as ``\\n``
``runs:<name>/<name>``             an entry of DVC's run cache, under its key and its value; its bytes have no md5
=================================  ====================================================================================
"""

import hashlib
import re
from typing import Protocol

from holdfast.errors import IntegrityError, UsageError
from holdfast.vault.records import MAX_OID_BYTES

_FORM = re.compile(r"(md5|md5-dos2unix):([0-9a-f]{32})(?:\.dir)?|runs:[0-9A-Za-z_.-]{1,200}/[0-9A-Za-z_.-]{1,200}")

# DVC takes a file to be text, or not, anew for each chunk of that many bytes, by the first ones of it
_TEXT_CHUNK_BYTES, _TEXT_SAMPLE_BYTES, _MAX_OTHER_SHARE = 1 << 20, 512, 0.30
_TEXT_BYTES = bytes(range(32, 127)) + b"\n\r\t\f\b"


class InvalidOidError(UsageError):
    """Text that is no oid."""


class WrongNameError(IntegrityError):
    """A file is not what its oid says."""


class Hashed(Protocol):
    """Tells an md5."""

    def hexdigest(self) -> str:
        """The md5 of what it was given, 32 hex digits."""


class Hasher(Hashed, Protocol):
    """Takes a file's bytes in order, and tells its md5."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """The next bytes."""


def check_oid(oid: str) -> str:
    """The oid, if it is one.

    Raises:
        InvalidOidError: it is none.
    """
    if len(oid) > MAX_OID_BYTES or not _FORM.fullmatch(oid):
        raise InvalidOidError(
            f"{oid!r:.100} is no oid", hint="One is written like md5:d41d8cd98f00b204e9800998ecf8427e"
        )
    return oid


def md5_of(oid: str) -> str | None:
    """The md5 that an oid says; None where it says none."""
    found = _FORM.fullmatch(oid)
    return found and found[2]


def hasher_of(oid: str) -> Hasher | None:
    """What takes the md5 that belongs to an oid of a file's bytes; None where it has none."""
    if oid.startswith("md5:"):
        return hashlib.md5(usedforsecurity=False)
    return _Dos2UnixHasher() if oid.startswith("md5-dos2unix:") else None


def check_md5(oid: str, hasher: Hashed | None, name: str) -> None:
    """See that a file is what its oid says.

    Args:
        oid: the name.
        hasher: what `hasher_of` returned, or the like, given all of the file.
        name: what to call the file in errors.

    Raises:
        WrongNameError: it is not.
    """
    if hasher is not None and hasher.hexdigest() != md5_of(oid):
        raise WrongNameError(
            f"{name} has the md5 {hasher.hexdigest()}, and not that of its name {oid}",
            hint="It is damaged, or was changed: fetch it again, or `dvc commit` the change",
        )


class _Dos2UnixHasher:
    """The md5 of DVC before 3.0."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self._rest = bytearray()

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """The next bytes."""
        self._rest += data
        whole = len(self._rest) // _TEXT_CHUNK_BYTES * _TEXT_CHUNK_BYTES
        for start in range(0, whole, _TEXT_CHUNK_BYTES):
            self._hash.update(_unix(bytes(self._rest[start : start + _TEXT_CHUNK_BYTES])))
        del self._rest[:whole]

    def hexdigest(self) -> str:
        """The md5 of what it was given, 32 hex digits."""
        last = self._hash.copy()
        last.update(_unix(bytes(self._rest)))
        return last.hexdigest()


def _unix(chunk: bytes) -> bytes:
    """A chunk as it is hashed: where it looks like text, with short line ends."""
    sample = chunk[:_TEXT_SAMPLE_BYTES]
    if b"\0" in sample or len(sample.translate(None, _TEXT_BYTES)) > _MAX_OTHER_SHARE * len(sample):
        return chunk
    return chunk.replace(b"\r\n", b"\n")
