"""How to adopt a DVC project, and how to come from MLflow, Git LFS and W&B: each page is walked from its first line on."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from forks import ForkedWorld, Forks
from holdfast import load_registry
from holdfast.formats.digest import file_md5
from holdfast.registry.store import Registry
from holdfast.repo.cache import object_path
from how_to_world import DOCS, Page
from registry_world import weights
from vaults import history
from worlds import make_repository

MODEL = "digits/classifier"
STABLE = "models/classifier.safetensors"
REMOTE = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../store\n"
MLFLOW = Path(__file__).parent / "golden" / "mlflow" / "mlruns"

PIPELINE = f"""\
stages:
  train:
    cmd: python train.py
    deps:
    - data.csv
    params:
    - train
    outs:
    - {STABLE}
    metrics:
    - metrics.json:
        cache: false
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, forks: Forks) -> ForkedWorld:
    """A DVC project with a remote, and nothing in it."""
    made = make_repository(tmp_path)
    (tmp_path / "store").mkdir()
    world = ForkedWorld(made.root, made.home, forks=forks)
    world.write(".dvc/config", REMOTE)
    world.commit("A remote")
    return world


def oid_of(data: bytes | str) -> str:
    return hashlib.md5(data.encode() if isinstance(data, str) else data, usedforsecurity=False).hexdigest()


def versions_of(world: ForkedWorld) -> list[str]:
    return [version.name for version in Registry(world.root).model(MODEL).versions]


def entry(path: str, data: bytes | str) -> str:
    size = len(data if isinstance(data, bytes) else data.encode())
    return f"    - path: {path}\n      hash: md5\n      md5: {oid_of(data)}\n      size: {size}\n"


def test_adopting_a_dvc_project(world: ForkedWorld, forks: Forks) -> None:
    """Three trainings, as `dvc repro` leaves them, all of it pushed to a remote."""
    checkpoints = history(3, elements=20_000)
    world.write(".gitignore", "/data.csv\n")
    world.write("models/.gitignore", "/classifier.safetensors\n")
    world.write("dvc.yaml", PIPELINE)
    world.write("train.py", f"print('makes {STABLE}')\n")
    commits = []
    for number, data in enumerate(checkpoints, 1):
        rows, metrics = f"a,b\n{number},2\n", json.dumps({"accuracy": 0.9 + number / 100})
        world.track("data.csv", rows)
        world.store(data)
        for path, content in (("data.csv", rows), (STABLE, data), ("metrics.json", metrics)):
            world.write(path, content)
        world.write("params.yaml", f"train:\n  lr: 0.00{number}\n")
        outs = entry("metrics.json", metrics) + entry(STABLE, data)
        params = f"      params.yaml:\n        train:\n          lr: 0.00{number}\n"
        deps = entry("data.csv", rows)
        world.write(
            "dvc.lock",
            "schema: '2.0'\nstages:\n  train:\n    cmd: python train.py\n"
            f"    deps:\n{deps}    params:\n{params}    outs:\n{outs}",
        )
        commits.append(world.commit(f"Training {number}"))
        world.git("tag", f"r{number}")
    shutil.copytree(world.cache / "files", world.root.parent / "store/files")

    page = Page("how-to/adopt-a-dvc-project.md", forks)
    headings = ["Look", "Register what counts", "Move the remote into a vault", "Go back"]
    assert list(page.sections()) == headings
    for heading in headings[:3]:
        page.walk(heading, world)
    assert world.git("status", "--porcelain") == ""
    model = Registry(world.root).model(MODEL)
    for version, data, commit, number in zip(model.versions, checkpoints, commits, (1, 2, 3), strict=True):
        assert (version.oid, version.source["rev"]) == (oid_of(data), commit)
        assert (version.metrics, version.params) == (
            {"accuracy": 0.9 + number / 100},
            {"train": {"lr": pytest.approx(number / 1000)}},
        )
    shutil.rmtree(world.root.parent / "store/files")
    page.walk("Go back", world)
    for data in checkpoints:
        assert object_path(world.root.parent / "store", "md5", oid_of(data)).read_bytes() == data


def test_migrating_from_mlflow(world: ForkedWorld, forks: Forks) -> None:
    """The store is one that MLflow wrote; the downloads are folders as its command leaves them."""
    shutil.copytree(MLFLOW, world.root.parent / "mlruns")
    page = Page("how-to/migrate-from-mlflow.md", forks)
    headings = list(page.sections())
    assert headings[-1] == "From a tracking server"
    for heading in headings[:-1]:
        page.walk(heading, world)
        assert world.git("status", "--porcelain") in ("", "?? registry.yaml")
    assert versions_of(world) == ["v1", "v2", "v4"]
    champion = Registry(world.root).model(MODEL).named("champion")
    used = world.root / "models/digits/classifier"
    assert (champion.name, champion.path) == ("v2", "models/digits/classifier")
    assert sorted(path.name for path in used.iterdir()) == ["MLmodel", "model.safetensors"]
    (original,) = MLFLOW.glob(f"*/{champion.source['mlflow_run']}/artifacts/model/model.safetensors")
    assert (used / "model.safetensors").read_bytes() == original.read_bytes()
    assert load_registry(world.root / "registry.yaml").resolve(f"{MODEL}@champion").name == f"{MODEL}@v2"

    # the other way, in a project that has nothing yet
    shutil.rmtree(world.root / "registry")
    for number in (1, 2):
        weights(world.root / f"downloads/v{number}/model.safetensors", float(number))
        for name in ("MLmodel", "registered_model_meta"):
            world.write(f"downloads/v{number}/{name}", "flavors: {}\n")
    listed = re.findall(r"```yaml\n(.*?)```", (DOCS / page.path).read_text(), re.DOTALL)
    world.write("mlflow.yaml", "".join(listed))
    world.commit("Downloads")
    page.walk(headings[-1], world)
    model = Registry(world.root).model(MODEL)
    assert (model.current, dict(model.aliases)) == ("v2", {"champion": "v2"})
    assert [(version.date, version.metrics) for version in model.versions] == [
        ("2026-10-01", {"accuracy": 0.75}),
        ("2026-11-01", {"accuracy": 0.95}),
    ]


