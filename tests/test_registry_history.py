"""What the registry said before, and what a merge leaves of it: real git histories and merges."""

import subprocess
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml

from holdfast.registry.entries import Version
from holdfast.registry.history import RegistryHistory
from holdfast.registry.labels import assign_alias
from holdfast.registry.objects import Stores
from holdfast.registry.resolving import AliasConflictError, NoMergeError, resolve_merge
from holdfast.registry.rollback import _version_before
from holdfast.registry.store import Registry
from holdfast.repo.workspace import Project
from registry_world import error_of, shown
from worlds import World, environment, make_repository

MODEL = "digits/classifier"
STABLE = "models/digits/classifier.safetensors"


def draft(world: World, number: int) -> Version:
    content = f"weights {number}"
    oid = world.store(content)
    return Version("", STABLE, oid, len(content), f"blake3:{number:064x}", "2026-11-20", metrics={"n": number})


def register(world: World, number: int, *, lock: bool = True) -> str:
    """Register and make current, as a promotion does: the stable file and ``dvc.lock`` go along."""
    version = Registry(world.root).register(MODEL, draft(world, number))
    world.write(STABLE, f"weights {number}")
    if lock:
        world.write("dvc.lock", lock_text(version.oid, number))
    return version.name


def lock_text(oid: str, number: int) -> str:
    return (
        "schema: '2.0'\nstages:\n  prepare:\n    cmd: prepare\n    outs:\n    - path: data.csv\n      hash: md5\n"
        f"      md5: {'1' * 32}\n      size: 1\n  promote:\n    cmd: promote\n    params:\n      params.yaml:\n"
        f"        lr: 0.{number}\n    outs:\n    - path: {STABLE}\n      hash: md5\n      md5: {oid}\n      size: {len(f'weights {number}')}\n"
    )


def commit_on(world: World, day: str, message: str) -> str:
    """A commit of that day, at noon in UTC."""
    world.git("add", "--all")
    moment = f"{day}T12:00:00+0000"
    variables = environment(world.home) | {"GIT_COMMITTER_DATE": moment, "GIT_AUTHOR_DATE": moment}
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", message], cwd=world.root, env=variables, check=True)
    return world.git("rev-parse", "HEAD")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_repository(tmp_path)
    world.write(".gitignore", "/models\n")
    return world


@pytest.fixture
def past(world: World) -> dict[str, str]:
    """Commits of a year, by what they did."""
    commits = {}
    register(world, 1)
    commits["v1"] = commit_on(world, "2027-01-10", "first")
    assign_alias(Registry(world.root), MODEL, "production", "v1")
    commits["prod v1"] = commit_on(world, "2027-02-10", "v1 in production")
    register(world, 2)
    commits["v2"] = commit_on(world, "2027-03-10", "second")
    assign_alias(Registry(world.root), MODEL, "production", "v2")
    commits["prod v2"] = commit_on(world, "2027-04-10", "v2 in production")
    commits["other"] = commit_on(world, "2027-05-10", "something else")
    return commits


def at(world: World, day: str) -> dict[str, tuple[str, str]]:
    """Each label's version and since when, as the verb says."""
    answer = shown(world, "history", MODEL, "--at", day)
    return {label: (on["version"], on["commit"]) for label, on in answer["models"][0]["labels"].items()}


def test_what_was_in_use_on_a_day(world: World, past: dict[str, str]) -> None:
    assert at(world, "2027-01-10") == {"current": ("v1", past["v1"])}
    assert at(world, "2027-02-28") == {"current": ("v1", past["v1"]), "production": ("v1", past["prod v1"])}
    assert at(world, "2027-03-10") == {"current": ("v2", past["v2"]), "production": ("v1", past["prod v1"])}
    assert at(world, "2027-04-10T11:59") == {"current": ("v2", past["v2"]), "production": ("v1", past["prod v1"])}
    assert at(world, "2027-04-10T12:00:00Z") == {"current": ("v2", past["v2"]), "production": ("v2", past["prod v2"])}
    assert at(world, "2027-04-10T13:59+02:00")["production"] == ("v1", past["prod v1"])
    assert shown(world, "history", "--at", "2028-01-01")["commit"] == past["other"]
    assert "there was no model digits/other at 2027-04-10" in error_of(
        world, "history", "digits/other", "--at", "2027-04-10", code=2
    )
    text = world.holdfast("registry", "history", "--at", "2027-04-30").stdout
    assert text.startswith(f"At commit {past['prod v2'][:7]} of 2027-04-10 12:00:00 UTC: v2 in production\n")


