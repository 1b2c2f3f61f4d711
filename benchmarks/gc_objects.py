"""How long a plan of `holdfast gc` takes over many objects of a remote, how much memory, and how both grow.

    python benchmarks/gc_objects.py [--work FOLDER] [--counts 100000 1000000] [--real 100000] [--rounds 3] [--reduced]

Simulated: 100,000 and 1,000,000 objects that a store lists without a network, half of them members of a tracked folder,
half of them named by nothing; the plan is made and written as `gc plan --scope remote -o plan.json` does it, by a
process of its own. Real: the whole command over 100,000 objects of a local S3 server. Then what the listing alone takes
of a server whose answers come 20 ms late: page after page, and by folders at the same time. Goals are those of the
counts above. Writes benchmarks/results/gc_objects.json.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import judge, machine, print_goals, quantity, reducible, versions, write_results
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectInfo, ObjectNotFoundError
from vault_worlds import S3Server, s3_server

TOOLS = Path(sys.executable).parent
KEPT = Path.home() / ".cache" / "holdfast-benchmarks" / "gc-objects"
OBJECT_BYTES = 1000
WRITTEN = datetime(2026, 1, 1, tzinfo=timezone.utc)
PUT_JOBS = 16
LATE_SECONDS = 0.02


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=KEPT, help="folder for the repositories and the server")
    parser.add_argument("--counts", type=int, nargs=2, default=[100_000, 1_000_000], help="of simulated objects")
    parser.add_argument("--real", type=int, default=100_000, help="objects on the server")
    parser.add_argument("--rounds", type=int, default=3, help="of the listing")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = reducible(parser, counts=[10_000, 100_000], real=20_000, rounds=1)
    if options.child:
        print(json.dumps(simulated(options.work / f"listed-{options.child}", options.child)))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    figures = {}
    for count in options.counts:
        make_project(options.work / f"listed-{count}", "s3://bucket/listed", count)
        command = [sys.executable, __file__, "--work", str(options.work), "--child", str(count)]
        figures[str(count)] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    few, many = figures.values()
    growth = {name: round(many[name] / few[name], 2) for name in ("seconds", "peak_bytes")}
    with s3_server(options.work / "server") as server:
        real = measured_on_server(server, options.work / f"real-{options.real}", options.real)
        listing = listed_late(server, real.pop("url"), options.rounds)
    whole = options.counts == [100_000, 1_000_000]
    goals = {
        "1,000,000 simulated objects: seconds": judge(many["seconds"] if whole else None, "≤", 60),
        "1,000,000 simulated objects: peak memory, GB": judge(
            round(many["peak_bytes"] / 1e9, 2) if whole else None, "≤", 2
        ),
        "ten times the objects: times the seconds": judge(growth["seconds"], "≤", 12),
        "ten times the objects: times the memory": judge(growth["peak_bytes"], "≤", 10),
    }
    result = {
        "what": "plans over the objects of a remote: seconds and peak memory; seconds of a listing alone",
        "machine": machine(),
        "versions": versions("dvc", "obstore"),
        "measured": {
            **{f"plan of {count} simulated objects": quantity([one["seconds"]], "s") for count, one in figures.items()},
            f"holdfast gc plan, {real['objects']} objects on S3": quantity([real["seconds"]], "s"),
            f"listing of {real['objects']} objects, answers 20 ms late": listing,
        },
        "simulated": figures,
        "ten_times_the_objects": growth,
        "s3": real,
        "goals": goals,
    }
    write_results("gc_objects", result, options)
    ratio = listing["peers"]["page after page"]["ratio"]["median"]
    print(f"listing by folders at the same time: {listing['median']} s, {ratio} of what pages one by one take")
    print_goals(goals)


def listed_late(server: S3Server, url: str, rounds: int) -> dict[str, Any]:
    """Seconds of the listing of a remote whose answers come late, the old way beside it, in turn."""
    from holdfast.executor.local import LocalExecutor
    from holdfast.gc.remote import list_remote
    from holdfast.gc.world import FOLDERS, Remote
    from proxy import proxy  # of the tests, which are found once vault_worlds is imported

    taken: dict[str, list[float]] = {"folders": [], "pages": []}
    with proxy(server.port) as link:
        link.latency_seconds = LATE_SECONDS
        store = open_store(url, server.options(link.endpoint))
        for _ in range(1 + rounds):  # the first is not counted: it connects
            begin = time.perf_counter()
            found = [entry.path for entry in list_remote(Remote("far", store), LocalExecutor(FOLDERS))]
            taken["folders"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            pages = [entry.path for entry in list_remote(Remote("far", store), LocalExecutor(1))]  # page after page
            taken["pages"].append(time.perf_counter() - begin)
            assert pages == found
    return quantity(taken["folders"][1:], "s", {"page after page": taken["pages"][1:]})


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

    def __post_init__(self) -> None:
        digests = sorted(bytes.fromhex(oid_of(number)) for number in range(self.count))
        # in one piece: as a list of texts they would take more memory than the listing that is measured
        self.digests = b"".join(digests)
        self.starts = [*(bisect_left(digests, bytes([first])) for first in range(256)), self.count]

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:  # noqa: ARG002 - the protocol's
        """All objects in the order of their keys, as a bucket lists them."""
        if prefix.startswith("files/md5"):
            folder = prefix.removeprefix("files/md5").removeprefix("/")
            start, end = (int(folder, 16), int(folder, 16) + 1) if folder else (0, 256)
            for number in range(self.starts[start], self.starts[end]):
                oid = self.digests[16 * number : 16 * number + 16].hex()
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
    kept = sum(total.objects for total in plan.totals if total.kept)
    assert (kept, len(plan.removed)) == (count // 2, count - count // 2)
    return {
        "seconds": round(end - begin, 2),
        "of_which_writing": round(end - made, 2),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "before_bytes": before,
        "plan_bytes": len(text.encode()),
    }


def measured_on_server(server: S3Server, root: Path, count: int) -> dict[str, Any]:
    """The whole command over real objects, and where these are."""
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
        "url": url,
        "objects": count,
        "seconds": round(seconds, 2),
        "peak_bytes": usage.ru_maxrss * 1024,
        "seconds_to_put_them": round(put, 1),
    }


if __name__ == "__main__":
    main()
