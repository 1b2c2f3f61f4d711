"""This repository's own DVC configuration: a remote in the clone, and R2 prepared, one command away."""

from pathlib import Path

import pytest

from holdfast.objectstore.setup import AWS_CONFIG, quiet_config
from holdfast.repo.dvc import default_remote, remotes
from proxy import R2Rules, proxy
from remote_world import ACCOUNT, forget_variables, write_keys
from servers import BUCKET, S3Server
from worlds import World, make_repository

DVC_FOLDER = Path(__file__).parent.parent / ".dvc"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    forget_variables(monkeypatch)
    world = make_repository(tmp_path)
    for name in ("config", AWS_CONFIG, ".gitignore"):
        world.write(f".dvc/{name}", (DVC_FOLDER / name).read_bytes())
    world.write("model.bin", b"weights" * 1000)
    world.dvc("add", "-q", "model.bin")
    world.commit("as it is committed")
    return world


def test_what_is_prepared_changes_nothing(world: World) -> None:
    assert default_remote(world.root) == "storage"
    assert list(remotes(world.root)) == ["storage"]
    text = (DVC_FOLDER / AWS_CONFIG).read_text()
    assert quiet_config(text) == text, "boto sends nothing that R2 refuses"
    world.dvc("push", "-q")
    assert world.dvc("status", "-c") == "Cache and remote 'storage' are in sync."
    assert world.dvc("config", "--list").count("remote.") == 1
    assert world.git("status", "--porcelain") == ""


def test_one_command_completes_it(world: World, tmp_path: Path, s3_server: S3Server) -> None:
    keys, folder = write_keys(tmp_path), s3_server.make_folder().rpartition("/")[2]
    with proxy(s3_server.port) as link:
        rules = R2Rules()
        link.rules, link.noted = rules, rules.noted
        world.holdfast(
            "remote", "setup", "r2", "--account-id", ACCOUNT, "--bucket", BUCKET, "--prefix", folder, "--endpoint",
            link.endpoint, "--credentials", str(keys), "--offline", "--yes",
        )  # fmt: skip
        assert world.git("status", "--porcelain") == "M .dvc/config", "what boto needs was there"
        assert (default_remote(world.root), set(remotes(world.root))) == ("storage", {"storage", "r2"})
        world.dvc("push", "-q", "-r", "r2")
        assert world.dvc("status", "-c", "-r", "r2") == "Cache and remote 'r2' are in sync."
        assert rules.refused == []
        world.holdfast("remote", "doctor", "r2", "--rounds", "2", "--sizes", "1KB")
    # DVC's own commands still mean the clone's
    world.dvc("push", "-q")
    assert world.dvc("status", "-c") == "Cache and remote 'storage' are in sync."
