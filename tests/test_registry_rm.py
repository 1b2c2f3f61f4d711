"""``registry rm`` takes a version's signature along, and says what no commit could bring back."""

import json
import textwrap
from pathlib import Path

import pytest

from registry_world import DYING, MODEL, MOMENTS, copy_of, error_of, is_killed, shown, weights
from worlds import World, make_repository

FOLDER = f"registry/{MODEL}"
# what it says does not matter to `rm`: test_registry_signing is about that
SIGNATURE = '{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}\n'


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> World:
    """v1 is current; v2 is signed; both are committed."""
    world = make_repository(tmp_path_factory.mktemp("two"))
    for number in (1, 2):
        weights(world.root / f"w{number}.safetensors", float(number))
        world.holdfast("registry", "register", MODEL, f"w{number}.safetensors")
    world.write(f"{FOLDER}/v2.sig", SIGNATURE)
    world.write(".gitignore", "*.safetensors\n")
    world.commit("two")
    return world


@pytest.fixture
def world(two: World, tmp_path: Path) -> World:
    return copy_of(two, tmp_path)


def files(world: World) -> list[str]:
    return sorted(path.name for path in (world.root / FOLDER).iterdir())


def indexed(world: World) -> list[str]:
    return world.git("ls-files", FOLDER).split()


def test_a_signature_goes_along_and_comes_back(world: World) -> None:
    plan = shown(world, "rm", f"{MODEL}@v2")
    assert (plan["file"], plan["signature"], plan["uncommitted"]) == (f"{FOLDER}/v2.yaml", f"{FOLDER}/v2.sig", [])
    assert set(plan["digests"]) == {f"{FOLDER}/{name}" for name in ("model.yaml", "v2.yaml", "v2.sig")}
    told = world.holdfast("registry", "rm", f"{MODEL}@v2").stdout
    assert f"Would remove {MODEL}@v2 and its signature: {FOLDER}/v2.yaml, {FOLDER}/v2.sig." in " ".join(told.split())
    assert files(world) == ["model.yaml", "v1.yaml", "v2.sig", "v2.yaml"]

    told = " ".join(world.holdfast("registry", "rm", f"{MODEL}@v2", "--apply").stdout.split())
    assert f"Removed {MODEL}@v2 and its signature." in told
    assert files(world) == ["model.yaml", "v1.yaml"]
    # a plain `git commit` takes all of it
    assert indexed(world) == [f"{FOLDER}/model.yaml", f"{FOLDER}/v1.yaml"]
    assert shown(world, "verify", "--offline")["findings"] == []

    undo = told.partition("`")[2].partition("`")[0]
    assert undo == f"git checkout HEAD -- {FOLDER}"
    world.git(*undo.split()[1:])
    assert world.git("status", "--porcelain") == ""
    assert (world.root / FOLDER / "v2.sig").read_text() == SIGNATURE


def test_a_version_that_is_not_signed(world: World) -> None:
    world.git("rm", "-q", f"{FOLDER}/v2.sig")
    world.commit("not signed")
    plan = shown(world, "rm", f"{MODEL}@v2")
    assert plan["signature"] is None
    assert "signature" not in world.holdfast("registry", "rm", f"{MODEL}@v2", "--apply").stdout
    assert files(world) == ["model.yaml", "v1.yaml"]


