"""``holdfast doctor``: each fault is found, told once, and gone after what it says mends it."""

import json
import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from holdfast.cli.gc_world import world_of
from holdfast.cli.registry_places import stores_of_project
from holdfast.dedup.reflink import can_clone
from holdfast.formats.cache import DigestCache
from holdfast.objectstore.findings import Finding
from holdfast.project.doctor_installation import examine_installation
from holdfast.project.doctor_repository import examine_repository
from holdfast.repo.dvc import LocalCache, local_cache
from holdfast.repo.workspace import find_project
from init_world import call, make_plain, prepared
from worlds import TOOLS, World, environment, make_home, make_repository, run

SCHEMA = json.loads((Path(__file__).parent.parent / "src/holdfast/cli/schemas/doctor.schema.json").read_text())
HOOKS = ("pre-commit", "pre-push")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A project that nothing is amiss with."""
    world = make_plain(tmp_path)
    prepared(world.root)
    world.commit("set up")
    for name in HOOKS:
        world.write(f".git/hooks/{name}", "#!/bin/sh\n")
    return world


def said(world: World, *arguments: str, code: int) -> dict[str, Any]:
    """What `doctor --json` says, by its schema; in this process, which has loaded torch and numba once for all."""
    payload: dict[str, Any] = json.loads(call(world, "doctor", "--json", *arguments, code=code))
    jsonschema.Draft202012Validator(SCHEMA).validate(payload)
    return payload


def amiss(payload: dict[str, Any], part: str = "repository") -> dict[str, tuple[str, str]]:
    """Check → verdict and what mends it, of what is not well."""
    return {
        item["check"]: (item["verdict"], item["mend"])
        for item in payload[part]
        if item["verdict"] in ("warning", "fault")
    }


def found(world: World) -> dict[str, Finding]:
    """What is not well in the repository, by check, without a process of its own."""
    project = find_project(world.folder)
    with world_of(project) as stores, DigestCache(None) as digests:
        findings = list(examine_repository(project, stores, stores_of_project(project, offline=True), digests))
    return {item.check: item for item in findings if item.verdict != "ok"}


def test_all_is_well(world: World) -> None:
    payload = said(world, code=0)
    assert payload["health"] == "healthy"
    assert payload["root"] == str(world.root)
    assert amiss(payload) == {}
    assert amiss(payload, "installation") == {}
    checks = {item["check"]: item["says"] for item in payload["installation"]}
    assert checks["dvc"] == f"DVC {version('dvc')}"
    assert checks["git"] == f"git {world.git('--version').split()[2]}"
    assert "numba" in checks["codec"]
    before = world.git("status", "--porcelain", "-uall")
    assert before == ""


def test_outside_of_a_repository_the_installation_alone(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    text = call(World(tmp_path, home), "doctor")
    assert "is not inside a git repository: the installation alone is looked at" in text
    assert "Python 3." in text


def test_without_dvc_it_says_what_prepares_it(tmp_path: Path) -> None:
    plain = make_plain(tmp_path)
    payload = said(plain, code=1)
    assert amiss(payload) == {"repository": ("fault", "`holdfast init` prepares it")}
    call(plain, "init", "--yes")
    assert "repository" not in amiss(said(plain, code=3))


def test_what_mends_it_does(world: World) -> None:
    """The commands that the findings name are run as they stand."""
    world.write(".dvc/config", "")
    world.commit()
    assert amiss(said(world, code=3)) == {"remote": ("warning", "`holdfast remote setup r2|s3|gcs|azure|local …`")}
    call(world, "remote", "setup", "local", "--folder", "../far", "--yes")
    text = (world.root / ".dvc/config").read_text()
    world.write(".dvc/config", text.replace("    remote = local\n", ""))
    ((_, mend),) = [value for check, value in amiss(said(world, code=3)).items() if check == "remote"]
    world.dvc(*mend.strip("`").split()[1:])
    assert amiss(said(world, code=0)) == {}


def test_remotes_are_asked_with_remote_alone(world: World) -> None:
    bad = "url = s3://bucket/x\n    endpointurl = http://127.0.0.1:1\n    access_key_id = AKIAEXAMPLE\n"
    world.write(".dvc/config", f"{(world.root / '.dvc/config').read_text()}['remote \"gone\"']\n    {bad}")
    world.write(".dvc/config.local", "['remote \"gone\"']\n    secret_access_key = very-secret\n")
    world.commit()
    quiet = said(world, code=3)
    assert set(amiss(quiet)) == {"remote gone: secrets"}
    loud = said(world, "--remote", code=1)
    assert amiss(loud)["remote gone: answers"][0] == "fault"
    assert "remote storage: answers" not in amiss(loud)
    assert "very-secret" not in json.dumps([quiet, loud])


def test_r2_without_its_two_lines(world: World) -> None:
    server = f"https://{'a' * 32}.r2.cloudflarestorage.com"
    remote = f"['remote \"r2\"']\n    url = s3://bucket\n    endpointurl = {server}\n"
    world.write(".dvc/config", f"[core]\n    remote = r2\n{remote}")
    world.commit()
    bad = amiss(said(world, code=1))
    assert bad["remote r2: credentials"][0] == "warning"
    verdict, mend = bad["remote r2: checksums"]
    assert verdict == "fault"
    call(world, *mend.strip("`").split()[1:], "--yes", "--offline")
    assert "remote r2: checksums" not in amiss(said(world, code=3))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gc:\n  minimum_age: long\n", "holdfast.yaml:2: gc.minimum_age is wrong"),
        ("runs: {debug: {layers: x}}\n", "runs.debug.layers"),
        ("scan:\n  excludes: []\n", "scan.excludes is no setting of Holdfast"),
        ("canonical:\n  models: [{use: a.pt}]\n", "has no `not`"),
        ("workspace: {keep: 1}\n", "workspace.keep"),
        ("nonsense: 1\n", "holdfast.yaml:1: nonsense is no setting"),
        ("a: [\n", "is no YAML"),
    ],
)
def test_every_section_is_read_and_a_fault_told_once(world: World, text: str, says: str) -> None:
    world.write("holdfast.yaml", text)
    world.commit()
    bad = found(world)
    assert set(bad) == {"settings"}
    assert bad["settings"].verdict == "fault"
    assert says in bad["settings"].says


def test_what_is_amiss_in_the_repository(world: World) -> None:
    world.write("params.yaml", "promote:\n  metrics:\n    accuracy: {direction: up}\n")
    world.write("registry/a/b/model.yaml", "schema: 1\ncurrent: v7\n")
    world.write("big file.bin", b"\0" * 10_000_001)
    world.commit()
    world.track("data.csv", "1,2\n")
    (world.root / ".git/hooks/pre-push").unlink()
    lock = world.write(".git/index.lock", "")
    os.utime(lock, (1e9, 1e9))
    gone = subprocess.Popen(["true"])
    gone.wait()
    world.write(".dvc/tmp/rwlock", json.dumps({"/x/data": {"write": {"pid": gone.pid, "cmd": "dvc repro"}}}))
    world.write(".dvc/tmp/holdfast/collecting.json", "{}")

    bad = found(world)
    assert {check: item.verdict for check, item in bad.items()} == {
        "gate": "fault", "registry": "fault", "hooks": "warning", "uncommitted": "warning", "large files": "warning",
        "locks": "warning", "unfinished": "warning",
    }  # fmt: skip
    assert "params.yaml:3" in bad["gate"].says
    assert bad["uncommitted"].mend.startswith("`git add data.csv.dvc`")
    assert "big file.bin (10 MB)" in bad["large files"].says
    assert f"process {gone.pid} (dvc repro), which is gone" in bad["locks"].says
    assert bad["unfinished"].mend.startswith("`holdfast gc apply ")
    assert all(item.mend for item in bad.values())


def test_a_young_lock_of_a_living_process_is_none(world: World) -> None:
    world.write(".git/index.lock", "")
    world.write(".dvc/tmp/rwlock", json.dumps({"/x": {"read": [{"pid": os.getpid(), "cmd": "dvc"}]}}))
    assert "locks" not in found(world)
    for text in ("{", "[]", '{"a": 1}', '{"a": {"write": {"pid": "x"}}}', "[" * 100_000):
        world.write(".dvc/tmp/rwlock", text)
        assert "locks" not in found(world)


def test_a_stale_lock_of_gits(world: World) -> None:
    lock = world.write(".git/index.lock", "")
    os.utime(lock, (1e9, 1e9))
    item = found(world)["locks"]
    assert (item.verdict, item.mend) == ("fault", "where none works: `rm .git/index.lock`")
    run(["sh", "-c", re.findall("`(.*)`", item.mend)[0]], world.root, world.home)
    assert "locks" not in found(world)


def test_a_shallow_clone(world: World, tmp_path: Path) -> None:
    world.commit("another")
    shallow = World(tmp_path / "shallow", world.home)
    world.git("clone", "--quiet", "--depth", "1", f"file://{world.root}", str(shallow.root))
    assert found(shallow)["history"].mend == "`git fetch --unshallow`"
    shallow.git("fetch", "--quiet", "--unshallow")
    assert "history" not in found(shallow)


def test_what_waits_is_told(world: World) -> None:
    world.write("old/__pycache__/a.cpython-311.pyc", b"\xa7\r\r\n" * 25)
    os.utime(world.root / "old/__pycache__/a.cpython-311.pyc", (1e9, 1e9))
    world.write("holdfast.yaml", "gc: {minimum_age: 0s}\n")
    world.commit()
    plan = world.root.parent / "plan.json"
    call(world, "gc", "plan", "--scope", "workspace", "-o", str(plan))
    call(world, "gc", "apply", str(plan))
    item = found(world)["quarantine"]
    assert (item.verdict, item.says) == ("note", "1 thing, 0.0 MB in all, waiting to be deleted for good")


def test_broken_configuration_of_dvc(world: World) -> None:
    world.write(".dvc/config", "[core\n")
    payload = said(world, code=1)
    assert amiss(payload)["dvc settings"][0] == "fault"


def test_links_and_room(tmp_path: Path) -> None:
    def of(check: str, types: tuple[str, ...]) -> Finding:
        cache = LocalCache(tmp_path / "cache" / "files", False, types)
        return next(item for item in examine_installation(cache, tmp_path) if item.check == check)

    assert "GB are free" in of("disk", ("copy",)).says
    assert of("cache", ("hardlink", "copy")).verdict == "ok"
    copied = of("cache", ("copy",))
    assert (copied.verdict, "twice" in copied.says) == ("note", True)
    assert of("cache", ("reflink", "copy")).verdict == ("ok" if can_clone(tmp_path, tmp_path) else "note")


@pytest.fixture(scope="module")
def old_dvc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that comes first among the packages, with metadata of another DVC and none of torch."""
    folder = tmp_path_factory.mktemp("packages")
    for name, text in (("dvc", "3.40.0"), ("numba", "0.0.1")):
        info = folder / f"{name}-{text}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {text}\n")
    (folder / "numba").mkdir()
    (folder / "numba" / "__init__.py").write_text("raise ImportError('made for another Python')\n")
    return folder


