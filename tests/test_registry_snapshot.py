"""The registry in a service: without git, while it changes, out of a folder or an exported file; and exchange of files."""

import json
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import yaml

import holdfast
from holdfast.atomic import write_atomically
from holdfast.errors import IntegrityError, UsageError
from holdfast.registry.document import EntryError
from holdfast.registry.entries import Model, UnknownVersionError, Version
from holdfast.registry.exporting import to_json, to_yaml
from holdfast.registry.labels import assign_alias, deprecate_version
from holdfast.registry.selection import NoneFitsError, parse_criterion, select_version, split_by_key
from holdfast.registry.snapshot import NoRegistryError, NotInPlaceError
from holdfast.registry.store import Registry, UnknownModelError
from registry_world import error_of, labels, shown, weights
from worlds import World, make_repository

MODEL = "album_app/ava"


def draft(number: int, **changes: object) -> Version:
    fields = {"metrics": {"val_mse": 1 / number, "accuracy": number / 10}, "params": {"lr": 0.1}, **changes}
    return Version("", f"models/ava_{number}.pt", f"{number:032x}", 5, f"blake3:{number:064x}", "2026-01-18", **fields)  # type: ignore[arg-type]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path)
    for number in (1, 2, 3):
        registry.register(MODEL, draft(number), "Scores")
        path = tmp_path / f"models/ava_{number}.pt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
    assign_alias(registry, MODEL, "production", "v2")
    return registry


@pytest.mark.usefixtures("registry")
def test_names_and_paths(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "registry", str(tmp_path)):
        loaded = holdfast.load_registry(place)
        assert loaded.models() == [MODEL]
        found = loaded.resolve(f"{MODEL}@production")
        assert (found.name, found.labels, found.version.metrics["accuracy"]) == (f"{MODEL}@v2", ("production",), 0.2)
        assert loaded.resolve(MODEL).name == f"{MODEL}@v3"
        assert loaded.path(f"{MODEL}@v1") == tmp_path / "models/ava_1.pt"
    with pytest.raises(UnknownVersionError):
        loaded.resolve(f"{MODEL}@staging")
    with pytest.raises(UnknownModelError):
        loaded.resolve("album_app/other")
    with pytest.raises(UsageError):
        loaded.resolve("ava@v1")
    with pytest.raises(NoRegistryError):
        holdfast.load_registry(tmp_path / "models")


def test_a_path_that_holds_something_else_is_not_given(registry: Registry, tmp_path: Path) -> None:
    loaded = holdfast.load_registry(tmp_path)
    (tmp_path / "models/ava_1.pt").write_bytes(b"1234")
    with pytest.raises(NotInPlaceError, match="has 4 bytes"):
        loaded.path(f"{MODEL}@v1")
    (tmp_path / "models/ava_1.pt").unlink()
    with pytest.raises(NotInPlaceError, match=r"registry get album_app/ava@v1 -o PATH"):
        loaded.path(f"{MODEL}@v1")
    with pytest.raises(IntegrityError, match="has the md5"):
        loaded.path(f"{MODEL}@v2", verify=True)
    registry.register(MODEL, replace(draft(4), path="models/ava_2.pt"))
    with pytest.raises(NotInPlaceError, match="holds v4, not v2"):
        loaded.path(f"{MODEL}@v2")


def test_a_change_is_noticed_and_a_fault_leaves_the_state_before(registry: Registry, tmp_path: Path) -> None:
    loaded = holdfast.load_registry(tmp_path)
    assert loaded.resolve(f"{MODEL}@production").version.name == "v2"
    assign_alias(registry, MODEL, "production", "v3")
    assert loaded.resolve(f"{MODEL}@production").version.name == "v3"
    registry.register(MODEL, draft(4), aliases=["production"])
    assert loaded.resolve(f"{MODEL}@production").version.name == "v4"
    file = tmp_path / "registry/album_app/ava/model.yaml"
    whole = file.read_text()
    time.sleep(0.03)  # what was read long after the last change is not read again without a reason
    loaded.resolve(MODEL)
    file.write_text(whole.replace("schema: 1", "schema: ["))  # by hand, in place
    assert loaded.resolve(f"{MODEL}@production").version.name == "v4"
    assert isinstance(loaded.fault, EntryError)
    with pytest.raises(EntryError):
        holdfast.load_registry(tmp_path).resolve(MODEL)
    file.write_text(whole.replace("production: v4", "production: v1"))
    assert loaded.resolve(f"{MODEL}@production").version.name == "v1"
    assert loaded.fault is None
    deprecate_version(registry, MODEL, "v2", "old", "2026-11-20")
    told = loaded.resolve(f"{MODEL}@v2").deprecated
    assert told is not None
    assert (told.reason, told.date) == ("old", "2026-11-20")


