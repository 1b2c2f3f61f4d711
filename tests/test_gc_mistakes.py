"""What people do wrong the first time: one clear line, the right exit code, and nothing lost."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import gc_world
from forks import ForkedWorld, Forks
from gc_world import NO_AGE, add_remote, bury, forked, oid_of, tree
from holdfast.repo.cache import object_path
from worlds import TOOLS, World, environment, make_home, run

isolated, forks = gc_world.isolated, gc_world.forks


@pytest.fixture
def world(tmp_path: Path, forks: Forks) -> ForkedWorld:
    world = forked(tmp_path, forks)
    world.write("holdfast.yaml", NO_AGE)
    world.track("data.csv", "tracked")
    world.commit("first")
    bury(world, "nobody's")
    return world


def refused(world: World, *arguments: str, code: int) -> str:
    """A command fails with one line, and nothing has changed."""
    before = tree(world.cache)
    done = world.holdfast("gc", *arguments, code=code)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("holdfast: ")
    assert "unexpected" not in done.stderr
    assert tree(world.cache) == before
    return done.stderr


# --- remotes and scopes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--scope", "nonsense"), "'nonsense' is no scope"),
        (("--scope", "cache,remotes"), "'remotes' is no scope"),
        (("--scope", ""), "no scope is named"),
        (("--scope", "remote"), "no remote is named, and DVC has no default one"),
        (("--scope", "remote", "-r", "stroage"), "stroage is no DVC remote"),
        (("--scope", "vault", "-r", "stroage"), "stroage is neither a URL nor a DVC remote"),
        (("-r", "storage"), "a remote is looked at with --scope remote"),
        (("outputs",), "a FOLDER says where runs are"),
        (("--scope", "runs", "/"), "is not inside the project"),
    ],
)
def test_wrong_arguments(world: ForkedWorld, arguments: tuple[str, ...], told: str) -> None:
    assert told in refused(world, "plan", *arguments, code=2)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/store", "https://example.invalid/x", "ssh://host/x", "webdavs://host/x"]
)
def test_a_remote_that_cannot_be_listed(world: ForkedWorld, url: str) -> None:
    add_remote(world, "server", url, default=True)
    told = refused(world, "plan", "--scope", "remote", code=2)
    assert f"the DVC remote server is the server {url}, which cannot be listed" in told
    # the cache can be judged all the same
    text = world.holdfast("gc", "plan").stdout
    assert "1 of 2 objects" in text
    assert "the remote server was not asked for copies" in text


def test_the_folder_of_a_remote_is_missing(world: ForkedWorld, tmp_path: Path) -> None:
    add_remote(world, "disk", str(tmp_path / "unmounted"), default=True)
    told = refused(world, "plan", "--scope", "remote", code=2)
    assert f"the DVC remote disk is the folder {tmp_path / 'unmounted'}, which does not exist" in told
    assert not (tmp_path / "unmounted").exists()
    assert "was not asked for copies" in world.holdfast("gc", "plan").stdout


def test_there_is_no_vault(world: ForkedWorld, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    add_remote(world, "storage", str(tmp_path / "store"), default=True)
    assert "holdfast vault init" in refused(world, "plan", "--scope", "vault", code=1)
    assert list((tmp_path / "store").iterdir()) == []
    assert "holdfast vault init" in refused(world, "roots", "list", code=1)


def test_an_unreachable_bucket(world: ForkedWorld) -> None:
    add_remote(world, "s3", "s3://bucket/folder\n    endpointurl = http://127.0.0.1:9", default=True)
    (world.home / "aws").mkdir()
    config = world.folder / ".dvc/config"
    config.write_text(config.read_text() + "    access_key_id = a\n    secret_access_key = b\n")
    told = refused(world, "plan", "--scope", "remote", code=1)
    assert "127.0.0.1:9" in told
    assert "--local" in refused(world, "list", code=1)
    assert world.holdfast("gc", "list", "--local").stdout == "Nothing waits in a quarantine.\n"


# --- git ----------------------------------------------------------------------------------------------------------


def test_shallow_clone(world: ForkedWorld, tmp_path: Path, forks: Forks) -> None:
    world.commit("second")
    clone = ForkedWorld(tmp_path / "clone", world.home, forks=forks)
    run(["git", "clone", "-q", "--depth", "1", f"file://{world.root}", str(clone.root)], tmp_path, world.home)
    (clone.root / ".dvc/cache").mkdir()
    assert "git fetch --unshallow" in refused(clone, "plan", code=1)
    assert "git fetch --unshallow" in refused(clone, "run", "--auto", code=1)
    clone.git("fetch", "-q", "--unshallow")
    clone.holdfast("gc", "plan")


def test_detached_head_works(world: ForkedWorld) -> None:
    world.git("checkout", "-q", "--detach")
    world.track("data.csv", "on no branch")
    world.commit("detached")
    assert "1 of 3 objects" in world.holdfast("gc", "plan").stdout
    world.holdfast("gc", "plan", "-o", "../plan.json")
    world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy")
    assert object_path(world.cache, "md5", oid_of("on no branch")).is_file()


def test_no_repository(tmp_path: Path, forks: Forks) -> None:
    plain = ForkedWorld(tmp_path / "plain", make_home(tmp_path), forks=forks)
    plain.root.mkdir()
    (tmp_path / "plan.json").write_text("{}")
    for arguments in (("plan",), ("apply", "../plan.json"), ("list",), ("purge",), ("restore", "x"), ("roots", "list")):
        assert "git init && holdfast init" in refused(plain, *arguments, code=10)
    assert list(plain.root.iterdir()) == []


def test_a_ref_that_cannot_be_read(world: ForkedWorld) -> None:
    world.write(".git/refs/heads/broken", "garbage\n")
    for arguments in (("plan",), ("run", "--auto")):
        assert "refs/heads/broken" in refused(world, *arguments, code=13)


def test_before_the_first_commit(tmp_path: Path, forks: Forks) -> None:
    world = ForkedWorld(tmp_path / "new", make_home(tmp_path), forks=forks)
    world.root.mkdir()
    world.git("init", "-q")
    world.write(".dvc/config", "")
    world.write("holdfast.yaml", NO_AGE)
    world.track("data.csv", "not committed")
    bury(world, "nobody's")
    assert "1 of 2 objects" in world.holdfast("gc", "plan").stdout


# --- objects ------------------------------------------------------------------------------------------------------


def test_missing_listing_keeps_and_says_what_brings_it(world: ForkedWorld) -> None:
    folder = world.track("images", {"a.png": "image a"})
    world.commit("images")
    object_path(world.cache, "md5", folder).unlink()
    text = world.holdfast("gc", "plan").stdout
    assert f"In doubt: the listing {folder[:8]}.dir of images (workspace" in text
    assert "Way out: `dvc fetch images`." in text
    world.holdfast("gc", "plan", "-o", "../plan.json")
    world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy")
    assert object_path(world.cache, "md5", oid_of("image a")).is_file()
    # what is larger than the folder was is no member of it
    assert not object_path(world.cache, "md5", oid_of("nobody's")).is_file()


def test_cache_outside_the_project(world: ForkedWorld, tmp_path: Path) -> None:
    outside = tmp_path / "shared"
    world.cache.rename(outside)
    world.write(".dvc/config", f"[cache]\n    dir = {outside}\n")
    before = tree(outside)
    text = world.holdfast("gc", "plan").stdout
    assert "lies outside the project and others may use it" in text
    assert "name the other projects under `repos:` in holdfast.yaml" in text
    world.holdfast("gc", "run", "--auto")
    assert tree(outside) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "holdfast gc plan 2"}',
        b'{"format": "x"}',
    ],
)
def test_a_file_that_is_no_plan(world: ForkedWorld, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    told = refused(world, "apply", "../plan.json", code=2)
    assert "../plan.json is no plan of a collection" in told
    assert "holdfast gc plan -o FILE" in told


def test_a_plan_that_is_not_there(world: ForkedWorld) -> None:
    before = tree(world.cache)
    done = world.holdfast("gc", "apply", "plan.json", code=2)
    assert "plan.json" in done.stderr
    assert "no collection was interrupted" in refused(world, "apply", code=2)
    assert tree(world.cache) == before


def test_a_damaged_journal_is_no_plan(world: ForkedWorld) -> None:
    world.write(".dvc/tmp/holdfast/collecting.json", "{")
    assert "is no plan of a collection" in refused(world, "apply", code=2)
    world.holdfast("gc", "plan", "-o", "../plan.json")
    world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy")
    assert not (world.root / ".dvc/tmp/holdfast/collecting.json").exists()


# --- the disk -----------------------------------------------------------------------------------------------------


def mounted(world: World, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own; skipped where that is not allowed."""
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no mounts of one's own here")
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", *arguments],
        cwd=world.folder,
        env=environment(world.home) | {"HOLDFAST": str(TOOLS / "holdfast")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_cache_that_cannot_be_written(world: ForkedWorld) -> None:
    world.holdfast("gc", "plan", "-o", "../plan.json")
    before = tree(world.cache)
    script = (
        'mount --bind .dvc/cache .dvc/cache; mount -o remount,ro,bind .dvc/cache; "$HOLDFAST" gc plan >&2;'
        ' exec "$HOLDFAST" gc apply ../plan.json --allow-last-copy'
    )
    done = mounted(world, script)
    assert "1 of 2 objects" in done.stderr
    assert done.returncode == 1, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("holdfast: ")]
    assert len(told) == 1
    assert "unexpected" not in told[0]
    assert tree(world.cache) == before
    # it is ended once it can be
    world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy")
    assert len(tree(world.cache)) == 1


