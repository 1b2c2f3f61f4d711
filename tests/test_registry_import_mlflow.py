"""Importing MLflow's file store: one that MLflow itself made (``tests/golden/mlflow``), moved, inside and outside."""

import math
import shutil
from pathlib import Path

import pytest
import yaml

from registry_world import error_of, registry_files, shown
from worlds import World, make_repository

GOLDEN = Path(__file__).parent / "golden" / "mlflow" / "mlruns"
MODEL = "digits/classifier"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A project with the store in it; its files name a place that does not exist here."""
    world = make_repository(tmp_path)
    shutil.copytree(GOLDEN, world.root / "mlruns")
    world.write(".gitignore", "/mlruns\n")
    world.commit("a store")
    return world


def run_of(store: Path, number: int) -> str:
    return str(yaml.safe_load((store / f"models/classifier/version-{number}/meta.yaml").read_text())["run_id"])


def test_versions_labels_metrics_and_files_come_along(world: World) -> None:
    logged = next((world.root / "mlruns").glob("*/models/*/metrics/accuracy"))
    logged.write_text(logged.read_text().replace(" 0.75 ", " 0.625 "))
    done = world.holdfast("registry", "import", "mlruns", "--app", "digits", code=3)
    assert "Registered 3 versions; 0 were registered already, 2 left out." in done.stdout
    assert "classifier version 3" in done.stdout
    assert "model.pkl" not in done.stdout
    assert "its files are not in the store: s3://bucket/model" in done.stdout
    model = shown(world, "show", MODEL)["models"][0]
    assert model["description"] == "Handwritten digits"
    assert (model["current"], model["aliases"]) == (
        "v2", {"Staging": "v4", "champion": "v2", "production": "v2", "staging": "v4"},
    )  # fmt: skip
    assert model["deprecations"]["v1"]["reason"] == "archived in MLflow"
    versions = {version["version"]: version for version in model["versions"]}
    assert list(versions) == ["v1", "v2", "v4"]
    experiment = next(path.name for path in GOLDEN.iterdir() if path.name.isdigit() and path.name != "0")
    run = run_of(GOLDEN, 1)
    assert versions["v1"]["path"] == f"mlruns/{experiment}/{run}/artifacts/model"
    assert versions["v1"]["source"] == {"run": f"mlruns/{experiment}/{run}", "mlflow_run": run, "rev": "1" * 40}
    assert versions["v1"]["weights_file"] == "model.safetensors"
    assert versions["v1"]["metrics"] == {"accuracy": 0.75, "test/loss": 0.25}
    assert versions["v1"]["params"] == {"flag": "True", "lr": 0.001, "optim/name": "adam", "width": "0064"}
    # the value of the last step, not of the last line
    assert math.isclose(versions["v2"]["metrics"]["accuracy"], 0.95)
    assert "test/loss: .nan" in (world.root / f"registry/{MODEL}/v2.yaml").read_text()
    # what a model recorded itself goes before what its run did
    assert versions["v4"]["metrics"] == {"accuracy": 0.625, "test/loss": 0.25}
    assert versions["v4"]["params"]["depth"] == 3
    assert versions["v4"]["path"].endswith("/artifacts")
    assert {version["date"] for version in versions.values()} == {"2026-11-20"}
    assert shown(world, "verify")["read"] == 3
    world.holdfast("registry", "get", f"{MODEL}@v4", "-o", "out")
    assert sorted(path.name for path in (world.root / "out").iterdir()) == ["MLmodel", "model.safetensors"]
    world.holdfast("registry", "unassign", f"{MODEL}@champion")
    before = registry_files(world)
    again = world.holdfast("registry", "import", "mlruns", "--app", "digits", code=3).stdout
    assert "Registered 0 versions; 3 were registered already, 2 left out." in again
    assert registry_files(world) == before


def test_a_dry_run_and_what_is_no_store(world: World) -> None:
    told = shown(world, "import", ".", "--app", "digits", "--dry-run")
    assert [(item["version"], item["labels"]) for item in told["versions"]] == [
        ("v1", ""), ("v2", "current, champion, production"), ("v3", ""), ("v4", "Staging, staging"), ("–", ""),
    ]  # fmt: skip
    assert not (world.root / "registry").exists()
    assert "classifier does not say of which application it is. Name it: --app APP" in error_of(
        world, "import", "mlruns", code=2
    )
    (world.root / "empty").mkdir()
    assert "empty is no file store of MLflow's" in error_of(world, "import", "empty", code=2)
    assert "nowhere does not exist" in error_of(world, "import", "nowhere", code=2)
    assert "cannot be the name of a model" in error_of(world, "import", "mlruns", "--app", "a/b/c", code=2)


def test_a_store_outside_of_the_project_is_copied(world: World, tmp_path: Path) -> None:
    shutil.move(world.root / "mlruns", tmp_path / "elsewhere")
    world.holdfast("registry", "import", str(tmp_path / "elsewhere"), "--app", "digits", code=3)
    version = shown(world, "show", f"{MODEL}@v2")
    assert (version["path"], version["weights_file"]) == (f"models/{MODEL}", "model.safetensors")
    assert version["source"] == {"mlflow_run": run_of(GOLDEN, 2), "rev": "2" * 40}
    shutil.rmtree(tmp_path / "elsewhere")
    world.holdfast("registry", "get", f"{MODEL}@v2", "-o", "out")
    assert (world.root / "out/MLmodel").read_text() == "flavors: {}\n"
    assert shown(world, "verify", "--offline")["ok"]


def test_a_store_where_it_was_made(world: World, tmp_path: Path) -> None:
    """Its files' own absolute names are followed, in it alone."""
    store = world.root / "mlruns"
    for meta in store.rglob("meta.yaml"):
        meta.write_text(meta.read_text().replace("/srv/mlflow/mlruns", str(store)))
    outside = tmp_path / "outside"
    shutil.copytree(next(store.glob("*/*/artifacts/model")), outside)
    meta = store / "models/classifier/version-1/meta.yaml"
    for place in (str(outside), outside.as_uri(), f"{store}/../../outside", "models/../../../outside"):
        fields = yaml.safe_load(meta.read_text()) | {"source": place, "storage_location": place}
        meta.write_text(yaml.safe_dump(fields))
        told = shown(world, "import", "mlruns", "--app", "digits", "--dry-run")["versions"]
        assert "its files are not in the store" in told[0]["path"]
        assert [item["path"].startswith("mlruns/") for item in told] == [False, True, True, True, False]
    # a link out of the store is none of its files either
    files = next(path for path in store.glob("*/*/artifacts/model") if path.parent.parent.name == run_of(store, 2))
    (files / "secret").symlink_to("/etc/hostname")
    told = shown(world, "import", "mlruns", "--app", "digits", "--dry-run")["versions"]
    assert "its files are not in the store" in told[1]["path"]


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("meta.yaml", "[", "meta.yaml cannot be read"),
        ("meta.yaml", "[]", "holds no mapping"),
        ("meta.yaml", "[" * 5000, "cannot be read"),
        ("meta.yaml", "a: !!python/object/apply:os.getcwd []", "cannot be read"),
        ("version-1/meta.yaml", "name: x\n", "has the creation_timestamp None"),
        ("version-1/meta.yaml", "creation_timestamp: 99999999999999999999\n", "has the creation_timestamp"),
        ("metrics", "1 2 3 4 5 x\nno metric\n", "is no metric of MLflow's"),
    ],
)
def test_a_broken_store_is_an_error(world: World, file: str, text: str, told: str) -> None:
    place = world.root / "mlruns/models/classifier" / file
    if file == "metrics":
        place = next((world.root / "mlruns").glob(f"*/{run_of(GOLDEN, 1)}/metrics/accuracy"))
    place.write_text(text)
    assert told in error_of(world, "import", "mlruns", "--app", "digits", code=2)
    assert not (world.root / "registry").exists()


def test_a_version_that_is_not_ready_is_left_out(world: World) -> None:
    meta = world.root / "mlruns/models/classifier/version-2/meta.yaml"
    meta.write_text(meta.read_text().replace("status: READY", "status: PENDING_REGISTRATION"))
    done = world.holdfast("registry", "import", "mlruns", "--app", "digits", code=3)
    assert "MLflow calls it PENDING_REGISTRATION" in done.stdout
    model = shown(world, "show", MODEL)["models"][0]
    assert [version["version"] for version in model["versions"]] == ["v1", "v4"]
    assert model["aliases"] == {"Staging": "v4", "staging": "v4"}
