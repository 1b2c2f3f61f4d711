"""Cloudflare's own local R2 behind everything that Holdfast and DVC do with a remote, as `remote setup r2` sets it up."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from r2_miniflare import LocalR2, local_r2
from remote_world import ACCOUNT, QUICK, faults, forget_variables, found, lose, write_keys
from servers import BUCKET, SECRET_KEY
from vault_servers import ask, path_of, serving
from vaults import oid_of
from worlds import World, make_repository

WEIGHTS = b"weights" * 100_000


@dataclass(frozen=True)
class Project:
    """A project whose remote is a folder of the local R2's bucket."""

    world: World
    server: LocalR2
    folder: str
    setup: dict[str, Any]

    @property
    def store(self) -> ObjectStore:
        return open_store(f"s3://{BUCKET}/{self.folder}", self.server.options())

    def doctor(self, *arguments: str, code: int) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(
            self.world.holdfast("remote", "doctor", "--json", *arguments, code=code).stdout
        )
        return payload


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalR2]:
    with local_r2(tmp_path_factory.mktemp("r2") / "server") as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: LocalR2, monkeypatch: pytest.MonkeyPatch) -> Project:
    forget_variables(monkeypatch)
    world, keys = make_repository(tmp_path), write_keys(tmp_path)
    folder = server.make_folder().rpartition("/")[2]
    done = world.holdfast(
        "remote", "setup", "r2", "--account-id", ACCOUNT, "--bucket", BUCKET, "--prefix", folder, "--endpoint",
        server.endpoint, "--credentials", str(keys), "--domain", "climate", "--yes", "--json",
    )  # fmt: skip
    return Project(world, server, folder, json.loads(done.stdout))


def add_model(project: Project) -> None:
    world = project.world
    world.write("model.bin", WEIGHTS)
    world.write("data/a.csv", "a,b\n1,2\n")
    world.dvc("add", "-q", "model.bin", "data")
    world.commit("a model")


def check_model(project: Project) -> None:
    assert (project.world.root / "model.bin").read_bytes() == WEIGHTS
    assert (project.world.root / "data/a.csv").read_text() == "a,b\n1,2\n"


def test_setup(project: Project) -> None:
    outcomes = {item["what"]: item["outcome"] for item in project.setup["bucket"]}
    assert outcomes == {
        "climate/": "made",
        "an end for unfinished uploads": "not known; R2 does it by itself",
    }
    assert project.store.get("climate/.keep") == b""


def test_dvc_push_status_pull_and_gc(project: Project) -> None:
    add_model(project)
    world = project.world
    world.dvc("push", "-q")
    assert world.dvc("status", "-c") == "Cache and remote 'r2' are in sync."
    lose(world, "model.bin", "data")
    world.dvc("pull", "-q")
    check_model(project)
    oid = oid_of(b"nobody's").removeprefix("md5:")
    nobodys = f"files/md5/{oid[:2]}/{oid[2:]}"
    project.store.put(nobodys, b"nobody's")
    # several by one request, which R2 takes or not, and its local kin does
    world.dvc("gc", "-q", "--workspace", "--cloud", "--force")
    assert nobodys not in {info.key for info in project.store.list_objects()}
    assert world.dvc("status", "-c") == "Cache and remote 'r2' are in sync."


def test_vault_push_pull_check_and_gc(project: Project) -> None:
    add_model(project)
    world = project.world
    world.write("holdfast.yaml", "gc:\n  minimum_age: 0d\n  quarantine: 0d\n")
    world.holdfast("vault", "init")
    world.holdfast("push")
    world.dvc("push", "-q")
    oid = oid_of(b"nobody's").removeprefix("md5:")
    nobodys = f"files/md5/{oid[:2]}/{oid[2:]}"
    project.store.put(nobodys, b"nobody's")
    plan = str(world.root.parent / "plan.json")
    world.holdfast("gc", "plan", "--scope", "remote,vault", "-o", plan)
    world.holdfast("gc", "apply", plan, "--allow-last-copy")
    assert nobodys not in {info.key for info in project.store.list_objects()}
    world.holdfast("gc", "restore", oid)
    assert project.store.get(nobodys) == b"nobody's"
    lose(world, "model.bin", "data")
    world.holdfast("pull")
    check_model(project)
    world.holdfast("vault", "check", "--read-data")
    assert world.dvc("status", "-c") == "Cache and remote 'r2' are in sync."


def test_serve(project: Project) -> None:
    project.world.holdfast("vault", "init")
    with serving(f"s3://{BUCKET}/{project.folder}/vault", project.world.root, project.world.home) as served:
        assert ask(served.port, "PUT", path_of(WEIGHTS), WEIGHTS).status in (200, 201)
        assert ask(served.port, "GET", path_of(WEIGHTS)).body == WEIGHTS
        assert served.end() == 0


def test_the_doctor_finds_it_healthy(project: Project) -> None:
    before = [info.key for info in project.store.list_objects()]
    payload = project.doctor("--rounds", "5", "--sizes", "1KB,1MB", code=0)
    verdicts = {finding["check"]: finding["verdict"] for finding in payload["findings"]}
    for check in (
        "configuration",
        "server",
        "clock",
        "credentials",
        "checksums",
        "deletions",
        "rounds",
        "parts",
        "creates",
    ):
        assert verdicts[check] == "ok", found(payload, check)
    assert "read and deleted" in found(payload, "dvc")["says"]
    assert {item["count"] for item in payload["latencies"]} == {5}
    assert [info.key for info in project.store.list_objects()] == before


@pytest.mark.parametrize(
    ("option", "value", "check", "says"),
    [
        ("secret_access_key", "not-the-secret", "credentials", "the secret is not the one of this access key id"),
        ("access_key_id", "e" * 32, "credentials", "the server does not know this access key id (401 Unauthorized)"),
        ("url", "s3://no-such-bucket/x", "bucket", "there is no bucket no-such-bucket at"),
    ],
)
def test_the_doctor_names_what_is_wrong(project: Project, option: str, value: str, check: str, says: str) -> None:
    level = () if option == "url" else ("--local",)
    project.world.dvc("remote", "modify", *level, "r2", option, value)
    payload = project.doctor(*QUICK, code=1)
    assert faults(payload) == {check}
    assert says in found(payload, check)["says"]
    # it repeats the request that it could not make sense of
    assert SECRET_KEY not in json.dumps(payload)