def test_a_full_disk(world: ForkedWorld) -> None:
    """The cache on a disk of its own that is full: a move within it needs room for names alone, and has not even that."""
    script = """
        mkdir ../small && mount -t tmpfs -o size=64k,nr_inodes=24 none ../small
        cp -a .dvc/cache/. ../small && rm -rf .dvc/cache && ln -s "$PWD/../small" .dvc/cache
        printf '[cache]\n    dir = cache\n' > .dvc/config
        "$HOLDFAST" gc plan -o ../plan.json --only removed --json >/dev/null
        i=0; while touch ../small/filler$i 2>/dev/null; do i=$((i+1)); done
        set +e
        "$HOLDFAST" gc apply ../plan.json --allow-last-copy; code=$?
        find ../small -type f -name "$1" | wc -l
        rm -f ../small/filler*
        "$HOLDFAST" gc apply --allow-last-copy || "$HOLDFAST" gc apply ../plan.json --allow-last-copy
        "$HOLDFAST" gc list
        exit $code
    """
    world.write("holdfast.yaml", NO_AGE + "repos: []\n")
    done = mounted(world, script, oid_of("nobody's")[2:])
    assert done.returncode == 1, (done.stdout, done.stderr)
    first = done.stderr.splitlines()[0]
    assert first.startswith("holdfast: ")
    assert "unexpected" not in first
    assert done.stdout.splitlines()[0] == "1"
    assert "1 object of 8 B can be restored." in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_elses_cache(world: ForkedWorld, tmp_path: Path) -> None:
    """The project is another user's: one line, and nothing is touched."""
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    world.holdfast("gc", "plan", "-o", "../plan.json")
    before = tree(world.cache)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    safe = environment(world.home) | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(TOOLS / "holdfast"), "gc"]
    done = subprocess.run(
        [*command, "apply", "../plan.json", "--allow-last-copy"],
        cwd=world.folder,
        env=safe,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "unexpected" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert tree(world.cache) == before
