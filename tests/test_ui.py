"""`holdfast ui`: who may read it, what it says of changes, how it ends. What it looks like is tested in a browser."""

import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import html_world
from holdfast.repo.workspace import find_project
from holdfast.report.html_watch import state_of
from worlds import TOOLS, World, environment

LINE = re.compile(r"Showing (.+) at http://127\.0\.0\.1:(\d+)/; Ctrl-C ends it\.\n")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Running:
    process: "subprocess.Popen[str]"
    port: int
    world: World

    def ask(self, method: str = "GET", path: str = "/", **headers: str) -> Answer:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            with connection.getresponse() as response:
                return Answer(response.status, response.headers, response.read())

    @contextmanager
    def events(self) -> Iterator[Iterator[str]]:
        """The states that an open page is told."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", "/events")
            with connection.getresponse() as response:
                assert response.status == 200
                assert response.headers["Content-Type"] == "text/event-stream"
                yield (line[6:].decode().strip() for line in iter(response.readline, b"") if line.startswith(b"data: "))


def start(world: World, *arguments: str) -> Running:
    command = [str(TOOLS / "holdfast"), "ui", "--no-browser", *arguments]
    process = subprocess.Popen(
        command, cwd=world.root, env=environment(world.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = LINE.fullmatch(line)
    assert found is not None, line + (process.stderr.read() if process.stderr else "")
    assert found[1] == world.root.name
    return Running(process, int(found[2]), world)


def end(running: Running, number: int) -> int:
    os.kill(running.process.pid, number)
    try:
        return running.process.wait(20)
    finally:
        for stream in (running.process.stdout, running.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    world = html_world.make_world(tmp_path_factory.mktemp("ui"), versions=4, experiments=4, runs=2).world
    started = start(world)
    yield started
    assert end(started, signal.SIGTERM) == 0


def test_the_page_and_nothing_else(running: Running) -> None:
    page = running.ask()
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"exp-000" in page.body
    head = running.ask("HEAD")
    assert (head.status, head.body) == (200, b"")
    for path in ("/etc/passwd", "/../../etc/passwd", "/registry", "/events/", "//"):
        assert running.ask(path=path).status == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b"]
)
def test_other_names_are_refused(running: Running, host: str) -> None:
    for path in ("/", "/events"):
        response = running.ask(path=path, Host=host)
        assert response.status == 421
        assert b"exp-000" not in response.body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_its_own_names_are_answered(running: Running, host: str) -> None:
    assert running.ask(Host=f"{host}:{running.port}").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_is_written(running: Running, method: str) -> None:
    response = running.ask(method)
    assert response.status == 405
    assert b"exp-000" not in response.body


def test_other_sites_read_nothing(running: Running) -> None:
    headers = running.ask().headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert running.ask(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403
    assert running.ask(path="/events", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors").status == 403
    assert running.ask(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200  # a link that leads here


def test_only_this_machine_reaches_it(running: Running) -> None:
    with closing(socket.socket()) as other:
        other.settimeout(2)
        addresses = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        outside = [address for address in addresses if not address.startswith("127.")]
        if not outside:
            pytest.skip("this machine has no address but loopback")
        assert other.connect_ex((outside[0], running.port)) != 0


def test_a_change_is_told_once_and_the_page_has_it(running: Running) -> None:
    with running.events() as first, running.events() as second:
        before = next(first)
        assert next(second) == before
        assert f'data-state="{before}"'.encode() in running.ask().body
        path = running.world.root / "registry/digits/classifier/model.yaml"
        running.world.write(str(path), path.read_text().replace("description: ", "description: x # "))
        after = next(first)
        assert after != before
        assert next(second) == after
    page = running.ask().body
    assert f'data-state="{after}"'.encode() in page
    assert b'"description":"x"' in page


def test_a_broken_registry_does_not_end_it(running: Running) -> None:
    with running.events() as states:
        next(states)
        path = running.world.root / "registry/digits/classifier/model.yaml"
        text = path.read_text()
        path.write_text("{[")
        next(states)
        page = running.ask()
        assert page.status == 200
        assert b"registry/digits/classifier/model.yaml" in page.body
        path.write_text(text)
        next(states)
        assert b"Not shown" not in running.ask().body


def test_ctrl_c_ends_it_at_once_with_130(tmp_path: Path) -> None:
    world = html_world.make_world(tmp_path, versions=0, experiments=0, runs=0).world
    started = start(world)
    with started.events() as states:  # an open page does not hold it up
        next(states)
        began = time.monotonic()
        assert end(started, signal.SIGINT) == 130
        assert time.monotonic() - began < 10
        assert list(states) == []


def test_a_port_that_is_taken_is_named(running: Running) -> None:
    done = running.world.holdfast("ui", "--no-browser", "--port", str(running.port), code=1)
    assert f"127.0.0.1:{running.port} cannot be listened on" in done.stderr
    assert "--port" in done.stderr


def test_what_changes_the_state_and_what_does_not(tmp_path: Path) -> None:
    world = html_world.make_world(tmp_path, versions=3, experiments=2, runs=2).world
    project = find_project(world.root)
    states = [state_of(project)]
    assert state_of(project) == states[0]

    def changed(act: str) -> None:
        states.append(state_of(project))
        assert len(set(states)) == len(states), act

    world.write("outputs/wide_00/metrics.csv", "epoch,loss\n1,2\n2,1\n")
    changed("a run writes")
    world.commit("a commit")
    changed("a commit")
    head = world.git("rev-parse", "HEAD")
    world.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/new", head)
    changed("an experiment")
    world.write("registry/a/b/model.yaml", "schema: 1\n")
    changed("a new model")
    world.git("pack-refs", "--all")
    changed("refs are packed")
    world.store("an object of a new folder in DVC's cache")
    changed("an object")
    world.write(".dvc/config", "[core]\n    remote = x\n")
    changed("settings")
    world.write(".dvc/tmp/holdfast/something", "x")
    world.write("node_modules/x/y.js", "x")
    before = state_of(project)
    world.write(".dvc/tmp/holdfast/another", "x")
    world.write("node_modules/x/z.js", "x")
    assert state_of(project) == before
