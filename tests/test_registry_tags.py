"""Git tags in GTO's form and ``artifacts:``: what GTO's and DVC's own commands make of them."""

import json
from pathlib import Path

import pytest
import yaml

from holdfast.registry.artifacts import Artifact, ArtifactsError, read_artifacts, set_artifacts
from holdfast.registry.entries import Version
from holdfast.registry.store import Registry
from holdfast.registry.tags import TICK_SECONDS, plan_tags, write_tags
from holdfast.registry.tags_gto import open_tags
from holdfast.repo.workspace import Project
from registry_world import CLEAN, MODEL, STABLE, copy_of, error_of, labels, make_project, shown, version
from worlds import TOOLS, World, make_repository, run


def gto(world: World, *arguments: str) -> str:
    return run([str(TOOLS / "gto"), *arguments], world.root, world.home).stdout


def gto_stages(world: World, model: str = MODEL) -> dict[str, str]:
    """What ``gto show`` says of a model: its stages, and ``latest``."""
    told = json.loads(gto(world, "show", "--json"))[model]
    return {**{stage: name for stage, name in told["stage"].items() if name}, "latest": told["version"]}


def tags(world: World) -> list[str]:
    return world.git("tag", "--list").splitlines()


def agrees(world: World, model: str = MODEL) -> bool:
    """Whether ``gto show`` has just the aliases that the registry shows, on the same versions."""
    shows = {alias: f"{name}.0.0" for alias, name in labels(world, model).items() if alias != "current"}
    return gto_stages(world, model) == {**shows, "latest": gto_stages(world, model)["latest"]}


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> World:
    """v1 and v2, with artifacts from the beginning; production went from v1 to v2, staging is on v1."""
    world = make_project(tmp_path_factory.mktemp("tagged"), 1)
    world.holdfast("registry", "tag", "--artifacts")
    world.holdfast("registry", "assign", f"{MODEL}@v1", "production")
    world.commit("artifacts and an alias")
    world.holdfast("registry", "tag")
    version(world, 2, accuracy=0.93)
    world.holdfast("registry", "assign", f"{MODEL}@v2", "production")
    world.holdfast("registry", "assign", f"{MODEL}@v1", "staging")
    world.commit("aliases")
    world.holdfast("registry", "tag")
    return world


