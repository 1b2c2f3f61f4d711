"""The registry's writers at once, and killed at every step."""

import subprocess
import textwrap
from pathlib import Path

import pytest

from registry_world import DYING, MODEL, MOMENTS, copy_of, is_killed, labels, make_project, shown, weights
from worlds import TOOLS, World, environment


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A project with v1 and v2, of which v2 is current."""
    return make_project(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture
def world(two: World, tmp_path: Path) -> World:
    return copy_of(two, tmp_path)


def test_fifty_processes_register_fifty_versions(world: World) -> None:
    before = len(shown(world, "show", MODEL)["models"][0]["versions"])
    children = []
    for number in range(50):
        weights(world.root / f"runs/{number}.safetensors", 100.0 + number)
        command = [
            str(TOOLS / "holdfast"),
            "registry",
            "register",
            MODEL,
            f"runs/{number}.safetensors",
            "--metric",
            f"n={number}",
        ]
        children.append(subprocess.Popen(command, cwd=world.root, env=environment(world.home), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True))  # fmt: skip
    answers = [(child.communicate(), child.returncode) for child in children]
    assert [told for told, code in answers if code != 0] == []
    versions = shown(world, "show", MODEL)["models"][0]["versions"][before:]
    assert [version["version"] for version in versions] == [f"v{number}" for number in range(before + 1, before + 51)]
    assert sorted(version["metrics"]["n"] for version in versions) == list(range(50))
    staged = world.git("diff", "--cached", "--name-only").splitlines()
    assert len([name for name in staged if name.endswith(".yaml") and "/v" in name]) == 50
    assert shown(world, "verify", "--offline", "--quick")["ok"]


CUT_OFF = DYING + textwrap.dedent("""
    import holdfast.registry.objects as objects, holdfast.registry.store as store
    import holdfast.cli.registry_register as register
    import holdfast.registry.removal as removal
    objects._copy = dying(objects._copy)
    store.create_exclusively = dying(store.create_exclusively)
    store.write_atomically = dying(store.write_atomically)
    store.LockedModel.drop = dying(store.LockedModel.drop)
    register.add_to_index = dying(register.add_to_index)
    removal.add_to_index = dying(removal.add_to_index)
    from holdfast.cli.main import main
    main(sys.argv[3:])
""")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("verb", ["register", "rm"])
def test_killed_at_any_step_the_next_run_ends_it(two: World, tmp_path: Path, verb: str, moment: str) -> None:
    steps = 0
    while True:
        steps += 1
        world = copy_of(two, tmp_path / str(steps))
        weights(world.root / "b.safetensors", 9.0)
        arguments = ["registry", "register", MODEL, "b.safetensors", "--alias", "staging"]
        if verb == "rm":
            world.holdfast(*arguments[:-2])
            arguments = ["registry", "rm", f"{MODEL}@v3", "--apply"]
        if not is_killed(world, CUT_OFF, steps, moment, *arguments):
            break
        names = [version["version"] for version in shown(world, "show", MODEL)["models"][0]["versions"]]
        assert names in (["v1", "v2"], ["v1", "v2", "v3"])
        if verb == "register":
            world.holdfast(*arguments)
            assert labels(world) == {"current": "v2", "staging": "v3"}
        elif names[-1] == "v3":
            world.holdfast(*arguments)
        answer = shown(world, "verify", "--offline")
        assert answer["ok"]
        assert answer["versions"] == (3 if verb == "register" else 2)
    assert steps >= 4
