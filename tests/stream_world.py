"""DVC projects and buckets for the tests of streams, and programs that train on them."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from servers import ACCESS_KEY, SECRET_KEY, S3Server
from worlds import World, environment, make_repository


def noise(number: int, count: int) -> bytes:
    return random.Random(number).randbytes(count)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def object_key(oid: str) -> str:
    return f"files/md5/{oid[:2]}/{oid[2:]}"


@dataclass(frozen=True)
class Streamed:
    """A project whose folder ``data`` is in a remote, and not in the cache.

    Args:
        world: the project.
        store: the remote, as the test itself reads and writes it.
        files: what the folder has, by the names that samples have.
    """

    world: World
    store: ObjectStore
    files: Mapping[str, bytes]

    def key(self, name: str) -> str:
        """The object of a file."""
        return object_key(md5(self.files[name]))

    def start(self, program: str, **variables: str) -> "subprocess.Popen[str]":
        """A program in the project, in a process of its own that has used no bucket."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore:This DataLoader will create", "-c", program],
            cwd=self.world.folder,
            env={**environment(self.world.home), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, program: str, **variables: str) -> Any:
        """What it prints, as JSON."""
        return answer(self.start(program, **variables))


def answer(process: "subprocess.Popen[str]", seconds: float = 120) -> Any:
    """The last line that a program prints, as JSON."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def write_remote(world: World, url: str, endpoint: str) -> None:
    """As `dvc remote add` and `dvc remote modify --local` write it, which take a second each."""
    world.write(
        ".dvc/config",
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n    endpointurl = {endpoint}\n",
    )
    keys = f"    access_key_id = {ACCESS_KEY}\n    secret_access_key = {SECRET_KEY}\n"
    world.write(".dvc/config.local", f"['remote \"store\"']\n{keys}")


def track_folder(world: World, path: str, files: Mapping[str, bytes]) -> str:
    """A folder's objects in the cache and its ``.dvc`` file; the oid of its listing."""
    oid = world.store_folder(files)  # type: ignore[arg-type]
    size, name = sum(map(len, files.values())), path.rpartition("/")[2]
    world.write(
        f"{path}.dvc", f"outs:\n- md5: {oid}\n  size: {size}\n  nfiles: {len(files)}\n  hash: md5\n  path: {name}\n"
    )
    return oid


def push(world: World, store: ObjectStore) -> None:
    """All of the cache to a remote, as `dvc push` puts it there; the cache is empty then."""
    cache = world.cache / "files/md5"
    for path in sorted(path for path in cache.rglob("*") if path.is_file()):
        store.put(f"files/md5/{path.relative_to(cache).as_posix()}", path.read_bytes())
    shutil.rmtree(world.cache)


def make_streamed(
    folder: Path, server: S3Server, files: Mapping[str, bytes], *, endpoint: str | None = None
) -> Streamed:
    """A project with a pushed folder.

    Args:
        folder: where.
        server: of the remote.
        files: by their paths in the folder.
        endpoint: a proxy before the server, which the project goes through.
    """
    world = make_repository(folder)
    url = server.make_folder()
    track_folder(world, "data", files)
    write_remote(world, url, endpoint or server.endpoint)
    world.commit("data")
    store = open_store(url, server.options())
    push(world, store)
    return Streamed(world, store, {f"data/{name}": data for name, data in files.items()})


def many(count: int, size: int = 2000) -> dict[str, bytes]:
    """Files of about as many bytes, no two alike."""
    return {f"{number % 7}/{number:05}.bin": noise(number, size + number % 11) for number in range(count)}


def each_once(found: Iterable[tuple[str, str]], files: Mapping[str, bytes]) -> None:
    """That names and md5s are those of the files, each exactly once."""
    assert sorted(map(tuple, found)) == sorted((name, md5(data)) for name, data in files.items())
