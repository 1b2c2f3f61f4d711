"""Tasks on a real Dask cluster on this machine: what it loses is done again, and nothing else."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster_tasks import (
    ShapeError,
    Work,
    complaining,
    deadly,
    deadly_once,
    denied,
    large,
    process,
    ran,
    refused,
    runs,
    shard,
    unlucky,
)
from clusters import TESTS, Cluster, cluster, free_port
from holdfast.errors import UsageError
from holdfast.executor.cluster import ClusterExecutor
from holdfast.executor.connecting import CONNECT_SECONDS
from holdfast.executor.executor import Executor, WorkersLostError
from holdfast.executor.local import LocalExecutor
from holdfast.executor.partitions import Partition, Shards, run_partitions
from holdfast.executor.processes import ProcessExecutor

WAIT_SECONDS = 60


def work(folder: Path, count: int, **how: object) -> list[Work]:
    return [Work(f"item{number}", str(folder), **how) for number in range(count)]  # type: ignore[arg-type]


def partitions(folder: Path, count: int, seconds: float = 0.0) -> list[Partition[Work]]:
    return [
        Partition(f"{number:02x}{number:062x}", (item,), 1)
        for number, item in enumerate(work(folder, count, seconds=seconds))
    ]


def counts(folder: Path, count: int) -> list[int]:
    """How often each item's task ran."""
    return [len(runs(folder, f"item{number}")) for number in range(count)]


def serial(folder: Path, count: int) -> list[bytes]:
    """The shards that one thread makes."""
    folder.mkdir()
    paths = run_partitions(LocalExecutor(1), shard, partitions(folder, count), Shards(folder / "shards", ".txt"))
    return [path.read_bytes() for path in paths]


def until(condition: object, says: str = "") -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, says
        time.sleep(0.01)


@contextmanager
def executor_on(made: Cluster, **how: float) -> Iterator[ClusterExecutor]:
    with ClusterExecutor(made.address, **how) as executor:
        yield executor


def test_a_cluster_gives_what_threads_give(tmp_path: Path) -> None:
    """The quick one: results, errors, attempts and what is said of where it runs, on a scheduler and two workers."""
    with cluster(tmp_path / "cluster", 2) as made, executor_on(made) as executor:
        assert list(executor.map(ran, work(tmp_path, 30))) == list(LocalExecutor(1).map(ran, work(tmp_path, 30)))
        completed = sorted(executor.completed(ran, work(tmp_path, 30)), key=lambda pair: int(pair[0].name[4:]))
        assert completed == [(item, f"done {item.name}") for item in work(tmp_path, 30)]
        assert os.getpid() not in executor.map(process, work(tmp_path, 5))
        with pytest.raises(ShapeError, match=r"one has not 7. `holdfast check one` says more"):
            list(executor.map(refused, [Work("one", str(tmp_path))]))
        assert len(runs(tmp_path, "one")) == 1
        assert list(executor.map(unlucky, [Work("two", str(tmp_path))])) == ["done two"]
        with pytest.raises(PermissionError, match="three"):
            list(executor.completed(denied, [Work("three", str(tmp_path))], attempts=2))
        assert len(runs(tmp_path, "three")) == 2
        until(lambda: executor.ahead() == 4)
        assert (executor.jobs, executor.where) == (2, f"2 workers of {made.address}")
        assert (executor.remote, executor.dashboard) == (True, None)


def test_where_nobody_listens_is_said_soon() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(WorkersLostError, match=f"{address}: no Dask scheduler answers there"), ClusterExecutor(address):
        pass
    assert time.monotonic() - began < CONNECT_SECONDS  # which Dask would take


@pytest.mark.soak
def test_items_are_taken_no_further_ahead_than_twice_the_workers(tmp_path: Path) -> None:
    """Endless items on three workers: taken as results are, and none begins once the iterator is left."""
    taken, go = 0, tmp_path / "go"

    def endless() -> Iterator[Work]:
        nonlocal taken
        while True:
            taken += 1
            yield Work(f"item{taken}", str(tmp_path), until="" if taken <= 20 else str(go))

    with cluster(tmp_path / "cluster", 3) as made, executor_on(made) as executor:
        until(lambda: executor.ahead() == 6)
        for verb in (executor.map, executor.completed):
            taken = 0
            results = verb(ran, endless())
            for _ in range(20):
                next(results)
            results.close()
            assert taken <= 20 + 6
            time.sleep(0.5)  # the cluster hears of it
            go.touch()
            time.sleep(1.0)
            assert len(list(tmp_path.glob("*.ran"))) <= 20 + 3  # what three workers were at
            for path in (go, *tmp_path.glob("*.ran")):
                path.unlink()


