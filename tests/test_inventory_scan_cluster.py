"""A bucket read by the workers of a real Dask cluster: whoever dies, the bytes are those of a scan in one process."""

import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from safetensors.numpy import save

from clusters import Cluster, cluster
from holdfast.executor.cluster import ClusterExecutor
from holdfast.executor.executor import Executor
from holdfast.executor.local import LocalExecutor
from holdfast.inventory import scan_objects
from holdfast.inventory.scan_objects import scan_store
from holdfast.inventory.scan_partitions import MOST
from holdfast.inventory.table_tensors import tensors_of_objects
from holdfast.inventory.tables import write_tables
from holdfast.objectstore.address import StoreAddress
from holdfast.objectstore.opening import open_store
from proxy import Fault, Proxy, proxy
from servers import S3Server
from worlds import environment, make_home

OBJECTS, PART = 300, 6
AHEAD = 2 * 3 + 1  # parts under way with three workers, and the one whose result has just been taken


@dataclass
class Bucket:
    """Objects on a server, behind a proxy."""

    url: str
    server: S3Server
    link: Proxy

    @property
    def place(self) -> StoreAddress:
        return StoreAddress(self.url, self.server.options(self.link.endpoint))

    def reads(self) -> Counter[str]:
        """How often each object was read."""
        paths = (unquote(request.target).partition("?")[0] for request in list(self.link.requests))
        return Counter(path for path in paths if path.endswith(".safetensors"))


def fill(url: str, server: S3Server, objects: int) -> None:
    store = open_store(url, server.options())

    def put(number: int) -> None:
        data = save({"w": np.full(1 + number % 5, number % 50, np.float32), f"b{number % 3}": np.ones(2, np.int64)})
        store.put(f"run_{number % 40:02d}/epoch_{number:05d}_best.safetensors", data)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(put, range(objects)))


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Iterator[Bucket]:
    url = s3_server.make_folder()
    fill(url, s3_server, OBJECTS)
    with proxy(s3_server.port) as link:
        yield Bucket(url, s3_server, link)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def take(
    bucket: Bucket, executor: Executor, folder: Path, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> tuple[str, dict[str, bytes]]:
    """The report as JSON, and the tables' bytes."""
    with executor:
        scan = scan_store(bucket.place, executor, folder / "seen", progress=progress)
        write_tables(folder / "tables", scan.report, tensors_of_objects(scan.shards, executor), etags=scan.etags)
    return json.dumps(scan.report.to_json()), content(folder / "tables")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def once(progress_at: float, act: Callable[[], object]) -> Callable[[int, int], None]:
    """Acts when so much of all is done."""
    acted = []

    def progress(done: int, total: int) -> None:
        if not acted and done >= progress_at * total:
            acted.append(True)
            act()

    return progress


def test_a_worker_dies_and_requests_fail(
    bucket: Bucket, made: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_objects, "PART_OBJECTS", PART)
    bucket.link.inject(
        Fault("status", path=r"\.safetensors", skip=100, every=30, times=3),
        Fault("cut", path=r"\.safetensors", skip=115, every=40, times=3),
    )
    ours = take(bucket, ClusterExecutor(made.address), tmp_path / "cluster", once(0.3, made.kill_worker))
    assert len(made.workers) == 2
    assert sum(fault.done for fault in bucket.link.faults) == 6
    reads = bucket.reads()
    bucket.link.inject()
    bucket.link.forget()
    again = take(bucket, ClusterExecutor(made.address), tmp_path / "cluster")
    assert not bucket.reads()
    assert len(reads) == OBJECTS
    # what the dead worker had is read again, and what a fault hit; nothing else is
    assert reads.total() - OBJECTS <= AHEAD * MOST * PART + 6
    serial = take(bucket, LocalExecutor(1), tmp_path / "serial")
    assert ours == serial
    assert again == serial


def test_command(bucket: Bucket, made: Cluster, tmp_path: Path) -> None:
    home = make_home(tmp_path)
    variables = {**environment(home), **bucket.server.environment()}
    done = [
        subprocess.run(
            [program(variables), "scan", bucket.url, "--json", "--parquet", f"tables-{name}", *scheduler],
            cwd=tmp_path,
            env={**variables, "XDG_CACHE_HOME": str(tmp_path / name)},
            capture_output=True,
            text=True,
            check=True,
        )
        for name, scheduler in (("cluster", ("--scheduler", made.address)), ("none", ()))
    ]
    assert made.address in done[0].stderr
    assert done[1].stderr == ""
    assert done[0].stdout == done[1].stdout
    assert len(json.loads(done[0].stdout)["models"]) == OBJECTS
    assert content(tmp_path / "tables-cluster") == content(tmp_path / "tables-none")


def program(variables: dict[str, str]) -> str:
    found = shutil.which("holdfast", path=variables["PATH"])
    assert found is not None
    return found


@pytest.mark.soak
def test_twenty_thousand_objects_and_everybody_dies(s3_server: S3Server, s3_folder: str, tmp_path: Path) -> None:
    """20,000 objects: a worker is killed, the scheduler restarted, the client interrupted twice, once by SIGKILL."""
    fill(s3_folder, s3_server, 20_000)
    home = make_home(tmp_path)
    with proxy(s3_server.port) as link, cluster(tmp_path / "cluster") as made:
        bucket = Bucket(s3_folder, s3_server, link)
        variables = {**environment(home), **s3_server.environment(), "AWS_ENDPOINT_URL": link.endpoint}

        def run(name: str, *scheduler: str) -> "subprocess.Popen[str]":
            return subprocess.Popen(
                [program(variables), "scan", s3_folder, "--json", "--parquet", f"tables-{name}", *scheduler],
                cwd=tmp_path,
                env={**variables, "XDG_CACHE_HOME": str(tmp_path / name)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        def interrupted(at: int, how: signal.Signals) -> None:
            client = run("cluster", "--scheduler", made.address)
            wait_for(bucket, at)
            client.send_signal(how)
            client.communicate(timeout=60)
            assert client.returncode in (130, -how)

        interrupted(2500, signal.SIGINT)
        interrupted(6000, signal.SIGKILL)
        client = run("cluster", "--scheduler", made.address)
        # here, not in a thread: what a thread has started is ended with it (`servers._die_with_parent`)
        with ThreadPoolExecutor(1) as reader:
            answer = reader.submit(client.communicate, timeout=600)
            wait_for(bucket, 9000)
            made.kill_worker()
            wait_for(bucket, 13_000)
            made.restart_scheduler()
            ours, errors = answer.result()
        assert client.returncode == 0, errors
        reads = bucket.reads()
        assert len(reads) == 20_000
        again = reads.total() - len(reads)
        # four deaths, each with what was under way
        assert again <= 4 * AHEAD * MOST * scan_objects.PART_OBJECTS
        shards = sorted((tmp_path / "cluster").rglob("*.rows"))
        assert again <= 4 * AHEAD * 2 * 20_000 / len(shards)  # of parts as they are, not as large as they may be
        link.forget()
        serial, errors = run("serial").communicate(timeout=600)
        assert serial == ours, errors
        assert content(tmp_path / "tables-serial") == content(tmp_path / "tables-cluster")
        seen = [
            {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.rows")}
            for name in ("cluster", "serial")
        ]
        assert seen[0] == seen[1]


def wait_for(bucket: Bucket, reads: int) -> None:
    end = time.monotonic() + 300
    while bucket.reads().total() < reads:
        assert time.monotonic() < end
        time.sleep(0.05)