def test_every_change_has_its_commit(world: World, past: dict[str, str]) -> None:
    registry = Registry(world.root)
    assign_alias(registry, MODEL, "staging", "v1")
    changes = shown(world, "history", MODEL)["changes"]
    assert [(c["commit"], [e["text"] for e in c["events"]]) for c in changes] == [
        ("", ["staging set to v1"]),
        (past["prod v2"], ["production v1 → v2"]),
        (past["v2"], ["v2 registered", "current v1 → v2"]),
        (past["prod v1"], ["production set to v1"]),
        (past["v1"], ["v1 registered", "current set to v1"]),
    ]
    assert (changes[1]["author"], changes[1]["date"]) == ("Ada", "2027-04-10T12:00:00Z")


def test_a_merge_counts_from_the_merge(world: World, past: dict[str, str]) -> None:
    world.git("checkout", "-q", "-b", "feature", past["prod v1"])
    Registry(world.root).register("other/model", draft(world, 9))
    commit_on(world, "2027-02-20", "on a branch")
    world.git("checkout", "-q", "main")
    world.git("merge", "-q", "--no-ff", "--no-commit", "feature")
    merged = commit_on(world, "2027-07-01", "the merge")
    assert "there was no model other/model at 2027-06-30" in error_of(
        world, "history", "other/model", "--at", "2027-06-30", code=2
    )
    assert at(world, "2027-06-30")["current"] == ("v2", past["v2"])
    assert [change["commit"] for change in shown(world, "history", "other/model")["changes"]] == [merged]


def test_a_broken_file_in_history_is_passed_over_with_a_note(world: World, past: dict[str, str]) -> None:
    file = world.root / "registry/digits/classifier/model.yaml"
    whole = file.read_text()
    file.write_text("schema: [\n")
    broken = commit_on(world, "2027-06-10", "oops")
    file.write_text(whole)
    commit_on(world, "2027-06-11", "mended")
    answer = shown(world, "history", MODEL)
    assert [e["text"] for c in answer["changes"] if c["commit"] == broken for e in c["events"]] == [
        "registry/digits/classifier broken"
    ]
    assert "no YAML" in answer["notes"][0]
    assert at(world, "2027-05-20")["production"] == ("v2", past["prod v2"])


def test_the_version_before_is_one_that_was_in_use(world: World, past: dict[str, str]) -> None:
    register(world, 3)
    project = Project(world.root, world.root)
    model = replace(Registry(world.root).model(MODEL), current="v3")
    v3 = model.named("v3")
    # v3 is not committed, and v2 was in production
    assert _version_before(model, v3, RegistryHistory(project)).name == "v2"
    assert RegistryHistory(project).champions(MODEL) == ["v2", "v1"]
    assert RegistryHistory(project).introduced(MODEL, "v2") == past["v2"]
    assert RegistryHistory(project).introduced(MODEL, "v3") is None


def test_history_agrees_with_a_checkout_of_every_commit(world: World) -> None:
    """Sixty commits of many models: what the reader says at each is what the registry says when it is checked out."""
    names = [f"app{number % 3}/model{number % 5}" for number in range(15)]
    commits = []
    for number in range(60):
        registry = Registry(world.root)
        name = names[number % 15]
        registry.register(name, draft(world, 1000 + number))
        if number % 4 == 0:
            assign_alias(registry, name, "production", "v1")
        commits.append((f"{2028 + number // 12}-{1 + number % 12:02}-05", ""))
        commits[-1] = (commits[-1][0], commit_on(world, commits[-1][0], f"change {number}"))
    reader = RegistryHistory(Project(world.root, world.root))
    for day, commit in commits[::7]:
        moment = reader.at(datetime.fromisoformat(f"{day}T23:59:59").replace(tzinfo=timezone.utc))
        assert moment is not None
        assert moment.commit == commit
        world.git("checkout", "-q", commit)
        assert list(moment.models) == Registry(world.root).models()
        world.git("checkout", "-q", "main")


def diverge(world: World, *, tag: str | None = None) -> None:
    """Two branches that each registered v2, the one that is checked out (ours) and ``theirs``."""
    register(world, 1)
    world.write("dvc.yaml", "stages: {}\n")
    world.commit("v1")
    world.git("checkout", "-q", "-b", "theirs")
    register(world, 30)
    assign_alias(Registry(world.root), MODEL, "staging", "v2")
    world.commit("their v2")
    if tag == "theirs":
        world.git("tag", f"{MODEL}@v2.0.0")
    world.git("checkout", "-q", "main")
    register(world, 20)
    world.commit("our v2")
    world.git("merge", "-q", "theirs", code=1)


def stores(world: World) -> Stores:
    return Stores(world.root, world.cache, offline=True)