@pytest.mark.soak
def test_workers_that_come_are_given_tasks_and_those_that_go_are_not_waited_for(tmp_path: Path) -> None:
    """No worker at first, then two, then one: the same results, and no more under way than they can do."""
    with cluster(tmp_path / "cluster", 0) as made, executor_on(made) as executor:
        assert executor.where == f"{made.address}, which has no workers yet"
        results = executor.map(ran, work(tmp_path, 40, seconds=0.1))
        made.add_worker()
        made.add_worker()
        assert next(results) == "done item0"
        until(lambda: executor.ahead() == 4)
        made.kill_worker()
        assert list(results) == [f"done item{number}" for number in range(1, 40)]
        assert sum(counts(tmp_path, 40)) <= 40 + 1  # what the one that went was at
        until(lambda: executor.ahead() == 2)


@pytest.mark.soak
def test_a_worker_that_is_killed_costs_what_it_was_at(tmp_path: Path) -> None:
    """SIGKILL of one of three workers in the middle of forty partitions: the bytes of one thread, one partition twice."""
    wanted = serial(tmp_path / "serial", 40)
    with cluster(tmp_path / "cluster", 3) as made, executor_on(made) as executor:
        told: list[int] = []

        def killing(done: int, _total: int) -> None:
            told.append(done)
            if done == 10:
                made.kill_worker(1)

        shards = Shards(tmp_path / "shards", ".txt")
        paths = run_partitions(executor, shard, partitions(tmp_path, 40, 0.1), shards, progress=killing)
    assert told == list(range(41))
    assert [path.read_bytes() for path in paths] == wanted
    ran_so_often = counts(tmp_path, 40)
    assert min(ran_so_often) == 1
    # what it ran, and what it had run whose result was not fetched yet
    assert sum(ran_so_often) <= 40 + 2


@pytest.mark.soak
def test_a_scheduler_that_comes_back_gets_what_was_under_way_again(tmp_path: Path) -> None:
    """SIGKILL of the scheduler in the middle, which comes back on its port with new workers: no more twice than that."""
    wanted = serial(tmp_path / "serial", 40)
    with cluster(tmp_path / "cluster", 3) as made, executor_on(made) as executor:
        until(lambda: executor.ahead() == 6)

        def killing(done: int, _total: int) -> None:
            if done == 10:
                made.restart_scheduler()

        shards = Shards(tmp_path / "shards", ".txt")
        paths = run_partitions(executor, shard, partitions(tmp_path, 40, 0.1), shards, progress=killing)
    assert [path.read_bytes() for path in paths] == wanted
    ran_so_often = counts(tmp_path, 40)
    assert min(ran_so_often) == 1
    assert max(ran_so_often) <= 2
    assert 40 < sum(ran_so_often) <= 40 + 6


@pytest.mark.soak
def test_a_scheduler_that_stays_away_is_given_up(tmp_path: Path) -> None:
    """What was finished is kept, and the next run does the rest alone."""
    shards, parts = Shards(tmp_path / "shards", ".txt"), partitions(tmp_path, 30, 0.1)
    with cluster(tmp_path / "cluster", 3) as made:

        def killing(done: int, _total: int) -> None:
            if done == 10:
                made.kill_scheduler()

        gone = pytest.raises(WorkersLostError, match=r"went away, and is not back after 2 s\. Run the command again")
        with gone, executor_on(made, patience=2) as executor:
            run_partitions(executor, shard, parts, shards, progress=killing)
        finished = set(shards.names())
        assert len(finished) >= 10
        made.workers.clear()
        made.start_scheduler()
        made.add_worker()
        before = counts(tmp_path, 30)
        with executor_on(made) as executor:
            run_partitions(executor, shard, parts, shards)
    again = [after - once for once, after in zip(before, counts(tmp_path, 30), strict=True)]
    assert again == [0 if part.name in finished else 1 for part in parts]


@pytest.mark.soak
def test_a_cluster_without_workers_is_given_up(tmp_path: Path) -> None:
    """The last worker goes and none comes."""
    with cluster(tmp_path / "cluster", 1) as made, executor_on(made) as executor:
        results = executor.completed(ran, work(tmp_path, 20, seconds=0.05))
        next(results)
        executor.patience = 1
        made.kill_worker()
        with pytest.raises(WorkersLostError, match=r"has had no worker for 1 s\. `dask worker tcp://127.0.0.1:"):
            list(results)


