"""How a Dask scheduler is met and left, in bounded time whatever is at its address."""

import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from importlib import import_module
from typing import Any

from holdfast.errors import UsageError

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 2.0
DASHBOARD_SECONDS = 3.0
ENCRYPTED = frozenset({"tls", "wss"})


def knock(address: str) -> None:
    """See that somebody listens there: Dask would try again where nobody does, for as long as it may.

    Raises:
        UsageError: it wants certificates, and there are none.
        OSError: nobody does, or there is no such host.
    """
    scheme, _, place = address.partition("://")
    host, _, port = place.rstrip("/").rpartition(":")
    if scheme in ENCRYPTED:
        security = import_module("distributed").Security()
        if security.get_connection_args("client").get("ssl_context") is None:
            raise UsageError(
                f"{address} wants certificates, and Dask's configuration names none",
                hint="DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__TLS__CLIENT__CERT and …__TLS__CLIENT__KEY do",
            )
    with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
        pass


def connect(address: str, seconds: float = CONNECT_SECONDS) -> Any:
    """A client of Dask's.

    In a thread that is left to itself where it takes too long: Dask waits without end for an answer of what listens and
    is no scheduler.

    Raises:
        TimeoutError: nothing answers.
        Exception: what answers is no scheduler, or is one that wants another Dask.
    """
    distributed = import_module("distributed")  # imported here: 250 ms, and an extra
    made: Future[Any] = Future()

    def make() -> None:
        try:
            client = distributed.Client(address, timeout=seconds, name="holdfast", set_as_default=False)
        except BaseException as error:
            made.set_exception(error)
        else:
            made.set_result(client)

    threading.Thread(target=make, name="holdfast-connect", daemon=True).start()
    try:
        return made.result(2 * seconds)
    except BaseException as error:
        if made.done():
            raise
        made.add_done_callback(lambda late: None if late.exception() else leave(late.result()))
        if isinstance(error, FutureTimeoutError):
            raise TimeoutError("what listens there does not answer") from error
        raise


def leave(client: Any) -> None:
    """Close a client; the scheduler forgets what it handed in, where it is there to do so."""
    with suppress(Exception):  # there may be nobody to take leave of
        client.close(timeout=CLOSE_SECONDS)


def dashboard_of(client: Any) -> str | None:
    """The page that shows what goes on, where the scheduler serves it: it has the same address where it does not."""
    from urllib.request import ProxyHandler, build_opener  # imported here: one question, where there is a cluster

    try:
        link: str = client.dashboard_link
        plots = link.removesuffix("/status") + "/individual-plots.json"
        with build_opener(ProxyHandler({})).open(plots, timeout=DASHBOARD_SECONDS) as answer:
            return link if answer.read().strip() not in (b"", b"{}") else None
    except (KeyError, OSError, ValueError):
        return None
