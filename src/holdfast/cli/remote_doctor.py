"""``holdfast remote doctor``: examine a remote."""

import contextlib
import io
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from holdfast.atomic import write_atomically
from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bar, counted
from holdfast.cli.remote_places import RemotePlace, find_remote
from holdfast.inventory.amounts import read_size
from holdfast.objectstore.doctor import Examination, Means, examine, new_trial
from holdfast.repo.dvc_remotes import try_dvc_way

EXIT_CODES = {"healthy": 0, "impaired": 3, "broken": 1}
SAID = {
    "healthy": "it works.",
    "impaired": "it works, but not as well as it could.",
    "broken": "it cannot be used as it is.",
}
MAX_SIZE = 5_000_000_000
LEAST_DOLLARS = 0.0001


def _sizes(_context: click.Context, _option: click.Parameter, text: str) -> list[int]:
    try:
        sizes = [read_size(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    if not all(0 < size <= MAX_SIZE for size in sizes):
        raise click.BadParameter("a size is from 1 B to 5 GB.")
    return sizes


@click.command(cls=Verb)
@click.argument("name", required=False, shell_complete=completion_values.remotes)
@click.option("--rounds", metavar="N", type=click.IntRange(min=1), default=60, show_default=True, help="Round trips.")
@click.option(
    "--sizes", metavar="SIZES", default="1KB,1MB,64MB", show_default=True, callback=_sizes, help="Measure with these."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report: JSON for .json, else Markdown.",
)
@form_options
def doctor(name: str | None, rounds: int, sizes: list[int], output: Path | None, form: Form) -> int:
    """Examine the DVC remote NAME, or the one at a URL; DVC's default one without.

    Looks at configuration, server, certificate, clock, credentials and permissions; then makes rounds of put, head,
    get, range, list and delete, compares every byte, and measures speed; through obstore and through DVC. What is
    written is deleted, also after Ctrl-C.

    Ends with 0 where all is well, 3 where something is not as it should be, 1 where the remote cannot be used.

    \b
    Examples:
      holdfast remote doctor
      holdfast remote doctor storage --rounds 10 --sizes 1MB -o doctor.md
    """
    place = find_remote(name)
    subject, trial = place.subject(), new_trial(secrets.token_hex(6))
    # before DVC sets variables of its own
    environment = dict(os.environ)
    through_dvc = _dvc_way(place)
    with _interruptible(), bar("examining", counted) as update:
        result = examine(
            subject,
            Means(place.open, place.options, through_dvc, environment),
            trial,
            rounds=rounds,
            sizes=sizes,
            progress=lambda _label, done, total: update(done, total),
        )
    payload, blocks = _payload(place, subject.endpoint, result), list(_blocks(place, subject.endpoint, result))
    emit(form, payload, blocks)
    if output is not None:
        write_atomically(output, _written(output, payload, blocks))
    return EXIT_CODES[result.health]


def _dvc_way(place: RemotePlace) -> Any:
    root, name = place.root, place.name
    return (lambda folder: try_dvc_way(root, name, folder)) if root is not None and name else None


@contextmanager
def _interruptible() -> Iterator[None]:
    """A `kill` is as good as Ctrl-C, and whoever waits at a terminal is told for what."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        if sys.stderr.isatty():
            click.echo("\r\033[KStopping: what is under way ends first, then what was written is deleted.", err=True)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _payload(place: RemotePlace, endpoint: str, result: Examination) -> dict[str, Any]:
    return {
        "format": "holdfast remote doctor 1",
        "remote": place.name,
        "url": place.url,
        "endpoint": endpoint,
        "health": result.health,
        **asdict(result),
    }


def _blocks(place: RemotePlace, endpoint: str, result: Examination) -> Iterator[str | Table]:
    at = f" at {endpoint}" if endpoint else ""
    worst = {"broken": "fault", "impaired": "warning"}.get(result.health)
    named = dict.fromkeys(finding.check for finding in result.findings if finding.verdict == worst)
    see = f" See {', '.join(named)}." if named else ""
    yield f"{place.label}{at}: {SAID[result.health]}{see}"
    yield Table(
        ("check", "verdict", "finding"),
        [(finding.check, finding.verdict, finding.says) for finding in result.findings],
    )
    mends: dict[str, dict[str, None]] = {}
    for finding in result.findings:
        if finding.mend:
            mends.setdefault(finding.mend, {})[finding.check] = None
    if mends:
        yield "\n".join(["What helps:", "", *(f"- {', '.join(checks)}: {mend}" for mend, checks in mends.items()), ""])
    if result.latencies:
        yield Table(
            ("request", "count", "p50 ms", "p95 ms", "p99 ms"),
            [
                (item.verb, str(item.count), *(f"{1000 * seconds:.1f}" for seconds in (item.p50, item.p95, item.p99)))
                for item in result.latencies
            ],
            title=f"Latency, {result.rounds} rounds",
            right=frozenset({"count", "p50 ms", "p95 ms", "p99 ms"}),
        )
    if result.speeds:
        yield Table(
            ("object", "at a time", "objects", "up MB/s", "down MB/s"),
            [
                (
                    human_bytes(item.size),
                    str(item.jobs),
                    str(item.objects),
                    f"{item.up / 1e6:.2f}",
                    f"{item.down / 1e6:.2f}",
                )
                for item in result.speeds
            ],
            title="Speed",
            right=frozenset({"object", "at a time", "objects", "up MB/s", "down MB/s"}),
        )
    if result.requests:
        cost = f"${result.dollars:.4f}" if result.dollars >= LEAST_DOLLARS else f"less than ${LEAST_DOLLARS}"
        yield (
            f"{plural(sum(result.requests.values()), 'request')}, {human_bytes(result.bytes_up)} up, "
            f"{human_bytes(result.bytes_down)} down: {cost} at R2's prices."
        )


def _written(path: Path, payload: dict[str, Any], blocks: list[str | Table]) -> str:
    if path.suffix == ".json":
        return json.dumps(payload, indent=2, ensure_ascii=False) + "\n"
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        emit("md", payload, blocks)
    return stream.getvalue()