def test_migrating_from_git_lfs(world: ForkedWorld, forks: Forks, tmp_path: Path) -> None:
    """A clone of a repository whose checkpoints Git LFS tracks, in which LFS has brought nothing yet."""
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    checkpoints = history(3, elements=20_000)
    world.git("lfs", "install", "--local", "--skip-repo")
    world.write(
        ".gitattributes",
        "*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.png filter=lfs diff=lfs merge=lfs -text\n",
    )
    world.write("logo.png", b"\x89PNG....")
    for number, data in enumerate(checkpoints, 1):
        world.write(STABLE, data)
        world.write("metrics.json", json.dumps({"accuracy": 0.9 + number / 100}))
        world.commit(f"Training {number}")
        world.git("tag", f"r{number}")
    world.git("init", "-q", "--bare", str(tmp_path / "origin.git"))
    world.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    world.git("switch", "-q", "-c", "tuning")
    world.write(STABLE, tuned := history(1, elements=20_000, seed=2)[0])
    world.commit("Tuning")
    world.git("push", "-q", "-u", "origin", "main", "tuning", "--tags")
    world.git("lfs", "push", "--all", "origin")
    clone = ForkedWorld(tmp_path / "clone", world.home, forks=forks)
    world.git(
        "-c", "filter.lfs.smudge=git-lfs smudge --skip", "clone", "-q", str(tmp_path / "origin.git"), str(clone.root)
    )
    clone.git("branch", "-q", "tuning", "origin/tuning")
    clone.git("lfs", "install", "--local", "--skip-repo", "--skip-smudge")
    assert clone.holdfast("registry", "register", MODEL, STABLE, code=1).stderr.startswith(
        f"holdfast: {STABLE} has no weights digest: its first bytes are those of no format that Holdfast knows"
    )
    clone.git("lfs", "install", "--local", "--skip-repo", "--force")

    page = Page("how-to/migrate-from-git-lfs.md", forks)
    for heading in page.sections():
        page.walk(heading, clone)
    assert clone.git("status", "--porcelain") == "?? v1.safetensors"
    assert [oid_of(data) for data in checkpoints] == [
        version.oid for version in Registry(clone.root).model(MODEL).versions
    ]
    assert (clone.root / STABLE).read_bytes() == tuned
    assert oid_of(tuned) in (clone.root / f"{STABLE}.dvc").read_text()
    # history is as it was
    assert clone.git("rev-parse", "r1", "r2", "r3") == world.git("rev-parse", "r1", "r2", "r3")
    clone.git("switch", "-q", "--detach", "r2")
    assert (clone.root / STABLE).read_bytes() == checkpoints[1]


def test_migrating_from_wandb(world: ForkedWorld, forks: Forks) -> None:
    """Folders as `wandb artifact get`, its cache and a run that was offline leave them (seen with 0.31.0)."""
    world.write(".gitignore", "/artifacts/\n/runs/\n")
    world.commit("Ignore what is downloaded")
    for number in (0, 1):
        weights(world.root / f"artifacts/classifier-v{number}/model.safetensors", float(number + 1))
        world.write(f"artifacts/classifier-v{number}/config.json", '{"width": 8}')
    downloaded = (world.root / "artifacts/classifier-v1/model.safetensors").read_bytes()
    oid = oid_of(downloaded)
    cached = world.home / f".cache/wandb/artifacts/obj/md5/{oid[:2]}/{oid[2:]}"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(downloaded)
    staged = weights(world.home / ".local/share/wandb/artifacts/staging/tmp3zd8wv4g", 7.0, shape=(8, 28))

    page = Page("how-to/migrate-from-wandb.md", forks)
    for heading in page.sections():
        given = {"1f/0c4dd2a2ac0d4a2b8f7d1c3a9e5b60": f"{oid[:2]}/{oid[2:]}"} if "else" in heading else None
        page.walk(heading, world, given)
    assert versions_of(world) == ["v1", "v2"]
    assert not (world.root / "artifacts").exists()
    assert world.git("status", "--porcelain") == ""
    (baseline,) = Registry(world.root).model("digits/baseline").versions
    assert baseline.oid == file_md5(staged)
    assert (baseline.metrics, baseline.params) == ({"accuracy": 0.92}, {"lr": 0.001})
