"""``holdfast init --template pipeline``: the user's own script between stages that score and promote what it leaves."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from holdfast.project.training_script import find_scripts, read_script
from holdfast.registry.gate_rules import read_rules
from init_world import call, content, make_plain, undo
from worlds import World

SCRIPT = '''\
"""Logistic regression on two features."""

import json
from pathlib import Path

import numpy as np
import yaml

from features import load

OUT = Path("artifacts")
params = yaml.safe_load(open("params.yaml"))["train"]
x, y = load("data/points of both.csv")
weights, bias = np.zeros(2), 0.0
for _ in range(params["epochs"]):
    p = 1 / (1 + np.exp(-(x @ weights + bias)))
    weights -= params["lr"] * (p - y) @ x / len(y)
    bias -= params["lr"] * float(np.mean(p - y))
OUT.mkdir(exist_ok=True)
np.savez(OUT / "model.npz", weights=weights, bias=np.array([bias]))
p = 1 / (1 + np.exp(-(x @ weights + bias)))
loss = float(-np.mean(np.log(np.where(y == 1, p, 1 - p))))
with open(OUT / "metrics.json", "w") as stream:
    json.dump({"accuracy": float(np.mean((p > 0.5) == y)), "loss": loss, "train_loss": loss}, stream)
rows = [f"p{place},{right},{int(said > 0.5)}" for place, (right, said) in enumerate(zip(y, p))]
(OUT / "predictions.csv").write_text("id,label,prediction\\n" + "\\n".join(rows) + "\\n")
'''
FEATURES = """\
import numpy as np


def load(path):
    table = np.loadtxt(path, delimiter=",")
    return table[:, :2], table[:, 2].astype(int)
