"""`registry promote` on a grown project: two models out of time-stamped folders, as somebody did it by hand before."""

import hashlib
import json
import subprocess
import textwrap
from collections import Counter
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
import yaml

import holdfast
from registry_world import copy_of, error_of, labels, registry_files, shown
from worlds import World, environment, make_repository

CLEAN = "Data and pipelines are up to date."
AVA, SIAMESE = "album_app/ava_aesthetic_model", "album_app/siamese_comparison_model"
AVA_RUN, SIAMESE_RUN = "outputs/ava/gpu_run_regression_18_01", "outputs/siamese_e2e/20260113_073023"
RETRAINED = "outputs/ava/gpu_run_regression_15_02"

CONFIG = """\
# Settings of the album application
quality_assessment:
  # scores from 1 to 10
  ava_checkpoint: {ava}   # ResNet50
  siamese_checkpoint: '{siamese}'
  weights: [0.5, 0.3, 0.2]
"""
LOADER = """\
from pathlib import Path

AVA = Path("{ava}")


def load():
    return AVA.read_bytes()
"""
GATE = """\
promote:
  metrics:
    val_mse: {direction: min, ceiling: 0.5, tolerance: 0.02}
"""
# what the project's registry looked like in somebody's head
BY_HAND = """\
album_app:
  ava_aesthetic_model:
    current: v1
    versions:
      v1:
        path: models/album_app/ava_aesthetic_model.pt
        date: {date}
        metrics:
          val_mse: 0.40
"""


def checkpoint(path: Path, value: float) -> Path:
    """A torch checkpoint with an optimizer's state, as training loops write it."""
    layer = torch.nn.Linear(8, 4)
    torch.nn.init.constant_(layer.weight, value)
    torch.nn.init.constant_(layer.bias, -value)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model_state_dict": layer.state_dict(), "optimizer_state_dict": optimizer.state_dict(), "epoch": 12}
    torch.save(state, path)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tree(world: World) -> dict[str, bytes]:
    """The working tree without git, DVC's cache and what lies in runs' folders."""
    parts = (".git/", ".dvc/", "outputs/")
    return {name: data for name, data in content(world.root).items() if not name.startswith(parts)}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def promote(world: World, *arguments: str, code: int = 0) -> str:
    return world.holdfast("registry", "promote", *arguments, code=code).stdout


def ava(world: World, run: str = AVA_RUN, *more: str, code: int = 0) -> str:
    arguments = (f"{run}/best_model.pt", "--as", AVA, "--config", f"{run}/config.yaml", "--metrics", f"{run}/m.json")
    return promote(world, *arguments, *more, code=code)


def siamese(world: World, *more: str) -> str:
    arguments = (f"{SIAMESE_RUN}/best_model.pt", "--as", SIAMESE, "--config", f"{SIAMESE_RUN}/config.yaml")
    return promote(world, *arguments, "--metrics", f"{SIAMESE_RUN}/m.json", *more)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The project as it was: models in the folders of their runs, a configuration that names them."""
    world = make_repository(tmp_path_factory.mktemp("grown"))
    runs = {AVA_RUN: (1.0, 0.40), SIAMESE_RUN: (2.0, 0.30), RETRAINED: (3.0, 0.35), "outputs/ava/worse": (4.0, 0.45)}
    for run, (value, mse) in runs.items():
        checkpoint(world.root / run / "best_model.pt", value)
        world.write(f"{run}/config.yaml", f"# as trained\nbackbone: resnet50\nvalue: {value}\n")
        world.write(f"{run}/m.json", json.dumps({"val_mse": mse}))
    named = {"ava": f"{AVA_RUN}/best_model.pt", "siamese": f"{SIAMESE_RUN}/best_model.pt"}
    world.write("configs/global_config.yaml", CONFIG.format(**named))
    world.write("app.py", LOADER.format(**named))
    world.write("params.yaml", GATE)
    world.write(".gitignore", "/outputs/\n")
    world.commit("as it grew")
    return world


@pytest.fixture
def world(grown: World, tmp_path: Path) -> World:
    return copy_of(grown, tmp_path)


@pytest.fixture(scope="module")
def promoted(grown: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Both models promoted, each as one commit."""
    world = copy_of(grown, tmp_path_factory.mktemp("promoted"))
    ava(world, AVA_RUN, "--no-convert", "--rewrite-refs", "--yes", "--description", "Aesthetic score")
    siamese(world, "--no-convert", "--rewrite-refs", "--yes")
    return world


