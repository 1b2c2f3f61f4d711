"""`holdfast remote du`, `ls` and `cost`: what lies where, what wrote it, what it costs."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectInfo, ObjectStore
from holdfast.objectstore.usage import Prices, kind_of, measure_usage, totals
from holdfast.objectstore.usage_listing import list_folder
from proxy import proxy
from servers import ACCESS_KEY, SECRET_KEY, S3Server
from worlds import World, make_repository

NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)
OID = "0123456789abcdef" * 2
OBJECTS = {
    f"files/md5/{OID[:2]}/{OID[2:]}": 1000,
    f"files/md5/ff/{OID[2:]}.dir": 24,
    f"{OID[:2]}/{OID[2:]}": 500,
    f"files/md5/runs/ab/{OID}/{OID}": 70,
    "vault/packs/00/abc": 4000,
    "vault/index/s": 300,
    "climate/era5/2020/a.nc": 9000,
    "climate/era5/2021/b.nc": 6000,
    "climate/cmip/c.nc": 5,
    "README.md": 11,
}


def infos() -> list[ObjectInfo]:
    return [ObjectInfo(key, size, "", NOW - timedelta(days=size)) for key, size in OBJECTS.items()]


def test_what_wrote_an_object() -> None:
    assert {key: kind_of(key) for key in OBJECTS} == {
        key: "dvc" if "/" in key and not key.startswith(("vault", "climate")) and "runs" not in key else
        "run cache" if "runs" in key else "vault" if key.startswith("vault") else "data"
        for key in OBJECTS
    }  # fmt: skip
    assert kind_of("releases/v1/model") == "releases"
    assert kind_of("vault") == "data"
    assert kind_of(f"zz/{OID[2:]}") == "data"


def test_by_prefix() -> None:
    found = {(usage.prefix, usage.kind): (usage.objects, usage.nbytes) for usage in measure_usage(infos())}
    assert found == {
        ("climate/", "data"): (3, 15005),
        ("vault/", "vault"): (2, 4300),
        ("files/md5/", "dvc"): (2, 1024),
        ("", "dvc"): (1, 500),
        ("files/md5/runs/", "run cache"): (1, 70),
        ("", "data"): (1, 11),
    }
    below = [info for info in infos() if info.key.startswith("climate/")]
    assert [(usage.prefix, usage.nbytes) for usage in measure_usage(below, base="climate")] == [
        ("climate/era5/", 15000),
        ("climate/cmip/", 5),
    ]
    assert [usage.prefix for usage in measure_usage(below, depth=3)] == [
        "climate/era5/2020/",
        "climate/era5/2021/",
        "climate/cmip/",
    ]


def test_totals_are_the_sum() -> None:
    kinds = totals(measure_usage(infos()))
    assert list(kinds) == ["data", "vault", "dvc", "run cache"]
    assert sum(usage.nbytes for usage in kinds.values()) == sum(OBJECTS.values())
    assert kinds["dvc"].objects == 3
    assert kinds["data"].newest == NOW - timedelta(days=5)
    assert measure_usage([]) == []


def test_prices() -> None:
    assert Prices().month(2_000_000_000_000) == pytest.approx(30.0)
    assert Prices().requests(1_000_000, 2_000_000, 10**12) == pytest.approx(4.50 + 0.72)
    assert Prices(gb_out=0.09).requests(0, 0, 10**10) == pytest.approx(0.9)


def filled(store: ObjectStore) -> ObjectStore:
    for key, size in OBJECTS.items():
        store.put(key, bytes(size))
    return store


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_folder_is_listed_alone(kind: str, s3_server: S3Server, s3_folder: str, tmp_path: Path) -> None:
    with proxy(s3_server.port) as link:
        where = str(tmp_path / "far") if kind == "folder" else s3_folder
        store = filled(open_store(where, s3_server.options(link.endpoint)))
        link.forget()
        folders, objects = list_folder(store)
        assert (folders, [info.key for info in objects]) == (["01", "climate", "files", "vault"], ["README.md"])
        folders, objects = list_folder(store, "climate")
        assert (folders, objects) == (["cmip", "era5"], [])
        folders, objects = list_folder(store, "climate/era5/2020/")
        assert (folders, [(info.key, info.size) for info in objects]) == ([], [("climate/era5/2020/a.nc", 9000)])
        assert list_folder(store, "none") == ([], [])
        if kind == "bucket":
            assert link.count("GET") == 4, "nothing below is listed"


@pytest.fixture
def world(tmp_path: Path, s3_server: S3Server, s3_folder: str) -> World:
    world = make_repository(tmp_path)
    filled(open_store(s3_folder, s3_server.options()))
    for option, value in (
        ("endpointurl", s3_server.endpoint),
        ("access_key_id", ACCESS_KEY),
        ("secret_access_key", SECRET_KEY),
    ):
        if option == "endpointurl":
            world.dvc("remote", "add", "--default", "far", s3_folder)
        world.dvc("remote", "modify", "--local", "far", option, value)
    return world


def test_as_a_user_sees_it(world: World, s3_folder: str) -> None:
    text = world.holdfast("remote", "du").stdout
    assert text.splitlines()[0] == f"far ({s3_folder}): 20.9 kB in 10 objects, $0.00 a month."
    assert [line.split()[:2] for line in text.splitlines()[4:6]] == [["climate/", "data"], ["vault/", "vault"]]
    payload = json.loads(world.holdfast("remote", "du", "far", "climate", "--json").stdout)
    assert [usage["prefix"] for usage in payload["usages"]] == ["climate/era5/", "climate/cmip/"]
    assert payload["nbytes"] == 15005
    text = world.holdfast("remote", "ls").stdout
    assert [line.split()[0] for line in text.splitlines()[3:8]] == ["01/", "climate/", "files/", "vault/", "README.md"]
    payload = json.loads(world.holdfast("remote", "ls", "far", "climate", "-R", "--limit", "2", "--json").stdout)
    assert len(payload["objects"]) == 2
    assert payload["more"] is True
    assert "Nothing lies below far" in world.holdfast("remote", "ls", "far", "none").stdout
    payload = json.loads(world.holdfast("remote", "cost", "--price", "1000", "--json").stdout)
    assert payload["dollars_a_month"] == pytest.approx(20910 / 1e9 * 1000)
    assert payload["objects"] == 10
    assert [kind["kind"] for kind in payload["kinds"]] == ["data", "vault", "dvc", "run cache"]
    assert payload["dollars_to_write"] == pytest.approx(10 * 4.5e-6)
    assert payload["dollars_to_read"] == pytest.approx(20 * 0.36e-6)
