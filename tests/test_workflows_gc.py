"""Garbage collection on GitHub: the plan of a full clone, its one issue, and the plan that is applied by hand."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gc_world import NO_AGE, send, tree
from holdfast.project.workflows import WorkflowOptions, workflow_files
from workflow_gh import BOT
from workflow_world import RUN, Runner, served
from worlds import World, make_repository

KEYS = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "a secret that no log shows"}
GC = workflow_files("github", WorkflowOptions(install="holdfast version"))[".github/workflows/gc.yml"]
MARKER = "<!-- holdfast-gc -->"
NEVER_COMMITTED = "nobody names this"
LET_GO = "old <b>@mallory"
OF_THIS_WORKFLOW = {"path": ".github/workflows/gc.yml@refs/heads/main", "head_branch": "main", "event": "schedule"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Path, str]]:
    """A project whose objects lie in a folder, its bare repository, and the URL of that.

    One object is named by `main`, one by a pull request alone, one by an experiment alone, one only by a commit that
    the policy lets go, under a name that means to be read by GitHub; one by nothing.
    """
    folder = tmp_path_factory.mktemp("gc")
    world = make_repository(folder)
    storage = folder / "storage"
    storage.mkdir()
    world.write(".dvc/config", f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {storage}\n")
    world.write("holdfast.yaml", f"{NO_AGE}  keep:\n    history: none\n")
    oids = [world.track("<!-- @mallory.bin", LET_GO), world.store(NEVER_COMMITTED)]
    world.commit("old")
    world.git("rm", "--quiet", "<!-- @mallory.bin.dvc")
    oids.append(world.track("model.bin", "main"))
    main = world.commit("new")
    refs = {"refs/heads/main": main}
    for ref, text in (("refs/pull/7/head", "a fork's"), ("refs/exps/ab/cdef/try", "an experiment's")):
        world.git("checkout", "--quiet", "--detach", main)
        oids.append(world.track("model.bin", text))
        refs[ref] = world.commit(text)
    world.git("checkout", "--quiet", "main")
    send(world, storage, *oids)
    root = folder / "server"
    bare = root / "ada" / "models.git"
    world.git("init", "--quiet", "--bare", str(bare))
    world.git("push", "--quiet", str(bare), *(f"{commit}:{ref}" for ref, commit in refs.items()))
    with served(root) as url:
        yield world, bare, f"{url}/ada/models.git"


@pytest.fixture
def runner(built: tuple[World, Path, str], tmp_path: Path) -> Iterator[Runner]:
    """A runner, with the remote and the git server as they were at first when it has ended."""
    world, bare, url = built
    storage = world.root.parent / "storage"
    shutil.copytree(storage, tmp_path / "storage")
    main = world.git("-C", str(bare), "rev-parse", "main")
    yield Runner(tmp_path / "runner", world.home, url, KEYS)
    shutil.rmtree(storage)
    shutil.copytree(tmp_path / "storage", storage)
    world.git("-C", str(bare), "update-ref", "refs/heads/main", main)


def results(jobs: dict[str, Any]) -> dict[str, str]:
    return {name: job.result for name, job in jobs.items()}


def planned(runner: Runner, run: str = RUN) -> list[str]:
    plan = json.loads((runner.artifact("holdfast-gc-plan", run) / "plan.json").read_text())
    return sorted(entry["oid"] for entry in plan["objects"])


def schedule(runner: Runner, **more: Any) -> dict[str, Any]:
    return runner.run(GC, "schedule", {"schedule": "23 4 * * 1"}, **more)


def dispatch(runner: Runner, plan: str, *, run: str = "4800", **inputs: Any) -> dict[str, Any]:
    runner.change(runs={RUN: OF_THIS_WORKFLOW} | runner.github["runs"])
    return runner.run(
        GC, "workflow_dispatch", inputs={"plan": plan, "last_copies": False, "purge": False} | inputs, run=run
    )


def test_each_week_a_plan_in_one_issue_and_on_request_it_is_applied(
    built: tuple[World, Path, str], runner: Runner
) -> None:
    world, _, _ = built
    storage = world.root.parent / "storage"
    going = sorted(world.store(text) for text in (LET_GO, NEVER_COMMITTED))
    jobs = schedule(runner)
    assert results(jobs) == {"plan": "success", "issue": "success", "apply": "skipped"}, jobs
    # what a pull request of a fork or an experiment names stays
    assert planned(runner) == going
    (issue,) = runner.github["issues"]
    assert issue["title"] == "Garbage collection"
    assert issue["body"].startswith(f"{MARKER}\n")
    assert f"gh workflow run gc.yml -f plan={RUN}" in issue["body"]
    for oid in going:
        assert oid[:8] in issue["body"]
        assert oid[:8] in jobs["plan"].summary
    # it is not applied by a command that names a file of the runner
    assert "gc apply /" not in issue["body"] + jobs["plan"].summary
    assert "<" not in issue["body"].removeprefix(MARKER)
    assert "@\u200bmallory" not in issue["body"]  # an entity, not the character
    assert "@&#8203;mallory" in issue["body"]

    before = tree(storage)
    jobs = schedule(runner, run="4712")
    assert results(jobs)["issue"] == "success", jobs
    (changed,) = runner.github["issues"]
    assert changed["number"] == issue["number"]
    assert "plan=4712" in changed["body"]
    assert RUN not in changed["body"]
    assert tree(storage) == before

    jobs = dispatch(runner, RUN)
    assert results(jobs) == {"plan": "skipped", "issue": "skipped", "apply": "failure"}, jobs
    assert jobs["apply"].code == 2, jobs
    assert "--allow-last-copy" in jobs["apply"].log
    assert tree(storage) == before

    jobs = dispatch(runner, RUN, last_copies=True)
    assert results(jobs)["apply"] == "success", jobs
    left = {name.removeprefix("files/md5/").replace("/", "") for name in tree(storage)}
    assert left == {world.store(text) for text in ("main", "a fork's", "an experiment's")}
    assert "quarantine" in jobs["apply"].summary
    assert any((storage / "holdfast").rglob("*"))

    # what was applied is stale for whoever comes second, and purging is only done where it is asked for
    jobs = dispatch(runner, RUN, last_copies=True, purge=True)
    assert (results(jobs)["apply"], jobs["apply"].code) == ("failure", 14), jobs
    assert len(runner.github["issues"]) == 1


def test_a_plan_that_the_world_has_left_behind_is_red_and_nothing_goes(
    built: tuple[World, Path, str], runner: Runner
) -> None:
    world, bare, _ = built
    assert results(schedule(runner))["plan"] == "success"
    # somebody needs it again
    world.git("checkout", "--quiet", "--detach", "main")
    world.track("found-again.bin", NEVER_COMMITTED)
    commit = world.commit("found again")
    world.git("checkout", "--quiet", "main")
    world.git("push", "--quiet", str(bare), f"{commit}:refs/heads/main")
    before = tree(world.root.parent / "storage")
    jobs = dispatch(runner, RUN, last_copies=True)
    assert (results(jobs)["apply"], jobs["apply"].code) == ("failure", 14), jobs
    assert tree(world.root.parent / "storage") == before


def test_purge_deletes_what_has_waited(built: tuple[World, Path, str], runner: Runner) -> None:
    # this plan was asked for by hand
    runner.change(runs={RUN: OF_THIS_WORKFLOW | {"path": ".github/workflows/gc.yml", "event": "workflow_dispatch"}})
    assert results(dispatch(runner, "", run=RUN))["plan"] == "success"
    jobs = dispatch(runner, RUN, last_copies=True, purge=True)
    assert results(jobs)["apply"] == "success", jobs
    held = built[0].holdfast("gc", "list", "--json", "-r", "storage").stdout
    assert json.loads(held)["held"] == []


@pytest.mark.parametrize(
    ("plan", "made", "code"),
    [
        ("plan.json", None, 2),
        ("1; touch hacked", None, 2),
        ("4711\n4712", None, 2),
        ("99", None, 1),
        ("4711", OF_THIS_WORKFLOW | {"event": "pull_request"}, 1),
        ("4711", OF_THIS_WORKFLOW | {"path": ".github/workflows/model-report.yml"}, 1),
        ("4711", OF_THIS_WORKFLOW | {"head_branch": "feature"}, 1),
    ],
)
def test_a_plan_of_anybody_else_is_not_applied(runner: Runner, plan: str, made: Any, code: int) -> None:
    runner.change(runs={RUN: made} if made else {})
    jobs = dispatch(runner, plan, last_copies=True)
    assert (results(jobs)["apply"], jobs["apply"].code) == ("failure", code), jobs
    # it ends before anything is brought
    assert jobs["apply"].log.count("holdfast") == 0
    assert not list(runner.folder.rglob("hacked"))


def test_on_another_branch_nothing_is_planned_or_applied(runner: Runner) -> None:
    assert set(results(schedule(runner, ref="refs/heads/feature")).values()) == {"skipped"}
    jobs = runner.run(GC, "workflow_dispatch", inputs={"plan": RUN}, ref="refs/heads/feature")
    assert set(results(jobs).values()) == {"skipped"}


def test_without_secrets_it_says_so_and_plans_nothing(runner: Runner) -> None:
    runner.secrets = {"AWS_ACCESS_KEY_ID": "ada"}
    jobs = schedule(runner)
    assert results(jobs) == {"plan": "success", "issue": "skipped", "apply": "skipped"}, jobs
    assert "::warning::AWS_SECRET_ACCESS_KEY is not set" in jobs["plan"].log
    assert runner.github["asked"] == []


def issue_of(number: int, login: str = BOT, **more: Any) -> dict[str, Any]:
    body = f"{MARKER}\nold"
    return {
        "id": number,
        "number": number,
        "user": {"login": login},
        "body": body,
        "state": "open",
        "html_url": "",
    } | more


@pytest.mark.parametrize("objects", ["0", "3"])
def test_an_issue_is_opened_only_where_something_could_go(runner: Runner, objects: str) -> None:
    others = [
        issue_of(1, "mallory"),
        issue_of(2, state="closed"),
        issue_of(3, pull_request={"url": ""}),
        issue_of(4, body=None),
    ]
    runner.change(issues=others)
    jobs = written(runner, "A plan\n", objects)
    assert jobs.result == "success", jobs.log
    assert runner.github["issues"][:4] == others
    assert len(runner.github["issues"]) == (4 if objects == "0" else 5)


def test_an_open_issue_is_changed_even_if_nothing_could_go_any_more(runner: Runner) -> None:
    others = [issue_of(number, body="another workflow's") for number in range(150)]
    runner.change(issues=[issue_of(199, "mallory"), *others, issue_of(200)])
    assert written(runner, "Nothing could go\n", "0").result == "success"
    assert "Nothing could go" in runner.github["issues"][-1]["body"]
    assert all("Nothing" not in one["body"] for one in runner.github["issues"][:-1])


@pytest.mark.parametrize("character", ["x", "🗑"])
def test_a_plan_that_is_too_long_is_named(runner: Runner, character: str) -> None:
    assert written(runner, character * 60_001, "3").result == "success"
    (issue,) = runner.github["issues"]
    assert "too long" in issue["body"]
    assert len(issue["body"]) < 1000
    assert written(runner, character * 60_000, "3").result == "success"
    assert character * 60_000 in runner.github["issues"][0]["body"]


def written(runner: Runner, plan: str, objects: str) -> Any:
    """The job of the issue, for a plan."""
    folder = runner.artifact("holdfast-gc-plan")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.md").write_text(plan)
    needs = {"plan": {"result": "success", "outputs": {"made": "yes", "objects": objects}}}
    return runner.run(GC, "schedule", only="issue", needs=needs)["issue"]
