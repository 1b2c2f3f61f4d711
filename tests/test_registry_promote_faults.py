"""`registry promote` killed at every step: the old state or the new one, and the next run ends it."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from registry_world import copy_of, labels, shown, weights
from worlds import World, environment, make_repository

MODEL = "app/scorer"
CLEAN = "Data and pipelines are up to date."

CUT_OFF = textwrap.dedent("""
    import os, signal, sys
    import holdfast.atomic as atomic
    import holdfast.registry.promotion as promotion
    import holdfast.registry.promotion_files as files
    import holdfast.registry.promotion_source as source
    import holdfast.registry.rewriting_commit as rewriting
    import holdfast.registry.store as store
    import holdfast.registry.objects as objects

    calls = 0
    def dying(real):
        def step(*arguments, **named):
            global calls
            calls += 1
            if calls == int(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            return result
        return step
    def watch(module, *names):
        for name in names:
            setattr(module, name, dying(getattr(module, name)))
    watch(source, "copy_file", "put_in_place")
    watch(files, "keep_file", "put_in_place", "_write", "put_in_outs", "add_outs")
    watch(store, "create_exclusively", "write_atomically")
    watch(promotion, "write_json", "add_to_index")
    watch(rewriting, "write_atomically", "_write", "_head")
    from holdfast.cli.main import main
    main(sys.argv[2:])
""")


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


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_at_any_step_the_next_run_ends_it(begun: World, tmp_path: Path, stride: int) -> None:
    steps = 1 - stride
    while True:
        steps += stride
        world = copy_of(begun, tmp_path / str(steps))
        before = world.git("rev-parse", "HEAD")
        child = subprocess.run(
            [sys.executable, "-c", CUT_OFF, str(steps), *promotion(2), "--yes"],
            cwd=world.root, env=environment(world.home), capture_output=True, check=False,
        )  # fmt: skip
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
        # what programs read is one version or the other, with both labels on it
        assert labels(world, MODEL) in ({"current": name, "production": name} for name in ("v1", "v2"))
        assert (world.root / "models/app/scorer.safetensors").read_bytes() in [
            (world.root / f"outputs/run_{number}/best.safetensors").read_bytes() for number in (1, 2)
        ]

        world.holdfast(*promotion(2), "--yes")
        assert labels(world, MODEL) == {"current": "v2", "production": "v2"}
        assert shown(world, "verify", "--offline")["findings"] == []
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
    assert steps >= 15
