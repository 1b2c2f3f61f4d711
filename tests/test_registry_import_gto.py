"""Importing GTO's registry: tags that `registry tag` made, and those that people made with GTO and DVC alone."""

import json
import shutil
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from registry_world import CLEAN, error_of, registry_files, shown, weights
from worlds import TOOLS, World, make_repository, run

MODEL = "digits/classifier"
PLACE = "models/classifier.safetensors"


def gto(world: World, *arguments: str) -> str:
    return run([str(TOOLS / "gto"), *arguments], world.root, world.home).stdout


def track(world: World, value: float, *, path: str = PLACE) -> None:
    """A file that DVC tracks, in the cache as `dvc add` puts it there."""
    file = weights(world.root / path, value)
    oid = world.store(file.read_bytes().decode("latin-1").encode("latin-1"))
    world.write(
        f"{path}.dvc", f"outs:\n- md5: {oid}\n  size: {file.stat().st_size}\n  hash: md5\n  path: {file.name}\n"
    )


def artifacts(world: World, name: str = MODEL, path: str = PLACE) -> None:
    world.write("dvc.yaml", f"artifacts:\n  {name}:\n    path: {path}\n    type: model\n    desc: By hand\n")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """v1, v2 and v4 that GTO registered, of one file; the first is older than dvc.yaml's artifacts."""
    world = make_repository(tmp_path)
    world.write(".gitignore", "*.safetensors\n")
    for number in (1, 2, 4):
        track(world, number)
        if number > 1:
            artifacts(world)
        world.commit(f"version {number}")
        gto(world, "register", MODEL, "--version", f"v{number}.0.0")
    gto(world, "assign", MODEL, "--version", "v2.0.0", "--stage", "production")
    gto(world, "assign", MODEL, "--version", "v1.0.0", "--stage", "eu/live")
    return world


def test_tags_become_versions_and_aliases(world: World, tmp_path: Path) -> None:
    done = world.holdfast("registry", "import", "gto").stdout
    assert "Registered 3 versions; 0 were registered already, 0 left out." in done
    model = shown(world, "show", MODEL)["models"][0]
    assert (model["description"], model["current"], model["aliases"]) == ("By hand", "v4", {"production": "v2"})
    commits = world.git("rev-list", "--reverse", "HEAD").splitlines()[1:]
    assert [(v["version"], v["source"]) for v in model["versions"]] == [
        (f"v{n}", {"rev": commit, "tag": f"{MODEL}@v{n}.0.0"}) for n, commit in zip((1, 2, 4), commits, strict=True)
    ]
    for number in (1, 2, 4):
        world.holdfast("registry", "get", f"{MODEL}@v{number}", "-o", str(tmp_path / f"{number}.safetensors"))
        assert load_file(tmp_path / f"{number}.safetensors")["layer.bias"][0] == number
    assert shown(world, "verify")["ok"]
    assert world.dvc("status") == CLEAN
    before = registry_files(world)
    assert "3 were registered already" in world.holdfast("registry", "import", "gto").stdout
    assert registry_files(world) == before
    # and the other way round there is nothing left to say
    world.commit("imported")
    assert shown(world, "tag")["tags"] == []


def test_what_tag_writes_import_reads(world: World) -> None:
    world.holdfast("registry", "import", "gto")
    world.commit("imported")
    track(world, 5)
    weights(world.root / PLACE, 5)
    world.holdfast("registry", "register", MODEL, PLACE, "--alias", "production", "--current")
    world.commit("version 5")
    world.holdfast("registry", "tag")
    before = shown(world, "show", MODEL)["models"][0]
    assert json.loads(gto(world, "show", "--json"))[MODEL]["stage"]["production"] == "v5.0.0"
    shutil.rmtree(world.root / "registry")
    world.holdfast("registry", "import", "gto")
    after = shown(world, "show", MODEL)["models"][0]
    assert (
        (after["current"], after["aliases"]) == (before["current"], before["aliases"]) == ("v5", {"production": "v5"})
    )
    assert [(v["version"], v["oid"], v["weights"], v["size"]) for v in after["versions"]] == [
        (v["version"], v["oid"], v["weights"], v["size"]) for v in before["versions"]
    ]


