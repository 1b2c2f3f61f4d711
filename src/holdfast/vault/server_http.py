"""What a server of HTTP needs that is not about vaults: short answers, interim ones, connections that say nothing."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.vault.oids import WrongNameError
from holdfast.vault.records import ConflictError
from holdfast.vault.repository import UnknownFileError
from holdfast.vault.server_spool import SlowClientError, TooLargeError

CONTINUE, PROCESSING = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"
RETRY_SECONDS = 5
SERVER = "holdfast"  # not which versions of what


@dataclass(eq=False)
class Answer(Exception):  # noqa: N818 - what ends a request early is mostly no error
    """An answer without a file.

    Attributes:
        status: of HTTP.
        text: one line for people, without its end.
        headers: besides the usual ones.
    """

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)


class SilenceServer(web.Server):
    """Sends away who connects and asks for nothing.

    Args:
        handler: answers requests.
        seconds: within which the first one must have come.
        options: of the connections.
    """

    def __init__(self, handler: Callable[[web.BaseRequest], Any], seconds: float, **options: Any) -> None:
        super().__init__(self._heard, **options)
        self._answering, self._seconds = handler, seconds
        self._silent: dict[Any, asyncio.TimerHandle] = {}

    def __call__(self) -> web.RequestHandler:
        """A connection."""
        connection = super().__call__()
        self._silent[connection] = asyncio.get_running_loop().call_later(self._seconds, self._send_away, connection)
        return connection

    async def _heard(self, request: web.BaseRequest) -> web.StreamResponse:
        if (timer := self._silent.pop(request.protocol, None)) is not None:
            timer.cancel()
        response = await self._answering(request)
        assert isinstance(response, web.StreamResponse)
        return response

    def _send_away(self, connection: Any) -> None:
        self._silent.pop(connection, None)
        connection.force_close()


class _Sayings(logging.Handler):
    """What aiohttp complains about, without a traceback; nobody is to blame for what is no HTTP but the client."""

    def __init__(self, say: Callable[..., None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        error = record.exc_info[1] if record.exc_info else None
        self._say(
            f"{record.getMessage()}: {plain(str(error), blanks=True)}",
            failure=not isinstance(error, HttpProcessingError),
        )


def make_logger(say: Callable[..., None]) -> logging.Logger:
    """What aiohttp logs to."""
    logger = logging.Logger("holdfast.serve")  # of no hierarchy: what it says goes nowhere else
    logger.addHandler(_Sayings(say))
    return logger


def answer_to(error: HoldfastError) -> Answer:
    """What a client is told of a failure: nothing of where the vault is, or how it is reached."""
    if isinstance(error, WrongNameError):
        return Answer(422, str(error))
    if isinstance(error, TooLargeError):
        return Answer(413, str(error))
    if isinstance(error, SlowClientError):
        return Answer(408, str(error))
    if isinstance(error, ConflictError):
        return Answer(409, "The vault has another content under this name: `holdfast vault check`")
    if isinstance(error, UnknownFileError):
        return Answer(404, "There is no such file")
    if isinstance(error, IntegrityError):
        return Answer(500, "The file is damaged, or was while it came: `holdfast vault check`")
    return Answer(
        503, "The vault could not be reached; the server's log says why", {hdrs.RETRY_AFTER: f"{RETRY_SECONDS}"}
    )


def busy() -> Answer:
    """What a client is told that is to come back later."""
    return Answer(503, "Too much is going on here", {hdrs.RETRY_AFTER: f"{RETRY_SECONDS}"})


def short(request: web.BaseRequest, answer: Answer) -> web.Response:
    """An answer as a response."""
    response = web.Response(
        status=answer.status, text=f"{answer.text}\n", headers={hdrs.SERVER: SERVER} | answer.headers
    )
    if not request.content.at_eof() and request.body_exists:
        response.force_close()  # nobody reads the rest of what is being sent
    return response


def interim(request: web.BaseRequest, line: bytes) -> None:
    """Tell a client that an answer will come; HTTP/1.0 has no such thing."""
    if request.version >= (1, 1) and request.transport is not None and not request.transport.is_closing():
        request.transport.write(line)


def taken(future: "asyncio.Future[Any]") -> None:
    """See what became of something that perhaps nobody waits for any more: asyncio would complain."""
    if not future.cancelled():
        future.exception()


def shown(request: web.BaseRequest) -> str:
    """A request's path for the log: without a query, which may hold anything."""
    return plain(request.raw_path.partition("?")[0])


def plain(text: str, *, blanks: bool = False) -> str:
    """Text of a client for one line of a log, in which blanks part columns."""
    least = " " if blanks else "!"
    return "".join(c if least <= c <= "~" else "?" for c in " ".join(text[:200].splitlines())) or "-"
