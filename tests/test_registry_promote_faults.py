"""`registry promote` killed at every step: the old state or the new one, and the next run ends it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from forks import Forks
from holdfast.registry.store import Registry
from registry_world import copy_of, weights
from worlds import World, make_repository

MODEL = "app/scorer"
CLEAN = "Data and pipelines are up to date."

ROOM = "holdfast.registry"
STEPS = [
    *(f"{ROOM}.promotion_source:{name}" for name in ("copy_file", "put_in_place")),
    *(f"{ROOM}.promotion_files:{name}" for name in ("keep_file", "put_in_place", "_write", "put_in_outs", "add_outs")),
    *(f"{ROOM}.store:{name}" for name in ("create_exclusively", "write_atomically")),
    *(f"{ROOM}.promotion:{name}" for name in ("write_json", "add_to_index")),
    *(f"{ROOM}.rewriting_commit:{name}" for name in ("write_atomically", "_write", "_head")),
]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(STEPS) as started:
        yield started


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A project with v1 promoted and committed, and a better candidate in a run's folder."""
    world = make_repository(tmp_path_factory.mktemp("begun"))
    for number, accuracy in ((1, 0.8), (2, 0.9)):
        weights(world.root / f"outputs/run_{number}/best.safetensors", float(number))
        world.write(f"outputs/run_{number}/m.json", json.dumps({"accuracy": accuracy}))
        world.write(f"outputs/run_{number}/c.yaml", f"width: {number}\n")
        rows = "".join(f"s{row},a,a\n" for row in range(number, 40 + number))
        world.write(f"outputs/run_{number}/p.csv", f"id,label,prediction\n{rows}")
    world.write("params.yaml", "promote:\n  metrics:\n    accuracy: {direction: max, improvement: 0.01}\n")
    world.write("app.py", 'PATH = "outputs/run_2/best.safetensors"\n')
    world.write(".gitignore", "/outputs/\n")
    world.commit("begin")
    world.holdfast(*promotion(1), "--yes")
    return world


def promotion(number: int) -> list[str]:
    run = f"outputs/run_{number}"
    files = ["--config", f"{run}/c.yaml", "--metrics", f"{run}/m.json", "--predictions", f"{run}/p.csv"]
    return ["registry", "promote", f"{run}/best.safetensors", "--as", MODEL, *files, "--rewrite-refs"]


def test_killed_at_any_step_the_next_run_ends_it(begun: World, forks: Forks, tmp_path: Path) -> None:
    steps = 0
    while True:
        steps += 1
        world = copy_of(begun, tmp_path / str(steps))
        before = world.git("rev-parse", "HEAD")
        child = forks.holdfast(world, *promotion(2), "--yes", kill_at=steps)
        if child.code == 0:
            break
        assert child.code == -signal.SIGKILL, child.stderr
        # what programs read is one version or the other, with both labels on it
        on = Registry(world.root).model(MODEL)
        assert (on.current, dict(on.aliases)) in [(name, {"production": name}) for name in ("v1", "v2")]
        assert (world.root / "models/app/scorer.safetensors").read_bytes() in [
            (world.root / f"outputs/run_{number}/best.safetensors").read_bytes() for number in (1, 2)
        ]

        forks.holdfast(world, *promotion(2), "--yes")
        on = Registry(world.root).model(MODEL)
        assert (on.current, dict(on.aliases)) == ("v2", {"production": "v2"})
        verified = json.loads(forks.holdfast(world, "registry", "verify", "--offline", "--json").stdout)
        assert verified["findings"] == []
        assert world.git("status", "--porcelain") == "", steps
        assert world.git("rev-parse", "HEAD~1") == before
        assert (world.root / "app.py").read_text() == 'PATH = "models/app/scorer.safetensors"\n'
        assert (world.root / "models/app/scorer.yaml").read_text() == "width: 2\n"
        predictions = (world.root / "models/app/scorer.predictions.csv").read_bytes()
        assert predictions == (world.root / "outputs/run_2/p.csv").read_bytes()
        assert sorted(path.name for path in (world.root / "models/app").iterdir()) == [
            *(".gitignore", "README.md", "scorer.md", "scorer.predictions.csv", "scorer.predictions.csv.dvc"),
            *("scorer.safetensors", "scorer.safetensors.dvc", "scorer.yaml"),
        ]
        if steps % 6 == 0:
            assert world.dvc("status") == CLEAN
    assert steps == 21
