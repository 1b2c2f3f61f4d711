"""Tasks in threads, partitions that are done once, and tasks as bytes."""

import itertools
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import holdfast
from cluster_tasks import ShapeError, Work, denied, ran, refused, runs, shard, stubborn, unlucky
from holdfast.cli.schedulers import scheduler_option, tasks
from holdfast.errors import HoldfastError, UsageError
from holdfast.executor.local import LocalExecutor
from holdfast.executor.opening import open_executor
from holdfast.executor.parquet import parquet_of
from holdfast.executor.partitions import Partition, Shards, run_partitions
from holdfast.executor.task import WorkerTraceback, packed_task, run_packed, unpacked_answer


def work(folder: Path, count: int, **how: object) -> list[Work]:
    return [Work(f"item{number}", str(folder), **how) for number in range(count)]  # type: ignore[arg-type]


def double(number: int) -> int:
    return 2 * number


def locked(_: int) -> object:
    return threading.Lock()


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_the_order_of_the_items_however_long_each_takes(jobs: int) -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number % 4 == 0 else 0.0)
        return number * number

    with LocalExecutor(jobs) as executor:
        assert list(executor.map(slow_at_first, range(30))) == [number * number for number in range(30)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_item_comes_with_its_own_result_as_soon_as_there_is_one(jobs: int) -> None:
    with LocalExecutor(jobs) as executor:
        assert sorted(executor.completed(double, range(30))) == [(number, 2 * number) for number in range(30)]


def test_a_slow_task_keeps_no_other_result_back() -> None:
    release = threading.Event()

    def task(number: int) -> int:
        if number == 0:
            assert release.wait(30)
        return number

    results = LocalExecutor(2).completed(task, range(4))
    assert {next(results)[0], next(results)[0], next(results)[0]} == {1, 2, 3}
    release.set()
    assert list(results) == [(0, 0)]


@pytest.mark.parametrize("verb", ["map", "completed"])
@pytest.mark.parametrize("jobs", [1, 3])
def test_items_are_taken_no_further_ahead_than_twice_the_threads(verb: str, jobs: int) -> None:
    taken = itertools.count()
    endless = (next(taken) for _ in itertools.repeat(None))
    results = getattr(LocalExecutor(jobs), verb)(double, endless)
    for _ in range(5):
        next(results)
    results.close()
    assert next(taken) <= 5 + 2 * jobs


@pytest.mark.parametrize("jobs", [1, 3])
def test_tasks_run_at_a_time_as_many_as_there_are_threads(jobs: int) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def task(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    list(LocalExecutor(jobs).map(task, range(20)))
    assert most == jobs


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_system_is_tried_again_and_one_of_ours_is_not(tmp_path: Path, jobs: int) -> None:
    executor = LocalExecutor(jobs)
    assert list(executor.map(unlucky, [Work("unlucky", str(tmp_path))])) == ["done unlucky"]
    assert len(runs(tmp_path, "unlucky")) == 3
    with pytest.raises(PermissionError, match="denied"):
        list(executor.completed(denied, [Work("denied", str(tmp_path))]))
    assert len(runs(tmp_path, "denied")) == 3
    with pytest.raises(PermissionError):
        list(executor.map(denied, [Work("once", str(tmp_path))], attempts=1))
    assert len(runs(tmp_path, "once")) == 1
    with pytest.raises(ShapeError):
        list(executor.map(refused, [Work("refused", str(tmp_path))]))
    assert len(runs(tmp_path, "refused")) == 1


@pytest.mark.parametrize("verb", ["map", "completed"])
def test_after_an_error_nothing_begins_and_threads_end(tmp_path: Path, verb: str) -> None:
    release = threading.Event()

    def task(number: int) -> int:
        if number == 0:
            raise UsageError("the first")
        (tmp_path / str(number)).touch()
        assert release.wait(30)
        return number

    with pytest.raises(UsageError, match="the first"):
        list(getattr(LocalExecutor(2), verb)(task, range(50)))
    release.set()
    _no_threads()
    assert {path.name for path in tmp_path.iterdir()} <= {"1", "2"}  # what the two threads were at


@pytest.mark.parametrize("verb", ["map", "completed"])
def test_an_iterator_that_is_left_ends_its_threads(verb: str) -> None:
    results = getattr(LocalExecutor(3), verb)(double, itertools.count())
    next(results)
    assert any(thread.name == "holdfast-task" for thread in threading.enumerate())
    results.close()
    _no_threads()


def _no_threads() -> None:
    end = time.monotonic() + 10
    while any(thread.name == "holdfast-task" for thread in threading.enumerate()):
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.005)


# partitions


def partitions(folder: Path, count: int, **how: object) -> list[Partition[Work]]:
    items = [Work(f"item{number}", str(folder), **how) for number in range(count)]  # type: ignore[arg-type]
    return [Partition(f"{number:02x}{number:062x}", (item,), size=10) for number, item in enumerate(items)]


def test_a_partition_is_done_once_and_is_found_the_next_time(tmp_path: Path) -> None:
    shards, parts = Shards(tmp_path / "shards", ".txt"), partitions(tmp_path, 6)
    told: list[tuple[int, int]] = []
    tell = lambda done, total: told.append((done, total))  # noqa: E731
    with LocalExecutor(3) as executor:
        first = run_partitions(executor, shard, parts[:4], shards, progress=tell)
        assert told == [(0, 40), (10, 40), (20, 40), (30, 40), (40, 40)]
        told.clear()
        paths = run_partitions(executor, shard, [*parts, parts[2]], shards, progress=tell)
    assert told == [(40, 60), (50, 60), (60, 60)]
    assert paths[:4] == first
    assert paths[6] == paths[2]
    assert [path.read_text() for path in paths[:6]] == [f"done item{number}\n" for number in range(6)]
    assert [len(runs(tmp_path, f"item{number}")) for number in range(6)] == [1] * 6


def test_what_was_finished_before_an_error_is_kept(tmp_path: Path) -> None:
    shards, parts = Shards(tmp_path / "shards", ".txt"), partitions(tmp_path, 8)

    def task(items: tuple[Work, ...]) -> bytes:
        if items[0].name == "item5":
            raise HoldfastError("the sixth")
        return shard(items)

    with pytest.raises(HoldfastError, match="the sixth"):
        run_partitions(LocalExecutor(1), task, parts, shards)
    assert list(shards.names()) == [part.name for part in parts[:5]]
    run_partitions(LocalExecutor(1), shard, parts, shards)
    assert [len(runs(tmp_path, f"item{number}")) for number in range(8)] == [1] * 8


def test_a_shard_that_was_not_written_to_its_end_is_none(tmp_path: Path) -> None:
    """A writer that was killed leaves a hidden file, which is neither found nor taken for what it would have become."""
    shards, parts = Shards(tmp_path / "shards", ".txt"), partitions(tmp_path, 1)
    path = shards.path(parts[0].name)
    path.parent.mkdir(parents=True)
    torn = path.parent / f".{path.name}.0123456789abcdef.tmp"
    torn.write_text("do")
    assert not shards.has(parts[0].name)
    assert list(shards.names()) == []
    run_partitions(LocalExecutor(1), shard, parts, shards)
    assert path.read_text() == "done item0\n"
    assert len(runs(tmp_path, "item0")) == 1


def test_shards_that_are_not_wanted_go_and_what_is_no_shard_stays(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "shards", ".txt")
    names = ["aa11", "aa22", "bb33"]
    for name in names:
        shards.write(name, name.encode())
    foreign = [shards.folder / place for place in ("aa/notes.txt", "aa/bb44.txt", "aa/aa11.txt.bak", "readme.txt")]
    for path in foreign:
        path.write_text("mine")
    assert list(shards.names()) == names
    assert shards.forget({"aa22", "cc55"}) == 2
    assert list(shards.names()) == ["aa22"]
    assert all(path.read_text() == "mine" for path in foreign)
    assert shards.forget(()) == 1
    assert Shards(tmp_path / "nowhere", ".txt").forget(()) == 0


def test_the_same_rows_are_the_same_parquet(tmp_path: Path) -> None:
    import duckdb

    columns = {"path": "VARCHAR", "bytes": "BIGINT", "odd name": "DOUBLE"}
    rows = [
        {"path": f"häuser/'{number}'\n", "bytes": 2**62 + number, "odd name": None, "more": 1} for number in range(3000)
    ]
    data = parquet_of(columns, rows)
    assert parquet_of(columns, iter(rows)) == data
    (tmp_path / "rows.parquet").write_bytes(data)
    with duckdb.connect() as connection:
        found = connection.execute(f"FROM '{tmp_path}/rows.parquet'").fetchall()
    assert found == [(row["path"], row["bytes"], None) for row in rows]
    with pytest.raises(UnicodeEncodeError):
        parquet_of({"path": "VARCHAR"}, [{"path": os.fsdecode(b"\xff")}])


# tasks as bytes


def test_a_task_goes_as_bytes_and_its_result_comes_as_bytes(tmp_path: Path) -> None:
    task = packed_task(partial(max, key=double), [3, 1, 2])
    assert unpacked_answer(run_packed(task)).result() == 3
    assert unpacked_answer(run_packed(packed_task(ran, Work("one", str(tmp_path))))).result() == "done one"


def test_an_error_of_ours_comes_back_as_itself(tmp_path: Path) -> None:
    answer = unpacked_answer(run_packed(packed_task(refused, Work("weights", str(tmp_path)))))
    with pytest.raises(ShapeError) as raised:
        answer.result()
    error = raised.value
    assert str(error) == "weights has not 7. `holdfast check weights` says more"
    assert (error.message, error.hint) == ("weights has not 7", "`holdfast check weights` says more")
    assert (error.exit_code, error.place, error.wanted) == (13, "weights", 7)
    assert isinstance(error.__cause__, WorkerTraceback)
    assert "in refused" in str(error.__cause__)


def test_an_error_of_the_system_keeps_its_number_and_its_file(tmp_path: Path) -> None:
    error = unpacked_answer(run_packed(packed_task(denied, Work("secret", str(tmp_path))))).error
    assert isinstance(error, PermissionError)
    assert (error.errno, error.filename) == (13, "secret")


def test_an_error_that_cannot_be_pickled_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"StubbornError: weights"):
        unpacked_answer(run_packed(packed_task(stubborn, Work("weights", str(tmp_path))))).result()


