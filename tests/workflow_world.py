"""A small runner for workflows: real shells in real clones from a git server on loopback, with a stand-in for `gh`.

It does of GitHub's runner what the workflows rest on: jobs after those that they need, conditions, expressions, secrets
and a token with the permissions of the job (none of which a fork's pull request gets), outputs, summaries, artifacts.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from worlds import World, environment, make_repository

REPOSITORY = "ada/models"
RUN = "4711"
SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
STAND_IN = Path(__file__).parent / "workflow_gh.py"
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
_TOKEN = re.compile(r"\s*('[^']*'|[A-Za-z_][\w.-]*(?:\(\))?|==|!=|&&|\|\||!|[()])")
_WORDS = {"&&": " and ", "||": " or ", "!": " not ", "true": "True", "false": "False"}


DVC_YAML = """stages:
  train:
    cmd: "true"
    metrics:
    - metrics.json:
        cache: false
"""
GATE = "promote:\n  metrics:\n    accuracy: {direction: max, floor: 0.9}\n"


def make_project(folder: Path) -> tuple[World, Path]:
    """A project, and the bare repository ``server/ada/models.git`` of it.

    It has `main`, a branch `better` that passes its gate and one `worse` that does not; their objects lie in a folder
    that is the DVC remote, and in no cache. The subjects of their commits mean to be read as Markdown.
    """
    world = make_repository(folder)
    storage = folder / "storage"
    world.write(".dvc/config", f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {storage}\n")
    world.write("dvc.yaml", DVC_YAML)
    world.write("dvc.lock", 'schema: "2.0"\nstages:\n  train:\n    cmd: "true"\n')
    world.write("params.yaml", GATE)
    for branch, accuracy in (("main", 0.95), ("better", 0.97), ("worse", 0.5)):
        if branch != "main":
            world.git("checkout", "--quiet", "-b", branch, "main")
        world.write("metrics.json", json.dumps({"accuracy": accuracy}))
        oid = world.track("model.bin", f"weights of {branch}")
        target = storage / "files" / "md5" / oid[:2] / oid[2:]
        target.parent.mkdir(parents=True)
        target.write_text(f"weights of {branch}")
        world.commit(f"{branch} <b>@ada</b> | `x`")
    shutil.rmtree(world.cache)
    bare = folder / "server" / "ada" / "models.git"
    world.git("clone", "--quiet", "--bare", str(world.root), str(bare))
    return world, bare


class GitHandler(BaseHTTPRequestHandler):
    """Serves the bare repositories below ``root`` with git's own back end."""

    root: Path
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve(body)

    def _serve(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        variables = {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, check=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        self.send_response(int(dict(fields).get("Status", "200").split()[0]))
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name that it has there
        pass


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The URL of a git server on loopback, for the bare repositories below ``root``."""
    handler = type("Handler", (GitHandler,), {"root": root})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Job:
    """How a job ended.

    Args:
        result: ``success``, ``failure`` or ``skipped``, as ``needs`` has it.
        code: of the step that failed; 0 where none did.
        outputs: what it says to jobs that need it.
        summary: what it wrote to the page of the run.
        log: what its steps printed.
    """

    result: str
    code: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    log: str = ""


@dataclass
class Runner:
    """What runs workflows.

    Args:
        folder: empty; clones, artifacts and the store of `gh` are kept there.
        home: the isolated home folder of git and DVC.
        url: of the git repository.
        secrets: the repository's.
    """

    folder: Path
    home: Path
    url: str
    secrets: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir(parents=True)
        self.store = self.folder / "github.json"
        self.change(repository=REPOSITORY, tokens={}, comments={}, issues=[], runs={}, last=500, asked=[])
        gh = self.folder / "bin" / "gh"
        gh.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "{self.store}" "$@"\n')
        gh.chmod(0o755)
        self.count = 0

    @property
    def github(self) -> dict[str, Any]:
        """What GitHub has."""
        return json.loads(self.store.read_text())

    def change(self, **values: Any) -> None:
        """Change what GitHub has."""
        old = json.loads(self.store.read_text()) if self.store.exists() else {}
        self.store.write_text(json.dumps(old | values))

    def artifact(self, name: str, run: str = RUN) -> Path:
        """The folder of an artifact."""
        return self.folder / "artifacts" / run / name

    def run(
        self,
        text: str,
        event_name: str,
        event: Mapping[str, Any] | None = None,
        *,
        ref: str = "refs/heads/main",
        inputs: Mapping[str, Any] | None = None,
        run: str = RUN,
        only: str = "",
        needs: Mapping[str, Any] | None = None,
    ) -> dict[str, Job]:
        """Run the jobs of a workflow in the order of the file, in which those that are needed come first.

        Args:
            text: the workflow.
            event_name: as ``pull_request``.
            event: its payload, as ``github.event``.
            ref: what is checked out where nothing else is said.
            inputs: of a dispatch.
            run: the number of the run.
            only: the one job to be run.
            needs: what the others are taken to have said, with ``only``.
        """
        event = event or {}
        head = event.get("pull_request", {}).get("head", {}).get("repo", {}).get("full_name", REPOSITORY)
        trusted = head == REPOSITORY
        context: dict[str, Any] = {
            "github": {"repository": REPOSITORY, "event": event, "event_name": event_name, "ref": ref, "run_id": run},
            "secrets": dict(self.secrets) if trusted else {},
            "inputs": dict(inputs or {}),
        }
        workflow = yaml.safe_load(text)
        jobs: dict[str, Job] = {}
        for name, job in workflow["jobs"].items():
            if only and name != only:
                continue
            wanted = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            known = needs or {one: {"result": jobs[one].result, "outputs": jobs[one].outputs} for one in wanted}
            here = context | {"needs": known, "failed": any(one["result"] != "success" for one in known.values())}
            if condition(job.get("if", "success()"), here):
                jobs[name] = self._job(name, job, here, trusted, workflow.get("permissions", {}))
            else:
                jobs[name] = Job("skipped")
        return jobs

    def _job(self, name: str, job: Mapping[str, Any], context: Mapping[str, Any], trusted: bool, default: Any) -> Job:
        self.count += 1
        place = self.folder / f"{self.count}-{name}"
        # all jobs work at one path, as on GitHub's machines
        clone, temp = self.folder / "work" / "models" / "models", place / "temp"
        clone.mkdir(parents=True)
        temp.mkdir(parents=True)
        granted = job.get("permissions", default)
        may = granted if trusted else dict.fromkeys(granted, "read")
        token = f"ghs_{self.count}"
        self.change(tokens=self.github["tokens"] | {token: may})
        state = {
            **context,
            "runner": {"temp": str(temp)},
            "steps": {},
            "github": {**context["github"], "token": token, "workspace": str(clone)},
        }
        done = Job("success")
        for step in job["steps"]:
            if not condition(step.get("if", "success()"), {**state, "failed": done.code != 0}):
                continue
            if "uses" in step:
                self._use(step["uses"].split("@")[0], filled(step.get("with", {}), state), clone, state)
                continue
            files = {kind: temp / f"{kind}-file" for kind in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")}
            for file in files.values():
                file.touch()
            script = temp / "step.sh"
            script.write_text(filled(step["run"], state))
            ended = subprocess.run(
                [*SHELL, str(script)],
                cwd=clone / step.get("working-directory", "."),
                env=self._environment(state, clone, temp, files) | filled(step.get("env", {}), state),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            done.log += ended.stdout + ended.stderr
            done.summary += files["GITHUB_STEP_SUMMARY"].read_text()
            said = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
            state["steps"][step.get("id", "")] = {"outputs": said}
            for file in files.values():
                file.unlink()
            if ended.returncode and not done.code:
                done.result, done.code = "failure", ended.returncode
        done.outputs = filled(job.get("outputs", {}), state)
        clone.rename(place / "work")
        return done

    def _environment(
        self, state: Mapping[str, Any], clone: Path, temp: Path, files: Mapping[str, Path]
    ) -> dict[str, str]:
        mine = {name: value for name, value in environment(self.home).items() if not name.startswith("AWS_")}
        return mine | {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{mine['PATH']}",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_RUN_ID": state["github"]["run_id"],
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_WORKSPACE": str(clone),
            "RUNNER_TEMP": str(temp),
            **{name: str(path) for name, path in files.items()},
        }

    def _use(self, action: str, options: Mapping[str, str], clone: Path, state: Mapping[str, Any]) -> None:
        if action == "actions/checkout":
            self._git("init", "--quiet", str(clone))
            self._git("-C", str(clone), "remote", "add", "origin", self.url)
            wanted = options.get("ref") or state["github"]["ref"]
            assert options["fetch-depth"] == "0"
            everything = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
            self._git("-C", str(clone), "fetch", "--quiet", "origin", *everything)
            if wanted.startswith("refs/heads/"):
                branch = wanted.removeprefix("refs/heads/")
                self._git("-C", str(clone), "checkout", "--quiet", "-B", branch, f"origin/{branch}")
            else:
                self._git("-C", str(clone), "fetch", "--quiet", "origin", wanted)
                self._git("-C", str(clone), "checkout", "--quiet", "--detach", wanted)
        elif action == "actions/upload-artifact":
            kept = self.artifact(options["name"], state["github"]["run_id"])
            shutil.copytree(clone / options["path"], kept, dirs_exist_ok=True)
        elif action == "actions/download-artifact":
            run = options.get("run-id") or state["github"]["run_id"]
            shutil.copytree(self.artifact(options["name"], run), options["path"], dirs_exist_ok=True, symlinks=True)
        else:
            assert action == "actions/setup-python"

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], env=environment(self.home), check=True, capture_output=True)


def filled(value: Any, context: Mapping[str, Any]) -> Any:
    """A value of a workflow with its expressions' values, as text."""
    if isinstance(value, Mapping):
        return {name: filled(one, context) for name, one in value.items()}
    text = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return _EXPRESSION.sub(lambda match: looked_up(match[1].strip(), context), text)


def looked_up(name: str, context: Mapping[str, Any]) -> str:
    """What ``a.b.c`` has; nothing where there is none, as GitHub has it."""
    value: Any = context
    for part in name.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def condition(text: str, context: Mapping[str, Any]) -> bool:
    """Whether an ``if:`` holds; without a word on failure it holds only where nothing failed before."""
    text, python, place = str(text), "", 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        assert match, text[place:]
        token, place = match[1], match.end()
        if token in _WORDS or token in ("==", "!=", "(", ")") or token.startswith("'"):
            python += _WORDS.get(token, token)
        elif token.endswith("()"):
            python += {"always()": "True", "success()": repr(not context.get("failed"))}[token]
        else:
            value = looked_up(token, context)
            python += repr("" if value == "false" else value)
    holds = bool(eval(python))
    return holds and ("()" in text or not context.get("failed"))
