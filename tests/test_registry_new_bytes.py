"""What `registry show` says a version added: out of the vault, without asking it each time."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry_world import shown
from servers import S3Server
from worlds import TOOLS, World, environment, make_repository

MODEL = "album/scorer"
FILE = "model.safetensors"
COUNT = 50_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two versions of a file that are one training step apart."""
    world = make_repository(tmp_path)
    rng = np.random.default_rng(1)
    base = rng.normal(0, 0.02, COUNT).astype(np.float32)
    for number in (1, 2):
        version(world, base + np.float32(1e-4 * number))
    return world


def version(world: World, values: Any) -> None:
    """The next version, tracked by DVC and committed."""
    save_file({"w": values}, world.root / FILE)
    world.dvc("add", "-q", FILE)
    world.holdfast("registry", "register", MODEL, FILE)
    world.commit("a version")


def new_bytes(world: World, *arguments: str, model: str = MODEL) -> list[int | None]:
    answer = shown(world, "show", model, *arguments)
    return [entry["new_bytes"] for entry in answer["models"][0]["versions"]]


def source(world: World) -> str:
    found: str = shown(world, "show", MODEL)["new_bytes_of"]
    return found


def own_bytes(world: World, number: int) -> int:
    """What the vault itself says of a version's file."""
    oid = shown(world, "show", f"{MODEL}@v{number}")["oid"]
    told: dict[str, Any] = json.loads(world.holdfast("vault", "explain", f"md5:{oid}", "--json").stdout)
    return int(told["own_bytes"])


def test_a_vault_in_a_folder(world: World, tmp_path: Path) -> None:
    sizes = [shown(world, "show", f"{MODEL}@v{number}")["size"] for number in (1, 2)]
    assert (source(world), new_bytes(world)) == ("files", sizes)
    world.write("holdfast.yaml", "vault:\n  url: ../vault\n")
    assert source(world) == "files"  # named, but not made
    world.holdfast("vault", "init", str(tmp_path / "vault"))
    assert (source(world), new_bytes(world)) == ("vault", [None, None])
    text = world.holdfast("registry", "show", MODEL).stdout
    assert "The vault does not have 2 versions, as far as is known here: `holdfast push` sends" in text
    assert text.count("–") == 2
    world.holdfast("push", "--all-commits")
    pushed = [own_bytes(world, 1), own_bytes(world, 2)]
    # all that is in the vault, and of the second file all but what it has in common with the first
    statistics = json.loads(world.holdfast("vault", "stats", "--json").stdout)
    counts = new_bytes(world)
    assert counts == new_bytes(world, "--stored")
    assert sum(map(int, filter(None, counts))) == sum(codec["stored_bytes"] for codec in statistics["codecs"].values())
    first, second = counts
    assert first == pushed[0] < sizes[0]
    assert second is not None
    assert 0 < second < pushed[1] < 0.2 * sizes[1]  # a delta
    # of a folder what is new in it
    (world.root / "scorer").mkdir()
    shutil.copy(world.root / FILE, world.root / "scorer" / FILE)
    (world.root / "scorer/words.txt").write_text("a b c\n")
    world.dvc("add", "-q", "scorer")
    world.holdfast("registry", "register", "album/folder", "scorer")
    assert new_bytes(world, model="album/folder") == [None]
    world.commit("a folder")
    world.holdfast("push", "--all-commits")
    (whole,) = new_bytes(world, model="album/folder")
    assert whole is not None
    assert pushed[1] <= whole < pushed[1] + 2000  # the file, which another model has, the words and the listing
    assert new_bytes(world, "--stored", model="album/folder") == [whole]
    # without the folder's listing nobody knows, and that is not remembered
    oid = shown(world, "show", "album/folder@v1")["oid"]
    listing = world.cache / "files/md5" / oid[:2] / oid[2:]
    with contextlib.closing(sqlite3.connect(world.root / ".dvc/tmp/holdfast/registry.sqlite")) as connection:
        connection.execute("DELETE FROM facts WHERE name LIKE 'new bytes%'")
        connection.commit()
    listing.rename(tmp_path / "listing")
    assert new_bytes(world, model="album/folder") == [None]
    (tmp_path / "listing").rename(listing)
    assert new_bytes(world, model="album/folder") == [whole]
    # what is remembered serves though the vault's index is not read again; one that is torn is
    for index in (world.root / ".dvc/tmp/holdfast/vaults").glob("*/index.sqlite*"):
        index.unlink()
    assert new_bytes(world) == counts
    for index in (world.root / ".dvc/tmp/holdfast/vaults").glob("*/index.sqlite"):
        index.write_bytes(b"no database")
    assert new_bytes(world) == counts


def holdfast(world: World, variables: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [str(TOOLS / "holdfast"), *arguments],
        cwd=world.root,
        env=environment(world.home) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_vault_in_a_bucket_is_asked_once(world: World, s3_server: S3Server, s3_folder: str) -> None:
    variables = s3_server.environment()
    # the port of discarding: whoever asks there fails
    nowhere = variables | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    nobody = variables | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    world.write("holdfast.yaml", f"vault:\n  url: {s3_folder}\n")
    assert "new_bytes_of" in holdfast(world, nowhere, "registry", "show", "--json")  # a clone that never saw a vault
    holdfast(world, variables, "vault", "init", s3_folder)
    holdfast(world, variables, "push", "--all-commits")
    text = holdfast(world, nobody, "registry", "show")
    assert "The vault could not be asked: " in text
    assert text.count("–") >= 2
    first = json.loads(holdfast(world, variables, "registry", "show", "--json"))
    counts = [entry["new_bytes"] for entry in first["models"][0]["versions"]]
    assert None not in counts
    assert first["new_bytes_of"] == "vault"
    # from then on this machine knows which index is the vault's
    again = json.loads(holdfast(world, nowhere, "registry", "show", "--json"))
    assert again == first
    (world.root / ".dvc/tmp/holdfast/vault.json").unlink()
    assert json.loads(holdfast(world, nowhere, "registry", "show", "--json")) == first
    told = holdfast(world, nobody, "registry", "show", "--stored")
    assert "The vault could not be asked: " in told
    assert "kB" in told
    version(world, np.ones(COUNT, np.float32))
    text = holdfast(world, nowhere, "registry", "show")
    assert "The vault does not have 1 version, as far as is known here" in text
    holdfast(world, variables, "push", "--all-commits")
    third = json.loads(holdfast(world, nowhere, "registry", "show", "--json"))["models"][0]["versions"]
    assert [entry["new_bytes"] for entry in third][:2] == counts
    assert 0 < third[2]["new_bytes"] < 2000  # nothing but ones
    # where there is none, that is remembered, too, until this machine sees another vault
    world.write("holdfast.yaml", f"vault:\n  url: {s3_folder}/none\n")
    sizes = [entry["size"] for entry in third]
    for whom in (variables, nowhere):
        answer = json.loads(holdfast(world, whom, "registry", "show", "--json"))
        assert answer["new_bytes_of"] == "files"
        assert [entry["new_bytes"] for entry in answer["models"][0]["versions"]] == sizes
