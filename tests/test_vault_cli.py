"""`holdfast vault`: check, repair, stats and explain, as a user meets them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from worlds import World, environment, make_repository


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two versions of a model and a text, pushed."""
    world = make_repository(tmp_path_factory.mktemp("made"))
    for number in range(2):
        torch.manual_seed(0)
        weights = torch.randn(400, 400) * 0.02 + number * 1e-5
        torch.save({"layer.weight": weights.bfloat16()}, world.root / "model.pt")
        world.write("notes.txt", "a note\n" * 1000)
        world.dvc("add", "-q", "model.pt", "notes.txt")
        world.commit(f"version {number}")
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    shutil.copytree(made.root.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    world = World(tmp_path / "repository", tmp_path / "home")
    world.write("holdfast.yaml", f"vault:\n  url: {tmp_path / 'vault'}\n")
    world.holdfast("vault", "init")
    world.holdfast("push", "-A")
    return world


def packs(world: World) -> list[Path]:
    return sorted(path for path in (world.root.parent / "vault/packs").rglob("*") if path.is_file())


def damage(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)


def test_clean(world: World) -> None:
    vault = str(world.root.parent / "vault")
    assert world.holdfast("vault", "check").stdout == f"{vault} is clean: 3 files in 1 pack.\n"
    whole = json.loads(world.holdfast("vault", "check", "--read-data", "--json").stdout)
    assert (whole["clean"], whole["packs_read"], whole["files_read"]) == (True, 1, 3)
    nothing = json.loads(world.holdfast("vault", "check", "--sample", "0", "--json").stdout)
    assert (nothing["packs_read"], nothing["files_read"]) == (0, 0)
    assert world.holdfast("vault", "repair").stdout == "There was nothing to mend.\n"


def test_damage_is_found_and_healed_out_of_the_cache(world: World) -> None:
    (pack,) = packs(world)
    damage(pack, 2000)
    assert "is clean" in world.holdfast("vault", "check").stdout  # the structure is as it was
    done = world.holdfast("vault", "check", "--read-data", code=13)
    assert "is damaged" in done.stdout
    assert "model.pt" in done.stdout
    assert "holdfast vault repair" in done.stderr
    other = World(world.root.parent / "other", world.home)
    subprocess.run(["git", "clone", "-q", str(world.root), str(other.root)], check=True, env=environment(world.home))
    other.write("holdfast.yaml", (world.root / "holdfast.yaml").read_text())
    other.holdfast("pull", code=3)
    assert "put again" in world.holdfast("vault", "repair", "--read-data").stdout
    assert "is clean" in world.holdfast("vault", "check", "--read-data").stdout
    other.holdfast("pull")
    assert (other.root / "model.pt").read_bytes() == (world.root / "model.pt").read_bytes()


def test_what_is_lost_is_named(world: World) -> None:
    (pack,) = packs(world)
    pack.unlink()
    oid = next(line.split()[-1] for line in (world.root / "model.pt.dvc").read_text().splitlines() if "md5:" in line)
    (world.cache / "files/md5" / oid[:2] / oid[2:]).unlink()
    assert world.holdfast("vault", "check", code=13).stdout.count("missing") >= 1
    done = world.holdfast("vault", "repair", code=13)
    assert "model.pt" in done.stdout
    assert "1 object of" in done.stderr
    again = json.loads(world.holdfast("status", "-A", "--json").stdout)
    assert again["both"] == 2  # the text and the other version were put again
    (world.root / "model.pt").touch()
    world.dvc("add", "-q", "model.pt")  # whoever still has it
    world.holdfast("push", "-A")
    assert "in sync: 3 objects" in world.holdfast("status", "-A").stdout


def test_figures(world: World) -> None:
    found = json.loads(world.holdfast("vault", "stats", "--json").stdout)
    assert found["files"] == 3
    stored = sum(path.stat().st_size for path in packs(world))
    assert found["stored_bytes"] == stored
    assert found["ratio"] == pytest.approx(found["raw_bytes"] / stored)
    assert found["fetch_requests"] == 3 + found["segments"] + found["packs"]  # each is shorter than a request
    assert found["dollars_a_month"] == pytest.approx((stored + found["index_bytes"]) * 0.015e-9)
    assert found["formats"]["torch zip"]["files"] == 2
    assert found["codecs"]["delta"]["blobs"] >= 1
    assert "times smaller" in world.holdfast("vault", "stats").stdout


def test_a_file_taken_apart(world: World) -> None:
    found = json.loads(world.holdfast("vault", "explain", "model.pt", "--json").stdout)
    size = (world.root / "model.pt").stat().st_size
    assert found["size"] == size
    assert sum(part["length"] for part in found["parts"]) == size
    assert next(part["offset"] for part in found["parts"]) == 0
    assert found["own_bytes"] + found["base_bytes"] <= size  # never more than plain DVC reads
    same = json.loads(world.holdfast("vault", "explain", found["oid"], "--json").stdout)
    assert same == found
    assert "Restoring it reads" in world.holdfast("vault", "explain", "model.pt").stdout
    assert "does not exist" in world.holdfast("vault", "explain", "nothing.pt", code=2).stderr
    unknown = "md5:" + "0" * 32
    assert f"{unknown} is not in the vault" in world.holdfast("vault", "explain", unknown, code=1).stderr
    assert "is no oid" in world.holdfast("vault", "explain", "md5:zz", code=2).stderr


def test_version(world: World) -> None:
    assert world.holdfast("version").stdout == "holdfast 0.1.0\n"
    assert "Vault codec: " in world.holdfast("version", "-v").stdout


def test_a_segment_that_cannot_be_read_is_told_of(world: World) -> None:
    (segment,) = (world.root.parent / "vault/index").iterdir()
    damage(segment, 40)
    shutil.rmtree(world.root / ".dvc/tmp/holdfast")  # what this clone read of it before is still right
    done = world.holdfast("push", "-A")
    assert "1 segment of the index" in done.stderr
    assert "`holdfast vault repair`" in done.stderr
    assert "3 objects pushed" in done.stdout
    world.holdfast("vault", "repair")
    assert world.holdfast("push", "-A").stderr == ""
