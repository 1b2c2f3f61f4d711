"""Names of things in a quarantine: one flat name for each key, which gives the key back."""

import hashlib
import re
from collections.abc import Iterable

from holdfast.errors import UsageError

MAX_NAME_BYTES = 230  # file systems take 255; a longer name is a digest, with the key in a file beside it
MAX_KEY_BYTES = 4096 * 4  # no path is longer
_DIGEST = re.compile(r"~~[0-9a-f]{64}")
_ESCAPED = re.compile(rb"[^A-Za-z0-9._-]")
_ESCAPE = re.compile(rb"~([0-9A-F]{2})")


class UnsafeKeyError(UsageError):
    """A key leads out of its place, or is none."""


def check_key(key: str) -> str:
    """The key, if it names something below a place's top: no empty or dotted part, not absolute, no zero byte.

    Raises:
        UnsafeKeyError: it does not.
    """
    if not is_safe(key):
        raise UnsafeKeyError(f"{key!r} does not lie in the place that things are taken from")
    return key


def is_safe(key: str) -> bool:
    """Whether a key names something below a place's top."""
    if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        return False
    try:
        return len(_encoded(key)) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        return False


def check_apart(keys: Iterable[str], quarantine: str | None) -> None:
    """See that no key lies in another one, nor in the quarantine, nor around it.

    Args:
        keys: of one batch.
        quarantine: its key in the place, None where it lies elsewhere.

    Raises:
        UnsafeKeyError: one does.
    """
    known = set(keys)
    for key in sorted(known):
        check_key(key)
        above = {key[:place] for place, letter in enumerate(key) if letter == "/"}
        if outer := sorted(above & known):
            raise UnsafeKeyError(f"{key!r} lies in {outer[0]!r}, and both are to go")
        if quarantine is not None and (key == quarantine or quarantine in above or quarantine.startswith(f"{key}/")):
            raise UnsafeKeyError(f"{key!r} cannot go: the quarantine is there")


def flat_name(key: str) -> str:
    """The one name of a key: ASCII letters, digits, ``.``, ``_`` and ``-`` as they are, other bytes as ``~`` and two
    hex digits, so that a slash is ``~2F``. A dot at the beginning is escaped too, so that no name is hidden.

    A name of more than 230 bytes is ``~~`` and the key's SHA-256 instead; `digest_in` tells it from the others.
    """
    escaped = _ESCAPED.sub(lambda match: b"~%02X" % match[0][0], _encoded(key))
    if escaped.startswith(b"."):
        escaped = b"~2E" + escaped[1:]
    return escaped.decode() if len(escaped) <= MAX_NAME_BYTES else f"~~{key_digest(key)}"


def key_digest(key: str) -> str:
    """A digest of a key, in hex."""
    return hashlib.sha256(_encoded(key)).hexdigest()


def digest_in(name: str) -> str | None:
    """The digest that stands for a long key; None where the name says the key itself."""
    return name[2:] if _DIGEST.fullmatch(name) else None


def key_of(name: str, long_key: bytes | None = None) -> str | None:
    """The key whose flat name it is; None where it is no key's.

    Args:
        name: as it was found.
        long_key: what lies beside a name that is a digest.
    """
    try:
        data = name.encode("ascii") if long_key is None else long_key
        plain = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), data) if long_key is None else data
        key = plain.decode("utf-8", "surrogateescape")
        return key if is_safe(key) and flat_name(key) == name else None
    except UnicodeError:
        return None


def key_bytes(key: str) -> bytes:
    """What is kept beside a name that is a digest."""
    return _encoded(key)


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
