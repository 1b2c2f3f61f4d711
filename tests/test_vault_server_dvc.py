"""Plain DVC against ``holdfast serve``: two clones, every command that talks to a remote."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.vault.repository import init_vault, open_vault
from vault_servers import READ_TOKEN, WRITE_TOKEN, ServerProcess, ask, path_of, serving
from vaults import bf16_history
from worlds import World, make_repository

STAGE = """stages:
  train:
    cmd: python -c "import pathlib; pathlib.Path('model.bin').write_bytes(b''.join(pathlib.Path(n).read_bytes() * 3 for n in ('data.csv', 'params.yaml')))"
    deps: [data.csv]
    params: [lr]
    outs: [model.bin]
"""


@dataclass(frozen=True)
class Team:
    """Two clones of one repository, and what they share.

    Args:
        ada: where the work was done and pushed.
        bob: a clone whose cache is empty.
        origin: the bare repository.
        vault: the folder of the vault.
        server: before it.
    """

    ada: World
    bob: World
    origin: Path
    vault: Path
    server: ServerProcess


def set_up(world: World, url: str, token: str = WRITE_TOKEN) -> None:
    """As ``--print-dvc-config`` says."""
    world.dvc("remote", "add", "--default", "--force", "vault", url)
    world.dvc("remote", "modify", "vault", "method", "PUT")
    world.dvc("remote", "modify", "vault", "auth", "basic")
    world.dvc("remote", "modify", "vault", "user", "dvc")
    world.dvc("remote", "modify", "--local", "vault", "password", token)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    ada = make_repository(folder)
    origin, vault = folder / "origin.git", folder / "vault"
    ada.git("init", "--quiet", "--bare", str(origin))
    ada.git("remote", "add", "origin", str(origin))
    init_vault(open_store(str(vault)), None).close()
    with serving(
        str(vault), folder, ada.home, HOLDFAST_WRITE_TOKEN=WRITE_TOKEN, HOLDFAST_READ_TOKEN=READ_TOKEN
    ) as server:
        set_up(ada, server.url)
        for number in range(6):
            ada.write(f"images/{number % 2}/{number}.png", bytes([number]) * 5000)
        ada.write("images/empty", b"")
        ada.write("data.csv", "x,y\n1,2\n")
        ada.write("params.yaml", "lr: 1\n")
        ada.write("dvc.yaml", STAGE)
        ada.write(".gitignore", "/model.bin\n")
        for number, data in enumerate(bf16_history(2, 60_000)):
            ada.write(f"v{number}.safetensors", data)
        ada.track("old.txt", "legacy\r\ntext\r\n", legacy=True)
        # as DVC before 3.0 named it: with the line ends of Unix
        wrong, right = hashlib.md5(b"legacy\r\ntext\r\n").hexdigest(), hashlib.md5(b"legacy\ntext\n").hexdigest()
        (ada.cache / right[:2]).mkdir(exist_ok=True)
        shutil.move(ada.cache / wrong[:2] / wrong[2:], ada.cache / right[:2] / right[2:])
        ada.write("old.txt.dvc", f"outs:\n- md5: {right}\n  size: 14\n  path: old.txt\n")
        ada.dvc("add", "images", "v0.safetensors", "v1.safetensors")
        ada.dvc("repro")
        ada.commit("work")
        ada.dvc("push")
        ada.git("push", "--quiet", "origin", "main")
        bob = replace(ada, root=folder / "bob")
        ada.git("clone", "--quiet", str(origin), str(bob.root))
        set_up(bob, server.url)
        yield Team(ada, bob, origin, vault, server)


def test_what_one_clone_pushed_the_other_pulls(team: Team) -> None:
    bob = team.bob
    assert "new:" not in team.ada.dvc("status", "-c")
    assert "deleted:" in bob.dvc("status", "-c")
    bob.dvc("fetch", "images")
    bob.dvc("pull")
    assert files_of(bob.folder / "images") == files_of(team.ada.folder / "images")
    for name in ("model.bin", "v0.safetensors", "v1.safetensors"):
        assert (bob.folder / name).read_bytes() == (team.ada.folder / name).read_bytes()
    assert (bob.folder / "old.txt").read_bytes() == b"legacy\r\ntext\r\n"
    assert "in sync" in bob.dvc("status", "-c")
    assert "up to date" in bob.dvc("status")
    assert "Everything is up to date" in bob.dvc("push")


def test_the_second_version_is_stored_against_the_first(team: Team) -> None:
    first, second = bf16_history(2, 60_000)
    with open_vault(open_store(str(team.vault)), None) as vault:
        oids = [f"md5:{hashlib.md5(data).hexdigest()}" for data in (first, second)]
        depths = [max(entry.depth for entry in vault.plan(vault.recipe(oid)).entries.values()) for oid in oids]
    assert sorted(depths) == [0, 1]


def test_experiments_travel(team: Team) -> None:
    ada, bob = team.ada, team.bob
    ada.dvc("exp", "run", "--set-param", "lr=2", "--name", "faster")
    ada.dvc("exp", "push", "origin", "faster")
    bob.dvc("exp", "pull", "origin", "faster")
    bob.dvc("exp", "apply", "faster")
    assert (bob.folder / "model.bin").read_bytes() == b"x,y\n1,2\n" * 3 + b"lr: 2\n" * 3
    bob.git("reset", "--hard", "--quiet")


def test_repro_pulls_what_it_lacks(team: Team) -> None:
    bob = team.bob
    shutil.rmtree(bob.cache)
    (bob.folder / "model.bin").unlink(missing_ok=True)
    (bob.folder / "data.csv").write_bytes(b"x,y\n1,2\n")
    bob.dvc("repro", "--pull")
    assert (bob.folder / "model.bin").read_bytes() == b"x,y\n1,2\n" * 3 + b"lr: 1\n" * 3
    assert path_of((bob.folder / "model.bin").read_bytes()) in team.server.log.read_text()


def test_get_of_a_folder_from_a_repository_without_a_cache(team: Team, tmp_path: Path) -> None:
    shutil.rmtree(team.bob.cache)
    replace(team.ada, root=tmp_path).dvc("get", str(team.bob.root), "images", "-o", "here")
    assert files_of(tmp_path / "here") == files_of(team.ada.folder / "images")


def test_a_reader_reads_and_does_not_write(team: Team, tmp_path: Path) -> None:
    world = replace(team.ada, root=tmp_path / "reader")
    team.ada.git("clone", "--quiet", str(team.origin), str(world.root))
    set_up(world, team.server.url, READ_TOKEN)
    world.dvc("pull", "images")
    assert files_of(world.folder / "images") == files_of(team.ada.folder / "images")
    new = world.write("new.bin", b"of a reader")
    world.dvc("add", "new.bin")
    world.dvc("push", "new.bin", code=1)
    assert ask(team.server.port, "GET", path_of(new.read_bytes()), Authorization=f"Bearer {READ_TOKEN}").status == 404
    # a header of one's own, the other way that DVC has
    world.dvc("remote", "modify", "vault", "auth", "custom")
    world.dvc("remote", "modify", "vault", "custom_auth_header", "Authorization")
    world.dvc("remote", "modify", "--local", "vault", "password", f"Bearer {WRITE_TOKEN}")
    world.dvc("push", "new.bin")
    assert ask(team.server.port, "GET", path_of(new.read_bytes()), Authorization=f"Bearer {READ_TOKEN}").status == 200


def test_the_run_cache_does_not_travel_over_http(team: Team) -> None:
    """DVC says so itself, and pushes the rest."""
    done = team.ada.dvc("push", "--run-cache")
    assert "up to date" in done or "pushed" in done


def test_a_folder_s_listing_is_read_by_ranges(team: Team) -> None:
    listing = json.dumps([{"md5": "0" * 32, "relpath": "a"}]).encode()
    path, token = path_of(listing, suffix=".dir"), f"Bearer {WRITE_TOKEN}"
    assert ask(team.server.port, "PUT", path, listing, Authorization=token).status == 201
    part = ask(team.server.port, "GET", path, Authorization=token, Range="bytes=0-9")
    assert (part.status, part.body) == (206, listing[:10])


def test_no_token_is_in_the_log(team: Team) -> None:
    text = team.server.log.read_text()
    assert "PUT /files/md5/" in text
    assert READ_TOKEN not in text
    assert WRITE_TOKEN not in text
    assert "unexpected" not in text
