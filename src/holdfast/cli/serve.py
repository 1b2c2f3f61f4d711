"""``holdfast serve``: a vault as DVC's HTTP remote."""

import asyncio
import os
import re
import shlex
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from holdfast.cli.caches import cache_folder
from holdfast.cli.groups import Verb
from holdfast.cli.naming import open_objects
from holdfast.cli.vaults import vault_url
from holdfast.errors import HoldfastError, UsageError
from holdfast.objectstore.location import is_loopback
from holdfast.repo.workspace import find_project
from holdfast.vault.repository import Vault, open_vault
from holdfast.vault.server_access import Access

if TYPE_CHECKING:
    from holdfast.vault.server import Limits

READ_VARIABLE, WRITE_VARIABLE = "HOLDFAST_READ_TOKEN", "HOLDFAST_WRITE_TOKEN"
SPOOL = "spool"
STOP_SECONDS = 30.0
INTERRUPTED = 130
REMOTE = "vault"


def _bytes(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,14})([KMGT]?)B?", value.strip().upper())
    if match is None:
        raise click.BadParameter(f"{value!r} is no size: write 500MB or 20GB.")
    factor: int = 1000 ** " KMGT".index(match[2] or " ")
    return int(match[1]) * factor


@dataclass(frozen=True)
class _Place:
    """Where the server listens, and what clients call it."""

    host: str
    port: int
    tls: bool
    behind_proxy: bool
    names: tuple[str, ...]

    @property
    def url(self) -> str:
        """As clients have it."""
        if self.behind_proxy and self.names:
            return f"https://{self.names[0]}"
        host = self.host
        if host in ("0.0.0.0", "::"):
            host = self.names[0] if self.names else socket.gethostname()
        return f"http{'s' if self.tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}"


@click.command("serve", cls=Verb)
@click.argument("url", required=False)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="The port; 0 for any that is free.",
)
@click.option("--read-token-file", type=click.Path(path_type=Path), metavar="FILE", help="Who has this may read.")
@click.option(
    "--write-token-file", type=click.Path(path_type=Path), metavar="FILE", help="Who has this may write, too."
)
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="Certificate chain (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Its key (PEM).")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front does the TLS, and says who the client is.")
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="A name that clients call the server by.")
@click.option("--read-only", is_flag=True, help="Nobody writes.")
@click.option(
    "--max-size",
    callback=_bytes,
    default="1TB",
    metavar="SIZE",
    show_default=True,
    help="The largest file that is taken.",
)
@click.option(
    "--max-requests",
    metavar="N",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Requests at a time; more wait.",
)
@click.option(
    "--spool", type=click.Path(path_type=Path), metavar="DIR", help="Where uploads wait, as large as they are."
)
@click.option(
    "-j", "--jobs", metavar="N", type=click.IntRange(min=1), default=4, show_default=True, help="Threads that encode."
)
@click.option("--print-dvc-config", is_flag=True, help="Print how to set up DVC for it, and end.")
@click.option("-q", "--quiet", is_flag=True, help="Log failures alone, no requests.")
def command(
    url: str | None,
    host: str,
    port: int,
    read_token_file: Path | None,
    write_token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    names: tuple[str, ...],
    read_only: bool,
    max_size: int,
    max_requests: int,
    spool: Path | None,
    jobs: int,
    print_dvc_config: bool,
    quiet: bool,
) -> int:
    """Serve a vault to plain DVC, as an HTTP remote.

    It is the one at URL; without URL, that of the project. Tokens come from files, or from HOLDFAST_READ_TOKEN and
    HOLDFAST_WRITE_TOKEN. Ctrl-C or SIGTERM ends it: what is under way has 30 seconds to end.

    \b
    Examples:
      holdfast serve
      holdfast serve --print-dvc-config
      holdfast serve s3://models/vault --read-only
    """
    access = Access(
        _token(read_token_file, READ_VARIABLE),
        _token(write_token_file, WRITE_VARIABLE),
        read_only,
        (*names, host, socket.gethostname()),
    )
    _check_reach(host, access, tls=tls_cert is not None, behind_proxy=behind_proxy)
    tls = _tls(tls_cert, tls_key)
    place = _Place(host, port, tls is not None, behind_proxy, names)
    if print_dvc_config:
        if not port:
            raise UsageError("DVC's configuration needs the port that the server will have", hint="Name it with --port")
        for line in _dvc_config(place.url, access):
            click.echo(line)
        return 0
    from holdfast.vault.server import Limits  # with aiohttp, 200 ms that what is above need not pay

    where = url or vault_url(find_project(Path.cwd()))
    cache = cache_folder(Path.cwd())
    vault = open_vault(open_objects(where), cache, jobs=jobs)
    limits = Limits(max_bytes=max_size, max_requests=max_requests)
    return asyncio.run(_serve(vault, spool or cache / SPOOL, access, limits, place, tls, quiet=quiet))