def test_a_result_that_cannot_be_pickled_is_an_error() -> None:
    with pytest.raises(Exception, match="pickle"):
        unpacked_answer(run_packed(packed_task(locked, 0))).result()


# what users say


def test_none_means_threads_whatever_else_there_is() -> None:
    for word in (None, "none"):
        executor = open_executor(word, 3)
        assert isinstance(executor, LocalExecutor)
        assert (executor.jobs, executor.remote, executor.where) == (3, False, "3 threads here")


@pytest.mark.parametrize(
    "word", ["", "threads", "http://a:1", "tcp://host", "tcp://:80", "inproc://a:1", "a b:1", "tcp://a:1/x"]
)
def test_what_is_no_address_is_refused_with_those_that_are(word: str) -> None:
    with pytest.raises(UsageError, match="tcp://HOST:PORT"):
        open_executor(word, 1)


def test_an_address_needs_no_scheme() -> None:
    from holdfast.executor.cluster import ClusterExecutor

    found = [open_executor(word, 1) for word in ("10.0.0.1:8786", "tls://head.local:8786", "tcp://[::1]:8786")]
    assert [executor.address for executor in found if isinstance(executor, ClusterExecutor)] == [
        "tcp://10.0.0.1:8786", "tls://head.local:8786", "tcp://[::1]:8786",
    ]  # fmt: skip