def test_what_was_signed_or_signed_again_since_makes_the_plan_stale(world: World, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    saved.write_text(world.holdfast("registry", "rm", f"{MODEL}@v2", "--json").stdout)
    world.write(f"{FOLDER}/v2.sig", SIGNATURE.replace("0.3", "0.4"))
    assert "v2.sig changed since the plan" in error_of(world, "rm", "--plan", str(saved), "--apply", code=14)

    (world.root / FOLDER / "v2.sig").unlink()
    assert "v2.sig changed since the plan" in error_of(world, "rm", "--plan", str(saved), "--apply", code=14)
    saved.write_text(world.holdfast("registry", "rm", f"{MODEL}@v2", "--json").stdout)
    world.write(f"{FOLDER}/v2.sig", SIGNATURE)
    told = error_of(world, "rm", "--plan", str(saved), "--apply", code=14)
    assert f"{MODEL}@v2 was signed since the plan was made" in told
    assert "v2.yaml" in files(world)
    without = {name: value for name, value in json.loads(saved.read_text()).items() if name != "signature"}
    saved.write_text(json.dumps(without))
    assert "the plan cannot be read: 'signature'" in error_of(world, "rm", "--plan", str(saved), code=2)


def test_what_no_commit_has_is_said(world: World) -> None:
    weights(world.root / "w3.safetensors", 3.0)
    world.holdfast("registry", "register", MODEL, "w3.safetensors")
    world.write(f"{FOLDER}/v3.sig", SIGNATURE)
    names = [f"{FOLDER}/v3.yaml", f"{FOLDER}/v3.sig"]
    assert shown(world, "rm", f"{MODEL}@v3")["uncommitted"] == names
    said = f"No commit has {', '.join(names)} as it is: git cannot bring that back."
    assert said in " ".join(world.holdfast("registry", "rm", f"{MODEL}@v3").stdout.split())
    told = " ".join(world.holdfast("registry", "rm", f"{MODEL}@v3", "--apply").stdout.split())
    assert said in told
    assert "undoes it" not in told
    # a committed signature that was replaced since: git has another one
    world.write(f"{FOLDER}/v2.sig", SIGNATURE * 2)
    world.git("commit", "-q", "-m", "model.yaml as it is", FOLDER + "/model.yaml")
    assert shown(world, "rm", f"{MODEL}@v2")["uncommitted"] == [f"{FOLDER}/v2.sig"]


def test_a_project_below_gits_root(tmp_path: Path) -> None:
    world = make_repository(tmp_path, project="vision")
    for number in (1, 2):
        weights(world.folder / f"w{number}.safetensors", float(number))
        world.holdfast("registry", "register", MODEL, f"w{number}.safetensors")
    world.write(f"vision/{FOLDER}/v2.sig", SIGNATURE)
    world.write(".gitignore", "*.safetensors\n")
    world.commit("two")
    plan = shown(world, "rm", f"{MODEL}@v2")
    assert (plan["signature"], plan["uncommitted"]) == (f"{FOLDER}/v2.sig", [])
    world.holdfast("registry", "rm", f"{MODEL}@v2", "--apply")
    assert indexed(World(world.folder, world.home)) == [f"{FOLDER}/model.yaml", f"{FOLDER}/v1.yaml"]


CUT_OFF = DYING + textwrap.dedent("""
    from pathlib import Path
    import holdfast.registry.removal as removal
    import holdfast.registry.store as store
    from holdfast.cli.main import main
    real_unlink = Path.unlink
    def unlink(path, *arguments, **named):
        return (dying_unlink if path.suffix in (".sig", ".yaml") else real_unlink)(path, *arguments, **named)
    dying_unlink = dying(real_unlink)
    Path.unlink = unlink
    store.write_atomically = dying(store.write_atomically)
    removal.add_to_index = dying(removal.add_to_index)
    main(sys.argv[3:])
""")


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_anywhere_no_signature_is_left_alone(two: World, tmp_path: Path, moment: str) -> None:
    steps = 0
    arguments = ["registry", "rm", f"{MODEL}@v2", "--apply"]
    while True:
        steps += 1
        world = copy_of(two, tmp_path / str(steps))
        if not is_killed(world, CUT_OFF, steps, moment, *arguments):
            break
        assert "v2.yaml" in files(world) or "v2.sig" not in files(world)
        if "v2.yaml" in files(world):
            world.holdfast(*arguments)
        assert files(world) == ["model.yaml", "v1.yaml"]
        assert shown(world, "verify", "--offline")["findings"] == []
    assert steps == 5  # model.yaml, signature, version, index