def test_two_models_out_of_time_stamped_folders(grown: World, promoted: World) -> None:
    paths = {"ava": f"models/{AVA}.pt", "siamese": f"models/{SIAMESE}.pt"}
    assert (promoted.root / "configs/global_config.yaml").read_text() == CONFIG.format(**paths)
    assert (promoted.root / "app.py").read_text() == LOADER.format(**paths)
    for model, run in ((AVA, AVA_RUN), (SIAMESE, SIAMESE_RUN)):
        stable, source = promoted.root / f"models/{model}.pt", promoted.root / run / "best_model.pt"
        assert stable.read_bytes() == source.read_bytes()
        assert not stable.samefile(source)
        assert (promoted.root / f"models/{model}.yaml").read_bytes() == (
            promoted.root / run / "config.yaml"
        ).read_bytes()
        assert labels(promoted, model) == {"current": "v1", "production": "v1"}
    assert content(promoted.root / "outputs") == content(grown.root / "outputs")

    readme = (promoted.root / "models/album_app/README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| [")]
    assert [row.split("|")[3].strip() for row in rows] == ["v1", "v1"]
    assert "Aesthetic score" in rows[0]
    assert "val_mse 0.4" in rows[0]
    assert f"`models/{SIAMESE}.pt`" in rows[1]
    assert "model-index:" in (promoted.root / f"models/{AVA}.md").read_text()

    exported = yaml.safe_load(promoted.holdfast("registry", "export").stdout)
    date = exported["album_app"]["ava_aesthetic_model"]["versions"]["v1"]["date"]
    wanted = yaml.safe_load(BY_HAND.format(date=date))["album_app"]["ava_aesthetic_model"]
    found = exported["album_app"]["ava_aesthetic_model"]
    assert found["current"] == wanted["current"]
    assert {name: found["versions"]["v1"][name] for name in wanted["versions"]["v1"]} == wanted["versions"]["v1"]

    assert shown(promoted, "verify")["ok"]
    assert promoted.dvc("status") == CLEAN
    assert promoted.git("status", "--porcelain") == ""
    assert promoted.git("log", "--format=%s", "-2").splitlines() == [
        f"Promote {SIAMESE_RUN}/best_model.pt to {SIAMESE}@v1",
        f"Promote {AVA_RUN}/best_model.pt to {AVA}@v1",
    ]


