"""A remote's listing: few objects by pages, many by DVC's folders at the same time, here and on a cluster; one result."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from clusters import cluster
from faults import FaultyStore, Rule
from gc_world import NO_AGE, add_remote
from holdfast.cli.naming import open_objects
from holdfast.executor.local import LocalExecutor
from holdfast.gc.remote import PAGE, list_remote
from holdfast.gc.world import FOLDERS, Remote
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectInfo, ObjectStore, UnreachableError
from holdfast.repo.cache import CacheObject
from proxy import proxy
from servers import S3Server
from worlds import make_repository

# in three folders: the first page of a listing comes no further, as of a remote that has some eighty pages
NARROW = [f"{number % 3:02x}{hashlib.md5(b'%d' % number).hexdigest()[2:]}" for number in range(PAGE + 100)]
WIDE = [hashlib.md5(b"%d" % number).hexdigest() for number in range(PAGE + 100)]
LEGACY = [f"{first}{'1' * 30}" for first in ("00", "7f", "fe")]
FOREIGN = ["files/md5/00/short", "files/md5/zz/" + "0" * 30, "models/m.pt", "00/" + "g" * 30]


def paths_of(oids: Iterable[str]) -> list[str]:
    return [f"files/md5/{oid[:2]}/{oid[2:]}" for oid in oids]


def fill(store: ObjectStore, keys: Iterable[str]) -> dict[str, int]:
    """Put an object under each key; their sizes."""
    sizes = {key: 1 + number % 7 for number, key in enumerate(sorted(keys))}

    def put(some: list[str]) -> None:
        for key in some:
            store.put(key, b"x" * sizes[key])

    # a thread for each folder: the server makes a folder's first object alone
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, [list(some) for _, some in groupby(sizes, key=lambda key: key.rpartition("/")[0])]))
    return sizes


def everything(oids: Iterable[str]) -> list[str]:
    return [*paths_of(oids), *(f"{oid[:2]}/{oid[2:]}" for oid in LEGACY), *FOREIGN]


def shown(listed: list[CacheObject]) -> dict[str, int]:
    """Paths and sizes, once it is seen that paths are in order, each once, and say what the rest says."""
    assert [entry.path for entry in listed] == sorted({entry.path for entry in listed})
    for entry in listed:
        start = "files/md5/" if entry.hash_name == "md5" else ""
        assert entry.path == f"{start}{entry.oid[:2]}/{entry.oid[2:]}"
        assert entry.stamp
        assert entry.changed > 0
    return {entry.path: entry.size for entry in listed}


def listed(store: FaultyStore) -> list[str]:
    """The folders that were listed."""
    return sorted(key for verb, key in store.calls if verb == "list_objects")


@pytest.fixture(scope="module")
def narrow() -> ObjectStore:
    """A store in memory with many objects in few folders, and what is no object of DVC's."""
    store = open_objects("memory://")
    fill(store, everything(NARROW))
    return store


@pytest.mark.parametrize("jobs", [6, FOLDERS])
def test_of_many_objects_folders_are_listed_and_all_are_found(narrow: ObjectStore, jobs: int) -> None:
    store = FaultyStore(narrow)
    found = shown(list_remote(Remote("far", store), LocalExecutor(jobs)))
    assert sorted(found) == sorted([*paths_of(NARROW), *(f"{oid[:2]}/{oid[2:]}" for oid in LEGACY)])
    folders = [f"files/md5/{number:02x}" for number in range(256)]
    assert listed(store) == sorted(["files/md5", *folders, "00", "7f", "fe"])


def test_who_can_list_few_folders_at_a_time_lists_pages(narrow: ObjectStore) -> None:
    """256 requests one after the other, or nearly so, would take longer than the pages."""
    store = FaultyStore(narrow)
    found = shown(list_remote(Remote("far", store), LocalExecutor(5)))
    assert sorted(found) == sorted([*paths_of(NARROW), *(f"{oid[:2]}/{oid[2:]}" for oid in LEGACY)])
    assert listed(store) == ["00", "7f", "fe", "files/md5"]


