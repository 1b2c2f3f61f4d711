"""Back to the version before: labels, stable file, configuration and ``dvc.lock`` together, from wherever the bytes are."""

import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
import yaml

from holdfast.formats.digest import file_md5
from registry_world import (
    CLEAN,
    DYING,
    MODEL,
    MOMENTS,
    STABLE,
    copy_of,
    error_of,
    is_killed,
    labels,
    make_project,
    registry_files,
    shown,
    weights,
)
from worlds import TOOLS, World, environment

CONFIG = "models/digits/classifier.yaml"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A project with v1, v2 and v3, of which v3 is current and in production."""
    world = make_project(tmp_path_factory.mktemp("three"), 3)
    world.holdfast("registry", "assign", f"{MODEL}@v3", "production")
    world.commit("v3 in production")
    return world


@pytest.fixture
def world(three: World, tmp_path: Path) -> World:
    return copy_of(three, tmp_path)


def in_use(world: World, name: str) -> None:
    """Assert that everything says that this version is in use."""
    assert labels(world) == {"current": name, "production": name}
    version = next(item for item in shown(world, "show", MODEL)["models"][0]["versions"] if item["version"] == name)
    assert file_md5(world.root / STABLE) == version["oid"]
    lock = yaml.safe_load((world.root / "dvc.lock").read_text())["stages"]["promote"]["outs"]
    assert {out["path"]: out["md5"] for out in lock}[STABLE] == version["oid"]
    assert yaml.safe_load((world.root / CONFIG).read_text()) == {"width": 32 * int(name[1:])}
    assert world.dvc("status") == CLEAN


def test_a_rollback_moves_all_and_stands(world: World) -> None:
    before = registry_files(world)
    plan = shown(world, "rollback", MODEL, "--dry-run")
    assert (plan["before"], plan["after"], plan["labels"]) == ("v3", "v2", ["current", "production"])
    assert (plan["source"], plan["config"], plan["done"]) == ("cache", CONFIG, False)
    assert registry_files(world) == before
    in_use(world, "v3")

    done = world.holdfast("registry", "rollback", MODEL).stdout
    assert done.startswith("Moved current and production of digits/classifier from v3 to v2.\n")
    in_use(world, "v2")
    assert sorted(world.git("status", "--porcelain").split()) == sorted(
        ["M", "dvc.lock", "M", CONFIG, "M", "registry/digits/classifier/model.yaml"]
    )
    assert "didn't change, skipping" in world.dvc("repro")
    in_use(world, "v2")
    assert shown(world, "verify")["findings"] == []

    world.commit("back")
    world.holdfast("registry", "rollback", MODEL)
    in_use(world, "v1")
    assert "has no version before v1" in error_of(world, "rollback", MODEL, code=2)
    world.holdfast("registry", "rollback", MODEL, "--to", "v3")
    in_use(world, "v3")
    assert "v3 is in use already" in error_of(world, "rollback", MODEL, "--to", "v3", code=2)


def send_all(world: World, remote: Path) -> None:
    """What `dvc push` of each commit leaves; with --all-commits DVC 3.67.1 sends the newest object of a path alone."""
    shutil.copytree(world.cache / "files", remote / "files")


@pytest.mark.parametrize("place", ["remote", "vault"])
def test_bytes_that_are_elsewhere_are_brought(world: World, tmp_path: Path, place: str) -> None:
    world.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    if place == "vault":
        world.holdfast("vault", "init")
        world.holdfast("push", "--all-commits")
    else:
        send_all(world, tmp_path / "store")
    shutil.rmtree(world.cache)

    assert shown(world, "rollback", MODEL)["source"] == ("vault" if place == "vault" else "store")
    in_use(world, "v2")


def test_bytes_that_are_nowhere_change_nothing(world: World) -> None:
    oid = shown(world, "show", f"{MODEL}@v2")["oid"]
    (world.cache / "files/md5" / oid[:2] / oid[2:]).unlink()
    assert f"{MODEL}@v2 (md5 {oid}) is not in DVC's cache" in error_of(world, "rollback", MODEL, code=1)
    in_use(world, "v3")


def test_a_remote_that_lies_is_refused(world: World, tmp_path: Path) -> None:
    world.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    send_all(world, tmp_path / "store")
    oid = shown(world, "show", f"{MODEL}@v2")["oid"]
    (world.cache / "files/md5" / oid[:2] / oid[2:]).unlink()
    there = tmp_path / "store/files/md5" / oid[:2] / oid[2:]
    there.chmod(0o644)
    there.write_bytes(b"other bytes")
    there.chmod(0o444)  # what is write-protected, DVC trusts

    assert "under the name" in error_of(world, "rollback", MODEL, code=13)
    assert not (world.cache / "files/md5" / oid[:2] / oid[2:]).exists()
    in_use(world, "v3")


def test_a_stale_stage_is_refused(world: World) -> None:
    params = world.root / "params.yaml"
    whole = params.read_text()
    params.write_text(whole.replace("lr: 0.003", "lr: 0.5"))
    error = error_of(world, "rollback", MODEL, code=1)
    assert "the stage promote is not up to date: params.yaml:train is modified" in error
    assert "dvc repro" in error
    assert labels(world) == {"current": "v3", "production": "v3"}

    params.write_text(whole)
    weights(world.root / "candidate.safetensors", 77.0)
    assert "candidate.safetensors is modified" in error_of(world, "rollback", MODEL, code=1)
    weights(world.root / "candidate.safetensors", 3.0)
    in_use(world, "v3")


def test_what_is_nowhere_else_is_not_overwritten(world: World) -> None:
    weights(world.root / STABLE, 55.0)
    mine = (world.root / STABLE).read_bytes()
    assert "is no version of digits/classifier and is nowhere else" in error_of(world, "rollback", MODEL, code=1)
    assert (world.root / STABLE).read_bytes() == mine
    world.dvc("checkout", "--force")
    (world.root / CONFIG).write_text("width: 1  # mine\n")
    assert f"{CONFIG} (md5" in error_of(world, "rollback", MODEL, code=1)
    assert (world.root / CONFIG).read_text() == "width: 1  # mine\n"
    assert labels(world)["current"] == "v3"

    weights(world.root / STABLE, 55.0)
    world.holdfast("registry", "rollback", MODEL, "--force")
    in_use(world, "v2")


def test_a_protected_alias_takes_force(world: World) -> None:
    world.holdfast("registry", "protect", f"{MODEL}@production")
    assert "the alias production of digits/classifier is protected" in error_of(world, "rollback", MODEL, code=1)
    in_use(world, "v3")
    world.holdfast("registry", "rollback", MODEL, "-f")
    in_use(world, "v2")


def test_deprecated_versions_and_those_never_in_use_are_passed_over(world: World) -> None:
    world.holdfast("registry", "deprecate", f"{MODEL}@v2", "--reason", "wrong split")
    assert shown(world, "rollback", MODEL, "-n")["after"] == "v1"
    world.holdfast("registry", "deprecate", f"{MODEL}@v2", "--undo")
    weights(world.root / "other.safetensors", 9.0)
    world.holdfast("registry", "register", MODEL, "other.safetensors")
    weights(world.root / "more.safetensors", 10.0)
    world.holdfast("registry", "register", MODEL, "more.safetensors", "--alias", "production")
    # v5 is in production; v4 never was
    assert shown(world, "rollback", MODEL, "-n")["after"] == "v3"


def test_a_file_that_dvc_does_not_track(tmp_path: Path, three: World) -> None:
    world = copy_of(three, tmp_path)
    for value in (1.0, 2.0):
        weights(world.root / "models/album/scorer.safetensors", value)
        world.holdfast("registry", "register", "album/scorer", "models/album/scorer.safetensors")
    answer = shown(world, "rollback", "album/scorer")
    assert (answer["after"], answer["stage"], answer["labels"]) == ("v1", None, ["current"])
    assert file_md5(world.root / "models/album/scorer.safetensors") == shown(world, "show", "album/scorer@v1")["oid"]


CUT_OFF = DYING + textwrap.dedent("""
    from pathlib import Path

    import holdfast.registry.rollback as rollback
    import holdfast.registry.store as store
    from dvc.output import Output
    from dvc.stage import PipelineStage
    rollback.write_atomically = dying(rollback.write_atomically)
    store.write_atomically = dying(store.write_atomically)
    Output.checkout = dying(Output.checkout)
    PipelineStage.dump = dying(PipelineStage.dump)
    from holdfast.cli.main import main
    main(["registry", "rollback", "digits/classifier"])
""")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rollback_killed_anywhere_is_ended_by_the_next(three: World, tmp_path: Path, moment: str) -> None:
    steps = 0
    while True:
        steps += 1
        world = copy_of(three, tmp_path / str(steps))
        if not is_killed(world, CUT_OFF, steps, moment):
            break
        assert labels(world)["current"] in ("v2", "v3")
        if labels(world)["production"] == "v3":  # else all is done
            world.holdfast("registry", "rollback", MODEL)
        in_use(world, "v2")
        assert shown(world, "verify", "--quick")["ok"]
    assert steps == 5  # configuration, stable file, dvc.lock, model.yaml


def test_two_rollbacks_at_once_end_in_one_state(world: World) -> None:
    command = [str(TOOLS / "holdfast"), "registry", "rollback", MODEL, "--to", "v1"]
    children = [
        subprocess.Popen(
            command, cwd=world.root, env=environment(world.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    codes = [child.wait() for child in children]
    for child in children:
        child.communicate()
    assert sorted(codes) in ([0, 2], [0, 0], [0, 11])
    in_use(world, "v1")
