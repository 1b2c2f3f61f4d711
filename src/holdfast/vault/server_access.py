"""Who may do what: tokens, and the names that the server answers to."""

import base64
import binascii
import enum
import hmac
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256

from holdfast.errors import UsageError

MIN_TOKEN_CHARACTERS = 16
_TOKEN = re.compile(r"[!-~]+")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]/@]+))(?::[0-9]{1,5})?")


class Right(enum.IntEnum):
    """What a request may do; each includes those before."""

    NOTHING = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Access:
    """Who may do what.

    Without tokens everybody may read and write; with a write token alone, who has it; with a read token alone, who has
    it may read, and nobody may write.

    Args:
        read_token: lets read; None for no such token.
        write_token: lets read and write; None for no such token.
        read_only: nobody writes.
        hosts: names that the server answers to, besides addresses and ``localhost``.

    Raises:
        UsageError: a token is too short to be one, or has characters that no header can carry.
    """

    read_token: str | None = field(default=None, repr=False)
    write_token: str | None = field(default=None, repr=False)
    read_only: bool = False
    hosts: Collection[str] = ()

    def __post_init__(self) -> None:
        for name, token in (("read", self.read_token), ("write", self.write_token)):
            if token is None:
                continue
            if len(token) < MIN_TOKEN_CHARACTERS or not _TOKEN.fullmatch(token):
                raise UsageError(
                    f"the {name} token is no token: one has {MIN_TOKEN_CHARACTERS} visible ASCII characters or more",
                    hint="`openssl rand -hex 32` makes one",
                )
        if self.read_token is not None and self.read_token == self.write_token:
            raise UsageError("the read token and the write token are the same", hint="Whoever reads could write")

    @property
    def guarded(self) -> bool:
        """Whether a token is asked for."""
        return self.read_token is not None or self.write_token is not None

    def right(self, authorization: str | None) -> Right:
        """What a request may do.

        Args:
            authorization: its header of that name: ``Bearer TOKEN``, or ``Basic`` with any user and the token as the
                password.
        """
        most = Right.READ if self.read_only else Right.WRITE
        if not self.guarded:
            return most
        given = _token(authorization or "")
        # both are compared, whatever the first comparison says, so that time tells nothing
        writes, reads = _same(given, self.write_token), _same(given, self.read_token)
        return min(most, Right.WRITE if writes else Right.READ if reads else Right.NOTHING)

    def answers_to(self, host: str | None) -> bool:
        """Whether a Host header names this server.

        A page that a browser got from elsewhere, and whose name its owner then points to 127.0.0.1, still sends that
        name. An address cannot be pointed anywhere.
        """
        match = _HOST.fullmatch(host or "")
        if match is None:
            return False
        name = (match["six"] or match["name"]).rstrip(".").lower()
        if name == "localhost" or name in {known.rstrip(".").lower() for known in self.hosts}:
            return True
        return _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _token(authorization: str) -> str:
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _same(given: str, token: str | None) -> bool:
    """Whether it is the token, in a time that depends on neither."""
    wanted = sha256((token or "").encode()).digest()
    equal = hmac.compare_digest(sha256(given.encode(errors="surrogateescape")).digest(), wanted)
    return equal and token is not None