def test_two_versions_a_b_split_rollback_and_revert(promoted: World, tmp_path: Path) -> None:
    world = copy_of(promoted, tmp_path)
    first = tree(world)
    told = ava(world, RETRAINED, "--no-convert", "--rewrite-refs", "--yes")
    assert f"Promoted {AVA}@v2" in told
    assert labels(world, AVA) == {"current": "v2", "production": "v2"}
    second = tree(world)
    assert md5(world.root / f"models/{AVA}.pt") == md5(world.root / RETRAINED / "best_model.pt")
    assert second["configs/global_config.yaml"] == first["configs/global_config.yaml"]

    world.holdfast("registry", "assign", f"{AVA}@v1", "staging")
    registry = holdfast.load_registry(world.root)
    split = {"production": 0.9, "staging": 0.1}
    chosen = [registry.select(AVA, ab=split, key=f"user-{number}").name for number in range(100_000)]
    assert Counter(chosen).keys() == {f"{AVA}@v1", f"{AVA}@v2"}
    assert abs(Counter(chosen)[f"{AVA}@v2"] / 100_000 - 0.9) <= 0.01
    assert chosen[:50] == [registry.select(AVA, ab=split, key=f"user-{number}").name for number in range(50)]
    world.git("checkout", "-q", "--", "registry")

    world.holdfast("registry", "rollback", AVA)
    assert labels(world, AVA) == {"current": "v1", "production": "v1"}
    assert md5(world.root / f"models/{AVA}.pt") == md5(world.root / AVA_RUN / "best_model.pt")
    assert world.dvc("status") == CLEAN
    assert shown(world, "verify", "--offline")["ok"]
    # weights that somebody rolled back from are not promoted again
    assert "v1 stays current" in ava(world, RETRAINED, "--no-convert")
    assert labels(world, AVA)["current"] == "v1"
    world.git("reset", "-q", "--hard")
    world.dvc("checkout")
    assert tree(world) == second

    world.git("revert", "--no-edit", "HEAD")
    world.dvc("checkout")
    assert tree(world) == first
    assert shown(world, "verify", "--offline")["ok"]


def test_one_revert_and_a_checkout_undo_a_first_promotion(world: World) -> None:
    before = tree(world)
    siamese(world, "--no-convert", "--rewrite-refs", "--yes")
    between = tree(world)
    ava(world, AVA_RUN, "--no-convert", "--rewrite-refs", "--yes")
    for commit, wanted in (("HEAD", between), ("HEAD~2", before)):
        world.git("revert", "--no-edit", commit)
        world.dvc("checkout")
        assert tree(world) == wanted


def test_the_gate_refuses_and_nothing_moves(promoted: World, tmp_path: Path) -> None:
    world = copy_of(promoted, tmp_path)
    before, registry = tree(world), registry_files(world)
    done = world.holdfast(
        "registry", "promote", "outputs/ava/worse/best_model.pt", "--as", AVA, "--no-convert", "--rewrite-refs", "--yes",
        "--metrics", "outputs/ava/worse/m.json", code=12,
    )  # fmt: skip
    reason = "val_mse is 0.45 against 0.4 of v1, 0.05 worse; at most 0.02 worse is allowed"
    assert reason in done.stdout
    assert f"fail: metrics.val_mse.tolerance: {reason}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert registry_files(world) == registry
    verdict = json.loads((world.root / "metrics/promotion.json").read_text())
    assert (verdict["verdict"], verdict["metrics.val_mse.tolerance"]) == ("fail", 0)
    after = tree(world)
    assert {name for name in after if after[name] != before.get(name)} <= {"metrics/promotion.json"}
    assert before.keys() == after.keys()
    assert world.git("status", "--porcelain").split() in ([], ["M", "metrics/promotion.json"])

    # judged again under another gate, the same candidate passes
    world.write("params.yaml", GATE.replace("0.02", "0.1"))
    assert f"Promoted {AVA}@v2" in ava(world, "outputs/ava/worse", "--no-convert")


def test_an_override_is_recorded(promoted: World, tmp_path: Path) -> None:
    world = copy_of(promoted, tmp_path)
    error_of(
        world, "promote", "outputs/ava/worse/best_model.pt", "--as", AVA, "--no-convert", "--override", " ", code=2
    )
    told = ava(world, "outputs/ava/worse", "--no-convert", "--override", "the old one leaks")
    assert "overridden: the old one leaks" in told
    version = shown(world, "show", AVA)["models"][0]["versions"][-1]
    assert (version["version"], version["overridden"]) == ("v2", "the old one leaks")
    rule = version["gate"]["rules"]["metrics.val_mse.tolerance"]
    assert (version["gate"]["verdict"], rule["verdict"], rule["limit"]) == ("fail", "fail", 0.02)
    assert rule["reason"].startswith("val_mse is 0.45 against 0.4 of v1")
    assert labels(world, AVA) == {"current": "v2", "production": "v2"}
    assert world.dvc("status") == CLEAN