def test_without_dask_the_way_to_get_it_is_said() -> None:
    """In an interpreter that has the standard library and Holdfast alone."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from holdfast.executor.opening import open_executor\n"
        "print(list(open_executor('none', 2).map(abs, [-1, 2])))\n"
        "from holdfast.errors import HoldfastError\n"
        "for word in ('local', 'tcp://a:1'):\n"
        "    try: open_executor(word, 1)\n"
        "    except HoldfastError as error: print(error)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", script, str(Path(holdfast.__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    says = "Dask is not installed. `pip install 'holdfast[cluster]'` brings it"
    assert done.stdout.splitlines() == ["[1, 2]", says, says]


def test_the_option_beats_the_variable_and_the_variable_the_default() -> None:
    @click.command()
    @scheduler_option
    def command(scheduler: str | None) -> None:
        with tasks(scheduler, 2) as executor:
            click.echo(f"{executor.where}: {[*executor.map(double, range(3))]}")

    runner = CliRunner()
    for arguments, variable in (([], None), (["--scheduler", "none"], "tcp://127.0.0.1:1"), ([], "none"), ([], "")):
        done = runner.invoke(command, arguments, env={"DASK_SCHEDULER_ADDRESS": variable}, catch_exceptions=False)
        assert (done.stdout, done.stderr) == ("2 threads here: [0, 2, 4]\n", "")
    with pytest.raises(UsageError, match="nonsense is no address"):
        runner.invoke(command, env={"DASK_SCHEDULER_ADDRESS": "nonsense"}, catch_exceptions=False)


def test_the_option_completes_to_what_is_no_address() -> None:
    option = next(one for one in click.command()(scheduler_option(lambda **_: None)).params)
    context = click.Context(click.Command("scan"))
    assert [item.value for item in option.shell_complete(context, "")] == ["local", "none"]
    assert [item.value for item in option.shell_complete(context, "l")] == ["local"]
    assert [item.value for item in option.shell_complete(context, "tcp://")] == []
