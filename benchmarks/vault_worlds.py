"""Projects in which the vault is measured: real git, real DVC, a real S3 server, as the tests build them.

Everything lies in one folder that is given, a home folder for git, DVC and the commands included.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Union

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from servers import ACCESS_KEY, SECRET_KEY, S3Server, shared_server
from worlds import TOOLS, World, environment, make_repository, run

STOP_SECONDS = 60

# what one commit puts at a path from the top of the repository: a file, or a folder's files by their paths in it
Commit = Mapping[str, Union[Path, Mapping[str, Path]]]  # noqa: UP007 - an alias that runs


def project(folder: Path) -> World:
    """A new git repository with DVC, in ``folder``; what this process has in its environment on S3 does not count."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    folder.mkdir(parents=True)
    return make_repository(folder)


def commit(world: World, files: Commit, message: str) -> None:
    """Put files into the working tree, track each by DVC, commit to git."""
    for target, content in files.items():
        place = world.root / target
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        members = {"": content} if isinstance(content, Path) else content
        for name, source in members.items():
            to = place / name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to)
    world.dvc("add", "-q", *files)
    world.commit(message)


def clone(world: World, name: str) -> World:
    """A clone without a cache, in a folder beside the repository's."""
    other = World(world.root.parent / name, world.home)
    run(["git", "clone", "--quiet", str(world.root), str(other.root)], world.root, world.home)
    return other


def check_cache(world: World, of: World) -> int:
    """That a cache has all objects of another one, each as its md5 says; how many they are."""
    names = {path.relative_to(of.cache) for path in _objects(of)}
    found = {path.relative_to(world.cache): path for path in _objects(world)}
    assert names == set(found), f"{len(names - set(found))} objects are missing, {len(set(found) - names)} are too many"
    for path in found.values():
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        assert digest == (path.parent.name + path.name).removesuffix(".dir"), path
    return len(found)


def cache_bytes(world: World) -> int:
    """What DVC's cache holds."""
    return sum(path.stat().st_size for path in _objects(world))


def folder_bytes(folder: Path) -> int:
    """The lengths of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def timed(world: World, *command: str, **variables: str) -> float:
    """Seconds that a whole process takes which must succeed; ``variables`` are put into its environment."""
    words, variables = list(command), environment(world.home) | variables
    start = time.perf_counter()
    # not by worlds.run(), for which another process has imported DVC already
    done = subprocess.run(words, cwd=world.folder, env=variables, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{words} ended with {done.returncode}:\n{done.stderr}")
    return seconds


# --- a server ---------------------------------------------------------------------------------------------------------


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A real S3 server with its data in ``folder``; when this ends it has ended, and the data are gone."""
    with shared_server(folder) as server:
        yield server
    end = time.monotonic() + STOP_SECONDS
    while any(folder.glob("data*")) and time.monotonic() < end:
        time.sleep(0.1)


def set_remote(world: World, url: str, endpoint: str) -> None:
    """Make ``store`` the default remote of DVC in all clones, and the vault's place below it."""
    folder = world.home / "dvc-global"
    folder.mkdir(exist_ok=True)
    # not in the project: with --all-commits DVC takes the remote that each commit names, and the first ones have none
    (folder / "config").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n    endpointurl = {endpoint}\n"
        f"    access_key_id = {ACCESS_KEY}\n    secret_access_key = {SECRET_KEY}\n"
    )


def forget_bucket_folder(server: S3Server, url: str) -> None:
    """Delete all objects below a URL."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    client = server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        keys = [{"Key": item["Key"]} for item in page.get("Contents", ())]
        if keys:
            client.delete_objects(Bucket=bucket, Delete={"Objects": keys})


def _objects(world: World) -> list[Path]:
    return sorted(path for path in (world.cache / "files" / "md5").rglob("*") if path.is_file())


def holdfast_in(world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that may fail."""
    command = [str(TOOLS / "holdfast"), *arguments]
    return subprocess.run(
        command, cwd=world.folder, env=environment(world.home), capture_output=True, text=True, check=False
    )
