"""The catalogue against a real bucket and real DVC remotes: what is wrong there, and what comes from there."""

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from blake3 import blake3

from holdfast.data.catalogue import Catalogue, Source
from holdfast.data.catalogue_reading import read_catalogue
from holdfast.data.sources_bytes import checksums_of, digests_of
from holdfast.data.sources_coverage import cover, draw_coverage, share_text, total
from holdfast.data.sources_pull import list_source, pull_source
from holdfast.data.sources_survey import survey
from holdfast.errors import IntegrityError
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import InvalidKeyError, ObjectNotFoundError, ObjectStore
from proxy import Fault, proxy
from servers import S3Server
from test_data_sources_verify import Entries, write_catalogue
from worlds import TOOLS, World, environment, make_repository

FULL = {"url": "https://example.org", "licence": "MIT", "version": "1", "updates": "never"}


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


@pytest.fixture
def world(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return make_repository(tmp_path)


@pytest.fixture
def store(s3_server: S3Server, s3_folder: str) -> ObjectStore:
    return open_store(s3_folder, s3_server.options())


def entry(name: str, domain: str = "climate", **more: object) -> dict[str, object]:
    return {"name": name, **FULL, "url": f"https://example.org/{name}", "prefix": f"{domain}/{name}/", **more}


def plant(world: World, store: ObjectStore) -> dict[str, str]:
    """A bucket and a catalogue with each fault once, or twice; the source, or the place, of each finding."""

    def put(key: str, data: bytes = b"data") -> str:
        store.put(key, data)
        return md5(data)

    good = put("climate/good/a.nc")
    put("climate/good-folder/x/a", b"a")
    put("climate/good-folder/b", b"b")
    make_folder(world)
    world.dvc("add", "--quiet", "folder")
    # DVC's own opinion of the folder
    oid = (world.root / "folder.dvc").read_text().split("md5: ")[1].split()[0]
    entries: Entries = {
        "climate": [
            entry("good", checksum=good, size=4, files=1),
            entry("good-folder", checksum=f"md5:{oid}", size=2, files=2),
            entry("good-sha256", checksum=f"sha256:{hashlib.sha256(b'data').hexdigest()}"),
            entry("good-blake3", checksum=f"blake3:{blake3(b'data').hexdigest()}"),
            entry("tracked", dvc="folder"),
            entry("not-here", checksum=good),
            entry("without-a-byte", checksum=md5(b"")),
            entry("unknown"),
            entry("smaller", checksum=md5(b"smaller"), size=8),
            entry("fewer", checksum=md5(b"fewer"), files=2),
            entry("damaged", checksum=md5(b"damaged")),
            entry("several", checksum=f"sha256:{'0' * 64}"),
            entry("unpushed", dvc="unpushed.bin"),
        ],
        "biology": [],
    }
    for name in ("good-sha256", "good-blake3", "unknown"):
        put(f"climate/{name}/a")
    put("climate/tracked/x/a", b"a")
    put("climate/tracked/b", b"b")
    put("climate/without-a-byte/a", b"")
    put("climate/smaller/a", b"smaller")
    put("climate/fewer/a", b"fewer")
    put("climate/damaged/a", b"dAmaged")
    put("climate/several/a", b"1")
    put("climate/several/b", b"2")
    put("climate/unpushed/a", b"not pushed")
    # what belongs to nobody, and what need not
    put("climate/noise/deep/down/a")
    put("climate/noise/deep/down/b")
    put("climate/README")
    put("biology/new/a")
    put("stray/a")
    put("vault/packs/aa/bb")
    put("files/md5/aa/bb")
    put("climate/cache/a")
    (world.root / "unpushed.bin").write_bytes(b"not pushed")
    world.dvc("add", "--quiet", "unpushed.bin")
    write_catalogue(world.root, entries, bucket=store.url, ignore=["files", "vault", "climate/cache"])
    return {
        "climate/not-here": "absent", "climate/without-a-byte": "empty", "climate/unknown": "unverifiable",
        "climate/smaller": "size-differs", "climate/fewer": "size-differs", "climate/unpushed": "not-pushed",
        f"{store.url}/climate/noise/": "orphan", f"{store.url}/climate/README": "orphan",
        f"{store.url}/biology/new/": "orphan", f"{store.url}/stray/": "orphan",
    }  # fmt: skip


def make_folder(world: World) -> None:
    world.write("folder/x/a", "a")
    world.write("folder/b", "b")


def test_what_is_wrong_in_the_bucket(world: World, store: ObjectStore, s3_server: S3Server, s3_folder: str) -> None:
    planted = plant(world, store)
    world.dvc("remote", "add", "-d", "store", f"{s3_folder}/vault-of-dvc")
    world.dvc("remote", "modify", "store", "endpointurl", s3_server.endpoint)
    world.dvc("push", "--quiet", "folder.dvc")
    planted[f"{store.url}/vault-of-dvc/"] = "orphan"

    def found(*arguments: str, code: int) -> dict[str, str]:
        payload = json.loads(world.holdfast("sources", "verify", "--remote", "--json", *arguments, code=code).stdout)
        findings = payload["findings"]
        names = [finding["source"] or finding["where"] for finding in findings]
        assert len(names) == len(set(names)), findings
        assert all(finding["hint"] for finding in findings)
        return dict(zip(names, (finding["kind"] for finding in findings), strict=True))

    assert found(code=13) == planted
    wrong = {"climate/damaged": "checksum-differs", "climate/several": "checksum-differs"}
    assert found("--read", code=13) == planted | wrong
    # of two sources alone; of the bucket nothing but what is theirs
    assert found("climate/unknown", "good", code=1) == {"climate/unknown": "unverifiable"}
    assert found("good", "good-folder", "good-sha256", "good-blake3", "tracked", "--read", code=0) == {}
    text = world.holdfast("sources", "verify", "--remote", code=13)
    assert "12 of 13 prefixes hold" in text.stdout
    assert "holdfast: sources/climate.yaml:" in text.stderr


def test_no_bucket_and_no_keys(world: World, s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_catalogue(world.root, {"climate": [entry("a")]})
    assert "the catalogue names no bucket" in world.holdfast("sources", "verify", "--remote", code=2).stderr
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    done = world.holdfast("sources", "verify", "--remote", "--bucket", s3_folder, code=1)
    assert s3_folder in done.stderr
    assert "ada-secret" not in done.stderr


def test_a_look_costs_a_request_for_each_thousand(
    world: World, store: ObjectStore, s3_server: S3Server, s3_folder: str
) -> None:
    for number in range(30):
        store.put(f"climate/s{number}/a", b"x")
    store.put("vault/x", b"x")
    write_catalogue(world.root, {"climate": [entry(f"s{number}") for number in range(30)]})
    with proxy(s3_server.port) as link:
        seen = survey(open_store(s3_folder, s3_server.options(link.endpoint)), read_catalogue(world.root))
        assert link.count() == 2  # the folders at the top, and what is below climate/
    assert len(seen.held) == seen.objects == 30


def test_folders_made_by_hand_are_no_objects(store: ObjectStore, s3_server: S3Server, s3_folder: str) -> None:
    bucket, _, folder = s3_folder.removeprefix("s3://").partition("/")
    client = s3_server.client()
    for key in ("climate/", "climate/era5/", "climate/era5/raw/"):
        client.put_object(Bucket=bucket, Key=f"{folder}/{key}", Body=b"")
    store.put("climate/era5/raw/a", b"x")
    assert [info.key for info in list_source(store, "climate/era5")] == ["climate/era5/raw/a"]
    sources = (Source("era5", "climate", 1, prefix="climate/era5/raw"),)
    seen = survey(store, Catalogue(Path("/nowhere"), domains=("climate",), sources=sources))
    assert (seen.orphans, seen.objects, seen.held["climate/era5/raw"].files) == ((), 1, 1)


def test_pull_and_its_digests(world: World, store: ObjectStore) -> None:
    plant(world, store)
    payload = json.loads(world.holdfast("sources", "pull", "good", "good-folder", "good-sha256", "--json").stdout)
    assert [(one["source"], one["files"], one["received"], one["verified"]) for one in payload["pulled"]] == [
        ("climate/good", 1, 4, True), ("climate/good-folder", 2, 2, True), ("climate/good-sha256", 1, 4, True),
    ]  # fmt: skip
    assert (world.root / "data/climate/good-folder/x/a").read_bytes() == b"a"
    # again: nothing comes; what was changed here comes again, even with its time
    assert "of which 0 B came now" in world.holdfast("sources", "pull", "good", "good-folder").stdout
    path = world.root / "data/climate/good/a.nc"
    times = path.stat()
    path.write_bytes(b"DATA")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "of which 4 B came now" in world.holdfast("sources", "pull", "good").stdout
    assert path.read_bytes() == b"data"

    # damage is refused, what is nowhere is told, the rest is brought
    done = world.holdfast("sources", "pull", "damaged", code=13)
    assert md5(b"dAmaged") in done.stderr
    assert md5(b"damaged") in done.stderr
    done = world.holdfast("sources", "pull", "good", "not-here", "-o", "elsewhere", code=3)
    assert "there is nothing at" in done.stdout
    assert (world.root / "elsewhere/climate/good/a.nc").read_bytes() == b"data"
    assert "there is nothing at" in world.holdfast("sources", "pull", "not-here", code=1).stderr
    plan = json.loads(world.holdfast("sources", "pull", "climate", "-n", "--json").stdout)["sources"]
    assert {one["source"]: one["from"] for one in plan}["climate/tracked"] == "DVC"
    assert not list((world.root / "data").glob("**/*.part"))


def test_record_writes_what_is_missing(world: World, store: ObjectStore) -> None:
    plant(world, store)
    before = (world.root / "sources/climate.yaml").read_text()
    text = world.holdfast("sources", "pull", "unknown").stdout
    assert "no checksum" in text
    assert (world.root / "sources/climate.yaml").read_text() == before
    world.holdfast("sources", "pull", "unknown", "good", "good-sha256", "smaller", "--record")
    by_name = {source.name: source for source in read_catalogue(world.root).sources}
    assert (by_name["unknown"].checksum, by_name["unknown"].size, by_name["unknown"].files) == (md5(b"data"), 4, 1)
    # what an entry says stays, right or wrong
    assert (by_name["smaller"].size, by_name["smaller"].files) == (8, 1)
    assert by_name["good-sha256"].checksum.startswith("sha256:")
    assert by_name["good-sha256"].size == 4


def test_what_dvc_tracks_comes_through_dvc(
    world: World, store: ObjectStore, s3_folder: str, s3_server: S3Server
) -> None:
    make_folder(world)
    world.write("big/part/a", "part of a folder")
    world.dvc("add", "--quiet", "folder", "big")
    world.dvc("remote", "add", "-d", "store", f"{s3_folder}/dvc")
    world.dvc("remote", "modify", "store", "endpointurl", s3_server.endpoint)
    world.dvc("push", "--quiet")
    store.put("climate/tracked/stale", b"what lies at the prefix is of last year")
    write_catalogue(
        world.root,
        {"climate": [entry("tracked", dvc="folder"), {"name": "part", "dvc": "big/part", **FULL}]},
        bucket=store.url,
    )
    world.commit()
    for place in (".dvc/cache", "folder", "big"):
        subprocess.run(["chmod", "-R", "+w", place], cwd=world.root, check=True)
        subprocess.run(["rm", "-r", place], cwd=world.root, check=True)
    payload = json.loads(world.holdfast("sources", "pull", "climate", "--json").stdout)
    assert [(one["source"], one["files"], one["verified"]) for one in payload["pulled"]] == [
        ("climate/tracked", 2, True), ("climate/part", 1, True),
    ]  # fmt: skip
    assert (world.root / "folder/x/a").read_text() == "a"
    assert (world.root / "big/part/a").read_text() == "part of a folder"
    assert world.dvc("status") == "Data and pipelines are up to date."
    # from the bucket, on wish: that is not what DVC has
    done = world.holdfast("sources", "pull", "tracked", "--from-bucket", code=13)
    assert "is expected" in done.stderr


def test_an_interrupted_pull_goes_on(world: World, store: ObjectStore, s3_server: S3Server) -> None:
    """Killed in the middle of a large object; the second pull fetches the rest alone."""
    data = os.urandom(40 * 2**20)
    store.put("climate/large/a.bin", data)
    write_catalogue(world.root, {"climate": [entry("large", checksum=md5(data))]}, bucket=store.url)
    command = [str(TOOLS / "holdfast"), "sources", "pull", "large", "--jobs", "1", "--json"]
    folder = world.root / "data/climate/large"
    with proxy(s3_server.port) as link:
        link.megabytes_per_second = 20
        variables = environment(world.home) | {"AWS_ENDPOINT_URL": link.endpoint}
        process = subprocess.Popen(command, cwd=world.root, env=variables, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not any(part.stat().st_size >= 8 * 2**20 for part in folder.glob(".*.part")) and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "a.bin").exists()
    (part,) = folder.glob(".*.part")
    begun = part.stat().st_size
    assert 0 < begun < len(data)
    payload = json.loads(
        subprocess.run(command, cwd=world.root, env=environment(world.home), check=True, stdout=subprocess.PIPE).stdout
    )
    assert payload["pulled"][0]["received"] == len(data) - begun
    assert (folder / "a.bin").read_bytes() == data
    assert [path.name for path in folder.iterdir()] == ["a.bin"]


def test_a_part_of_another_state_is_not_gone_on_with(
    tmp_path: Path, store: ObjectStore, s3_server: S3Server, s3_folder: str
) -> None:
    source = Source("a", "climate", prefix="climate/a")
    new = b"new" * 5_000_000
    store.put("climate/a/x", b"old" * 5_000_000)
    with proxy(s3_server.port) as link:
        slow = open_store(s3_folder, s3_server.options(link.endpoint))
        link.inject(
            Fault("status", status=403, code="AccessDenied", method="GET", path="climate/a/x$", skip=1, times=99)
        )
        with pytest.raises(Exception, match="climate/a/x"):
            pull_source(slow, source, tmp_path, jobs=1)
    (part,) = tmp_path.glob(".x.*.part")
    assert 0 < part.stat().st_size < len(new)
    store.put("climate/a/x", new)
    done = pull_source(store, source, tmp_path, md5(new))
    assert done.received == len(new)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_names_that_no_folder_can_hold(tmp_path: Path) -> None:
    # a store of memory takes what a bucket takes
    store = open_store("memory://")
    source = Source("a", "climate", prefix="climate/a")
    with pytest.raises(ObjectNotFoundError, match="there is nothing at"):
        pull_source(store, source, tmp_path)
    store.put("climate/a/x", b"1")
    store.put("climate/a/x/y", b"2")
    with pytest.raises(InvalidKeyError, match="others below it"):
        pull_source(store, source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_expected_bytes(tmp_path: Path) -> None:
    store = open_store("memory://")
    store.put("climate/a/x", b"1" * 20_000_000)
    source = Source("a", "climate", prefix="climate/a")
    for expected in (md5(b"1" * 20_000_000), f"blake3:{blake3(b'1' * 20_000_000).hexdigest()}"):
        assert pull_source(store, source, tmp_path, expected).verified
    with pytest.raises(IntegrityError, match="is expected"):
        pull_source(store, source, tmp_path, md5(b"2"))
    found = checksums_of({"x": digests_of([b"1"], "sha256:"), "y": digests_of([b"1"], "")})
    assert set(found) == {"md5.dir"}  # of two files there is no md5 of one


def test_coverage(world: World, store: ObjectStore, tmp_path: Path) -> None:
    plant(world, store)
    payload = json.loads(world.holdfast("sources", "coverage", "--remote", "--json", "--plot", "c.png").stdout)
    climate, biology = payload["domains"]
    assert climate["sources"] == 13
    assert climate["counts"] == {
        "url": 13, "licence": 13, "version": 13, "updates": 13, "prefix": 13, "checksum": 12, "tracked": 2, "present": 12,
    }  # fmt: skip
    assert (biology["sources"], biology["size"]) == (0, 0)
    assert climate["size"] == sum(
        info.size
        for info in store.list_objects("climate")
        if "noise" not in info.key and "README" not in info.key and "cache" not in info.key
    )
    assert (world.root / "c.png").read_bytes().startswith(b"\x89PNG")
    local = world.holdfast("sources", "coverage", "--md").stdout
    assert "| climate | 13 | 100 % | 100 % | 100 % | 100 % | 100 % | 92 % | 15 % |" in local
    parts = cover(read_catalogue(world.root), {})
    assert total(parts).sources == 13
    draw_coverage(tmp_path / "a.png", parts)
    draw_coverage(tmp_path / "b.png", parts)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_nearly_all_is_not_all() -> None:
    sources = tuple(Source(str(number), "climate", number, url="x" if number else "") for number in range(1000))
    (part,) = cover(Catalogue(Path("/nowhere"), domains=("climate",), sources=sources), {})
    assert share_text(part, "url") == "99 %"
    assert share_text(part, "licence") == "0 %"
