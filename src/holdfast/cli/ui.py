"""``holdfast ui``: the page of `holdfast report html`, live on loopback."""

import asyncio
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path

import click

from holdfast.cli.groups import Verb
from holdfast.cli.report_html import charting_code, gather_facts
from holdfast.errors import HoldfastError
from holdfast.repo.workspace import Project, find_project
from holdfast.report.html import html_report

INTERRUPTED = 130


@click.command("ui", cls=Verb)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=0,
    help="The port on 127.0.0.1.  [default: any that is free]",
)
@click.option("--browser/--no-browser", default=True, help="Whether to open a browser.")
@click.option("--online", is_flag=True, help="Ask a vault for its figures, too, that is not on this machine.")
def command(port: int, browser: bool, online: bool) -> int:
    """Show the report of this repository in a browser, as it changes.

    It is served on this machine alone, at an address that is printed; commits, experiments, runs and registered
    versions appear by themselves. Changes nothing. Ctrl-C ends it with 130, SIGTERM with 0.

    \b
    Examples:
      holdfast ui
      holdfast ui --port 8766 --no-browser
    """
    project = find_project(Path.cwd())
    return asyncio.run(_serve(project, charting_code(project), port, browser=browser, online=online))


async def _serve(project: Project, charts: str, port: int, *, browser: bool, online: bool) -> int:
    from holdfast.report.html_server import HOST, PageServer  # imported here: help needs no aiohttp
    from holdfast.report.html_watch import state_of

    def render(state: str) -> str:
        return html_report(gather_facts(project, datetime.now(timezone.utc), online=online), charts, state=state)

    server = PageServer(render, lambda: state_of(project), log=lambda line: click.echo(line, err=True))
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 0)):
        asyncio.get_running_loop().add_signal_handler(number, end, code)
    try:
        bound = await server.start(port)
    except OSError as error:
        await server.stop()
        raise HoldfastError(
            f"{HOST}:{port} cannot be listened on: {error.strerror or error}", hint="Choose another with --port"
        ) from error
    url = f"http://{HOST}:{bound}/"
    click.echo(f"Showing {project.root.name} at {url}; Ctrl-C ends it.")
    sys.stdout.flush()
    if browser:
        click.launch(url)
    code = await ended
    await server.stop()
    return code