@pytest.mark.parametrize("oids", [[], NARROW[: PAGE - 1], WIDE], ids=["nothing", "one page", "two pages"])
def test_few_objects_are_listed_page_after_page(oids: list[str]) -> None:
    store = FaultyStore(open_objects("memory://"))
    fill(store, paths_of(oids))
    found = shown(list_remote(Remote("far", store), LocalExecutor(FOLDERS)))
    assert (sorted(found), listed(store)) == (sorted(paths_of(oids)), ["files/md5"])


def test_a_folder_of_this_machine_is_listed_by_itself(tmp_path: Path) -> None:
    for path in paths_of(NARROW):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    store = FaultyStore(open_objects(str(tmp_path)))
    found = shown(list_remote(Remote("near", store, tmp_path), LocalExecutor(FOLDERS)))
    assert (sorted(found), listed(store)) == (sorted(paths_of(NARROW)), ["files/md5"])


class Repeating(FaultyStore):
    """Tells the last object of every folder again, as a page does that is asked for twice, with another size."""

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        info = None
        for info in super().list_objects(prefix, after=after):
            yield info
        if info is not None:
            yield replace(info, size=1000)


def test_what_is_told_twice_counts_once(narrow: ObjectStore) -> None:
    found = shown(list_remote(Remote("far", Repeating(narrow)), LocalExecutor(FOLDERS)))
    # of the folder 00 the last is none of DVC's
    lasts = [max(path for path in paths_of(NARROW) if path.startswith(f"files/md5/0{number}")) for number in (1, 2)]
    lasts += [f"{oid[:2]}/{oid[2:]}" for oid in LEGACY if oid[:2] != "00"]
    assert len(found) == len(NARROW) + len(LEGACY)
    assert {path for path, size in found.items() if size == 1000} == set(lasts)


@pytest.mark.parametrize("number", [1, 2, 129, 257, 260])
def test_a_folder_that_cannot_be_listed_fails_the_whole_listing(narrow: ObjectStore, number: int) -> None:
    store = FaultyStore(narrow, [Rule("refuse", frozenset({"list_objects"}), at=number)])
    with pytest.raises(UnreachableError):
        list_remote(Remote("far", store), LocalExecutor(8))


# --- on a real server, and on a cluster ---------------------------------------------------------------------------


def test_plans_are_the_same_however_a_bucket_is_listed(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command: threads, then a cluster whose workers open the bucket for themselves."""
    url = s3_server.make_folder()
    sizes = fill(open_store(url, s3_server.options()), everything(NARROW))
    world = make_repository(tmp_path)
    add_remote(world, "far", url, default=True)
    world.write("holdfast.yaml", NO_AGE)
    world.track("data.csv", "tracked")
    world.commit()

    def plan(*options: str) -> tuple[dict[str, Any], str]:
        told = world.holdfast("gc", "plan", "--scope", "remote", *options, "-o", "plan.json").stderr
        found: dict[str, Any] = json.loads((world.folder / "plan.json").read_text())
        assert {entry["path"]: entry["size"] for entry in found["objects"]} == {
            path: size for path, size in sizes.items() if path not in FOREIGN
        }
        for entry in found["objects"]:
            del entry["age_days"]
        return {name: found[name] for name in ("objects", "totals", "inputs", "request", "doubts", "notes")}, told

    with proxy(s3_server.port) as link, cluster(tmp_path / "cluster", workers=1) as workers:
        for name, value in {**s3_server.environment(), "AWS_ENDPOINT_URL": link.endpoint}.items():
            monkeypatch.setenv(name, value)
        here, told = plan()
        asked = link.count("GET", "list-type")
        link.forget()
        there, told_there = plan("--scheduler", workers.address)
        assert there == here
        assert (told, told_there.startswith("Working on ")) == ("", True)
        # a page, the folders of DVC 3, what lies at the top, the folders of DVC 2, what other clones said; the cluster
        # asks no more
        assert asked == 1 + 256 + 1 + len(LEGACY) + 1
        assert link.count("GET", "list-type") == asked