def test_an_installation_that_does_not_fit(tmp_path: Path, old_dvc: Path) -> None:
    variables = environment(make_home(tmp_path))
    done = subprocess.run(
        [str(TOOLS / "holdfast"), "doctor", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=variables | {"PYTHONPATH": os.pathsep.join([str(old_dvc), variables.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    bad = amiss(json.loads(done.stdout), "installation")
    assert bad["dvc"] == ("fault", "`pip install 'dvc<3.68,>=3.67'`")
    assert bad["codec"][0] == "warning"


def test_what_people_read(world: World) -> None:
    (world.root / ".git/hooks/pre-push").unlink()
    text = world.holdfast("doctor", code=3).stdout
    assert text.startswith("It works, but not as well as it could: see hooks.\n")
    assert "- hooks: `pre-commit install -t pre-commit -t pre-push`" in text
    assert call(world, "doctor", "--md", code=3).count("| check | verdict | finding |") == 2


def test_hooks_before_a_commit_need_none_before_a_push(world: World) -> None:
    (world.root / ".git/hooks/pre-push").unlink()
    assert found(world)["hooks"].mend == "`pre-commit install -t pre-commit -t pre-push`"
    world.write(".pre-commit-config.yaml", "repos: []\n")
    assert "hooks" not in found(world)
    (world.root / ".git/hooks/pre-commit").unlink()
    assert found(world)["hooks"].mend == "`pre-commit install -t pre-commit`"


def test_a_cache_elsewhere_is_where_the_disk_is_looked_at(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(".dvc/config", f"[cache]\n    dir = {tmp_path / 'far'}\n")
    cache = local_cache(world.root)
    assert any(item.check == "cache" for item in examine_installation(cache, world.root))