def test_versions_of_another_form_are_numbered_in_their_order(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    artifacts(world, "classifier", "plain/model.safetensors")
    for number, name in ((1, "v0.1.0"), (2, "v0.10.0"), (3, "v0.9.0")):
        weights(world.root / "plain/model.safetensors", number)  # in git itself
        world.commit(name)
        gto(world, "register", "classifier", "--version", name)
        gto(world, "assign", "classifier", "--version", name, "--stage", "production")
        time.sleep(1.1)  # GTO orders by the second
    gto(world, "deprecate", "classifier", "v0.1.0")
    assert "classifier does not say of which application it is" in error_of(world, "import", "gto", code=2)
    told = shown(world, "import", "gto", "--app", "digits", "--dry-run")["versions"]
    assert [(item["model"], item["version"]) for item in told] == [(MODEL, "next")] * 2
    world.holdfast("registry", "import", "gto", "--app", "digits")
    model = shown(world, "show", MODEL)["models"][0]
    assert [v["source"]["tag"] for v in model["versions"]] == ["classifier@v0.9.0", "classifier@v0.10.0"]
    # v0.9.0 was assigned last, and its file is the one that is checked out
    assert (model["current"], model["aliases"]) == ("v1", {"production": "v1"})
    assert shown(world, "verify")["ok"]


def test_imported_tags_are_known_again(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    artifacts(world, MODEL, "plain/model.safetensors")
    for number, name in ((1, "v0.9.0"), (2, "v0.10.0")):
        weights(world.root / "plain/model.safetensors", number)
        world.commit(name)
        gto(world, "register", MODEL, "--version", name)
    world.holdfast("registry", "import", "gto")
    world.holdfast("registry", "assign", f"{MODEL}@v1", "production")
    world.commit("imported")
    told = shown(world, "tag")
    assert [(tag["name"], tag["version"]) for tag in told["tags"]] == [(f"{MODEL}#production#1", "v1")]
    assert (told["notes"], told["waiting"]) == ([], [])
    assert json.loads(gto(world, "show", "--json"))[MODEL]["stage"] == {"production": "v0.9.0"}


def test_what_cannot_be_had_is_left_out(world: World) -> None:
    oid = next(line.split()[-1] for line in (world.root / f"{PLACE}.dvc").read_text().splitlines() if "md5:" in line)
    (world.cache / "files/md5" / oid[:2] / oid[2:]).unlink()
    (world.root / PLACE).unlink()
    world.write("dvc.yaml", "stages: {}\n")
    world.commit("no artifacts")
    done = world.holdfast("registry", "import", "gto", code=3)
    assert f"{MODEL}@v4.0.0 (md5 {oid}) is not in" in done.stdout
    assert f"neither its commit nor this one has an artifact {MODEL} in dvc.yaml" in done.stdout
    model = shown(world, "show", MODEL)["models"][0]
    assert ([v["version"] for v in model["versions"]], model["aliases"]) == (["v2"], {"production": "v2"})


def test_a_folder_has_a_file_of_weights(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    files = {
        "a.safetensors": weights(tmp_path / "a", 1).read_bytes(),
        "b.safetensors": weights(tmp_path / "b", 2).read_bytes(),
    }
    listing = [{"md5": world.store(data), "relpath": name} for name, data in files.items()]
    oid = world.store(json.dumps(listing), suffix=".dir")
    world.write("models/all.dvc", f"outs:\n- md5: {oid}\n  nfiles: 2\n  hash: md5\n  path: all\n")
    artifacts(world, MODEL, "models/all")
    world.commit("a folder")
    gto(world, "register", MODEL)
    done = world.holdfast("registry", "import", "gto", code=3)
    assert "the folder models/all has 2 checkpoints" in done.stderr
    world.holdfast("registry", "import", "gto", "--weights", "b.safetensors")
    version = shown(world, "show", f"{MODEL}@v1")
    assert (version["weights_file"], version["oid"]) == ("b.safetensors", oid)
    assert version["size"] == sum(map(len, files.values()))


def test_a_repository_without_tags_has_nothing(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    assert "no git tag names a version in GTO's form" in error_of(world, "import", "gto", code=2)
