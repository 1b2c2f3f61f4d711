"""The jobs of GitLab: their scripts in real shells and clones, against a server that has its API of notes and issues."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from holdfast.project.workflows import WorkflowOptions, workflow_files
from test_workflows import GitLabLoader
from workflow_world import SHELL, make_project, served
from worlds import World, environment

OPTIONS = WorkflowOptions(install="holdfast version")
JOBS = yaml.load(workflow_files("gitlab", OPTIONS)[".gitlab/holdfast.yml"], GitLabLoader)
MARKER = "<!-- holdfast-report -->"
TOKEN, ME = "glpat-ada", 42
PLACES = {"projects/3/merge_requests/7/notes": ("body", "id"), "projects/3/issues": ("description", "iid")}
LIST = re.compile(r"/api/v4/(.+?)(?:/(\d+))?")


@dataclass
class GitLab:
    """What the server has, and what it was asked."""

    url: str
    items: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {place: [] for place in PLACES})
    asked: list[str] = field(default_factory=list)

    def put(self, place: str, number: int, text: str, author: int, **more: Any) -> None:
        name, key = PLACES[place]
        self.items[place].append({"id": number, key: number, name: text, "author": {"id": author}, **more})


@pytest.fixture
def gitlab() -> Iterator[GitLab]:
    """GitLab's API on loopback, as far as the jobs use it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_PUT(self) -> None:
            self.answer()

        def answer(self) -> None:
            parts = urlsplit(self.path)
            gitlab.asked.append(f"{self.command} {parts.path}")
            form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(), strict_parsing=False)
            values = {name: some[-1] for name, some in form.items()}
            if self.headers["PRIVATE-TOKEN"] != TOKEN:
                return self.send(401, {"message": "401 Unauthorized"})
            if parts.path == "/api/v4/user":
                return self.send(200, {"id": ME})
            match = LIST.fullmatch(parts.path)
            place, number = (match[1], match[2]) if match else ("", None)
            if place not in PLACES:
                return self.send(404, {"message": "404 Not found"})
            name, key = PLACES[place]
            items = gitlab.items[place]
            if self.command == "GET" and number is None:
                query = {name: some[-1] for name, some in parse_qs(parts.query).items()}
                size, page = min(int(query["per_page"]), 100), int(query["page"])
                state = query.get("state") if place.endswith("issues") else None
                shown = [one for one in items if state is None or one.get("state", "opened") == state]
                more = str(page + 1) if len(shown) > page * size else ""
                return self.send(200, shown[(page - 1) * size : page * size], {"X-Next-Page": more})
            if not values.get(name) or (place.endswith("issues") and number is None and not values.get("title")):
                return self.send(400, {"message": f"{name} is missing"})
            if number is None and self.command == "POST":
                gitlab.put(place, 1000 + len(items), values[name], ME, title=values.get("title"))
                return self.send(201, items[-1])
            found = next((one for one in items if str(one[key]) == number), None)
            if found is None or self.command != "PUT":
                return self.send(404, {"message": "404 Not found"})
            found.update(values)
            return self.send(200, found)

        def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, one in (headers or {}).items():
                self.send_header(name, one)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name that it has there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gitlab = GitLab(f"http://127.0.0.1:{server.server_port}/api/v4")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield gitlab
        finally:
            server.shutdown()
            thread.join()