@pytest.mark.parametrize("form", ["folder", "yaml", "json"])
def test_a_reader_sees_one_state_while_writers_write(registry: Registry, tmp_path: Path, form: str) -> None:
    """A writer registers a version and moves `current` and an alias to it, again and again; both always agree."""
    file = tmp_path / f"exported.{form}"

    def export() -> None:
        write_atomically(file, (to_json if form == "json" else to_yaml)(registry.models()))

    if form != "folder":
        export()
    loaded = holdfast.load_registry(tmp_path if form == "folder" else file)
    stop, faults, seen = threading.Event(), [], set()

    def read() -> None:
        while not stop.is_set():
            try:
                model = loaded.model(MODEL)
                names = [version.name for version in model.versions]
                # a version is there before it is in use; what is in use is there, and both labels moved at once
                right = model.current in names[-2:] if form == "folder" else model.current == names[-1]
                if not right or (len(names) > 4 and model.aliases["production"] != model.current):
                    faults.append(str(model))
                seen.add(model.current)
            except Exception as error:
                faults.append(repr(error))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(4, 34):
        registry.register(MODEL, draft(number), aliases=["production"])
        if form != "folder":
            export()
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert len(seen) > 3
    assert loaded.resolve(f"{MODEL}@production").version.name == "v33"


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from holdfast.registry.store import Registry
    from test_registry_snapshot import MODEL, draft

    for number in range(100, 160):
        Registry(Path(sys.argv[1])).register(MODEL, draft(number), aliases=["production"])
""")


def test_reading_while_another_process_registers_is_no_fault(registry: Registry, tmp_path: Path) -> None:
    """A version's file that came after the folder was listed, and labels that name it, are no broken registry."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    writer = subprocess.Popen(command)
    seen = set()
    while writer.poll() is None:
        model = registry.model(MODEL)
        names = [version.name for version in model.versions]
        assert names == [f"v{number}" for number in range(1, len(names) + 1)]
        assert model.current in names[-2:]
        seen.add(model.current)
    assert writer.returncode == 0
    assert registry.model(MODEL).current == "v63"
    assert len(seen) > 5


def test_asking_again_costs_microseconds(registry: Registry, tmp_path: Path) -> None:
    """As a ratio to reading the model anew, so that a busy machine does not matter."""
    time.sleep(0.03)  # files of this very moment are read again, since a change might not show in their times
    loaded = holdfast.load_registry(tmp_path)
    loaded.resolve(MODEL)
    start = time.process_time()
    for _ in range(200):
        loaded.resolve(MODEL)
    again = time.process_time() - start
    start = time.process_time()
    for _ in range(200):
        registry.model(MODEL)
    assert again < (time.process_time() - start) / 3