def test_no_override_moves_a_protected_alias(promoted: World, tmp_path: Path) -> None:
    world = copy_of(promoted, tmp_path)
    world.holdfast("registry", "protect", f"{AVA}@production")
    before = registry_files(world)
    arguments = ("outputs/ava/worse/best_model.pt", "--as", AVA, "--no-convert", "--override", "why not")
    told = error_of(world, "promote", *arguments, "--metrics", "outputs/ava/worse/m.json", code=1)
    assert "production of album_app/ava_aesthetic_model is protected" in told
    assert registry_files(world) == before
    ava(world, RETRAINED, "--no-convert")  # the gate moves it
    assert labels(world, AVA)["production"] == "v2"


def test_registered_weights_are_not_promoted_again(promoted: World, tmp_path: Path) -> None:
    world = copy_of(promoted, tmp_path)
    before = tree(world)
    for more in ((), ("--rewrite-refs", "--yes")):
        assert "has these weights already, and is current" in ava(world, AVA_RUN, "--no-convert", *more)
        assert tree(world) == before
        assert world.git("status", "--porcelain") == ""


def test_torch_becomes_safetensors(world: World) -> None:
    ava(world)
    stable = world.root / f"models/{AVA}.safetensors"
    weights = safetensors.torch.load_file(stable)
    original = torch.load(world.root / AVA_RUN / "best_model.pt", weights_only=True)["model_state_dict"]
    assert weights.keys() == original.keys()
    assert all(torch.equal(weights[name], original[name]) for name in original)
    with safetensors.safe_open(stable, "pt") as file:
        assert json.loads(file.metadata()["checkpoint"]) == {"epoch": 12}
    assert (world.root / f"models/{AVA}.safetensors.dvc").exists()
    version = shown(world, "show", AVA)["models"][0]["versions"][0]
    assert (version["oid"], version["size"]) == (md5(stable), stable.stat().st_size)
    assert version["source"]["run"] == AVA_RUN
    assert (world.root / f".dvc/cache/files/md5/{version['oid'][:2]}/{version['oid'][2:]}").exists()
    # the stable path keeps its name
    told = error_of(world, "promote", f"{RETRAINED}/best_model.pt", "--as", AVA, "--no-convert", code=2)
    assert f"the stable path of {AVA} is models/{AVA}.safetensors" in told


def test_tied_weights_are_one_tensor_and_two_names(world: World) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    torch.save({"state_dict": {"embed.weight": shared, "head.weight": shared}}, world.root / "outputs/tied.pt")
    world.write("params.yaml", "promote:\n  pickle_safe: true\n")
    promote(world, "outputs/tied.pt", "--as", "app/tied")
    assert list(safetensors.torch.load_file(world.root / "models/app/tied.safetensors")) == ["embed.weight"]
    assert shown(world, "verify", "--offline")["ok"]
    whole = ("outputs/tied.pt", "--as", "app/whole", "--no-convert")
    assert "torch zip and holds 1 pickle" in promote(world, *whole, code=12)
    promote(world, *whole, "--override", "the loader wants it")
    digests = {shown(world, "show", name)["models"][0]["versions"][0]["weights"] for name in ("app/tied", "app/whole")}
    assert len(digests) == 1


def test_a_dry_run_writes_nothing(world: World) -> None:
    before = tree(world)
    told = ava(world, AVA_RUN, "--rewrite-refs", "--dry-run")
    assert "Would promote" in told
    assert f"+  ava_checkpoint: models/{AVA}.safetensors" in told
    assert tree(world) == before
    assert ava(world, "outputs/ava/worse", "--no-convert", "-n").count("pass") >= 2
    world.write("params.yaml", GATE.replace("0.5", "0.2"))
    ava(world, "outputs/ava/worse", "--no-convert", "-n", code=12)
    world.git("checkout", "-q", "--", "params.yaml")
    assert tree(world) == before