@pytest.mark.soak
def test_a_task_that_ends_its_workers_is_named(tmp_path: Path) -> None:
    """Dask gives it to four workers, which a supervisor would start again."""
    with cluster(tmp_path / "cluster", 6) as made, executor_on(made) as executor:
        until(lambda: executor.ahead() == 12)
        with pytest.raises(WorkersLostError, match="task bad ends each worker that it is given to"):
            list(executor.map(deadly, [Work("bad", str(tmp_path))]))
        assert list(executor.map(ran, work(tmp_path, 3))) == ["done item0", "done item1", "done item2"]


CLIENT = """
import sys
from pathlib import Path
import click
from cluster_tasks import shard
from holdfast.cli import main
from holdfast.cli.progress import bar, counted
from holdfast.cli.schedulers import scheduler_option, tasks
from holdfast.executor.partitions import Shards, run_partitions
from test_executor_cluster import partitions

@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@scheduler_option
def command(folder, scheduler):
    with tasks(scheduler, 2) as executor, bar("Working", counted) as progress:
        run_partitions(executor, shard, partitions(folder, 40, 0.1), Shards(folder / "shards", ".txt"), progress=progress)

if __name__ == "__main__":
    main.root = command
    main.main()
"""


def client(folder: Path, scheduler: str, **variables: str) -> "subprocess.Popen[str]":
    """A command that makes forty shards, in a session of its own as that of a terminal."""
    script = folder / "client.py"
    script.write_text(CLIENT)
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "NO_COLOR": "1"} | variables
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), "--scheduler", scheduler],
        env=environment, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("how", ["cluster", "local"])
def test_ctrl_c_ends_a_command_in_a_line(tmp_path: Path, how: str) -> None:
    """As a terminal sends it, to all processes of the session: no more is begun, and nobody complains."""
    shards = Shards(tmp_path / "shards", ".txt")
    with cluster(tmp_path / "cluster", 2) as made:
        command = client(tmp_path, made.address if how == "cluster" else "local")
        until(lambda: len(list(shards.names())) >= 5 or command.poll() is not None)
        os.killpg(command.pid, signal.SIGINT)
        _, said = command.communicate(timeout=WAIT_SECONDS)
        first, last = said.splitlines()
        assert first.startswith("Working on ")
        assert (made.address if how == "cluster" else "2 processes here; dashboard: http://127.0.0.1:") in first
        assert (last, command.returncode) == ("holdfast: interrupted", 130)
        time.sleep(1.0)
        begun = sum(counts(tmp_path, 40))
        assert begun < 40
        time.sleep(0.5)
        assert sum(counts(tmp_path, 40)) == begun


@pytest.mark.soak
def test_a_cluster_may_be_encrypted(tmp_path: Path) -> None:
    """Scheduler, workers and command show certificates, which Dask's variables name."""
    certificate, key = (str(path) for path in _certificate(tmp_path))
    variables = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": certificate}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        variables[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = certificate
        variables[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = key
    both = {**os.environ, **variables, "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true"}
    with cluster(tmp_path / "cluster", 1, environment=both, scheme="tls") as made:
        assert made.address.startswith("tls://")
        command = client(tmp_path, made.address, **variables)
        _, said = command.communicate(timeout=WAIT_SECONDS)
        assert command.returncode == 0, said
        assert len(list(Shards(tmp_path / "shards", ".txt").names())) == 40
        plain = client(tmp_path, made.address.replace("tls", "tcp"))
        _, said = plain.communicate(timeout=WAIT_SECONDS)
        assert (plain.returncode, said.count("\n")) == (1, 1)
        assert "no Dask scheduler answers there" in said


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that signs itself, for all, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cluster.pem", folder / "cluster.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.mark.soak
@pytest.mark.parametrize("how", ["cluster", "local"])
def test_a_client_that_is_killed_goes_on_where_it_was(tmp_path: Path, how: str) -> None:
    """SIGKILL of the process that hands tasks in: those not begun never do, processes it started end, and a second run
    does what was not finished, in all the bytes of one thread."""
    wanted = serial(tmp_path / "serial", 40)
    shards = Shards(tmp_path / "shards", ".txt")
    with cluster(tmp_path / "cluster", 3) as made:
        scheduler = made.address if how == "cluster" else "local"
        first = client(tmp_path, scheduler)
        until(lambda: len(list(shards.names())) >= 10 or first.poll() is not None)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=WAIT_SECONDS)
        finished = set(shards.names())
        if how == "local":
            workers = {int(pid) for number in range(40) for pid in runs(tmp_path, f"item{number}")}
            until(
                lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "processes outlive who started them"
            )
        else:
            time.sleep(1.0)  # what was begun ends
        before = counts(tmp_path, 40)
        assert sum(before) <= len(finished) + 6
        second = client(tmp_path, scheduler)
        _, said = second.communicate(timeout=WAIT_SECONDS)
        assert second.returncode == 0, said
    again = [after - once for once, after in zip(before, counts(tmp_path, 40), strict=True)]
    assert again == [0 if part.name in finished else 1 for part in partitions(tmp_path, 40)]
    assert [shards.path(part.name).read_bytes() for part in partitions(tmp_path, 40)] == wanted