@pytest.mark.usefixtures("registry")
def test_without_git_dvc_or_numpy(tmp_path: Path) -> None:
    """What a serving machine has: importing and resolving loads none of them, and no process is started."""
    script = textwrap.dedent(f"""
        import sys
        import holdfast
        assert len([name for name in sys.modules if name.startswith("holdfast")]) == 1
        print(holdfast.load_registry({str(tmp_path)!r}).path("{MODEL}@production"))
        print(sorted(name for name in ("git", "pygit2", "dvc", "numpy", "torch", "click", "rich", "yaml") if name in sys.modules))
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PATH": ""})
    assert done.stdout.splitlines() == [str(tmp_path / "models/ava_2.pt"), "[]"]


def test_lazy_names() -> None:
    assert "load_registry" in dir(holdfast)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = holdfast.nothing


def test_export_is_read_back_as_it_was(registry: Registry, tmp_path: Path) -> None:
    registry.register("health/medium", replace(draft(7), oid="7" * 32 + ".dir", weights_file="a.pt", gate={"verdict": "pass"}, overridden="why"))  # fmt: skip
    deprecate_version(registry, MODEL, "v1", "old", "2026-11-20")
    models = registry.models()
    for name, text in (("r.yaml", to_yaml(models)), ("r.json", to_json(models))):
        (tmp_path / name).write_text(text)
        loaded = holdfast.load_registry(tmp_path / name)
        assert [loaded.model(model) for model in loaded.models()] == models
    tree = yaml.safe_load(to_yaml(models))
    assert tree["album_app"]["ava"]["versions"]["v1"]["date"] == date(2026, 1, 18)
    with pytest.raises(EntryError, match="cannot be written as JSON"):
        to_json([replace(models[0], versions=(replace(models[0].versions[0], metrics={"x": float("nan")}),))])


BY_HAND = """\
album_app:
  ava:
    current: v1
    versions:
      v1:
        path: models/album_app/ava_aesthetic_model.pt
        date: 2026-01-18
        metrics:
          val_mse: 0.40
      v2:
        path: models/album_app_v2/ava_aesthetic_model.pt
        date: 2026-02-15
        metrics:
          val_mse: 0.35
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_repository(tmp_path)


def test_a_registry_by_hand_is_read_imported_and_exported_equal_in_meaning(world: World) -> None:
    world.write("models/registry.yaml", BY_HAND)
    (world.root / "models/album_app_v2").mkdir(parents=True)
    loaded = holdfast.load_registry(world.root / "models/registry.yaml")
    assert loaded.resolve("album_app/ava").version.metrics == {"val_mse": 0.40}
    assert loaded.select("album_app/ava", metric="val_mse").name == "album_app/ava@v2"

    weights(world.root / "models/album_app/ava_aesthetic_model.pt", 1.0)
    assert "album_app_v2/ava_aesthetic_model.pt does not exist" in error_of(
        world, "import", "models/registry.yaml", code=3
    )
    weights(world.root / "models/album_app_v2/ava_aesthetic_model.pt", 2.0)
    answer = shown(world, "import", "models/registry.yaml")
    assert [(item["version"], item["new"]) for item in answer["versions"]] == [("v1", False), ("v2", True)]
    exported = yaml.safe_load(world.holdfast("registry", "export").stdout)
    hand = yaml.safe_load(BY_HAND)
    model = exported["album_app"]["ava"]
    assert model["current"] == "v1"
    told = {
        name: {key: version[key] for key in ("path", "date", "metrics")} for name, version in model["versions"].items()
    }
    assert told == hand["album_app"]["ava"]["versions"]
    assert shown(world, "verify")["ok"]


def test_an_export_is_imported_elsewhere_without_its_files(world: World, registry: Registry) -> None:
    world.write("r.yaml", to_yaml(registry.models()))
    answer = shown(world, "import", "r.yaml")
    assert [item["version"] for item in answer["versions"]] == ["v1", "v2", "v3"]
    copied, original = Registry(world.root).model(MODEL), registry.model(MODEL)
    assert copied == replace(original, description=copied.description)
    assert isinstance(copied, Model)


def test_a_json_of_models_with_benchmarks(world: World) -> None:
    for number, name in enumerate(("production_baseline_v1", "production_medium_v1")):
        weights(world.root / f"models/{name}/best_model.safetensors", float(number))
        world.write(f"models/{name}/vocab.pkl", b"words")
        world.write(f"models/{name}/model_info.json", "{}")
    models = {
        "production_baseline_v1": {
            "path": "models\\production_baseline_v1", "status": "production", "created_at": "2025-05-25T13:05:22",
            "metrics": {"accuracy": 0.582, "f1_macro": 0.53}, "architecture": {"layers": 3, "dim": 256}, "best_for": "Balanced",
        },
        "production_medium_v1": {"path": "models/production_medium_v1", "performance": {"accuracy": 0.563}, "config": {"layers": 6}},
        "gone": {"path": "nowhere"},
    }  # fmt: skip
    world.write("models_registry.json", json.dumps({"models": models}))
    assert "Name it: --app APP" in error_of(world, "import", "models_registry.json", code=2)
    assert shown(world, "import", "models_registry.json", "--app", "health", "-n")["versions"][2]["path"] == "nowhere"
    assert not (world.root / "registry").exists()
    error = error_of(world, "import", "models_registry.json", "--app", "health", code=3)
    assert "1 version left out: health/gone: nowhere does not exist" in error
    first = shown(world, "show", "health/production_baseline_v1@production")
    assert (first["metrics"], first["params"]) == ({"accuracy": 0.582, "f1_macro": 0.53}, {"layers": 3, "dim": 256})
    assert (first["date"], first["weights_file"]) == ("2025-05-25", "best_model.safetensors")
    assert first["oid"].endswith(".dir")
    assert labels(world, "health/production_medium_v1") == {"current": "v1"}
    assert shown(world, "verify")["read"] == 2
    again = world.holdfast("registry", "import", "models_registry.json", "--app", "health", code=3)
    assert "Registered 0 versions; 2 were registered already, 1 left out." in again.stdout


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.json", "{", "cannot be read"),
        ("r.yaml", "a: [", "is no YAML"),
        ("r.yaml", "3", "lists no models"),
        ("r.json", '{"models": {"a": {"metrics": {}}}}', "app/a has no path"),
        ("r.json", '{"models": {"a": {"path": "/etc/passwd"}}}', "which is not in the project"),
        ("r.json", '{"models": {"a": {"path": "../x.pt"}}}', "which is not in the project"),
        ("r.json", '{"models": {"ä/b": {"path": "x.pt"}}}', "cannot be the name of a model"),
    ],
)
def test_files_that_cannot_be_imported(world: World, name: str, text: str, words: str) -> None:
    world.write(name, text)
    assert words in error_of(world, "import", name, "--app", "app", code=2)
    assert not (world.root / "registry").exists()


