"""The model report on GitHub, job by job: real shells and clones, `holdfast report pr` itself, a stand-in for `gh`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.project.workflows import WorkflowOptions, workflow_files
from workflow_gh import BOT
from workflow_world import REPOSITORY, RUN, Runner, make_project, served
from worlds import World

NUMBER = 7
MARKER = "<!-- holdfast-report -->"
KEYS = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "a secret that no log shows"}
# installing is the package registry's affair: this says whether the command is there
REPORT = workflow_files("github", WorkflowOptions(install="holdfast version"))[".github/workflows/model-report.yml"]
# what brings objects takes a second each, and is looked at once
QUICK = REPORT.replace("dvc fetch", "true").replace("dvc pull", "true")
HOSTILE = f"""{MARKER}
## $(touch hacked) `touch hacked` ${{HOME}} {{owner}} ${{{{ secrets.AWS_SECRET_ACCESS_KEY }}}}
::set-output name=gate::0
@/etc/passwd "quoted" 'single' \\n %s %n !! $'x' -F body=x --jq . null
<details><script>alert(1)</script>
END
"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner without a repository, for the jobs that need none."""
    return Runner(tmp_path / "runner", tmp_path / "home", "")


def pull_request(base: str = "", head: str = "", *, fork: bool = False) -> dict[str, Any]:
    owner = "mallory/models" if fork else REPOSITORY
    return {
        "pull_request": {
            "number": NUMBER,
            "base": {"sha": base},
            "head": {"sha": head, "repo": {"full_name": owner}},
        }
    }


def put(runner: Runner, report: str | bytes) -> None:
    """A report as the first job leaves it."""
    folder = runner.artifact("model-report")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_bytes(report.encode() if isinstance(report, str) else report)


def comment(runner: Runner, report: str | bytes | None = None, **more: Any) -> Any:
    """Run the job that comments, and give how it ended."""
    if report is not None:
        put(runner, report)
    needs = {"report": {"result": "success", "outputs": {"gate": "0"}}}
    return runner.run(REPORT, "pull_request", pull_request(), only="comment", needs=needs, **more)["comment"]


def comments(runner: Runner) -> list[dict[str, Any]]:
    return runner.github["comments"].get(str(NUMBER), [])


def theirs(number: int, body: str, login: str = "mallory") -> dict[str, Any]:
    return {"id": number, "user": {"login": login}, "body": body, "html_url": "", "issue": str(NUMBER)}


def test_the_first_run_writes_a_comment_and_the_second_changes_it(runner: Runner) -> None:
    first = comment(runner, f"{MARKER}\n\n## ✅ Gate: pass\n")
    assert first.result == "success", first.log
    (written,) = comments(runner)
    assert written["body"].startswith(f"{MARKER}\n\n## ✅ Gate: pass\n")
    assert f"https://github.com/{REPOSITORY}/actions/runs/{RUN}#artifacts" in written["body"]
    second = comment(runner, f"{MARKER}\n\n## ❌ Gate: fail\n")
    assert second.result == "success", second.log
    (changed,) = comments(runner)
    assert changed["id"] == written["id"]
    assert "❌" in changed["body"]
    assert "✅" not in changed["body"]


def test_it_finds_its_own_comment_among_many_and_leaves_those_of_others(runner: Runner) -> None:
    others = [theirs(number, f"{MARKER}\nI am the report" if number % 2 else "hello") for number in range(250)]
    others.insert(180, theirs(999, f"{MARKER}\nold", BOT))
    others.insert(3, theirs(998, "another bot's", BOT))
    others.insert(4, theirs(997, f"> {MARKER}\nquoted", BOT))
    runner.change(comments={str(NUMBER): others})
    done = comment(runner, f"{MARKER}\nnew\n")
    assert done.result == "success", done.log
    after = comments(runner)
    assert len(after) == len(others)
    changed = [one["id"] for one, before in zip(after, others, strict=True) if one != before]
    assert changed == [999]


def test_comments_of_others_alone_are_not_taken_for_its_own(runner: Runner) -> None:
    runner.change(
        comments={str(NUMBER): [theirs(1, f"{MARKER}\nfake"), theirs(2, f"{MARKER}\nfake", "github-actions")]}
    )
    assert comment(runner, f"{MARKER}\nnew\n").result == "success"
    assert [one["user"]["login"] for one in comments(runner)] == ["mallory", "github-actions", BOT]


