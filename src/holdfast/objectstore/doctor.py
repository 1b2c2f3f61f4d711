"""The examination of a remote: configuration, server, credentials, what the store does, how fast, what it costs.

Each step is only taken where the one before lets it: a server that is not there is asked for nothing else.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.objectstore.doctor_configuration import Subject, check_configuration
from holdfast.objectstore.doctor_credentials import check_access, denial
from holdfast.objectstore.findings import Finding, Health, health
from holdfast.objectstore.options import StoreOptions
from holdfast.objectstore.probe import (
    DOCTOR_FOLDER,
    Latency,
    StoppedError,
    Trial,
    WatchedRetry,
    clear_old_trials,
    cleared,
    interruptibly_run,
)
from holdfast.objectstore.probe_rounds import (
    CELL_SECONDS,
    PARTS_BYTES,
    Speed,
    best_jobs,
    measure_speeds,
    refusal,
    run_rounds,
    try_creates,
    try_parts,
)
from holdfast.objectstore.probe_s3 import S3Probe, probe_of
from holdfast.objectstore.probe_server import Reached, reach_server
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import MAX_KEY_BYTES, BucketNotFoundError, DeniedError, ObjectStore, StoreError
from holdfast.objectstore.usage import R2_PRICES, Prices

SLOW_BYTES_PER_SECOND = 5e6
FAULTY_SHARE = 0.01
MEASURED_BYTES = 256 * 1024  # smaller objects say nothing about the link
UNICODE_NAME = "Имя mit Ümlaut und Raum 模型"

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Means:
    """How a remote is reached.

    Attributes:
        open_store: opens it, with the given way to ask again.
        options: of the store, for its certificate.
        through_dvc: sends, lists, reads and deletes an object below a folder as DVC does; the seconds that it took, and
            why it could not delete, or nothing. Raises a `HoldfastError` that says what else went wrong. None where DVC
            is not to be asked.
        environment: the process's variables.
    """

    open_store: Callable[[Retry], ObjectStore]
    options: StoreOptions
    through_dvc: Callable[[str], tuple[float, str]] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Examination:
    """What was found.

    Attributes:
        findings: in the order they were made.
        rounds: how many were done.
        latencies: of the rounds.
        speeds: by size and number at a time.
        jobs: how many at a time are worth it; None where that was not measured.
        dollars: what the requests cost.
        requests: how many by verb.
        bytes_up, bytes_down: of what was sent and read.
    """

    findings: list[Finding] = field(default_factory=list)
    rounds: int = 0
    latencies: list[Latency] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)
    jobs: int | None = None
    dollars: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def health(self) -> Health:
        """``healthy``, ``impaired`` or ``broken``."""
        return health(self.findings)


def examine(
    subject: Subject,
    means: Means,
    trial: Trial,
    *,
    rounds: int,
    sizes: list[int],
    prices: Prices = R2_PRICES,
    progress: Progress = lambda _label, _done, _total: None,
) -> Examination:
    """Examine a remote; what is written there is deleted again, also when the examination is interrupted.

    Args:
        subject: the remote.
        means: how it is reached.
        trial: new; says under which folder objects are written.
        rounds: of put, head, get, range, list and delete.
        sizes: of the objects whose speed is measured, in bytes.
        prices: of the store.
        progress: is told what is being done, and how much of how much.

    Raises:
        KeyboardInterrupt: it was interrupted; everything is deleted.
    """
    result = Examination(check_configuration(subject, means.environment))
    now: datetime | None = None
    if subject.endpoint:
        reached: Reached = reach_server(
            subject.endpoint,
            verify_tls=means.options.verify_tls,
            ca_path=means.options.ca_path,
            seconds=means.options.connect_seconds,
        )
        result.findings += reached.findings
        now = reached.now
        if not reached.answered:
            return result
    try:
        store = means.open_store(WatchedRetry(trial=trial))
        cleaner = means.open_store(Retry())
    except HoldfastError as error:
        check = "credentials" if isinstance(error, DeniedError) else "configuration"
        mend = error.hint or f"`{subject.setup}`"
        if isinstance(error, DeniedError) and subject.location.scheme == "s3":
            mend = f"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `{subject.setup} --credentials FILE`"
        result.findings.append(Finding(check, "fault", error.message, mend))
        return result
    probe, sweeper = probe_of(store, trial), probe_of(cleaner, trial, watched=False)
    folder = Path(subject.location.path) if subject.location.scheme == "file" else None
    with cleared(trial, cleaner, abort_uploads=sweeper.abort_uploads if sweeper else None, folder=folder) as left:
        interruptibly_run(
            trial, lambda: _steps(subject, means, trial, store, probe, result, rounds, sizes, now, progress)
        )
    if left:
        says = f"{len(left)} objects of this examination could not be deleted, below {store.url}/{trial.folder}"
        result.findings.append(Finding("traces", "warning", says, f"`holdfast remote doctor {subject.name}` tomorrow"))
    elif trial.written:
        result.findings.append(Finding("traces", "ok", "everything that was written is deleted"))
    result.findings += _passing(trial, subject)
    result.latencies, result.requests = trial.latencies(), dict(trial.requests)
    result.dollars, result.bytes_up, result.bytes_down = trial.dollars(prices), trial.bytes_up, trial.bytes_down
    return result


def _steps(
    subject: Subject,
    means: Means,
    trial: Trial,
    store: ObjectStore,
    probe: S3Probe | None,
    result: Examination,
    rounds: int,
    sizes: list[int],
    now: datetime | None,
    progress: Progress,
) -> None:
    findings = result.findings
    if probe is not None:
        access = check_access(subject, probe)
        told = {finding.check for finding in findings if finding.verdict == "fault"}
        findings += [finding for finding in access if not (finding.check == "clock" and "clock" in told)]
        # DVC's checksums are no matter of what obstore sends: the rest can be examined all the same
        if any(finding.verdict == "fault" and finding.check != "checksums" for finding in access):
            return
    try:
        run_rounds(trial, store, rounds, lambda done, total: progress("rounds", done, total))
        result.rounds = rounds
        findings.append(Finding("rounds", "ok", f"{rounds} rounds, each byte compared"))
        result.speeds, left_out = measure_speeds(
            trial, store, sizes, lambda done, total: progress("speed", done, total)
        )
        findings += _speed(result, left_out, subject)
    except StoppedError:
        raise
    except HoldfastError as error:
        findings.append(_broken(error, subject))
        return
    if _slow(result, PARTS_BYTES):
        findings.append(Finding("parts", "note", "an upload in parts would have taken too long, and was left out"))
    else:
        findings += _parts(trial, store, subject)
    for check in (_creates, _names):
        findings += check(trial, store, subject)
    findings += _old_trials(trial, store, now)
    if means.through_dvc is not None:
        progress("dvc", 0, 1)
        findings.append(_through_dvc(means.through_dvc, trial, findings))


def _speed(result: Examination, left_out: list[int], subject: Subject) -> Iterator[Finding]:
    for size in left_out:
        says = f"objects of {size:,} bytes would have taken too long, and were left out"
        yield Finding("speed", "note", says)
    telling = [speed for speed in result.speeds if speed.size >= MEASURED_BYTES]
    if not telling:
        return
    result.jobs = best_jobs(result.speeds)
    up, down = max(speed.up for speed in telling), max(speed.down for speed in telling)
    says = f"{up / 1e6:.1f} MB/s up, {down / 1e6:.1f} MB/s down"
    if min(up, down) < SLOW_BYTES_PER_SECOND:
        minutes = 1e9 / min(up, down) / 60
        mend = "`holdfast vault init` and `holdfast push` send differences; try from another network to compare"
        yield Finding("speed", "warning", f"the link is slow: {says}; 1 GB takes {minutes:.0f} minutes", mend)
    else:
        yield Finding("speed", "ok", says)
    jobs = result.jobs
    if jobs is not None:
        known = subject.section.get("jobs")
        if str(known) == str(jobs):
            yield Finding("jobs", "ok", f"{jobs} at a time, as is configured")
        else:
            mend = f"`dvc remote modify {subject.name} jobs {jobs}`" if subject.name else ""
            yield Finding("jobs", "note", f"{jobs} at a time are best, of those that were tried", mend)


def _slow(result: Examination, nbytes: int) -> bool:
    """Whether so many bytes would take longer than any other step may, as far as that was measured."""
    telling = [min(speed.up, speed.down) for speed in result.speeds if speed.size >= MEASURED_BYTES]
    return bool(telling) and nbytes / max(telling) > CELL_SECONDS


def _parts(trial: Trial, store: ObjectStore, subject: Subject) -> Iterator[Finding]:
    try:
        size = try_parts(trial, store)
    except (StoreError, IntegrityError) as error:
        yield Finding("parts", "fault", f"an upload in equal parts fails: {refusal(error)}", _ask_provider(subject))
    else:
        yield Finding("parts", "ok", f"{size / 1e6:.0f} MB went up in parts that are all as long but the last")


def _creates(trial: Trial, store: ObjectStore, subject: Subject) -> Iterator[Finding]:
    try:
        alone = try_creates(trial, store)
    except StoreError as error:
        says = f"an object cannot be created on the condition that there is none: {refusal(error)}"
        yield Finding("creates", "warning", f"{says}. DVC works, a vault does not", _ask_provider(subject))
        return
    if alone:
        yield Finding("creates", "ok", "of several that create one object at once, one does")
    else:
        says = "several that create one object at once all think that they have: no vault can be kept here"
        yield Finding("creates", "warning", says, _ask_provider(subject))


def _names(trial: Trial, store: ObjectStore, subject: Subject) -> Iterator[Finding]:
    prefix = subject.location.path if subject.location.scheme != "file" else ""
    room = MAX_KEY_BYTES - (len(prefix.encode()) + 1 if prefix else 0) - len(trial.key("")) - 1
    long = "/".join(["n" * 100] * 9)[: max(room, 1)].rstrip("/")
    long += "x" * max(0, min(room - len(long), 120))
    for what, name in (
        (f"{len(long) + MAX_KEY_BYTES - room:,} bytes", long),
        ("other alphabets and spaces", UNICODE_NAME),
    ):
        key = trial.key(name)
        try:
            trial.ask("put", lambda: store.put(key, b"name"), key=key)  # noqa: B023 - called at once
            same = trial.ask("get", lambda: store.get(key)) == b"name"  # noqa: B023
        except StoreError as error:
            yield Finding("names", "note", f"names of {what} are refused: {refusal(error)}")
            continue
        yield Finding("names", "ok" if same else "warning", f"names of {what} are taken")


def _old_trials(trial: Trial, store: ObjectStore, now: datetime | None) -> Iterator[Finding]:
    count = trial.ask("list", lambda: clear_old_trials(store, now or datetime.now(timezone.utc)))
    if count:
        yield Finding("traces", "note", f"{count} objects of earlier examinations that were killed are deleted")


def _through_dvc(send: Callable[[str], tuple[float, str]], trial: Trial, findings: list[Finding]) -> Finding:
    folder = trial.key("dvc")
    try:
        seconds, kept = trial.ask("put", lambda: send(folder), key=f"{folder}/object")
        trial.requests.update({"put": 1, "get": 2, "head": 2, "list": 1})
    except HoldfastError as error:
        cause = next((finding for finding in findings if finding.check == "checksums"), None)
        if cause is not None and cause.verdict == "fault":
            return Finding("dvc", "fault", f"DVC cannot write here, for its checksums: {error.message}", cause.mend)
        return Finding("dvc", "fault", error.message, error.hint or "`dvc push -v` shows more")
    if kept:
        says = f"DVC itself wrote, listed and read an object, in {seconds:.1f} s; it cannot delete here: {kept}"
        return Finding("dvc", "note", says, "`holdfast gc` deletes here; `dvc push` and `dvc pull` need not")
    return Finding("dvc", "ok", f"DVC itself wrote, listed, read and deleted an object, in {seconds:.1f} s")


def _passing(trial: Trial, subject: Subject) -> Iterator[Finding]:
    throttled = sum(count for kind, count in trial.failures.items() if kind.startswith("429") or "SlowDown" in kind)
    faults = trial.failures.total() - throttled
    asked = trial.requests.total() + trial.failures.total()
    if not faults:
        return
    kinds = ", ".join(
        f"{kind} ({count})" for kind, count in trial.failures.most_common(3) if not kind.startswith("429")
    )
    says = f"{faults / asked:.0%} of {asked:,} requests failed and went through when asked again: {kinds}"
    mend = f"`dvc remote modify {subject.name or 'NAME'} jobs 2` asks less at once. {_ask_provider(subject)}"
    yield Finding("faults", "warning" if faults / asked > FAULTY_SHARE else "note", says, mend)


def _broken(error: HoldfastError, subject: Subject) -> Finding:
    if isinstance(error, IntegrityError):
        return Finding("rounds", "fault", f"the store does not keep its word: {error.message}", _ask_provider(subject))
    if isinstance(error, (DeniedError, BucketNotFoundError)):
        return denial(subject, error)
    return Finding("rounds", "fault", error.message, error.hint or _ask_provider(subject))


def _ask_provider(subject: Subject) -> str:
    if subject.r2:
        return "See https://www.cloudflarestatus.com"
    return f"Ask whoever runs {subject.endpoint}" if subject.endpoint else "See the disk"


def new_trial(token: str) -> Trial:
    """A trial in a folder of its own.

    Args:
        token: random; no two trials have the same.
    """
    return Trial(f"{DOCTOR_FOLDER}/{time.strftime('%Y%m%d')}-{token}")
