"""Streams of what DVC tracks, of catalogued sources and of URLs: which samples come, from where, and what goes wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import holdfast.data
from holdfast.data.stream_files import CorruptSampleError, MissingSampleError
from holdfast.errors import HoldfastError, IntegrityError, NotARepositoryError, UsageError
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, StoreError
from proxy import Fault, proxy
from servers import SECRET_KEY, S3Server
from stream_world import Streamed, each_once, make_streamed, many, md5, object_key, push, track_folder, write_remote
from test_data_sources_verify import write_catalogue
from worlds import World, environment, make_repository

QUIET = {"cache_bytes": 0}


def named(stream: Any) -> list[tuple[str, str]]:
    return [(name, md5(data)) for name, data in stream]


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Work in a world's project, as a program there would."""

    def act(world: World) -> World:
        for name, value in environment(world.home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(world.folder)
        return world

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return act


@pytest.fixture
def streamed(tmp_path: Path, s3_server: S3Server, enter: Any) -> Streamed:
    made = make_streamed(tmp_path, s3_server, many(40))
    enter(made.world)
    return made


def test_what_dvc_itself_added_and_pushed(tmp_path: Path, s3_server: S3Server, enter: Any) -> None:
    world = enter(make_repository(tmp_path))
    url = s3_server.make_folder()
    write_remote(world, url, s3_server.endpoint)
    files = {"a.txt": b"one\r\n", "sub/b.bin": bytes(range(256)), "sub/empty": b"", "sub/größe.txt": b"x" * 70_000}
    for name, data in files.items():
        world.write(f"data/{name}", data)
    world.write("single.bin", b"alone")
    world.dvc("add", "-q", "data", "single.bin")
    world.dvc("push", "-q")
    world.commit("first")
    world.write("data/a.txt", b"two")
    world.dvc("add", "-q", "data")
    world.dvc("push", "-q")
    shutil.rmtree(world.cache)
    shutil.rmtree(world.root / "data")

    now = {f"data/{name}": data for name, data in {**files, "a.txt": b"two"}.items()}
    each_once(named(holdfast.data.stream("data")), now)
    assert dict(holdfast.data.stream("HEAD:data"))["data/a.txt"] == b"one\r\n"
    each_once(named(holdfast.data.stream(world.root / "data" / "sub")), {n: d for n, d in now.items() if "/sub/" in n})
    assert dict(holdfast.data.stream("data/sub/b.bin")) == {"data/sub/b.bin": bytes(range(256))}
    assert list(holdfast.data.stream("single.bin")) == [("single.bin", b"alone")]
    each_once(
        named(holdfast.data.stream(".", match="*.bin")), {"single.bin": b"alone", "data/sub/b.bin": bytes(range(256))}
    )
    # of two commits a file that did not change comes once, one that did as both
    both = holdfast.data.stream(["data", "HEAD:data"])
    assert sorted(data for name, data in both if name == "data/a.txt") == [b"one\r\n", b"two"]
    assert len(both) == len(files) + 1


def test_a_shallow_clone_streams(streamed: Streamed, tmp_path: Path, enter: Any) -> None:
    streamed.world.commit("another")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{streamed.world.root}", str(clone)], check=True)
    shutil.copy(streamed.world.root / ".dvc/config.local", clone / ".dvc/config.local")
    enter(World(clone, streamed.world.home))
    each_once(named(holdfast.data.stream("data")), streamed.files)
    each_once(named(holdfast.data.stream("HEAD:data")), streamed.files)


def test_the_next_epoch_comes_from_the_cache(tmp_path: Path, s3_server: S3Server, enter: Any) -> None:
    with proxy(s3_server.port) as link:
        streamed = make_streamed(tmp_path, s3_server, many(30), endpoint=link.endpoint)
        enter(streamed.world)
        stream = holdfast.data.stream("data", shuffle=True)
        first = named(stream)
        each_once(first, streamed.files)
        asked = link.count("GET", "files/md5")
        assert asked == len(streamed.files) + 1  # and the listing, each once
        second = named(stream)
        assert link.count("GET", "files/md5") == asked
        assert stream.epoch == 2
        assert first != second
        each_once(second, streamed.files)
        assert stream.bytes_from["cache"] == sum(map(len, streamed.files.values()))
        # another stream of the same project, and then one that keeps nothing
        each_once(named(holdfast.data.stream("data")), streamed.files)
        assert link.count("GET", "files/md5") == asked
        each_once(named(holdfast.data.stream("data", **QUIET)), streamed.files)
        assert link.count("GET", "files/md5") == 2 * asked


def test_dvc_cache_is_read_and_not_trusted(tmp_path: Path, s3_server: S3Server, enter: Any) -> None:
    streamed = make_streamed(tmp_path, s3_server, many(10))
    world = enter(streamed.world)
    track_folder(world, "data", {name.removeprefix("data/"): data for name, data in streamed.files.items()})
    damaged = next(iter(streamed.files))
    oid = md5(streamed.files[damaged])
    path = world.cache / object_key(oid)
    path.chmod(0o644)
    path.write_bytes(b"?" * len(streamed.files[damaged]))
    stream = holdfast.data.stream("data")
    each_once(named(stream), streamed.files)
    assert stream.bytes_from["dvc"] == sum(map(len, streamed.files.values())) - len(streamed.files[damaged])
    assert stream.bytes_from[streamed.store.url] == len(streamed.files[damaged])
    # with all of it here no server is needed
    path.write_bytes(streamed.files[damaged])
    write_remote(world, streamed.store.url, "http://127.0.0.1:1")
    each_once(named(holdfast.data.stream("data")), streamed.files)


def test_a_vault_and_beside_it_a_remote(tmp_path: Path, s3_server: S3Server, enter: Any) -> None:
    streamed = make_streamed(tmp_path, s3_server, many(6))
    world = enter(streamed.world)
    more = {f"{number}.bin": bytes([number]) * 150_000 for number in range(4)}
    for name, data in more.items():
        world.write(f"more/{name}", data)
    world.dvc("add", "-q", "more")
    world.holdfast("vault", "init")
    world.holdfast("push", "more")
    shutil.rmtree(world.cache)
    stream = holdfast.data.stream(["data", "more"])
    each_once(named(stream), {**streamed.files, **{f"more/{name}": data for name, data in more.items()}})
    assert stream.bytes_from[f"{streamed.store.url}/vault"] == 600_000
    assert stream.bytes_from[streamed.store.url] == sum(map(len, streamed.files.values()))
    records = holdfast.data.stream("more", record_bytes=50_000, cache=tmp_path / "other")
    assert [data for _, data in records] == [bytes([number]) * 50_000 for number in range(4) for _ in range(3)]


def test_a_remote_that_is_a_folder(tmp_path: Path, enter: Any) -> None:
    world = enter(make_repository(tmp_path))
    files = many(12)
    track_folder(world, "data", files)
    world.write(".dvc/config", f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n")
    push(world, open_store(str(tmp_path / "store")))
    stream = holdfast.data.stream("data")
    each_once(named(stream), {f"data/{name}": data for name, data in files.items()})
    assert not (world.root / ".dvc/tmp/holdfast/stream").exists()  # a copy of what is here already helps nobody


def test_a_remote_of_another_kind(tmp_path: Path, enter: Any) -> None:
    world = enter(make_repository(tmp_path))
    files = many(3)
    track_folder(world, "data", files)
    world.write(".dvc/config", "[core]\n    remote = store\n['remote \"store\"']\n    url = ssh://host/store\n")
    each_once(named(holdfast.data.stream("data")), {f"data/{name}": data for name, data in files.items()})
    shutil.rmtree(world.cache)
    with pytest.raises(MissingSampleError, match=r"is not in DVC's cache\. .*store.*dvc fetch"):
        holdfast.data.stream("data")


def test_a_project_below_the_top_of_its_repository(tmp_path: Path, s3_server: S3Server, enter: Any) -> None:
    world = make_repository(tmp_path)
    shutil.move(world.root / ".dvc", world.root / "inner/.dvc")
    inner = World(world.root, world.home, "inner")
    track_folder(inner, "inner/sub/data", many(5))
    url = s3_server.make_folder()
    push(inner, open_store(url, s3_server.options()))
    write_remote(inner, url, s3_server.endpoint)
    for name in ("config", "config.local"):
        shutil.move(world.root / ".dvc" / name, inner.folder / ".dvc" / name)
    shutil.rmtree(world.root / ".dvc")
    world.commit()
    enter(World(world.root, world.home, "inner/sub"))  # somebody works in a folder of it
    wanted = {f"sub/data/{name}": data for name, data in many(5).items()}
    for name in ("data", "../sub", ".", "HEAD:./data", "HEAD:inner/sub/data"):
        each_once(named(holdfast.data.stream(name)), wanted)


def make_catalogue(world: World, store: ObjectStore, server: S3Server) -> dict[str, bytes]:
    found = {f"climate/era5/{number}.nc": bytes([number]) * 900 for number in range(5)}
    found |= {"climate/one/file.nc": b"the only one", "biology/cells/a": b"a"}
    for key, data in found.items():
        store.put(key, data)
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    server.client().put_object(Bucket=bucket, Key=f"{prefix}/climate/era5/", Body=b"")  # as a console makes a folder
    full = {"url": "https://example.org", "licence": "MIT", "version": "1", "updates": "never"}
    write_catalogue(
        world.root,
        {
            "climate": [
                {"name": "era5", **full, "prefix": "climate/era5/"},
                {"name": "one", **full, "prefix": "climate/one/", "checksum": f"md5:{md5(b'the only one')}"},
            ],
            "biology": [
                {"name": "cells", **full, "prefix": "biology/cells/"},
                {"name": "tracked", **full, "dvc": "data"},
            ],
        },
        bucket=store.url,
    )
    return found


def test_sources_of_the_catalogue(streamed: Streamed, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    url = s3_server.make_folder()
    one = open_store(url, s3_server.options())
    found = make_catalogue(streamed.world, one, s3_server)
    era5 = {key: data for key, data in found.items() if "era5" in key}
    each_once(named(holdfast.data.stream("climate/era5")), era5)
    climate = {key: data for key, data in found.items() if key.startswith("climate")}
    each_once(named(holdfast.data.stream("climate")), climate)
    each_once(named(holdfast.data.stream("climate")), climate)  # and from the cache
    # what DVC tracks comes through it
    each_once(named(holdfast.data.stream("biology")), {"biology/cells/a": b"a", **streamed.files})
    # several names, one twice; URLs of folders and objects
    each_once(named(holdfast.data.stream(["era5", "climate/era5", "cells"])), {**era5, "biology/cells/a": b"a"})
    each_once(named(holdfast.data.stream(f"{url}/climate/")), {f"{url}/{key}": data for key, data in climate.items()})
    keys = [f"{url}/climate/era5/{number}.nc" for number in (3, 1)]
    assert [name for name, _ in holdfast.data.stream(keys)] == keys

    one.put("climate/one/file.nc", b"another one!")
    shutil.rmtree(streamed.world.root / ".dvc/tmp/holdfast/stream")
    with pytest.raises(CorruptSampleError, match=r"climate/one/file\.nc"):
        named(holdfast.data.stream("climate/one"))
    # an object that is replaced after the stream was made
    stream = holdfast.data.stream("era5", **QUIET)
    one.put("climate/era5/4.nc", b"new")
    with pytest.raises(IntegrityError, match=r"climate/era5/4\.nc was replaced .* anew"):
        named(stream)


def test_a_missing_object_is_named(streamed: Streamed, tmp_path: Path) -> None:
    name = sorted(streamed.files)[20]
    streamed.store.delete(streamed.key(name))
    found: list[str] = []
    stream = holdfast.data.stream("data", jobs=3, decode=lambda name, _data: found.append(name))
    with pytest.raises(MissingSampleError) as raised:
        list(stream)
    assert found == sorted(streamed.files)[:20]  # what comes before it is given
    assert name in raised.value.message
    assert md5(streamed.files[name]) in raised.value.message
    assert streamed.store.url in raised.value.message
    assert "dvc push" in str(raised.value)
    assert SECRET_KEY not in str(raised.value)
    listing = (streamed.world.root / "data.dvc").read_text().split("md5: ")[1].split()[0]
    streamed.store.delete(object_key(listing))
    with pytest.raises(MissingSampleError, match=r"listing of data .*dvc push"):
        holdfast.data.stream("data", cache=tmp_path / "other")


def test_damaged_bytes_are_fetched_once_more(streamed: Streamed) -> None:
    name = sorted(streamed.files)[5]
    good, key = streamed.files[name], streamed.key(name)
    streamed.store.put(key, good[:-1] + b"?")
    stream = holdfast.data.stream("data")
    with pytest.raises(CorruptSampleError, match=rf"{name} in .* is damaged.*{md5(good)}") as raised:
        named(stream)
    assert raised.value.exit_code == 13
    streamed.store.put(key, good)
    each_once(named(stream), streamed.files)  # what was damaged was not kept


def test_bytes_that_the_way_damaged(tmp_path: Path, s3_server: S3Server, enter: Any) -> None:
    """The first answer is another object's: the second one is right."""
    with proxy(s3_server.port) as link:
        streamed = make_streamed(tmp_path, s3_server, many(3), endpoint=link.endpoint)
        enter(streamed.world)
        name = sorted(streamed.files)[1]
        stream = holdfast.data.stream("data", jobs=1)
        streamed.store.put(streamed.key(name), b"wrong")

        def mend(request: Any, _body: bytes) -> None:
            if (
                request.method == "GET"
                and request.path.endswith(streamed.key(name))
                and link.count("GET", streamed.key(name)) == 2
            ):
                streamed.store.put(streamed.key(name), streamed.files[name])

        link.rules = mend  # type: ignore[assignment]
        each_once(named(stream), streamed.files)
        assert link.count("GET", streamed.key(name)) == 2


def test_a_server_that_stumbles(tmp_path: Path, s3_server: S3Server, enter: Any) -> None:
    with proxy(s3_server.port) as link:
        streamed = make_streamed(tmp_path, s3_server, many(60), endpoint=link.endpoint)
        enter(streamed.world)
        stream = holdfast.data.stream("data", **QUIET)
        link.inject(
            Fault("status", 503, "SlowDown", method="GET", times=5, every=7),
            Fault("reset", method="GET", times=5, every=5, skip=3),
            Fault("cut", method="GET", times=5, every=6, skip=1),
        )
        each_once(named(stream), streamed.files)
        assert all(fault.done == 5 for fault in link.faults)
        # one that stays away for longer than it may
        link.inject(Fault("reset", times=10_000))
        with pytest.raises(StoreError):
            named(holdfast.data.stream("data", outage_seconds=1.0, **QUIET))


def test_names_of_nothing(streamed: Streamed, tmp_path: Path, enter: Any) -> None:
    streamed.world.write("plain.txt", "tracked by git")
    streamed.world.commit()
    for name, match in (
        ("plain.txt", "neither tracked by DVC nor"),
        ("nothing", "neither tracked by DVC nor"),
        ("data/nothing", "there is no file"),
        ("HEAD:nothing", "tracks no nothing in commit HEAD"),
        ("ftp://host/x", "ftp"),
        ([], "there is no file"),
    ):
        with pytest.raises(UsageError, match=match):
            holdfast.data.stream(name)
    with pytest.raises(HoldfastError, match="nowhere"):
        holdfast.data.stream("nowhere:data")
    with pytest.raises(UsageError, match="whose name fits"):
        holdfast.data.stream("data", match="*.png")
    with pytest.raises(UsageError, match="other is no DVC remote"):
        holdfast.data.stream("data", remote="other")
    for wrong in (
        {"batch_size": 0},
        {"jobs": 0},
        {"rank": 2, "world_size": 2},
        {"rank": 1},
        {"record_bytes": 0},
        {"rows": True, "record_bytes": 5},
    ):
        with pytest.raises(UsageError):
            holdfast.data.stream("data", **wrong)
    with pytest.raises(ObjectNotFoundError, match=r"files does not exist.*slash"):
        holdfast.data.stream(f"{streamed.store.url}/files")
    (tmp_path / "elsewhere").mkdir()
    enter(World(tmp_path / "elsewhere", streamed.world.home))
    with pytest.raises(NotARepositoryError):
        holdfast.data.stream("data")


@pytest.mark.usefixtures("streamed")
def test_ranks_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert len(holdfast.data.stream("data")) == 10
    assert holdfast.data.stream("data").settings.rank == 1
    assert len(holdfast.data.stream("data", rank=0, world_size=1)) == 40
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(UsageError, match="'one'"):
        holdfast.data.stream("data")


def test_a_decoder_and_its_error(streamed: Streamed) -> None:
    stream = holdfast.data.stream("data", decode=lambda name, data: (name[-9:], len(data)))
    assert sorted(stream) == sorted((name[-9:], len(data)) for name, data in streamed.files.items())
    broken = holdfast.data.stream("data", decode=lambda _name, data: json.loads(data))
    with pytest.raises(HoldfastError, match=r"data/0/00000\.bin cannot be decoded: \w+Error"):
        next(iter(broken))


def test_secrets_are_not_shown(streamed: Streamed) -> None:
    stream = holdfast.data.stream("data")
    assert SECRET_KEY not in repr(stream) + repr(stream.samples.supplies) + json.dumps(stream.state_dict())
    named(stream)
    kept = [path for path in (streamed.world.root / ".dvc/tmp").rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET_KEY.encode() in path.read_bytes()]


def test_importing_it_imports_little() -> None:
    program = (
        "import sys, holdfast.data; heavy = ('numpy', 'obstore', 'dvc', 'click', 'torch')\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in heavy]\n"
        "holdfast.data.stream\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in ('obstore', 'dvc', 'torch')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