def test_what_a_report_says_is_never_carried_out(runner: Runner) -> None:
    done = comment(runner, HOSTILE)
    assert done.result == "success", done.log
    (written,) = comments(runner)
    assert written["body"].startswith(HOSTILE)
    assert not list(runner.folder.rglob("hacked"))
    assert done.outputs == {}


@pytest.mark.parametrize(
    "report",
    [None, "", "a text", f"\n{MARKER}\n", "<!-- holdfast-repor", f"\0{MARKER}"],
    ids=["none", "empty", "unmarked", "later", "cut", "nul"],
)
def test_what_is_no_report_is_not_written(runner: Runner, report: str | None) -> None:
    runner.artifact("model-report").mkdir(parents=True)
    done = comment(runner, report)
    assert done.result == "failure"
    assert "no report of Holdfast" in done.log
    assert comments(runner) == []


def test_a_link_is_no_report(runner: Runner, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{MARKER} a file of the runner")
    folder = runner.artifact("model-report")
    folder.mkdir(parents=True)
    (folder / "report.md").symlink_to(secret)
    assert comment(runner).result == "failure"
    assert comments(runner) == []


@pytest.mark.parametrize("character", ["x", "é", "🦊"])
def test_the_longest_report_is_a_comment_and_a_longer_one_is_named(runner: Runner, character: str) -> None:
    report = f"{MARKER}\n".ljust(65_000, character)
    assert comment(runner, report).result == "success"
    assert comments(runner)[0]["body"].startswith(report)
    done = comment(runner, report + character)
    assert done.result == "success", done.log
    (written,) = comments(runner)
    assert written["body"].startswith(f"{MARKER}\n")
    assert f"actions/runs/{RUN}" in written["body"]
    assert len(written["body"]) < 500


def test_bytes_that_are_no_text_do_not_hide_the_length(runner: Runner) -> None:
    done = comment(runner, MARKER.encode() + b"\n" + b"\xff" * 300_000)
    assert done.result == "success", done.log
    assert "too long" in comments(runner)[0]["body"]


def test_what_github_refuses_ends_the_job(runner: Runner) -> None:
    put(runner, f"{MARKER}\nnew\n")
    lesser = REPORT.replace("pull-requests: write", "pull-requests: read")
    needs = {"report": {"result": "success", "outputs": {}}}
    done = runner.run(lesser, "pull_request", pull_request(), only="comment", needs=needs)["comment"]
    assert (done.result, comments(runner)) == ("failure", [])
    assert "HTTP 403" in done.log


@pytest.mark.parametrize("commented", ["success", "failure", "skipped"])
@pytest.mark.parametrize(
    ("result", "gate", "code"),
    [
        ("success", "0", 0),
        ("success", "12", 12),
        ("success", "", 1),
        ("success", "0; exit 0", 1),
        ("success", "$(id)", 1),
        ("failure", "", 1),
        ("failure", "0", 1),
        ("cancelled", "0", 1),
        ("skipped", "", 1),
    ],
)
def test_the_gate_passes_on_what_was_said_and_nothing_passes_in_silence(
    runner: Runner, result: str, gate: str, code: int, commented: str
) -> None:
    needs = {"report": {"result": result, "outputs": {"gate": gate}}, "comment": {"result": commented, "outputs": {}}}
    done = runner.run(REPORT, "pull_request", pull_request(), only="gate", needs=needs)["gate"]
    assert (done.result, done.code) == ("failure" if code else "success", code), done.log


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    """See `make_project`; the head of the pull request is `worse`."""
    folder = tmp_path_factory.mktemp("project")
    world, bare = make_project(folder)
    # as GitHub has it: a fork's head is there by its commit and the pull request's ref alone
    world.git("-C", str(bare), "config", "uploadpack.allowAnySHA1InWant", "true")
    world.git("-C", str(bare), "update-ref", f"refs/pull/{NUMBER}/head", world.git("rev-parse", "worse"))
    with served(bare.parents[1]) as url:
        yield world, f"{url}/ada/models.git"


def ran(project: tuple[World, str], folder: Path, branch: str, text: str = REPORT, **more: Any) -> tuple[Runner, Any]:
    """A pull request of a branch, run as a whole."""
    world, url = project
    runner = Runner(folder / branch, world.home, url, KEYS)
    event = pull_request(world.git("rev-parse", "main"), world.git("rev-parse", branch), **more)
    return runner, runner.run(text, "pull_request", event)


def test_a_gate_that_passes_is_green_and_the_report_is_a_comment(project: tuple[World, str], tmp_path: Path) -> None:
    runner, jobs = ran(project, tmp_path, "better")
    assert {name: job.result for name, job in jobs.items()} == dict.fromkeys(jobs, "success"), jobs
    (written,) = comments(runner)
    report = (runner.artifact("model-report") / "report.md").read_text()
    assert written["body"].startswith(report)
    assert "Gate: pass" in report
    assert jobs["report"].summary == report
    assert "0.97" in report
    # of both sides the objects were brought
    brought = {path.read_text() for path in runner.folder.glob("*-report/*/.dvc/cache/files/md5/*/*")}
    assert brought == {"weights of main", "weights of better"}
    assert all(secret not in jobs["report"].log for secret in KEYS.values())


def test_a_gate_that_fails_is_red_after_the_comment(project: tuple[World, str], tmp_path: Path) -> None:
    runner, jobs = ran(project, tmp_path, "worse", QUICK)
    assert {name: job.result for name, job in jobs.items()} == {
        "report": "success",
        "comment": "success",
        "gate": "failure",
    }, jobs
    assert jobs["gate"].code == 12
    (written,) = comments(runner)
    assert "Gate: fail" in written["body"]


def test_a_fork_gets_no_secret_and_no_comment_but_its_report_and_its_verdict(
    project: tuple[World, str], tmp_path: Path
) -> None:
    # its commit is on no branch of the server
    bare = Path(project[0].root).parent / "server" / "ada" / "models.git"
    project[0].git("-C", str(bare), "update-ref", "-d", "refs/heads/worse")
    runner, jobs = ran(project, tmp_path, "worse", fork=True)
    assert {name: job.result for name, job in jobs.items()} == {
        "report": "success",
        "comment": "skipped",
        "gate": "failure",
    }, jobs
    assert jobs["gate"].code == 12
    assert "Gate: fail" in jobs["report"].summary
    assert runner.github["asked"] == []
    assert "AWS_ACCESS_KEY_ID is not set, as in every fork" in jobs["report"].log
    project[0].git("-C", str(bare), "update-ref", "refs/heads/worse", project[0].git("rev-parse", "worse"))


def test_a_secret_that_is_not_set_is_no_empty_variable(project: tuple[World, str], tmp_path: Path) -> None:
    # an empty key would be tried by what opens a remote, and refused
    shown = QUICK.replace("holdfast report pr", "env | grep ^AWS_ && exit 77; holdfast report pr")
    assert shown != QUICK
    _, jobs = ran(project, tmp_path, "better", shown, fork=True)
    assert jobs["report"].result == "success", jobs
    _, jobs = ran(project, tmp_path / "own", "better", shown)
    assert jobs["report"].code == 77, jobs


def test_a_report_that_fails_is_red_and_writes_nothing(project: tuple[World, str], tmp_path: Path) -> None:
    broken = QUICK.replace('--base "$BASE"', '--base "no-such-commit"')
    runner, jobs = ran(project, tmp_path, "better", broken)
    assert {name: job.result for name, job in jobs.items()} == {
        "report": "failure",
        "comment": "skipped",
        "gate": "failure",
    }
    assert jobs["report"].outputs["gate"] == ""
    assert runner.github["asked"] == []
    assert jobs["report"].summary == ""


def test_the_runner_is_no_easier_than_github(runner: Runner) -> None:
    """The stand-in refuses what GitHub refuses; without this the tests above would show little."""
    bare = REPORT.replace("          GH_TOKEN: ${{ github.token }}\n", "")
    put(runner, f"{MARKER}\n")
    needs = {"report": {"result": "success", "outputs": {}}}
    done = runner.run(bare, "pull_request", pull_request(), only="comment", needs=needs)["comment"]
    assert (done.result, done.code) == ("failure", 4)
    assert "GH_TOKEN" in done.log
    assert "GH_TOKEN" not in os.environ