def test_branches_with_other_numbers_merge_without_a_conflict(world: World) -> None:
    register(world, 1)
    world.commit("v1")
    world.git("checkout", "-q", "-b", "theirs")
    Registry(world.root).register("other/model", draft(world, 30))
    assign_alias(Registry(world.root), MODEL, "staging", "v1")
    world.commit("theirs")
    world.git("checkout", "-q", "main")
    Registry(world.root).register(MODEL, draft(world, 20), current=False)
    world.commit("ours")
    world.git("merge", "-q", "theirs")
    model = Registry(world.root).model(MODEL)
    assert ([version.name for version in model.versions], model.aliases) == (["v1", "v2"], {"staging": "v1"})


@pytest.mark.parametrize("keeper", ["ours", "tag", "upstream", "theirs"])
def test_a_number_taken_twice(world: World, tmp_path: Path, keeper: str) -> None:
    if keeper == "upstream":
        world.git("clone", "-q", "--bare", ".", str(tmp_path / "origin.git"))
        world.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    diverge(world, tag="theirs" if keeper == "tag" else None)
    if keeper == "upstream":
        world.git("push", "-q", "origin", "theirs:main")
        world.git("fetch", "-q")
        world.git("branch", "-q", "--set-upstream-to", "origin/main", "main")
    assert "a merge left its conflict" in world.holdfast("registry", "verify", "--offline", code=13).stdout
    answer = shown(world, "resolve", *(["--theirs"] if keeper == "theirs" else []))

    kept, moved = (20, 30) if keeper == "ours" else (30, 20)
    loser = "theirs" if keeper == "ours" else "ours"
    why = {"ours": "it is ours", "tag": "the tag", "upstream": "the upstream", "theirs": "as was asked for"}[keeper]
    (renumbered,) = answer["renumbered"]
    assert (renumbered["before"], renumbered["after"], renumbered["side"]) == ("v2", "v3", loser)
    assert renumbered["why"].startswith(why)
    model = Registry(world.root).model(MODEL)
    assert [version.metrics["n"] for version in model.versions] == [1, kept, moved]
    # labels follow their version to its new number
    assert model.aliases == {"staging": "v3" if keeper == "ours" else "v2"}
    assert model.current == "v2"
    assert (world.root / STABLE).read_text() == f"weights {kept}"
    stage = yaml.safe_load((world.root / "dvc.lock").read_text())["stages"]["promote"]
    assert stage["outs"][0]["md5"] == model.versions[1].oid
    assert stage["params"]["params.yaml"]["lr"] == kept / 100
    assert answer["stages"] == ["promote"]
    assert world.git("diff", "--name-only", "--diff-filter=U") == ""
    assert shown(world, "resolve", *(["--theirs"] if keeper == "theirs" else [])) == answer  # once more, the same
    world.git("commit", "-q", "--no-edit")
    assert shown(world, "verify", "--offline", "--quick")["ok"]
    assert "no merge is under way" in error_of(world, "resolve", code=2)


def test_the_same_weights_under_one_number_are_one_version(world: World) -> None:
    register(world, 1)
    world.commit("v1")
    world.git("checkout", "-q", "-b", "theirs")
    Registry(world.root).register(MODEL, replace(draft(world, 20), date="2026-11-21"))
    world.commit("theirs")
    world.git("checkout", "-q", "main")
    register(world, 20)
    world.commit("ours")
    world.git("merge", "-q", "theirs", code=1)
    result = resolve_merge(Project(world.root, world.root), stores(world))
    assert [(item.before, item.after) for item in result.renumbered] == [("v2", "v2")]
    assert [version.date for version in Registry(world.root).model(MODEL).versions] == ["2026-11-20"] * 2


def test_an_alias_that_both_sides_moved_is_for_people(world: World) -> None:
    for number in (1, 2, 3):
        register(world, number)
    assign_alias(Registry(world.root), MODEL, "production", "v1")
    world.commit("three")
    world.git("checkout", "-q", "-b", "theirs")
    assign_alias(Registry(world.root), MODEL, "production", "v3")
    world.commit("theirs")
    world.git("checkout", "-q", "main")
    assign_alias(Registry(world.root), MODEL, "production", "v2")
    world.commit("ours")
    world.git("merge", "-q", "theirs", code=1)
    marked = (world.root / "registry/digits/classifier/model.yaml").read_bytes()
    project = Project(world.root, world.root)
    with pytest.raises(
        AliasConflictError, match="production of digits/classifier was on v1, is on v2 here and on v3 there"
    ):
        resolve_merge(project, stores(world))
    assert (world.root / "registry/digits/classifier/model.yaml").read_bytes() == marked
    resolve_merge(project, stores(world), aliases={"production": "v3"})
    assert Registry(world.root).model(MODEL).aliases == {"production": "v3"}
    assert world.git("diff", "--name-only", "--diff-filter=U") == ""


def test_without_a_merge_there_is_nothing_to_resolve(world: World) -> None:
    register(world, 1)
    world.commit("v1")
    with pytest.raises(NoMergeError):
        resolve_merge(Project(world.root, world.root), stores(world))
