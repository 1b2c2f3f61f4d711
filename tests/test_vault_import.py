"""A whole DVC remote or cache into a vault, whatever is damaged, killed or there already."""

import json
import signal
from pathlib import Path

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.repo.workspace import find_project
from holdfast.vault.check import check_vault
from holdfast.vault.downloading import PART_BYTES
from holdfast.vault.explain import explain_file
from holdfast.vault.importing import Limits, import_files, plan_import
from holdfast.vault.repository import Vault, init_vault
from holdfast.vault.segment import read_segment
from vault_remotes import (
    SMALL,
    VERSIONS,
    child,
    contents,
    copy_pushed,
    flip,
    in_memory,
    make_pushed,
    oid_of_version,
    opened,
    overwrite,
    place_of,
    remote,
    taken,
    tree,
    written,
)
from vaults import noise, oid_of
from worlds import World


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_pushed(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return copy_pushed(made, tmp_path)


def depths(vault: Vault, world: World) -> list[list[int]]:
    """How deep the versions of a file and of one in a folder are, the oldest first."""
    versions = [oid_of_version(world, number) for number in range(VERSIONS)]
    listings = [place_of(remote(world), oid_of_version(world, number, "data")) for number in range(VERSIONS)]
    members = [
        entry["md5"]
        for listing in listings
        for entry in json.loads(listing.read_bytes())
        if entry["relpath"] == "sub/other.pt"
    ]
    return [[explain_file(vault, f"md5:{oid}").depth for oid in oids] for oids in (versions, members)]


def test_newest_whole_older_ones_as_a_chain(world: World) -> None:
    world.holdfast("vault", "import")
    with opened(world) as vault:
        assert depths(vault, world) == [[2, 1, 0]] * 2
    stored = json.loads(world.holdfast("vault", "stats", "--json").stdout)["stored_bytes"]
    plain = world.root.parent / "plain"
    world.holdfast("vault", "init", str(plain))
    world.holdfast("vault", "import", "--no-delta", "-r", f"file://{plain}")
    assert stored < 0.8 * sum(path.stat().st_size for path in (plain / "packs").rglob("*") if path.is_file())


def test_a_cache_with_what_is_no_object(world: World) -> None:
    oid = oid_of_version(world, 0)
    place_of(world.cache, oid).with_name(f"{oid[2:]}.dHn3xx.tmp").write_bytes(b"half")
    (world.cache / "runs/ab").mkdir(exist_ok=True)
    (world.cache / "runs/ab/tmp8x2").write_bytes(b"half")
    (world.cache / "vault/packs").mkdir(parents=True)
    (world.cache / "vault/packs/no").write_bytes(b"not ours to look at")
    done = json.loads(world.holdfast("vault", "import", ".dvc/cache", "--json").stdout)
    assert done["ignored"] == 2
    assert done["statistics"]["files"] == len(tree(world.cache)) - 3
    assert "Passed over: 2 files" in world.holdfast("vault", "import", ".dvc/cache").stdout


def test_damaged_objects_are_named_and_not_taken(world: World) -> None:
    newest, middle = (oid_of_version(world, number) for number in (2, 1))
    good = place_of(remote(world), middle).read_bytes()
    flip(place_of(remote(world), middle))
    overwrite(place_of(remote(world), newest), place_of(remote(world), newest).read_bytes()[:1000])
    done = world.holdfast("vault", "import", code=3)
    rest = len(tree(remote(world))) - 2
    assert done.stdout.startswith(f"{rest} objects imported")
    for oid in (middle, newest):
        assert f"files/md5/{oid[:2]}/{oid[2:]}" in done.stdout
    assert "model.pt" in done.stdout
    assert "2 not imported (2 damaged)" in done.stderr
    with opened(world) as vault:
        assert not vault.exists([f"md5:{middle}", f"md5:{newest}"])
        assert check_vault(vault.store, jobs=2, read_data=True).clean
    overwrite(place_of(remote(world), middle), good)
    again = world.holdfast("vault", "import", code=3).stdout
    assert again.startswith("1 object imported")
    assert f"; {rest} objects were there." in again


def test_damage_in_a_bucket(world: World) -> None:
    source = in_memory(world)
    oid = oid_of_version(world, 2)
    key = f"files/md5/{oid[:2]}/{oid[2:]}"
    source.put(key, bytes(1000))
    with opened(world) as vault:
        report = taken(vault, source, world)
        assert report.damaged == ((key, "its bytes have another md5 than its name says"),)
        assert report.statistics.files == len(tree(remote(world))) - 1


def test_a_large_object_of_a_bucket_and_an_empty_one(tmp_path: Path) -> None:
    source, target = open_store("memory://"), open_store("memory://")
    for data in (noise(2 * PART_BYTES + 5, 1), b"", b"small"):
        oid = oid_of(data)[4:]
        source.put(f"files/md5/{oid[:2]}/{oid[2:]}", data)
    with init_vault(open_store(str(tmp_path / "vault")), None) as vault:
        report = import_files(vault, plan_import(vault, source), None, tmp_path / "spool", limits=SMALL)
        assert (report.statistics.files, report.damaged, report.failed) == (3, (), ())
        written(vault, target, tmp_path / "spool")
        assert contents(target) == contents(source)
        assert not written(vault, target, tmp_path / "spool", verify=True).files


def test_what_vanishes_meanwhile(world: World, tmp_path: Path) -> None:
    source = in_memory(world)
    oid = oid_of_version(world, 2)
    key = f"files/md5/{oid[:2]}/{oid[2:]}"
    with opened(world) as vault:
        plan = plan_import(vault, source)
        source.delete(key)
        report = import_files(vault, plan, find_project(world.root), world.root.parent / "spool", limits=SMALL)
        ((name, reason),) = report.failed
        assert name == key
        assert str(tmp_path) not in reason  # of the object, and not of where it would have lain
        assert report.statistics.files == len(plan.sizes) - 1


def test_a_dry_run_changes_nothing(world: World) -> None:
    before = tree(world.root.parent / "vault")
    files = tree(remote(world))
    nbytes = sum(len(data) for data, _ in files.values())
    done = json.loads(world.holdfast("vault", "import", "-n", "--json").stdout)
    assert (done["files"], done["bytes"], done["known"], done["known_bytes"]) == (len(files), nbytes, 0, 0)
    assert tree(world.root.parent / "vault") == before
    world.holdfast("push", "model.pt")
    size = len(place_of(remote(world), oid_of_version(world, 2)).read_bytes())
    done = json.loads(world.holdfast("vault", "import", "-n", "--json").stdout)
    assert (done["files"], done["bytes"], done["known"], done["known_bytes"]) == (
        len(files) - 1,
        nbytes - size,
        1,
        size,
    )
    text = world.holdfast("vault", "export", "../copy", "-n").stdout
    assert text.startswith("Would export 1 object of ")
    assert not (world.root.parent / "copy").exists()


def test_what_is_there_is_claimed(world: World) -> None:
    world.holdfast("vault", "import")
    before = set((world.root.parent / "vault/index").iterdir())
    assert world.holdfast("vault", "import").stdout.startswith("Everything of ")
    (new,) = set((world.root.parent / "vault/index").iterdir()) - before
    segment = read_segment(new.name, new.read_bytes())
    assert len(segment.rows.claims) == len(tree(remote(world)))


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_many_sessions_and_little_room(world: World, kind: str) -> None:
    source = open_store(str(remote(world))) if kind == "folder" else in_memory(world)
    spool, sizes = world.root.parent / "spool", []
    largest = max(len(data) for data, _ in tree(remote(world)).values())
    told = []

    def measure(done: int, total: int) -> None:
        told.append((done, total))
        sizes.append(sum(path.stat().st_size for path in spool.rglob("*") if path.is_file()))

    with opened(world) as vault:
        report = taken(vault, source, world, progress=measure)
        assert report.sessions >= 5
        assert not report.failed
        assert check_vault(vault.store, jobs=2, read_data=True).clean
        assert depths(vault, world) == [[2, 1, 0]] * 2
        before = list(told)
        again = taken(vault, source, world, progress=measure)
        assert (again.sessions, again.statistics.files, again.known) == (1, 0, len(tree(remote(world))))
        assert told == before
    total = sum(len(data) for data, _ in tree(remote(world)).values())
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    listings = sum(len(data) for key, (data, _) in tree(remote(world)).items() if key.endswith(".dir"))
    assert (0 if kind == "folder" else largest) <= max(sizes) <= (0 if kind == "folder" else 3 * largest + listings)
    assert list(spool.iterdir()) == []
    roomy = world.root.parent / "roomy"
    with init_vault(open_store(str(roomy)), None) as vault:
        whole = taken(vault, source, world, Limits())
        assert whole.sessions == 1
        assert whole.statistics.files == report.statistics.files
        assert depths(vault, world) == [[2, 1, 0]] * 2


def test_a_collector_that_ends_a_session(world: World) -> None:
    store = open_store(str(world.root.parent / "vault"))
    revoked = []

    def revoke(_done: int, _total: int) -> None:
        if not revoked:
            revoked.extend(info.key.removeprefix("sessions/") for info in store.list_objects("sessions"))
            store.put(f"index/{revoked[0]}", b"")

    with opened(world) as vault:
        report = taken(vault, in_memory(world), world, progress=revoke)
        assert revoked
        assert report.statistics.files == len(tree(remote(world)))
        assert written(vault, open_store(str(world.root.parent / "copy")), world.root.parent / "spool").files
    assert tree(world.root.parent / "copy") == tree(remote(world))


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_an_import_that_is_killed_goes_on(world: World, kind: str) -> None:
    files = len(tree(remote(world)))
    known = 0
    for calls in (3, 9, 14):
        assert child(world, "import", remote(world), calls, kind).returncode == -signal.SIGKILL
        with opened(world) as vault:
            assert check_vault(vault.store, jobs=2, read_data=True).clean
            vault.refresh()
            there = len(list(vault.index.oids()))
        assert there > known or calls == 3
        known = there
    assert kind == "folder" or list((world.root.parent / "spool").iterdir())
    done = child(world, "import", remote(world), 0, kind)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == str(known)
    assert kind == "folder" or not list((world.root.parent / "spool").iterdir())
    with opened(world) as vault:
        assert depths(vault, world) == [[2, 1, 0]] * 2
        assert written(vault, open_store(str(world.root.parent / "copy")), world.root.parent / "spool").files == files
    assert tree(world.root.parent / "copy") == tree(remote(world))


def test_places_that_are_none(world: World) -> None:
    for arguments, message in (
        (["import", "nowhere"], "neither a DVC remote"),
        (["import", "../store/files/md5"], "Name the whole of it"),
        (["import", "ssh://host/x"], "dvc fetch --all-commits"),
        (["export", "ssh://host/x"], "dvc push --all-commits"),
        (["export", "stroe"], "./stroe"),
        (["export", "../vault"], "is the vault itself"),
    ):
        assert message in world.holdfast("vault", *arguments, code=2).stderr
    assert "none of DVC's files" in world.holdfast("vault", "import", "..", code=1).stderr


def test_without_history_something_alike_is_the_base(world: World) -> None:
    source = open_store(str(remote(world)))
    stored = []
    for delta in (True, False):
        with init_vault(open_store(str(world.root.parent / f"delta {delta}")), None) as vault:
            plan = plan_import(vault, source)
            report = import_files(vault, plan, None, world.root.parent / "spool", delta=delta, limits=SMALL)
            assert report.statistics.files == len(plan.sizes)
            stored.append(report.statistics.stored_bytes)
            assert check_vault(vault.store, jobs=2, read_data=True).clean
            for number in range(VERSIONS):
                made_of = explain_file(vault, "md5:" + oid_of_version(world, number))
                assert made_of.read_bytes <= made_of.size
    assert stored[0] < 0.9 * stored[1]


def test_without_a_project(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    alone = World(folder, world.home)
    vault = f"file://{world.root.parent / 'vault'}"
    assert "imported" in alone.holdfast("vault", "import", str(remote(world)), "-r", vault).stdout
    alone.holdfast("vault", "export", "copy", "-r", vault)
    assert tree(folder / "copy") == tree(remote(world))
    assert "is not inside a DVC project" in alone.holdfast("vault", "import", str(remote(world)), code=10).stderr
    assert "no SOURCE" in alone.holdfast("vault", "import", "-r", vault, code=2).stderr
