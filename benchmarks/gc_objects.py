"""How long a plan of `holdfast gc` takes over many objects of a remote, how much memory, and how both grow.

    python benchmarks/gc_objects.py [--work FOLDER] [--small]

Simulated: 100,000 and 1,000,000 objects that a store lists without a network, half of them members of a tracked folder,
half of them named by nothing; the plan is made and written as `gc plan --scope remote -o plan.json` does it, by a
process of its own. Real: the whole command over 100,000 objects of a local S3 server. `--small` takes a hundredth.
Writes benchmarks/results/gc_objects.json.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path

from harness import judge, machine, print_goals, versions, write_results
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectInfo, ObjectNotFoundError
from vault_worlds import S3Server, s3_server

TOOLS = Path(sys.executable).parent
KEPT = Path.home() / ".cache" / "holdfast-benchmarks" / "gc-objects"
OBJECT_BYTES = 1000
WRITTEN = datetime(2026, 1, 1, tzinfo=timezone.utc)
COUNTS = (100_000, 1_000_000)
REAL_COUNT = 100_000
PUT_JOBS = 16


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=KEPT, help="folder for the repositories and the server")
    parser.add_argument("--small", action="store_true", help="a hundredth of the objects; writes no results")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        print(json.dumps(simulated(options.work / f"listed-{options.count}", options.count)))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    parts = 100 if options.small else 1
    figures = {}
    for count in (count // parts for count in COUNTS):
        make_project(options.work / f"listed-{count}", "s3://bucket/listed", count)
        command = [sys.executable, __file__, "--work", str(options.work), "--count", str(count)]
        figures[str(count)] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    few, many = (figures[str(count // parts)] for count in COUNTS)
    growth = {name: round(many[name] / few[name], 2) for name in ("seconds", "peak_bytes")}
    with s3_server(options.work / "server") as server:
        real = measured_on_server(server, options.work / f"real-{REAL_COUNT // parts}", REAL_COUNT // parts)
    goals = {
        "1,000,000 simulated objects: seconds": judge(many["seconds"], "≤", 60),
        "1,000,000 simulated objects: peak memory, GB": judge(round(many["peak_bytes"] / 1e9, 2), "≤", 2),
        "ten times the objects: times the seconds": judge(growth["seconds"], "≤", 12),
        "ten times the objects: times the memory": judge(growth["peak_bytes"], "≤", 10),
    }
    result = {
        "machine": machine(),
        "versions": versions("dvc", "obstore"),
        "simulated": figures,
        "ten_times_the_objects": growth,
        "s3": real,
        "goals": goals,
    }
    if options.small:
        print(json.dumps(result, indent=2))
    else:
        write_results("gc_objects", result)
        print_goals(goals)


def oid_of(number: int) -> str:
    """The name of a simulated object; no object has such bytes."""
    return hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()


def make_project(root: Path, url: str, count: int) -> None:
    """A project that tracks a folder of half of the objects, whose listing is in the cache."""
    if root.exists():
        return
    for folder in (".dvc", "home"):
        (root / folder).mkdir(parents=True)
    members = [
        {"md5": oid_of(number), "relpath": f"part-{number // 1000}/{number}.bin"} for number in range(count // 2)
    ]
    listing = json.dumps(members).encode()
    oid = hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
    place = root / ".dvc/cache/files/md5" / oid[:2] / oid[2:]
    place.parent.mkdir(parents=True)
    place.write_bytes(listing)
    size = OBJECT_BYTES * len(members)
    out = f"outs:\n- md5: {oid}\n  size: {size}\n  nfiles: {len(members)}\n  hash: md5\n  path: data\n"
    (root / "data.dvc").write_text(out)
    (root / ".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n")
    (root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (root / "holdfast.yaml").write_text("gc:\n  minimum_age: 0d\n")
    (root / ".gitignore").write_text("/home\n")
    name = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for arguments in (("init", "-q"), ("add", "-A"), (*name, "commit", "-q", "-m", "data")):
        subprocess.run(["git", *arguments], cwd=root, check=True)


@dataclass
class ListedStore:
    """A store that has objects by name alone; what is written into it, a clock, it keeps."""

    count: int
    url: str = "s3://bucket/listed"
    written: dict[str, ObjectInfo] = field(default_factory=dict)

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:  # noqa: ARG002 - the protocol's
        """All objects in the order of their keys, as a bucket lists them."""
        if prefix == "files/md5":
            oids = sorted(oid_of(number) for number in range(self.count))
            for oid in oids:
                yield ObjectInfo(f"files/md5/{oid[:2]}/{oid[2:]}", OBJECT_BYTES, f'"{oid}"', WRITTEN)

    def list_folders(self, prefix: str = "") -> list[str]:  # noqa: ARG002 - the protocol's
        """DVC's folder alone."""
        return ["files"]

    def get(self, key: str, *, etag: str = "") -> bytes:  # noqa: ARG002 - the protocol's
        """There is nothing to read."""
        raise ObjectNotFoundError(f"there is no {key}")

    def put(self, key: str, data: bytes) -> None:
        """Keep when it was written."""
        self.written[key] = ObjectInfo(key, len(data), '""', datetime.now(timezone.utc))

    def head(self, key: str) -> ObjectInfo:
        """When it was written."""
        return self.written[key]

    def delete(self, key: str) -> None:
        """Forget it."""
        del self.written[key]


