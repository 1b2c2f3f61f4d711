"""What a server's answer means to us, said without repeating what it must not say.

obstore tells some failures apart by their class and puts the rest into the text of one: the status as ``status code:
429``, the server's answer behind it. That answer may quote the signed request, so only its code and message are taken.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from holdfast.errors import HoldfastError
from holdfast.objectstore.parallel import interruptibly
from holdfast.objectstore.store import (
    BucketNotFoundError,
    ChangedError,
    DeniedError,
    InvalidKeyError,
    NotConnectedError,
    ObjectNotFoundError,
    RefusedError,
    ThrottledError,
    TruncatedError,
    UnreachableError,
)

Result = TypeVar("Result")

STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,80})</Code>|DeleteObjects request failed .*\(code: ([A-Za-z0-9]{1,80})\)")
SAYS = re.compile(r"<Message>([^<]{1,300})</Message>")
CONFLICT, REQUEST_TIMEOUT, RANGE, NOT_IMPLEMENTED = 409, 408, 416, 501
THROTTLED = 429
NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
THROTTLED_CODES = frozenset(
    {"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "Throttling", "RequestLimitExceeded"}
)
PASSING_CODES = frozenset({"InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"})
# what obstore's memory says where a server says 416
BEHIND_THE_END = re.compile(r"Wanted range starting at|Range started at")
# what reqwest and obstore say when no whole answer came; a request that could not be built was never sent
NO_ANSWER = re.compile(r"HTTP error: (?!builder error)|error sending request|body error|TimedOut|timed out")
NO_CONNECTION = "kind: Connect,"


@dataclass(frozen=True)
class Place:
    """Where a store's objects are.

    Attributes:
        bucket: the bucket's URL without a prefix, as messages have it.
        prefix: what its keys are relative to, without slashes at its ends; empty for the whole bucket.
        server: the host that is asked, empty where that goes without saying.
    """

    bucket: str
    prefix: str = ""
    server: str = ""

    @property
    def url(self) -> str:
        """The bucket with the prefix."""
        return f"{self.bucket}{'' if self.bucket.endswith('/') else '/'}{self.prefix}" if self.prefix else self.bucket

    def name(self, key: str) -> str:
        """What an object is called in messages."""
        return f"{self.url}{'' if self.url.endswith('/') else '/'}{key}" if key else self.url


def answered(request: Callable[[], Result], failure: Callable[[Exception], HoldfastError]) -> Result:
    """What a request returns; Ctrl-C ends the wait for it.

    Args:
        request: asks a server, once.
        failure: makes one of ours of what a client raises.

    Raises:
        HoldfastError: what ``failure`` made, chained to nothing: what a client says may quote the server's answer,
            which may quote the request, which is signed.
    """
    try:
        return interruptibly(request)
    except HoldfastError:
        raise
    except Exception as error:
        raise failure(error) from None


def is_conflict(error: Exception) -> bool:
    """Whether "already exists" only says that another writer is at it now: S3's 409. Azure's says what it seems to."""
    text = str(error)
    return _status(text) == CONFLICT and not _code(text).endswith("AlreadyExists")


def failure_of(error: Exception, place: Place, key: str) -> HoldfastError:
    """The failure as one of ours; ``error`` is not to be chained to it, for what it may quote.

    Args:
        error: what obstore raised.
        place: where it was asked.
        key: for which object; empty for a folder or many.
    """
    from obstore import exceptions

    name, text = place.name(key), str(error)
    status, code = _status(text), _code(text)
    says = _said(text, status, code)
    if code in NO_BUCKET:
        return BucketNotFoundError(f"there is no bucket {place.bucket}", hint=_where(place))
    if isinstance(error, FileNotFoundError):
        return ObjectNotFoundError(f"{name} does not exist")
    if isinstance(error, exceptions.PreconditionError):
        return ChangedError(f"{name} was replaced while it was being read", hint="Run the command again")
    if isinstance(error, exceptions.UnauthenticatedError) and "credential provider" in text:
        return DeniedError(f"{name}: no credentials could be had", hint=_who(place))
    if status == THROTTLED or code in THROTTLED_CODES:
        return ThrottledError(f"{name}: the store asks for fewer requests{says}", hint="Try again later")
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)) or status in (401, 403):
        return DeniedError(f"{name}: access denied{says}", hint=_who(place))
    if status == RANGE or BEHIND_THE_END.search(text):
        return TruncatedError(f"{name} ends before the bytes that are wanted of it")
    if isinstance(error, exceptions.InvalidPathError):
        found = _quoted_path(text)
        return RefusedError(
            f"{name} holds an object whose name cannot be read: {found}", hint="Name a folder beside it"
        )
    if isinstance(error, ValueError):
        return InvalidKeyError(f"{key!r} cannot be the name of an object")
    if _passes(status) or code in PASSING_CODES:
        return UnreachableError(f"{name}: the store has a fault of its own{says}", hint="Try again later")
    if status is None and NO_ANSWER.search(text):
        kind = NotConnectedError if NO_CONNECTION in text else UnreachableError
        return kind(f"{name}: {_silence(text)}", hint=_where(place))
    return RefusedError(f"{name}: the store refuses{says or f': {_first_line(text)}'}")


def _passes(status: int | None) -> bool:
    return status is not None and (status == REQUEST_TIMEOUT or (status >= 500 and status != NOT_IMPLEMENTED))


def _status(text: str) -> int | None:
    match = STATUS.search(text)
    return int(match[1]) if match else None


def _code(text: str) -> str:
    match = CODE.search(text)
    return (match[1] or match[2]) if match else ""


def _said(text: str, status: int | None, code: str) -> str:
    match = SAYS.search(text)
    parts = [" ".join(filter(None, [str(status or ""), code])), " ".join(match[1].split()) if match else ""]
    said = ": ".join(filter(None, parts))
    return f" ({said})" if said else ""


def _silence(text: str) -> str:
    if "TimedOut" in text or "timed out" in text:
        return "no answer in time"
    if "ConnectionRefused" in text or "Connection refused" in text:
        return "the connection was refused"
    if "dns error" in text:
        return "the server's name is not known"
    if "certificate" in text.lower():
        return "the server's certificate is not trusted"
    return "the connection broke"


def _who(place: Place) -> str:
    return f"See whether the credentials are those of {place.server or 'the store'}, and what they allow"


def _where(place: Place) -> str:
    return f"The server that was asked is {place.server}" if place.server else "See the URL and the network"


def _quoted_path(text: str) -> str:
    match = re.search(r'Path "(.*?)"', text)
    return repr(match[1]) if match else "it has an empty or dotted part"


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0][:200]
