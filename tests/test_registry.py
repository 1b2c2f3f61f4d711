"""The registry's files: written, read back, damaged, raced for, and cut off in the middle."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from holdfast.errors import UsageError
from holdfast.formats.digest import file_md5
from holdfast.formats.safetensors import file_weights_digest
from holdfast.registry.document import EntryError
from holdfast.registry.entries import Version, parse_version
from holdfast.registry.promotion import Candidate, StableFileError, promote_checkpoint
from holdfast.registry.store import Registry, UnknownModelError
from holdfast.registry.writing import dump_version
from holdfast.runs.checkpoint import NoWeightsError, save_checkpoint

MODEL = "digits/classifier"
DAY = date(2026, 11, 20)


def draft(number: int = 1, **changes: object) -> Version:
    version = Version(
        name="",
        path="models/digits/classifier.safetensors",
        oid="e" * 32 if number == 1 else f"{number:032x}",
        size=1_234_567,
        weights=f"blake3:{number:064x}",
        date="2026-11-20",
        source={"run": "outputs/train", "rev": "1" * 40},
        params={"train": {"lr": 0.003}},
        metrics={"accuracy": 0.981},
    )
    return replace(version, **changes)  # type: ignore[arg-type]


def checkpoint(path: Path, value: float) -> Path:
    save_checkpoint(path, {"model_state_dict": {"w": torch.full((4,), value)}, "epoch": 1})
    return path


def promote(root: Path, source: Path):
    config = yaml.safe_dump({"model": MODEL, "input": [8, 8]}, sort_keys=False).encode()
    return promote_checkpoint(root, MODEL, Candidate(source, config=config, metrics={"accuracy": 0.9}), today=DAY)


def test_a_version_is_a_file_of_its_own(tmp_path: Path) -> None:
    registry = Registry(tmp_path)

    assert registry.register(MODEL, draft(1), "Handwritten digits").name == "v1"
    first = (tmp_path / "registry/digits/classifier/v1.yaml").read_bytes()
    assert registry.register(MODEL, draft(2)).name == "v2"

    assert (tmp_path / "registry/digits/classifier/v1.yaml").read_bytes() == first
    model = registry.model(MODEL)
    assert (model.current, model.description, [v.name for v in model.versions]) == (
        "v2",
        "Handwritten digits",
        ["v1", "v2"],
    )
    assert model.version("v1") == draft(1, name="v1")
    assert sorted(p.name for p in (tmp_path / "registry/digits/classifier").iterdir()) == [
        "model.yaml",
        "v1.yaml",
        "v2.yaml",
    ]


def test_ids_that_look_like_numbers_are_quoted() -> None:
    """An md5 of digits, or with one e among them, would come back from YAML as a number."""
    for oid in ("1" * 32, "1" * 20 + "e" + "1" * 11, "0" * 32):
        text = dump_version(draft(oid=oid, source={"rev": "2" * 40}))
        assert yaml.safe_load(text)["oid"] == oid
        assert f'oid: "{oid}"' in text
        assert parse_version(text, "v1", "f").source == {"rev": "2" * 40}


def test_registered_weights_are_not_registered_twice(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.register(MODEL, draft(1))
    registry.register(MODEL, draft(2))
    before = {path: path.read_bytes() for path in (tmp_path / "registry").rglob("*.yaml")}

    assert registry.register(MODEL, draft(1, metrics={"accuracy": 1.0})).name == "v1"
    assert {path: path.read_bytes() for path in (tmp_path / "registry").rglob("*.yaml")} == before


def test_comments_and_order_of_model_yaml_survive(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.register(MODEL, draft(1))
    file = tmp_path / "registry/digits/classifier/model.yaml"
    file.write_text(
        "# ours\nschema: 1\ncurrent: v1  # moved by hand\naliases: {production: v1}\nowner: 'vision team'\n"
    )

    registry.register(MODEL, draft(2))
    assert file.read_text() == (
        "# ours\nschema: 1\ncurrent: v2  # moved by hand\naliases: {production: v1}\nowner: 'vision team'\n"
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("v1.yaml", "schema: 1", "schema: 2", "line 1: 'schema' is 2"),
        ("v1.yaml", 'oid: "', 'oid: "x', "line 3: 'oid' should be an md5"),
        ("v1.yaml", 'oid: "eeee', 'oid: 1e5 # "eeee', "line 3: 'oid' should be an md5"),
        ("v1.yaml", "size: 1234567", "size: -1", "line 4: 'size' should be a number of bytes"),
        ("v1.yaml", "size: 1234567", "size: true", "line 4: 'size' should be a number of bytes"),
        ("v1.yaml", "blake3:", "md5:", "line 5: 'weights' should be a digest"),
        ("v1.yaml", "2026-11-20", "20th of May", "line 6: 'date' should be a day"),
        ("v1.yaml", "path: ", "pfad: ", "'path' should be text, not None"),
        ("v1.yaml", "metrics:", "metrics: [1]\nold:", "'metrics' should be a mapping"),
        ("v1.yaml", "metrics:", "size: 2\nmetrics:", "'size' comes twice"),
        ("v1.yaml", "path: ", "path: [", "no YAML"),
        ("model.yaml", "current: v1", "current: v7", "'current' names 'v7', of which there is no file"),
        ("model.yaml", "aliases: {}", "aliases: {staging: v9}", "'staging' names 'v9'"),
        ("model.yaml", "schema: 1", "<<<<<<< HEAD\nschema: 1", "line 1: a merge left its conflict"),
        ("model.yaml", "current: v1", "current: [v1]", "'current' should be the name of a version"),
        ("model.yaml", "aliases: {}", "aliases: {p: [v1]}", "'p' should name a version"),
        ("v1.yaml", 'date: "2026-11-20"', "date: 2026-11-20", "'2026-11-20' is a timestamp: put quotes around it"),
        ("v1.yaml", 'date: "2026-11-20"', "date: 2026-13-45", "line 6"),
        ("v1.yaml", "size: 1234567", "size: " + "9" * 30, "larger than any count"),
        ("v1.yaml", "accuracy: 0.981", "accuracy: 0.981\n  accuracy: 0.5", "'accuracy' comes twice"),
        ("v1.yaml", "accuracy: 0.981", "a: &a [*a]", "line"),
        ("v1.yaml", "accuracy: 0.981", "a: " + "[" * 3000, "v1.yaml"),
        ("v1.yaml", "accuracy: 0.981", "a: " + "[" * 100 + "]" * 100, "nested too deeply"),
        ("v1.yaml", "accuracy: 0.981", "a: " + "[" * 100_000, "nests deeper than 200 levels"),
    ],
)
def test_broken_files_name_line_and_fault_and_stay(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    registry = Registry(tmp_path)
    registry.register(MODEL, draft(1))
    file = tmp_path / "registry/digits/classifier" / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    broken = file.read_bytes()

    with pytest.raises(EntryError) as caught:
        registry.model(MODEL)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"registry/digits/classifier/{name}")
    if name == "v1.yaml" or "names 'v" not in message:  # registering moves `current`, wherever it pointed
        with pytest.raises(EntryError):
            registry.register(MODEL, draft(2))
        assert not (file.parent / "v2.yaml").exists()
    assert file.read_bytes() == broken


def test_an_experiment_without_the_untracked_version_registers_its_own(tmp_path: Path) -> None:
    """DVC queues it with the changed ``model.yaml`` of another experiment, but without that one's new ``v2.yaml``."""
    registry = Registry(tmp_path)
    registry.register(MODEL, draft(1))
    registry.register(MODEL, draft(2))
    (tmp_path / "registry/digits/classifier/v2.yaml").unlink()
    with pytest.raises(EntryError, match="names 'v2', of which there is no file"):
        registry.model(MODEL)

    assert [version.name for version in registry.model(MODEL, partial=True).versions] == ["v1"]
    assert registry.register(MODEL, draft(3)).name == "v2"
    assert registry.model(MODEL).current == "v2"