def simulated(root: Path, count: int) -> dict[str, float]:
    """Seconds and peak memory of a plan; in a process of its own."""
    from holdfast.cli.gc_world import world_of
    from holdfast.gc.plan import Request
    from holdfast.gc.planning import make_plan
    from holdfast.gc.world import Remote
    from holdfast.repo.workspace import find_project

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begin = time.perf_counter()
    with world_of(find_project(root)) as world:
        world.open_remote = lambda name: Remote(name, ListedStore(count))  # type: ignore[arg-type]
        plan = make_plan(world, Request(("remote",), remotes=("store",)), now=time.time())
        made = time.perf_counter()
        text = plan.to_file()
    end = time.perf_counter()
    assert (len(plan.kept), len(plan.removed)) == (count // 2, count - count // 2)
    return {
        "seconds": round(end - begin, 2),
        "of_which_writing": round(end - made, 2),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "before_bytes": before,
        "plan_bytes": len(text.encode()),
    }


def measured_on_server(server: S3Server, root: Path, count: int) -> dict[str, float]:
    """The whole command over real objects."""
    url = server.make_folder()
    make_project(root, url, count)
    config = root / ".dvc/config"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(f"    url = {url}" if "url =" in line else line for line in lines) + "\n")
    store, options = open_store(url, server.options()), server.environment()
    keys = sorted(f"files/md5/{oid[:2]}/{oid[2:]}" for oid in (oid_of(number) for number in range(count)))

    def put_all(keys: list[str]) -> None:
        for key in keys:
            store.put(key, key.encode().ljust(OBJECT_BYTES))

    begin = time.perf_counter()
    with ThreadPoolExecutor(PUT_JOBS) as pool:
        list(pool.map(put_all, (list(some) for _, some in groupby(keys, key=lambda key: key[:12]))))
    put = time.perf_counter() - begin
    environment = os.environ | options | {"HOME": str(root / "home"), "NO_COLOR": "1"}
    command = [str(TOOLS / "holdfast"), "gc", "plan", "--scope", "remote", "-o", str(root.parent / "plan.json")]
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    seconds = time.perf_counter() - begin
    plan = json.loads((root.parent / "plan.json").read_text())
    assert len(plan["objects"]) == count - count // 2
    return {
        "objects": count,
        "seconds": round(seconds, 2),
        "peak_bytes": usage.ru_maxrss * 1024,
        "seconds_to_put_them": round(put, 1),
    }


if __name__ == "__main__":
    main()