def run(name: str, folder: Path, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script of a job, in a folder, as GitLab's runner does it."""
    job = JOBS[name]
    known = {"CI": "true", "CI_PROJECT_DIR": str(folder), **variables}
    job = JOBS[job["extends"]] | job | {"variables": JOBS[job["extends"]]["variables"] | job.get("variables", {})}
    for key, value in job["variables"].items():
        known[key] = re.sub(r"\$(\w+)", lambda match: known.get(match[1], ""), value)
    parts = [JOBS[part[1]][part[2]] if isinstance(part, tuple) else [part] for part in job["script"]]
    script = "\n".join(line for part in parts for line in part)
    mine = {key: value for key, value in environment(home).items() if not key.startswith(("AWS_", "HOLDFAST_"))}
    return subprocess.run(
        [*SHELL, "-c", script],
        cwd=folder,
        env=mine | known,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def gate(gitlab: GitLab, folder: Path, report: str | None, code: str = "0", **more: str) -> Any:
    """The job that writes the note and passes on the verdict."""
    (folder / "model-report").mkdir(exist_ok=True)
    if report is not None:
        (folder / "model-report" / "report.md").write_text(report)
    (folder / "model-report" / "gate").write_text(f"{code}\n")
    known = {"CI_API_V4_URL": gitlab.url, "CI_MERGE_REQUEST_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "7"}
    known |= {"CI_PIPELINE_URL": "https://gitlab.com/ada/models/-/pipelines/9", "HOLDFAST_TOKEN": TOKEN}
    return run("holdfast-gate", folder, folder / "home", **known | more)


def notes(gitlab: GitLab) -> list[dict[str, Any]]:
    return gitlab.items["projects/3/merge_requests/7/notes"]


def test_the_first_pipeline_writes_a_note_and_the_second_changes_it(gitlab: GitLab, tmp_path: Path) -> None:
    place = "projects/3/merge_requests/7/notes"
    for number in range(130):
        gitlab.put(place, number, f"{MARKER} fake", 1)
    gitlab.put(place, 500, f"a quote of {MARKER}", ME)
    before = list(map(dict, notes(gitlab)))
    first = gate(gitlab, tmp_path, f"{MARKER}\n\nfirst ‒ é & = + %\n")
    assert first.returncode == 0, first
    assert notes(gitlab)[-1]["body"] == f"{MARKER}\n\nfirst ‒ é & = + %\n"
    second = gate(gitlab, tmp_path, f"{MARKER}\n\nsecond\n", "12")
    assert second.returncode == 12, second
    assert notes(gitlab)[-1]["body"] == f"{MARKER}\n\nsecond\n"
    assert notes(gitlab)[:-1] == before
    assert len(notes(gitlab)) == len(before) + 1


def test_a_line_of_a_report_is_no_command_of_gitlab(gitlab: GitLab, tmp_path: Path) -> None:
    report = f"{MARKER}\n/merge\n  /approve\n| a/b | /c |\nsee a/b\n\t/close\r\n/label ~x"
    assert gate(gitlab, tmp_path, report).returncode == 0
    body = notes(gitlab)[0]["body"]
    assert not re.search(r"(?m)^\s*/", body)
    assert "\\/merge" in body
    assert "| a/b | /c |" in body


@pytest.mark.parametrize(("code", "ends"), [("0", 0), ("12", 12), ("", 1), ("7", 1), ("0; exit 0", 1)])
def test_without_a_token_nothing_is_asked_and_the_gate_ends_the_job(
    gitlab: GitLab, tmp_path: Path, code: str, ends: int
) -> None:
    done = gate(gitlab, tmp_path, f"{MARKER}\n", code, HOLDFAST_TOKEN="")
    assert (done.returncode, gitlab.asked) == (ends, []), done
    assert "HOLDFAST_TOKEN is not set" in done.stdout


@pytest.mark.parametrize("report", [None, "a text", f" {MARKER}"])
def test_what_is_no_report_is_not_written(gitlab: GitLab, tmp_path: Path, report: str | None) -> None:
    assert gate(gitlab, tmp_path, report).returncode == 1
    assert notes(gitlab) == []


def test_a_token_that_is_refused_ends_the_job(gitlab: GitLab, tmp_path: Path) -> None:
    done = gate(gitlab, tmp_path, f"{MARKER}\n", HOLDFAST_TOKEN="another")
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "another" not in done.stdout + done.stderr


def test_nothing_that_lies_in_the_working_directory_is_run(gitlab: GitLab, tmp_path: Path) -> None:
    for name in ("json", "re", "urllib", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not yours')")
    done = gate(gitlab, tmp_path, f"{MARKER}\n", PYTHONPATH=str(tmp_path))
    assert (done.returncode, len(notes(gitlab))) == (0, 1), done


def test_a_report_that_is_too_long_is_named(gitlab: GitLab, tmp_path: Path) -> None:
    assert gate(gitlab, tmp_path, f"{MARKER}\n" + "x" * 900_000).returncode == 0
    body = notes(gitlab)[0]["body"]
    assert body.startswith(f"{MARKER}\n")
    assert "pipelines/9" in body
    assert len(body) < 500


def test_the_plan_is_one_issue_in_which_names_are_text(gitlab: GitLab, tmp_path: Path) -> None:
    gitlab.put("projects/3/issues", 5, "<!-- holdfast-gc -->\nclosed", ME, state="closed")
    (tmp_path / "holdfast-gc").mkdir()
    known = {"CI_API_V4_URL": gitlab.url, "CI_PROJECT_ID": "3", "HOLDFAST_TOKEN": TOKEN, "CI_PIPELINE_URL": ""}
    for text in ("first <!-- @ada a@b app/m@v3\n/close", "second"):
        (tmp_path / "holdfast-gc" / "plan.md").write_text(text)
        done = run("holdfast-gc-issue", tmp_path, tmp_path / "home", **known)
        assert done.returncode == 0, done
        closed, issue = gitlab.items["projects/3/issues"]
        assert closed["description"].endswith("closed")
        assert issue["title"] == "Garbage collection"
        if text != "second":
            expected = "first &lt;!-- @\u200bada a@b app/m@v3\n\\/close"
            assert issue["description"] == f"<!-- holdfast-gc -->\n\n{expected}"
    assert issue["description"] == "<!-- holdfast-gc -->\n\nsecond"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    """See `make_project`."""
    world, bare = make_project(tmp_path_factory.mktemp("project"))
    with served(bare.parents[1]) as url:
        yield world, f"{url}/ada/models.git"


def test_the_report_of_a_merge_request(project: tuple[World, str], tmp_path: Path) -> None:
    world, url = project
    clone = tmp_path / "clone"
    world.git("clone", "--quiet", url, str(clone))
    world.git("-C", str(clone), "checkout", "--quiet", "--detach", "origin/worse")
    base, head = world.git("rev-parse", "main"), world.git("rev-parse", "worse")
    known = {"CI_MERGE_REQUEST_DIFF_BASE_SHA": base, "CI_COMMIT_SHA": head}
    keys = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "a secret"}
    done = run("holdfast-report", clone, world.home, **known, **keys)
    assert done.returncode == 0, done
    assert (clone / "model-report" / "gate").read_text() == "12\n"
    report = (clone / "model-report" / "report.md").read_text()
    assert report.startswith(MARKER)
    assert "Gate: fail" in report
    assert (clone / "model.bin").read_text() == "weights of worse"
    # what both come from was fetched, too
    assert len(list((clone / ".dvc" / "cache" / "files" / "md5").rglob("??????????????????????????????"))) == 2

    # as in a fork, which has no variables of the project
    world.git("-C", str(clone), "clean", "--quiet", "-ffdx")
    done = run("holdfast-report", clone, world.home, **known)
    assert done.returncode == 0, done
    assert "AWS_SECRET_ACCESS_KEY is not set" in done.stdout
    assert not (clone / "model.bin").exists()
    assert (clone / "model-report" / "gate").read_text() == "12\n"


def test_the_plan_of_a_schedule_is_applied_in_its_own_pipeline(project: tuple[World, str], tmp_path: Path) -> None:
    world, url = project
    clone = tmp_path / "clone"
    world.git("clone", "--quiet", url, str(clone))
    known = {"HOLDFAST_GC_OPTIONS": "", "CI_PIPELINE_URL": "the pipeline"}
    done = run("holdfast-gc-plan", clone, world.home, **known)
    assert done.returncode == 0, done
    plan = json.loads((clone / "holdfast-gc" / "plan.json").read_text())
    assert plan["objects"] == []
    assert (
        (clone / "holdfast-gc" / "plan.md").read_text().endswith("Apply it: start holdfast-gc-apply in the pipeline\n")
    )
    assert len(plan["totals"]) >= 1
    done = run("holdfast-gc-apply", clone, world.home, **known)
    assert done.returncode == 0, done
    assert "nothing to do" in done.stdout
    # a branch that came since then makes the plan stale
    bare = world.root.parent / "server" / "ada" / "models.git"
    since = world.git("-C", str(bare), "commit-tree", "-m", "since", "main^{tree}")
    world.git("-C", str(bare), "branch", "since", since)
    done = run("holdfast-gc-apply", clone, world.home, **known)
    assert done.returncode == 14, done