def test_what_is_uncommitted_is_not_swept_along(world: World) -> None:
    world.write("other.py", "x = 1\n")
    world.git("add", "other.py")
    world.write("params.yaml", GATE + "# mine\n")
    ava(world, AVA_RUN, "--rewrite-refs", "--yes")
    files = world.git("show", "--format=", "--name-only").splitlines()
    assert "other.py" not in files
    assert "params.yaml" not in files
    assert world.git("status", "--porcelain").splitlines() == ["A  other.py", " M params.yaml"]

    world.git("reset", "-q", "--hard", "HEAD~1")
    world.dvc("checkout")
    world.write("app.py", "# changed\n" + (world.root / "app.py").read_text())
    before = tree(world)
    arguments = ("--as", AVA, "--metrics", f"{AVA_RUN}/m.json", "--no-convert", "--rewrite-refs", "-y")
    told = world.holdfast("registry", "promote", f"{AVA_RUN}/best_model.pt", *arguments, code=1)
    assert "app.py: changed since the last commit" in told.stderr
    assert tree(world) == before


def test_a_refused_commit_leaves_the_references_as_they_were(world: World) -> None:
    hook = world.write(".git/hooks/pre-commit", "#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    before = tree(world)
    arguments = ("registry", "promote", f"{AVA_RUN}/best_model.pt", "--as", AVA, "--rewrite-refs", "--yes")
    arguments += ("--metrics", f"{AVA_RUN}/m.json", "--no-convert")
    assert "not today" in world.holdfast(*arguments, code=1).stderr
    assert {name: tree(world)[name] for name in before} == before
    hook.unlink()
    world.holdfast(*arguments)
    assert f"models/{AVA}.pt" in (world.root / "app.py").read_text()
    assert world.git("status", "--porcelain") == ""


def test_without_an_answer_nothing_is_done(world: World) -> None:
    before = tree(world)
    assert "Agree with --yes" in error_of(
        world, "promote", f"{AVA_RUN}/best_model.pt", "--as", AVA, "--no-convert", "--rewrite-refs", code=2
    )
    command = f"holdfast registry promote {AVA_RUN}/best_model.pt --as {AVA} --metrics {AVA_RUN}/m.json"
    command += " --no-convert --rewrite-refs"
    answer = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        cwd=world.root, env=environment(world.home), input="n\n", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "rewrite 2 files and commit? [y/N]" in answer
    assert "Nothing was done." in answer
    assert tree(world) == before


def test_what_is_nowhere_else_is_not_overwritten(promoted: World, tmp_path: Path) -> None:
    world = copy_of(promoted, tmp_path)
    stable = world.root / f"models/{AVA}.pt"
    stable.unlink()
    checkpoint(stable, 99.0)
    before = stable.read_bytes()
    told = error_of(world, "promote", f"{RETRAINED}/best_model.pt", "--as", AVA, "--no-convert",
                    "--metrics", f"{RETRAINED}/m.json", code=1)  # fmt: skip
    assert "is no version of album_app/ava_aesthetic_model and is nowhere else" in told
    assert stable.read_bytes() == before
    assert labels(world, AVA)["current"] == "v1"


def test_what_cannot_be_loaded_without_running_code(world: World) -> None:
    script = textwrap.dedent("""
        import torch
        torch.save(torch.nn.Linear(2, 2), "outputs/module.pt")
    """)
    world.python(script)
    before = tree(world)
    error_of(world, "promote", "outputs/module.pt", "--as", "app/module", code=13)
    error_of(world, "promote", "params.yaml", "--as", "app/module", code=1)
    error_of(world, "promote", "outputs", "--as", "app/module", code=2)
    error_of(world, "promote", f"{AVA_RUN}/best_model.pt", "--as", "Module", code=2)
    assert tree(world) == before
