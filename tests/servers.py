"""A real S3 server on loopback for tests, and a proxy before it that is slow, unreliable, or as strict as R2.

One server serves all processes of a test run: whoever needs it first starts a supervisor, which ends the server when the
last process that asked for it is gone, however that ended.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.objectstore.options import StoreOptions

ACCESS_KEY, SECRET_KEY = "ada" + "0123456789abcdef0123456789abc", "ada-secret-that-nobody-may-see"  # 32, as R2 has them
BUCKET = "tests"  # there from the beginning; a bucket of its own costs a test half a second, a folder nothing
PORTS = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
    "filer.port.grpc", "admin.port", "admin.port.grpc", "metricsPort",
)  # fmt: skip
START_SECONDS = 60
MEMORY = "700MiB"  # Go gives memory back above it; without, the server takes up to 1.5 GB


_SUPERVISORS: list["subprocess.Popen[bytes]"] = []  # they outlive whoever started them, which Popen complains about


@dataclass(frozen=True)
class S3Server:
    """An S3 server that is running.

    Args:
        endpoint: ``http://127.0.0.1:PORT``.
    """

    endpoint: str

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def options(self, endpoint: str | None = None, **more: Any) -> StoreOptions:
        """What opens its buckets; ``endpoint`` is a proxy's."""
        return StoreOptions(
            endpoint=endpoint or self.endpoint, access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY, **more
        )

    def environment(self) -> dict[str, str]:
        """The variables that lead a command to it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def client(self) -> Any:
        """A client of botocore: a second opinion on what the bucket holds."""
        from botocore.session import Session

        return Session().create_client(
            "s3",
            "us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def make_folder(self) -> str:
        """The URL of a new folder in the bucket that is always there."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def make_bucket(self) -> str:
        """A new bucket's name; there is room for some dozens."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name


@contextmanager
def shared_server(folder: Path) -> Iterator[S3Server]:
    """The server of this test run, started where nobody has; its data are in ``folder``, one for all processes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clients").mkdir(exist_ok=True)
    claim = folder / "clients" / str(os.getpid())
    with _locked(folder):
        claim.write_text(_birth(os.getpid()))
        state = _state(folder)
        if state is None:
            _start_supervisor(folder)
            state = _state(folder)
        assert state is not None, (folder / "log").read_text()[-2000:]
    try:
        yield S3Server(state["endpoint"])
    finally:
        claim.unlink(missing_ok=True)


def _start_supervisor(folder: Path) -> None:
    with open(folder / "log", "ab") as log:
        command = [sys.executable, __file__, str(folder)]
        _SUPERVISORS.append(
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        )
    end = time.monotonic() + START_SECONDS
    while _state(folder) is None and time.monotonic() < end:
        time.sleep(0.05)


def _supervise(folder: Path) -> None:
    """Run the server until no client is left. Runs in a process of its own."""
    for attempt in range(3):
        ports = _free_ports(len(PORTS))
        data = folder / f"data{attempt}"
        server = _start_server(folder, data, dict(zip(PORTS, ports, strict=True)))
        endpoint = f"http://127.0.0.1:{ports[0]}"
        if _ready(server, endpoint):
            break
        server.kill()  # one of the ports was taken meanwhile
        server.wait()
    else:
        sys.exit("no server could be started")
    _write_state(folder, {"endpoint": endpoint, "server": server.pid, "supervisor": os.getpid()})
    while server.poll() is None:
        with _locked(folder):
            if not any(_alive(claim) for claim in (folder / "clients").iterdir()):
                (folder / "state.json").unlink()
                server.kill()  # asked to stop it takes 15 s, and its data are thrown away
                server.wait()
        time.sleep(0.3)
    (folder / "state.json").unlink(missing_ok=True)
    shutil.rmtree(data, ignore_errors=True)
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


def _start_server(folder: Path, data: Path, ports: dict[str, int]) -> "subprocess.Popen[bytes]":
    data.mkdir()
    identity = {
        "name": "ada",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    command = [
        str(Path(sys.executable).parent / "weed"), "-logtostderr=true", "-v=0", "mini", f"-dir={data}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={folder / 's3.json'}", "-s3.allowDeleteBucketNotEmpty=false",
        "-s3.autoCreateBucket=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-master.telemetry=false", "-volume.max=200", *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    # no log of its own: the supervisor's, which the test run's folder keeps
    return subprocess.Popen(
        command,
        cwd=data,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"GOMEMLIMIT": MEMORY},
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    import ctypes

    parent_death_signal, kill = 1, 9
    ctypes.CDLL(None).prctl(parent_death_signal, kill)


def _ready(server: "subprocess.Popen[bytes]", endpoint: str) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(endpoint, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 403:  # it asks who we are: it is there
                return _takes_objects(endpoint)
        except OSError:
            pass
        time.sleep(0.05)
    return False


def _takes_objects(endpoint: str) -> bool:
    """The gateway answers before there is a volume to write to."""
    server = S3Server(endpoint)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            client = server.client()
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
        except Exception:
            time.sleep(0.1)
        else:
            return True
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _state(folder: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return None
    return state if _birth(state["supervisor"]) else None


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    (folder / "state.new").write_text(json.dumps(state))
    (folder / "state.new").replace(folder / "state.json")


def _birth(pid: int) -> str:
    """When a process began, which tells it from a later one of the same number; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _alive(claim: Path) -> bool:
    try:
        return claim.read_text() == _birth(int(claim.name))
    except FileNotFoundError:
        return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


if __name__ == "__main__":
    threading.current_thread().name = "supervisor"
    _supervise(Path(sys.argv[1]))