@pytest.mark.soak
def test_large_results_pile_up_nowhere(tmp_path: Path) -> None:
    """400 MB of results through a scheduler that never has more than a few of them."""
    with cluster(tmp_path / "cluster", 2) as made, executor_on(made) as executor:
        next(executor.map(ran, work(tmp_path, 1)))
        assert made.scheduler is not None
        resident = Path(f"/proc/{made.scheduler.pid}/status")
        least = _peak_bytes(resident)
        for result in executor.completed(large, work(tmp_path, 100, seconds=800_000)):
            assert len(result[1]) >= 4_000_000
        assert _peak_bytes(resident) - least < 120_000_000


def _peak_bytes(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.soak
@pytest.mark.parametrize("says", ["nothing", "something else"])
def test_what_is_no_scheduler_is_said_to_be_none(says: str) -> None:
    """A server that takes the connection and stays silent, and one that speaks another protocol."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        if says == "something else":
            threading.Thread(target=_greet, args=(server,), daemon=True).start()
        began = time.monotonic()
        with pytest.raises(WorkersLostError, match=f"{address}: no Dask scheduler answers there"):
            ClusterExecutor(address).__enter__()
        assert time.monotonic() - began < 20


def _greet(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            with server.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)


def test_an_address_that_wants_certificates_says_where_they_are_named() -> None:
    with pytest.raises(UsageError, match="DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
        ClusterExecutor("tls://127.0.0.1:9").__enter__()


@pytest.mark.soak
@pytest.mark.parametrize(("line", "says"), [("Version: 0.0.9\n", "0.0.9"), ("", "not at all")])
def test_other_versions_are_refused(tmp_path: Path, line: str, says: str) -> None:
    """A cluster in whose processes another Holdfast is installed, and one in which none is to be found."""
    installed = tmp_path / "other" / "holdfast-0.0.9.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: holdfast\n{line}")
    environment = os.environ | {"PYTHONPATH": str(installed.parent)}
    with cluster(tmp_path / "cluster", 1, environment=environment) as made:
        message = rf"has holdfast {says} \(here .*pip install 'holdfast\[cluster\]=="
        with pytest.raises(WorkersLostError, match=message), executor_on(made) as executor:
            list(executor.map(len, ["abc"]))


@pytest.mark.soak
def test_the_dashboard_is_named_where_there_is_one(tmp_path: Path) -> None:
    """A scheduler that was asked to serve one says where; one that was not has the same address, where nothing is."""
    from urllib.request import urlopen

    with cluster(tmp_path / "cluster", 0, dashboard=True) as made, executor_on(made) as executor:
        assert executor.dashboard is not None
        with urlopen(executor.dashboard) as page:
            assert b"Dask" in page.read()


@pytest.mark.soak
def test_processes_here_are_ended_and_started_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """``--scheduler local``: a task that ended its process is run in another, one that always does is named; the
    terminal sees none of it."""
    executor: Executor
    with ProcessExecutor(2) as executor:
        assert (executor.jobs, executor.where, executor.remote) == (2, "2 processes here", True)
        pids = set(executor.map(process, work(tmp_path, 20, seconds=0)))
        assert os.getpid() not in pids
        assert list(executor.map(deadly_once, [Work("once", str(tmp_path))])) == ["done once"]
        assert len(runs(tmp_path, "once")) == 2
        with pytest.raises(WorkersLostError, match="task bad ends each worker"):
            list(executor.map(deadly, [Work("bad", str(tmp_path))]))
        assert list(executor.map(ran, work(tmp_path, 3))) == ["done item0", "done item1", "done item2"]
        pids |= set(executor.map(process, work(tmp_path, 20)))
        list(executor.map(complaining, work(tmp_path, 4)))
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert capfd.readouterr() == ("", "")