def test_unknown_and_impossible_names(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    assert registry.models() == []
    with pytest.raises(UnknownModelError, match="Nothing is registered yet"):
        registry.model(MODEL)
    registry.register(MODEL, draft(1))
    with pytest.raises(UnknownModelError, match="Registered are: digits/classifier"):
        registry.model("digits/other")
    for name in ("classifier", "../x", "a/b/c", "A/b", "a/", "/a", "a/.b"):
        with pytest.raises(UsageError):
            registry.register(name, draft(1))


def _register(root: str, number: int) -> str:
    return Registry(Path(root)).register(MODEL, draft(number)).name


@pytest.mark.soak  # test_registry_faults has fifty processes
def test_processes_that_register_at_once_each_get_a_number(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        names = pool.starmap(_register, [(str(tmp_path), number) for number in range(1, 25)])

    assert sorted(names) == sorted(f"v{number}" for number in range(1, 25))
    model = Registry(tmp_path).model(MODEL)
    assert len({version.weights for version in model.versions}) == 24
    assert model.current in names


CUT_OFF = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import holdfast.registry.store as store
    sys.path.insert(0, sys.argv[3])
    from test_registry import MODEL, draft

    # stop dead at the n-th write of the registration
    calls = 0
    def dying(real):
        def write(*arguments):
            global calls
            calls += 1
            if calls == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)
        return write
    store.create_exclusively = dying(store.create_exclusively)
    store.write_atomically = dying(store.write_atomically)
    store.Registry(Path(sys.argv[1])).register(MODEL, draft(2))
""")


@pytest.mark.parametrize("write", [1, 2])
def test_a_killed_registration_is_completed_by_the_next(tmp_path: Path, write: int) -> None:
    registry = Registry(tmp_path)
    registry.register(MODEL, draft(1))
    arguments = [sys.executable, "-c", CUT_OFF, str(tmp_path), str(write), str(Path(__file__).parent)]
    child = subprocess.run(arguments, check=False)
    assert child.returncode == -signal.SIGKILL
    assert registry.model(MODEL).current == "v1"  # the old state, readable

    assert registry.register(MODEL, draft(2)).name == "v2"
    model = registry.model(MODEL)
    assert (model.current, [version.name for version in model.versions]) == ("v2", ["v1", "v2"])


def test_promotion_puts_the_weights_at_the_stable_path(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "outputs/run/best_model.pt", 0.5)
    before = source.read_bytes()

    result = promote(tmp_path, source)
    stable = tmp_path / "models/digits/classifier.safetensors"
    assert (result.registered, result.version.name) == (True, "v1")
    assert safetensors.torch.load_file(stable)["w"].tolist() == [0.5] * 4
    version = Registry(tmp_path).model(MODEL).versions[0]
    assert (version.oid, version.size) == (file_md5(stable), stable.stat().st_size)
    assert version.weights == file_weights_digest(stable)
    assert (version.date, version.source["run"]) == ("2026-11-20", "outputs/run")
    assert yaml.safe_load((stable.with_suffix(".yaml")).read_text()) == {"model": MODEL, "input": [8, 8]}
    assert source.read_bytes() == before
    assert sorted(p.name for p in stable.parent.iterdir()) == [
        "README.md",
        "classifier.md",
        "classifier.safetensors",
        "classifier.yaml",
    ]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def world(tmp_path: Path) -> Path:
    """A git repository with v1 promoted and committed."""
    git(tmp_path, "init", "-q")
    promote(tmp_path, checkpoint(tmp_path / "1/best_model.pt", 1.0))
    commit(tmp_path)
    return tmp_path / "models/digits/classifier.safetensors"


def commit(root: Path) -> None:
    git(root, "add", "registry")
    git(root, "commit", "-q", "-m", "promoted", "--", "registry")


def version_names(root: Path) -> list[str]:
    return [version.name for version in Registry(root).model(MODEL).versions]


def test_promotion_is_idempotent_and_a_rollback_stands(tmp_path: Path) -> None:
    stable = world(tmp_path)
    old, two = stable.read_bytes(), checkpoint(tmp_path / "2/best_model.pt", 2.0)
    assert promote(tmp_path, two).version.name == "v2"
    commit(tmp_path)
    again = promote(tmp_path, two)
    assert (again.registered, again.version.name, again.current) == (False, "v2", "v2")

    file = tmp_path / "registry/digits/classifier/model.yaml"
    file.write_text(file.read_text().replace("current: v2", "current: v1"))
    with pytest.raises(StableFileError, match=r"v1 is current, and .* is not its file"):
        promote(tmp_path, two)  # rolled back in the registry, but not at the stable path
    stable.write_bytes(old)
    kept = promote(tmp_path, two)
    assert (kept.registered, kept.version.name, kept.current) == (False, "v2", "v1")
    assert stable.read_bytes() == old
    stable.unlink()
    with pytest.raises(StableFileError, match="dvc pull"):
        promote(tmp_path, two)


def test_what_was_not_committed_gives_way_to_the_next_promotion(tmp_path: Path) -> None:
    stable = world(tmp_path)
    for value in (2.0, 3.0, 4.0):
        result = promote(tmp_path, checkpoint(tmp_path / f"{value}/best_model.pt", value))
        assert (result.registered, result.version.name) == (True, "v2")
        assert file_md5(stable) == result.version.oid
    assert version_names(tmp_path) == ["v1", "v2"]
    assert git(tmp_path, "status", "--short", "registry").split() == [
        *("M", "registry/digits/classifier/model.yaml"),
        *("A", "registry/digits/classifier/v2.yaml"),
    ]

    back = promote(tmp_path, tmp_path / "1/best_model.pt")
    assert (back.registered, back.version.name, back.current) == (False, "v1", "v1")
    assert version_names(tmp_path) == ["v1"]


def test_what_a_discarded_experiment_left_behind_is_no_rollback(tmp_path: Path) -> None:
    stable = world(tmp_path)
    two = checkpoint(tmp_path / "2/best_model.pt", 2.0)
    promote(tmp_path, two)
    for undo in (["restore", "registry"], ["restore", "--staged", "--worktree", "registry"], ["reset", "-q", "--hard"]):
        git(tmp_path, *undo)
        again = promote(tmp_path, two)
        assert (again.version.name, again.current) == ("v2", "v2"), undo
        assert file_md5(stable) == again.version.oid
    git(tmp_path, "reset", "-q")
    git(tmp_path, "checkout", "-q", "--", "registry")  # the new file stays, untracked
    promote(tmp_path, checkpoint(tmp_path / "3/best_model.pt", 3.0))
    assert version_names(tmp_path) == ["v1", "v2"]


def test_a_draft_that_an_alias_names_stays(tmp_path: Path) -> None:
    world(tmp_path)
    promote(tmp_path, checkpoint(tmp_path / "2/best_model.pt", 2.0))
    file = tmp_path / "registry/digits/classifier/model.yaml"
    file.write_text(file.read_text().replace("production: v2", "staging: v2"))

    assert promote(tmp_path, checkpoint(tmp_path / "3/best_model.pt", 3.0)).version.name == "v3"
    assert version_names(tmp_path) == ["v1", "v2", "v3"]


@pytest.mark.parametrize(
    "metrics", [{"accuracy": object()}, {"when": DAY}, {"accuracy": 2**70}], ids=["object", "date", "huge"]
)
def test_nothing_is_written_when_the_version_cannot_be(tmp_path: Path, metrics: dict[str, object]) -> None:
    stable = world(tmp_path)
    before = stable.read_bytes()

    two = checkpoint(tmp_path / "2/best_model.pt", 2.0)
    with pytest.raises(EntryError):
        promote_checkpoint(tmp_path, MODEL, Candidate(two, metrics=metrics), today=DAY)
    assert stable.read_bytes() == before
    assert version_names(tmp_path) == ["v1"]
    assert Registry(tmp_path).model(MODEL).current == "v1"


def test_nothing_is_written_when_the_model_cannot_be_edited(tmp_path: Path) -> None:
    stable = world(tmp_path)
    before = stable.read_bytes()
    file = tmp_path / "registry/digits/classifier/model.yaml"
    file.write_text(file.read_text().replace("  production: v1", "  p: v1\n  p: v1"))

    with pytest.raises(EntryError, match="'p' comes twice"):
        promote(tmp_path, checkpoint(tmp_path / "2/best_model.pt", 2.0))
    assert stable.read_bytes() == before


def _promote(root: str, value: float) -> str:
    result = promote(Path(root), Path(root) / f"{value}/best_model.pt")
    return result.version.oid


def test_of_promotions_at_once_the_last_one_stands(tmp_path: Path) -> None:
    stable = world(tmp_path)
    values = [2.0, 3.0, 4.0, 5.0]
    for value in values:
        checkpoint(tmp_path / f"{value}/best_model.pt", value)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(_promote, [(str(tmp_path), value) for value in values])

    model = Registry(tmp_path).model(MODEL)
    current = model.version(model.current or "")
    assert current is not None
    assert file_md5(stable) == current.oid


def test_line_ends_and_marks_of_model_yaml_survive(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.register(MODEL, draft(1))
    file = tmp_path / "registry/digits/classifier/model.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))

    before = file.read_bytes()
    registry.register(MODEL, draft(2))
    assert file.read_bytes() == before.replace(b"current: v1", b"current: v2")


def test_outside_of_dvc_the_lock_hides_from_git(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    Registry(tmp_path).register(MODEL, draft(1))

    assert not (tmp_path / ".dvc").exists()
    assert ".locks" not in git(tmp_path, "status", "--short", "--untracked-files=all")


def test_a_link_into_dvcs_cache_is_replaced_not_written_through(tmp_path: Path) -> None:
    promote(tmp_path, checkpoint(tmp_path / "a/best_model.pt", 1.0))
    stable, cached = tmp_path / "models/digits/classifier.safetensors", tmp_path / "cache"
    stable.rename(cached)
    os.link(cached, stable)
    before = cached.read_bytes()

    promote(tmp_path, checkpoint(tmp_path / "b/best_model.pt", 2.0))
    assert cached.read_bytes() == before


def test_a_checkpoint_without_weights_changes_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best_model.pt", {"epoch": 3})

    with pytest.raises(NoWeightsError, match="holds no weights"):
        promote(tmp_path, tmp_path / "best_model.pt")
    assert not (tmp_path / "registry").exists()
    assert not (tmp_path / "models/digits/classifier.safetensors").exists()