"""
PARAMS = "# how we train\ntrain:\n  epochs: 40   # enough\n  lr: 0.5\n"


def plant(world: World) -> None:
    points = [((place * 37 % 41) / 20 - 1, (place * 17 % 23) / 11 - 1) for place in range(80)]
    rows = [f"{a:.3f},{b:.3f},{int(a + b + (place % 10 == 0) > 0)}" for place, (a, b) in enumerate(points)]
    world.write("data/points of both.csv", "\n".join(rows) + "\n")
    world.write("src/fit.py", SCRIPT)
    world.write("src/features.py", FEATURES)
    world.write("params.yaml", PARAMS)
    world.write(".gitignore", "/artifacts/\n")
    world.commit("a script")


@pytest.fixture
def plain(tmp_path: Path) -> World:
    world = make_plain(tmp_path, "Our Classifier")
    plant(world)
    return world


def names(stages: dict[str, object], stage: str, key: str) -> list[str]:
    entries = stages[stage].get(key, [])  # type: ignore[attr-defined]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_a_script_of_ones_own_becomes_a_pipeline_that_runs(plain: World) -> None:
    subprocess.run([sys.executable, "src/fit.py"], cwd=plain.root, check=True)
    before = content(plain.root)
    call(plain, "init", "--yes", "--template", "pipeline", "--model", "points/sides")

    after = content(plain.root)
    assert after["src/fit.py"] == before["src/fit.py"]
    assert str(after["params.yaml"], "utf-8").startswith(PARAMS)  # type: ignore[call-overload]
    rules = read_rules(plain.root / "params.yaml")
    assert [(rule.name, rule.direction) for rule in rules.metrics] == [("accuracy", "max"), ("loss", "min")]
    stages = yaml.safe_load((plain.root / "dvc.yaml").read_text())["stages"]
    assert names(stages, "train", "deps") == ["data/points of both.csv", "src/features.py", "src/fit.py"]
    assert names(stages, "train", "params") == ["train"]
    assert names(stages, "promote", "params") == ["train", "promote"]
    assert names(stages, "train", "outs") == ["artifacts/model.npz", "artifacts/predictions.csv"]
    assert names(stages, "promote", "outs") == ["models/points/sides.npz", "models/points/sides.predictions.csv"]

    plain.dvc("repro", "--quiet")
    assert plain.dvc("status") == "Data and pipelines are up to date."
    scores = json.loads((plain.root / "metrics/evaluate.json").read_text())
    reached = json.loads((plain.root / "artifacts/metrics.json").read_text())
    assert scores["accuracy"] == pytest.approx(reached["accuracy"])
    assert scores["parameters"] == 3
    version = yaml.safe_load((plain.root / "registry/points/sides/v1.yaml").read_text())
    assert version["metrics"]["worst_recall"] == scores["worst_recall"]
    assert version["params"] == {"train": {"epochs": 40, "lr": 0.5}}
    assert (plain.root / "models/points/sides.npz").read_bytes() == (plain.root / "artifacts/model.npz").read_bytes()

    # which script is meant is not asked for again
    plain.write("src/fit_again.py", "import numpy as np\nnp.savez('again.npz')\n")
    plain.commit("v1")
    quiet = content(plain.root)
    for arguments in ((), ("--template", "pipeline", "--model", "points/sides")):
        assert "the repository is set up" in call(plain, "init", "--yes", *arguments)
    assert content(plain.root) == quiet
    call(plain, "doctor", "--json", code=3)  # hooks are not installed here, and nothing else is amiss


def test_what_is_there_is_added_to(plain: World) -> None:
    plain.write("dvc.yaml", "# ours\nstages:\n  prepare:\n    cmd: python prepare.py  # first\nplots: []\n")
    plain.commit()
    before = content(plain.root)
    done = json.loads(call(plain, "init", "--yes", "--json", "--template", "pipeline"))
    text = (plain.root / "dvc.yaml").read_text()
    assert text.startswith("# ours\nstages:\n  prepare:\n    cmd: python prepare.py  # first\n  train:\n")
    assert text.endswith("plots: []\n")
    assert list(yaml.safe_load(text)["stages"]) == ["prepare", "train", "evaluate", "promote"]
    assert "model: our-classifier/model" in (plain.root / "params.yaml").read_text()
    # predictions that are not there may be of another form
    assert "predictions" not in text
    undo(plain, done["undo"])
    assert content(plain.root) == before


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("dvc.yaml", "stages:\n  train:\n    cmd: make\n"),
        ("dvc.yaml", "stages: [\n"),
        ("dvc.yaml", "stages: {prepare: {cmd: make}}\n"),
        ("stages/promote.py", "print('ours')\n"),
    ],
)
def test_a_pipeline_is_scaffolded_as_a_whole_or_not_at_all(plain: World, path: str, text: str) -> None:
    plain.write(path, text)
    plain.commit()
    done = json.loads(call(plain, "init", "--yes", "--json", "--template", "pipeline"))
    assert [item["path"] for item in done["left"]] == [path]
    assert (plain.root / path).read_text() == text
    assert (plain.root / "params.yaml").read_text() == PARAMS
    assert not (plain.root / "stages/evaluate.py").exists()
    assert (plain.root / "holdfast.yaml").exists()


@pytest.mark.parametrize(
    ("path", "mend"),
    [
        ("artifacts/model.npz", "`git rm --cached artifacts/model.npz`"),
        ("artifacts/model.npz.dvc", "`dvc remove artifacts/model.npz.dvc`"),
    ],
)
def test_what_dvc_would_refuse_is_told(plain: World, path: str, mend: str) -> None:
    plain.write(path, "weights" if path.endswith("npz") else "outs:\n- path: model.npz\n")
    plain.git("add", "--force", path)
    plain.commit()
    (left,) = json.loads(call(plain, "init", "--yes", "--json", "--template", "pipeline"))["left"]
    assert (left["path"], left["add"]) == ("artifacts/model.npz", mend)


def test_what_is_not_clear_is_asked_for(plain: World) -> None:
    plain.write("other_train.py", 'import torch\ntorch.save({}, "a.pt")\ntorch.save({}, "b.pt")\n')
    for arguments, hint in (
        ((), "`--script FILE` names it"),
        (("--script", "other_train.py"), "`--checkpoint FILE` names it"),
        (("--script", "other_train.py", "--checkpoint", "a.pt"), "`--metrics FILE` names it"),
        (("--script", "nothing.py"), "--script names the training script"),
        (("--script", "../elsewhere.py"), "is not in the project"),
        (("--model", "No/Name"), "it is app/name"),
    ):
        error = call(plain, "init", "--yes", "--template", "pipeline", *arguments, code=2)
        assert hint in error
        assert error.count("\n") == 1
    assert "--template pipeline" in call(plain, "init", "--script", "src/fit.py", code=2)
    assert not (plain.root / ".dvc").exists()


def test_scripts_are_read_and_not_run(tmp_path: Path) -> None:
    def script(text: str, name: str = "train.py") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    script(
        "import os, torch\nfrom pathlib import Path\nFOLDER = os.path.join('out', 'run')\nSTART = 'base.pt'\n"
        "model = torch.load(START)\n"
        "def end(model, scores):\n"
        "    torch.save(model.state_dict(), f'{FOLDER}/best.pt')\n"
        "    Path(FOLDER, 'scores.json').write_text(scores)\n"
        "    torch.save(model, '/elsewhere/x.pt'); torch.save(model, '../y.pt'); torch.save(model, unknown + '.pt')\n"
    )
    script("raise SystemExit('run')\n", "base.pt")
    script("import train\n", "tests_train.py")
    found = read_script(tmp_path, "train.py", ["train.py", "base.pt"])
    assert found is not None
    assert found.checkpoints == ("out/run/best.pt",)
    assert found.metrics == ("out/run/scores.json",)
    assert found.inputs == ("base.pt",)
    script("def broken(:\n", "bad.py")
    assert read_script(tmp_path, "bad.py", []) is None
    script("import numpy as np\nnp.savez('w.npz')\n", "fit.py")
    paths = ["bad.py", "fit.py", "tests_train.py", "train.py"]
    assert [item.path for item in find_scripts(tmp_path, paths)] == ["train.py", "fit.py"]


def test_what_is_scaffolded_is_as_people_write_it(plain: World) -> None:
    call(plain, "init", "--yes", "--template", "pipeline")
    for name in ("evaluate", "promote"):
        text = (plain.root / f"stages/{name}.py").read_text()
        assert ast.get_docstring(ast.parse(text))
        assert "$" not in text
        assert max(map(len, text.splitlines())) <= 120
    tools = Path(sys.executable).parent
    command = [
        str(tools / "ruff"),
        "check",
        "--isolated",
        "--target-version",
        "py310",
        "--select",
        "E,F,UP,B",
        "--line-length",
        "120",
        "stages",
    ]
    subprocess.run(command, cwd=plain.root, check=True, capture_output=True)