async def _serve(
    vault: Vault,
    spool: Path,
    access: Access,
    limits: "Limits",
    place: _Place,
    tls: ssl.SSLContext | None,
    *,
    quiet: bool,
) -> int:
    from holdfast.vault.server import VaultServer

    def log(line: str, failure: bool) -> None:
        if failure or not quiet:
            click.echo(line, err=True)

    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(code: int) -> None:
        if ended.done():
            _exit_now(INTERRUPTED)
        ended.set_result(code)

    for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 0)):
        asyncio.get_running_loop().add_signal_handler(number, end, code)
    server = VaultServer(vault, spool, access, limits, forwarded=place.behind_proxy, log=log)
    try:
        port = await server.start(place.host, place.port, tls)
    except OSError as error:
        await server.stop(0)
        raise HoldfastError(
            f"{place.host}:{place.port} cannot be listened on: {error.strerror or error}",
            hint="Choose another with --port",
        ) from error
    url = _Place(place.host, port, place.tls, place.behind_proxy, place.names).url
    who = "anyone on this machine" if not access.guarded else "who has a token"
    click.echo(f"Serving {vault.url} at {url} to {who}; Ctrl-C ends it.")
    sys.stdout.flush()
    code = await ended
    if not await server.stop(STOP_SECONDS):
        click.echo("Given up after 30 seconds: what was not acknowledged is to be sent again.", err=True)
        _exit_now(code)
    vault.close()
    return code


def _exit_now(code: int) -> NoReturn:
    """End though threads wait for a store that does not answer."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _check_reach(host: str, access: Access, *, tls: bool, behind_proxy: bool) -> None:
    """Refuse to be reached from elsewhere by everybody, or in clear text.

    Raises:
        UsageError: that would be so.
    """
    if is_loopback(host) and not behind_proxy:
        return
    hint = f"Name --write-token-file (and --read-token-file), or set {WRITE_VARIABLE}"
    if not access.guarded:
        why = "behind a proxy" if behind_proxy else f"on {host}, which other machines reach,"
        raise UsageError(f"a server {why} needs a token", hint=hint)
    if not tls and not behind_proxy:
        raise UsageError(
            f"a server on {host}, which other machines reach, needs TLS: its tokens would be read on the way",
            hint="Name --tls-cert and --tls-key, or --behind-proxy where a proxy does the TLS",
        )


def _token(path: Path | None, variable: str) -> str | None:
    if path is not None:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return os.environ.get(variable)


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("a certificate and its key belong together", hint="Name both --tls-cert and --tls-key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (cert, key):
        path.open().close()  # an error of ssl's does not say which file is missing
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        raise UsageError(
            f"{cert} and {key} are no certificate and its key: {error.reason or error}",
            hint="Name two PEM files that belong together: --tls-cert CHAIN --tls-key KEY",
        ) from error
    return context


def _dvc_config(url: str, access: Access) -> Sequence[str]:
    lines = [
        f"dvc remote add --default {REMOTE} {shlex.quote(url)}",
        f"dvc remote modify {REMOTE} method PUT",
    ]
    if access.guarded:
        variable = READ_VARIABLE if access.write_token is None else WRITE_VARIABLE
        lines += [
            f"dvc remote modify {REMOTE} auth basic",
            f"dvc remote modify {REMOTE} user dvc",
            f'dvc remote modify --local {REMOTE} password "${variable}"',
        ]
    return lines