@pytest.fixture
def world(tagged: World, tmp_path: Path) -> World:
    return copy_of(tagged, tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> World:
    """A project without a pipeline, whose versions are made by `register`."""
    return make_repository(tmp_path)


def register(world: World, number: int, model: str = MODEL, *, current: bool = True) -> str:
    """A version whose bytes DVC has at the stable path, as a promotion leaves it."""
    content = f"weights {number}"
    oid = world.store(content)
    path = f"models/{model}.safetensors"
    draft = Version("", path, oid, len(content), f"blake3:{number:064x}", "2026-11-20")
    found = Registry(world.folder).register(model, draft, "A model", current=current)
    if current:
        prefix = "" if world.project == "." else f"{world.project}/"
        world.track(f"{prefix}{path}", content)
    return found.name


def test_gto_and_dvc_see_what_the_registry_shows(world: World) -> None:
    assert tags(world) == [
        f"{MODEL}#production#1", f"{MODEL}#production#2", f"{MODEL}#staging#3", f"{MODEL}@v1.0.0", f"{MODEL}@v2.0.0",
    ]  # fmt: skip
    assert gto_stages(world) == {"production": "v2.0.0", "staging": "v1.0.0", "latest": "v2.0.0"}
    assert agrees(world)
    history = json.loads(gto(world, "history", MODEL, "--json"))
    events = [(e["event"], e["version"], e["stage"]) for e in history if e["stage"] != "staging"]
    # GTO orders by seconds: which version came second is for the assignments to say
    assert [event for event in events if event[0] == "assignment"] == [
        ("assignment", "v2.0.0", "production"), ("assignment", "v1.0.0", "production"),
    ]  # fmt: skip
    assert sorted(event for event in events if event[0] == "registration") == [
        ("registration", "v1.0.0", None), ("registration", "v2.0.0", None),
    ]  # fmt: skip
    for name, told in (("v1", ["--rev", "v1.0.0"]), ("v2", ["--rev", "v2.0.0"]), ("v2", ["--stage", "production"])):
        world.dvc("artifacts", "get", ".", MODEL, *told, "--out", "got", "--force")
        oid = shown(world, "show", f"{MODEL}@{name}")["oid"]
        assert world.python("import hashlib; print(hashlib.md5(open('got', 'rb').read()).hexdigest())") == oid
        # the tag is at a commit that has the version itself
        assert f'oid: "{oid}"' in world.git("show", f"refs/tags/{MODEL}@{name}.0.0:registry/{MODEL}/{name}.yaml")
        (world.root / "got").unlink()
    assert world.dvc("status") == CLEAN
    assert world.git("status", "--porcelain") == ""


def test_what_is_tagged_is_not_tagged_again(world: World) -> None:
    before = world.git("for-each-ref")
    assert shown(world, "tag")["tags"] == []
    assert "Nothing is left to tag." in world.holdfast("registry", "tag", "--dry-run").stdout
    world.holdfast("registry", "assign", f"{MODEL}@v1", "production")
    world.commit("back")
    told = shown(world, "tag", "--dry-run")
    assert [(tag["name"], tag["kind"], tag["version"]) for tag in told["tags"]] == [
        (f"{MODEL}#production#4", "alias", "v1")
    ]
    assert world.git("for-each-ref").replace(world.git("rev-parse", "HEAD"), "") == before.replace(
        world.git("rev-parse", "HEAD~1"), ""
    )


def test_aliases_that_move_and_go_within_a_second(world: World) -> None:
    """GTO orders by seconds, and shows a stage on an older version when it is taken off the newer one alone."""
    for name in ("v1", "v2"):
        world.holdfast("registry", "assign", f"{MODEL}@{name}", "production")
        world.commit(f"production is {name}")
        world.holdfast("registry", "tag")
        assert agrees(world)
    world.holdfast("registry", "unassign", f"{MODEL}@production")
    world.commit("no production")
    world.holdfast("registry", "tag")
    assert gto_stages(world) == {"staging": "v1.0.0", "latest": "v2.0.0"}
    assert sum(tag.startswith(f"{MODEL}#production!") for tag in tags(world)) == 2
    world.holdfast("registry", "assign", f"{MODEL}@v2", "production")
    world.commit("production again")
    world.holdfast("registry", "tag")
    assert agrees(world)


def test_the_next_second_is_waited_for(world: World) -> None:
    world.git("config", "user.name", "Somebody")  # of this process git may not know who it is
    world.git("config", "user.email", "somebody@example.org")
    world.holdfast("registry", "assign", f"{MODEL}@v1", "production")
    world.commit("back")
    waited: list[float] = []
    with open_tags(world.root) as repository:
        newest = repository.read()[MODEL].newest["production"]
        plan = plan_tags(Project(world.root, world.root), repository)
        write_tags(plan, repository, clock=lambda: newest + 0.25, wait=waited.append)
    assert waited == [pytest.approx(0.75 + TICK_SECONDS)]


def test_a_removed_version_is_taken_back(world: World) -> None:
    world.holdfast("registry", "unassign", f"{MODEL}@staging")
    world.holdfast("registry", "rm", f"{MODEL}@v1", "--apply")
    world.commit("v1 goes")
    world.holdfast("registry", "tag")
    assert f"{MODEL}@v1.0.0!" in tags(world)
    assert gto_stages(world) == {"production": "v2.0.0", "latest": "v2.0.0"}
    assert [item["version"] for item in json.loads(gto(world, "show", MODEL, "--json"))] == ["v2.0.0"]


def test_the_first_time_waits_for_the_artifacts(small: World) -> None:
    register(small, 1)
    small.commit("v1")
    register(small, 2)
    small.commit("v2")
    told = small.holdfast("registry", "tag", code=3)
    assert "digits/classifier@v2 waits for the commit of dvc.yaml" in told.stderr
    assert "dvc.yaml has new artifacts: commit it." in told.stdout
    assert "digits/classifier@v1: at its commit DVC has no such artifact" in told.stdout
    assert tags(small) == [f"{MODEL}@v1.0.0"]
    assert small.git("rev-parse", f"{MODEL}@v1.0.0^{{commit}}") == small.git("rev-parse", "HEAD~1")
    assert yaml.safe_load((small.root / "dvc.yaml").read_text()) == {
        "artifacts": {MODEL: {"path": STABLE, "type": "model", "desc": "A model"}}
    }
    served = small.commit("artifacts")
    small.commit("something else")
    small.holdfast("registry", "tag")
    assert small.git("rev-parse", f"{MODEL}@v2.0.0^{{commit}}") == served
    small.dvc("artifacts", "get", ".", MODEL, "--out", "got")
    assert (small.root / "got").read_text() == "weights 2"


def test_each_version_has_a_commit_of_its_own(small: World) -> None:
    small.write("dvc.yaml", set_artifacts(b"", {MODEL: Artifact(STABLE, "model")}, "dvc.yaml"))
    for number in (1, 2):
        register(small, number)
    small.commit("both")
    told = small.holdfast("registry", "tag", code=3).stderr
    assert "digits/classifier@v1 waits for the next commit: GTO has v2.0.0 at this one" in told
    small.commit("next")
    small.holdfast("registry", "tag")
    assert [small.git("rev-parse", f"{MODEL}@v{number}.0.0^{{commit}}") for number in (2, 1)] == [
        small.git("rev-parse", "HEAD~1"), small.git("rev-parse", "HEAD"),
    ]  # fmt: skip
    assert gto_stages(small) == {"latest": "v2.0.0"}


def test_what_is_not_committed_waits(small: World) -> None:
    register(small, 1)
    assert "there is no commit" not in small.holdfast("registry", "tag", MODEL, code=2).stderr
    assert "digits/classifier is not committed" in error_of(small, "tag", MODEL, code=2)
    small.commit("v1")
    small.holdfast("registry", "tag", "--artifacts")
    small.commit("artifacts")
    small.holdfast("registry", "assign", f"{MODEL}@v1", "production")
    told = small.holdfast("registry", "tag", code=3)
    assert "digits/classifier was changed since the last commit: commit it first" in told.stderr
    assert tags(small) == [f"{MODEL}@v1.0.0"]
    assert "there is no model digits/other" in error_of(small, "tag", "digits/other", code=1)
    assert "--artifacts makes no tags" in error_of(small, "tag", "--artifacts", "--push", code=2)


def test_what_gto_cannot_say_is_a_note(small: World) -> None:
    register(small, 1)
    register(small, 1, "digits/odd_")
    small.write(".gto", "stages: [production]\n")
    small.holdfast("registry", "tag", "--artifacts")
    for alias in ("production", "staging", "odd-"):
        small.holdfast("registry", "assign", f"{MODEL}@v1", alias)
    small.commit("v1")
    notes = shown(small, "tag")["notes"]
    assert notes == [
        "odd- of digits/classifier is no name for GTO, which ends names with a letter or digit",
        "staging of digits/classifier is not among the stages that .gto allows",
        "digits/odd_ is no name for GTO, which ends names with a letter or digit",
    ]
    assert tags(small) == [f"{MODEL}#production#1", f"{MODEL}@v1.0.0"]
    # a stage that people assigned with GTO itself is theirs
    small.write(".gto", "stages: [production, canary]\n")
    gto(small, "assign", MODEL, "--version", "v1.0.0", "--stage", "canary")
    told = shown(small, "tag")
    assert "digits/classifier: GTO has canary on v1.0.0, which this registry never had" in told["notes"]
    assert told["tags"] == []
    small.git("commit", "--amend", "-q", "--allow-empty", "-m", "rewritten")
    small.git("tag", "-d", f"{MODEL}@v1.0.0")
    small.git("tag", "-am", "x", f"{MODEL}@v1.0.0", "HEAD")
    registry = small.root / "registry" / MODEL / "v1.yaml"
    registry.write_text(registry.read_text().replace("2026-11-20", "2026-11-19"))
    small.commit("another v1")
    assert any("is at a commit without this v1" in note for note in shown(small, "tag")["notes"])


def test_tags_that_contradict_each_other_are_an_error(small: World) -> None:
    register(small, 1)
    small.commit("v1")
    for name in ("v1.0.0", "v2.0.0"):
        small.git("tag", "-am", "x", f"{MODEL}@{name}")
    small.git("tag", "-am", "x", f"{MODEL}#production#1")
    assert "git's tags cannot be read by GTO" in error_of(small, "tag", code=1)
    small.write(".gto", "stages: {")
    assert ".gto cannot be read by GTO" in error_of(small, "tag", code=1)


def test_nobody_tags_without_a_name(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    register(small, 1)
    small.holdfast("registry", "tag", "--artifacts")
    small.commit("v1")
    for name in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "GIT_AUTHOR_NAME", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("HOME", str(small.home / "nobody"))
    small.git("config", "user.useConfigOnly", "true")
    with open_tags(small.root) as repository, pytest.raises(Exception, match="git does not know who makes the tags"):
        write_tags(plan_tags(Project(small.root, small.root), repository), repository)


def test_push_sends_what_the_remote_lacks(small: World, tmp_path: Path) -> None:
    register(small, 1)
    small.holdfast("registry", "tag", "--artifacts")
    small.holdfast("registry", "assign", f"{MODEL}@v1", "production")
    small.commit("v1")
    assert "the tags cannot be sent to origin" in small.holdfast("registry", "tag", "--push", code=1).stderr
    bare = tmp_path / "bare.git"
    small.git("init", "--quiet", "--bare", str(bare))
    small.git("remote", "add", "team", str(bare))
    small.git("push", "--quiet", "-u", "team", "main")
    told = shown(small, "tag", "--push")
    assert (told["tags"], told["remote"], sorted(told["pushed"])) == ([], "team", tags(small))
    assert [line.split("/", 2)[2] for line in small.git("ls-remote", "--tags", "--refs", "team").splitlines()] == tags(
        small
    )
    assert "team has all tags." in small.holdfast("registry", "tag", "--push").stdout
    small.git("tag", "-d", f"{MODEL}@v1.0.0")
    small.git("tag", "-am", "mine", f"{MODEL}@v1.0.0")
    small.git("tag", "-d", f"{MODEL}#production#1")
    small.git("push", "--quiet", "--delete", "team", f"refs/tags/{MODEL}#production#1")
    assert (
        f"team has another tag {MODEL}@v1.0.0"
        in error_of(small, "tag", "--push", "-r", "team", code=1).splitlines()[-1]
    )
    assert "production" not in small.git("ls-remote", "--tags", "team")


def test_a_project_in_a_folder_is_named_with_it(tmp_path: Path) -> None:
    world = make_repository(tmp_path, project="vision")
    register(world, 1)
    world.holdfast("registry", "tag", "--artifacts")
    world.holdfast("registry", "assign", f"{MODEL}@v1", "production")
    world.commit("v1")
    world.holdfast("registry", "tag")
    assert tags(world) == [f"vision={MODEL}#production#1", f"vision={MODEL}@v1.0.0"]
    assert gto_stages(world, f"vision:{MODEL}") == {"production": "v1.0.0", "latest": "v1.0.0"}
    assert shown(world, "tag")["tags"] == []


PIPELINE = """\
# the pipeline
stages:
  train:
    cmd: >-
      python   train.py
    outs: [model.pt]   # one line

artifacts:
    # what the other team has
    other/model:
        path: "other.pt"   # theirs
        labels:
          - a
          - b
    digits/classifier:
        path: old.safetensors
        type: segmentation
        meta: {k: 1}

# metrics
metrics:
- m.json
"""


def test_artifacts_are_edited_and_all_else_stays() -> None:
    wanted = {MODEL: Artifact(STABLE, "model", "Digits: 10 of them"), "new/one": Artifact("n.pt", "model")}
    after = set_artifacts(PIPELINE.encode(), wanted, "dvc.yaml").decode()
    found = yaml.safe_load(after)["artifacts"]
    assert found == {
        "other/model": {"path": "other.pt", "labels": ["a", "b"]},
        MODEL: {"path": STABLE, "type": "segmentation", "meta": {"k": 1}, "desc": "Digits: 10 of them"},
        "new/one": {"path": "n.pt", "type": "model"},
    }
    for part in (PIPELINE[: PIPELINE.index("artifacts:")], PIPELINE[PIPELINE.index("\n# metrics") :]):
        assert part in after
    assert "    # what the other team has\n" in after
    assert 'path: "other.pt"   # theirs' in after
    assert set_artifacts(after.encode(), wanted, "dvc.yaml") == after.encode()


@pytest.mark.parametrize(
    ("before", "start"),
    [
        ("", ""),
        ("stages:\n  a:\n    cmd: x", "stages:\n  a:\n    cmd: x\n"),
        ("artifacts: {}\nstages: {}\n", "artifacts:\n"),
        ("artifacts:\nstages: {}\n", "artifacts:\n"),
        ("stages:\r\n  a: {cmd: x}\r\n# end\r\n", "stages:\r\n  a: {cmd: x}\r\n# end\r\n"),
        ("\ufeffstages: {}\n", "\ufeffstages: {}\n"),
        ("---\nstages: {}\n...\n", "---\nstages: {}\nartifacts:"),
        ("artifacts: {a/b: {path: x}} # c\n", "artifacts: {a/b: {path: x}"),
        ("artifacts:\n  a/b:\n    path: x\n\n# next\nmetrics: [m]\n", f"artifacts:\n  a/b:\n    path: x\n  {MODEL}:\n"),
    ],
)
def test_artifacts_in_every_layout(before: str, start: str) -> None:
    after = set_artifacts(before.encode(), {MODEL: Artifact(STABLE, "model")}, "dvc.yaml")
    assert after.decode().startswith(start)
    assert read_artifacts(after, "dvc.yaml")[MODEL] == Artifact(STABLE, "model")
    assert ("\r\n" in before) == (b"\r\n" in after)
    assert b"\n" not in after.replace(b"\r\n", b"") or "\r\n" not in before


@pytest.mark.parametrize(
    "broken",
    [
        "artifacts: [a]\n",
        "artifacts: {a: 1}\n",
        "- a\n",
        "{stages: {}}\n",
        "artifacts: {",
        "stages: &x {a: {path: y}}\nartifacts: *x\n",
        "<<<<<<< HEAD\nstages: {}\n",
    ],
)
def test_a_broken_pipeline_file_is_left_alone(small: World, broken: str) -> None:
    with pytest.raises(ArtifactsError, match=r"dvc\.yaml"):
        set_artifacts(broken.encode(), {MODEL: Artifact(STABLE, "model")}, "dvc.yaml")
    register(small, 1)
    small.commit("v1")
    small.write("dvc.yaml", broken)
    error_of(small, "tag", code=13)
    assert (small.root / "dvc.yaml").read_text() == broken
    assert tags(small) == []
