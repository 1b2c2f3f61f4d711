"""Whether a server can be reached at all, how its certificate is, and what time it has: asked without credentials."""

import http.client
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.objectstore.findings import Finding

SKEW_FAULT_SECONDS = 15 * 60  # S3 refuses signatures that are older or newer
SKEW_WARNING_SECONDS = 60
CERTIFICATE_WARNING_DAYS = 14
SECURE_PORT, PLAIN_PORT = 443, 80


@dataclass(frozen=True)
class Reached:
    """What the server said before it knew who asks.

    Attributes:
        findings: of name, connection, certificate and clock.
        answered: it spoke HTTP.
        now: its clock, or None where it does not say.
    """

    findings: tuple[Finding, ...]
    answered: bool
    now: datetime | None = None


def reach_server(
    endpoint: str, *, verify_tls: bool = True, ca_path: Path | None = None, seconds: float = 10.0
) -> Reached:
    """Connect to a server and ask for its clock.

    Args:
        endpoint: its URL.
        verify_tls: check its certificate.
        ca_path: PEM of an authority to trust besides the system's.
        seconds: that it may take.
    """
    parts = urlsplit(endpoint)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (SECURE_PORT if secure else PLAIN_PORT)
    try:
        # an answer of the resolver, before any attempt to connect: the two go wrong for different reasons
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        mend = "See the account id and the jurisdiction: `dvc remote list`" if "cloudflare" in host else "See the URL"
        return Reached((Finding("server", "fault", f"the name {host} is not known", mend),), answered=False)
    context = None
    if secure:
        context = ssl.create_default_context()
        if ca_path is not None:
            context.load_verify_locations(ca_path)
        if not verify_tls:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = (
        http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
        if secure
        else http.client.HTTPConnection(host, port, timeout=seconds)
    )
    findings: list[Finding] = []
    try:
        start = time.perf_counter()
        connection.connect()
        took = time.perf_counter() - start
        if secure:
            findings.append(_certificate(connection.sock, verify_tls=verify_tls))
        asked = time.time()
        connection.request("HEAD", "/")
        said = connection.getresponse().getheader("Date")
        between = (asked + time.time()) / 2
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message or "it is not trusted"
        mend = "`dvc remote modify NAME ssl_verify /path/to/authority.pem` trusts another authority"
        return Reached((Finding("tls", "fault", f"the certificate of {host} is refused: {why}", mend),), answered=False)
    except (OSError, http.client.HTTPException) as error:
        mend = "See the URL, the network and the firewall; a server of this machine has to be started"
        says = f"{host}:{port} gives no answer: {_why(error)}"
        return Reached((*findings, Finding("server", "fault", says, mend)), answered=False)
    finally:
        with suppress(OSError):
            connection.close()
    findings.insert(0, Finding("server", "ok", f"{host}:{port} answers; a connection takes {took * 1000:.0f} ms"))
    if not secure:
        local = host in ("127.0.0.1", "::1", "localhost")
        says = "the connection is not encrypted"
        findings.append(
            Finding("tls", "note", f"{says}, and does not leave this machine")
            if local
            else Finding("tls", "warning", f"{says}: what is sent can be read on the way", "Name an https:// endpoint")
        )
    now = _time(said)
    findings.append(_clock(now, between))
    return Reached(tuple(findings), answered=True, now=now)


def _certificate(sock: object, *, verify_tls: bool) -> Finding:
    assert isinstance(sock, ssl.SSLSocket)
    version = sock.version() or "TLS"
    if not verify_tls:
        says = f"{version}, but the certificate is not looked at (ssl_verify = false)"
        return Finding("tls", "warning", says, "`dvc remote modify --unset NAME ssl_verify`")
    ends = (sock.getpeercert() or {}).get("notAfter")
    if not isinstance(ends, str):
        return Finding("tls", "ok", version)
    days = (ssl.cert_time_to_seconds(ends) - time.time()) / 86400
    if days < CERTIFICATE_WARNING_DAYS:
        return Finding(
            "tls", "warning", f"{version}; the certificate ends in {days:.0f} days", "Renew it on the server"
        )
    return Finding("tls", "ok", f"{version}; the certificate is valid for {days:.0f} days")


def _clock(now: datetime | None, here: float) -> Finding:
    if now is None:
        return Finding("clock", "note", "the server does not say what time it is")
    skew = here - now.timestamp()
    says = f"this machine's clock is {_length(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the server's"
    mend = "`sudo timedatectl set-ntp true`, or set the clock by hand"
    if abs(skew) > SKEW_FAULT_SECONDS:
        return Finding("clock", "fault", f"{says}: it refuses what is signed more than 15 minutes off", mend)
    if abs(skew) > SKEW_WARNING_SECONDS:
        return Finding("clock", "warning", f"{says}; from 15 minutes on it refuses every request", mend)
    return Finding("clock", "ok", "this machine's clock is the server's, within a minute")


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def _time(said: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(said or "")
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "not in time"
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({error.reason or 'no reason given'})"
    return getattr(error, "strerror", None) or type(error).__name__