def test_selection_by_metric_and_criteria(registry: Registry) -> None:
    model = registry.model(MODEL)
    assert select_version(model).name == "v3"
    assert select_version(model, metric="accuracy").name == "v3"
    assert select_version(model, metric="val_mse").name == "v3"  # an error: less is better
    assert select_version(model, metric="val_mse", direction="max").name == "v1"
    criteria = [parse_criterion("accuracy<0.3"), parse_criterion("val_mse <= 0.5")]
    assert select_version(model, metric="accuracy", criteria=criteria).name == "v2"
    registry.register(MODEL, draft(9, metrics={"accuracy": float("nan"), "test": {"f1": 0.4}}))
    model = registry.model(MODEL)
    assert select_version(model, metric="accuracy").name == "v3"  # NaN is never the best
    assert select_version(model, metric="test.f1").name == "v4"
    with pytest.raises(NoneFitsError, match="None has recall: the metrics are accuracy, test, val_mse"):
        select_version(model, metric="recall")
    registry.register(MODEL, draft(10, metrics={"accuracy": 0.3}))
    assert select_version(registry.model(MODEL), metric="accuracy").name == "v5"  # of equals the newest


def test_a_split_keeps_its_shares_and_its_keys() -> None:
    shares = {"production": 0.9, "staging": 0.1}
    keys = [f"user-{number}" for number in range(100_000)]
    got = [split_by_key(MODEL, key, shares) for key in keys]
    assert abs(got.count("staging") / len(keys) - 0.1) < 0.01
    assert got[:1000] == [split_by_key(MODEL, key, {"staging": 1, "production": 9}) for key in keys[:1000]]
    # for ever: a service and a report must agree, whatever version of Holdfast each has
    assert [split_by_key("digits/classifier", key, {"a": 1, "b": 1, "c": 2}) for key in ("x", "y", "z", "")] == [
        "b",
        "a",
        "a",
        "c",
    ]
    other = [split_by_key("album_app/other", key, shares) for key in keys]
    both = sum(a == b == "staging" for a, b in zip(got, other, strict=True)) / len(keys)
    assert abs(both - 0.01) < 0.005  # another model splits the same users in another way
    # a larger share takes keys away from the other, and moves nobody between labels that stay
    wider = [split_by_key(MODEL, key, {"production": 0.8, "staging": 0.2}) for key in keys]
    assert all(new == "staging" for old, new in zip(got, wider, strict=True) if old == "staging")
    for bad in ({}, {"a": -1.0, "b": 2.0}, {"a": 0.0}, {"a": float("nan")}, {"a": float("inf")}):
        with pytest.raises(UsageError):
            split_by_key(MODEL, "x", bad)
