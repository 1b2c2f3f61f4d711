"""What `holdfast remote setup r2` wrote is all that any command needs: real processes, a server as strict as R2, no variable."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_world import QUICK, Remote, faults, found, lose, strict_remote
from servers import BUCKET, S3Server
from vault_servers import ask, path_of, serving
from vaults import oid_of
from worlds import TOOLS, environment, run

WEIGHTS = b"weights" * 100_000
ROWS = {f"data/{number}.csv": f"row {number}\n" * 50 for number in range(5)}
DVC_PARTS = 105 * 1024 * 1024  # s3fs sends what is longer than 100 MiB in parts of 50 MiB
# what is asked to find out, and asked again in another way; everything else that R2 refuses is never sent
EXPECTED = re.compile(r"TooManyRequests: |NotImplemented: Header 'x-amz-checksum-sha256' ")


@pytest.fixture
def remote(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with strict_remote(tmp_path, s3_server, monkeypatch) as found:
        yield found


def add_files(remote: Remote) -> None:
    world = remote.world
    world.write("model.bin", WEIGHTS)
    for path, text in ROWS.items():
        world.write(path, text)
    world.dvc("add", "-q", "model.bin", "data")
    world.commit("a model and its data")


def check_files(remote: Remote) -> None:
    assert (remote.world.root / "model.bin").read_bytes() == WEIGHTS
    for path, text in ROWS.items():
        assert (remote.world.root / path).read_text() == text


def test_nothing_but_what_setup_wrote_leads_there(remote: Remote) -> None:
    variables = environment(remote.world.home)
    assert not [name for name in variables if name.startswith(("AWS_", "CLOUDFLARE_"))]
    assert not (remote.world.home / ".aws").exists()
    private = remote.world.root / ".dvc" / "config.local"
    private.rename(private.with_suffix(".away"))
    assert "there are no credentials for" in remote.world.holdfast("vault", "init", code=1).stderr


def test_dvc_push_status_and_pull(remote: Remote) -> None:
    add_files(remote)
    world = remote.world
    assert "new:" in world.dvc("status", "-c")
    world.dvc("push", "-q")
    assert world.dvc("status", "-c") == "Cache and remote 'r2' are in sync."
    lose(world, "model.bin", "data")
    world.dvc("pull", "-q")
    check_files(remote)
    assert world.dvc("status") == "Data and pipelines are up to date."
    assert remote.rules.refused == []


def test_dvc_sends_equal_parts(remote: Remote) -> None:
    """boto's parts are all as long but the last, and no checksum goes with them."""
    world = remote.world
    with open(world.root / "large.bin", "wb") as stream:
        stream.truncate(DVC_PARTS)
    world.dvc("add", "-q", "large.bin")
    world.dvc("push", "-q")
    sizes = [request.length for request in remote.link.requests if "partNumber" in request.query]
    assert sorted(sizes) == [DVC_PARTS - 100 * 1024 * 1024, 50 * 1024 * 1024, 50 * 1024 * 1024]
    assert remote.rules.refused == []
    assert world.dvc("status", "-c") == "Cache and remote 'r2' are in sync."


def test_vault_init_push_status_and_pull(remote: Remote) -> None:
    add_files(remote)
    world = remote.world
    world.holdfast("vault", "init")
    world.holdfast("push")
    lose(world, "model.bin", "data")
    world.holdfast("pull")
    check_files(remote)
    assert json.loads(world.holdfast("vault", "check", "--json").stdout)
    assert world.dvc("status") == "Data and pipelines are up to date."
    assert all(EXPECTED.match(said) for said in remote.rules.refused), remote.rules.refused


def test_serve(remote: Remote) -> None:
    add_files(remote)
    world = remote.world
    world.holdfast("vault", "init")
    with serving(f"s3://{BUCKET}/{remote.folder}/vault", world.root, world.home) as server:
        data = b"through the server"
        assert ask(server.port, "PUT", path_of(data), data).status in (200, 201)
        assert ask(server.port, "GET", path_of(data)).body == data
        # DVC through the server, and the server through the strict link
        world.dvc("remote", "add", "-q", "served", server.url)
        world.dvc("remote", "modify", "-q", "served", "method", "PUT")
        world.dvc("push", "-q", "-r", "served")
        lose(world, "model.bin", "data")
        world.dvc("pull", "-q", "-r", "served")
        assert server.end() == 0
    check_files(remote)
    assert all(EXPECTED.match(said) for said in remote.rules.refused), remote.rules.refused


def test_gc_plan_apply_restore_and_purge(remote: Remote) -> None:
    add_files(remote)
    world = remote.world
    world.write("holdfast.yaml", "gc:\n  minimum_age: 0d\n  quarantine: 0d\n")
    world.dvc("push", "-q")
    world.holdfast("vault", "init")
    world.holdfast("push")
    keys = []
    for number in range(3):
        oid = oid_of(b"nobody's %d" % number).removeprefix("md5:")
        keys.append(f"files/md5/{oid[:2]}/{oid[2:]}")
        remote.store.put(keys[-1], b"nobody's %d" % number)
    plan = str(world.root.parent / "plan.json")

    def there() -> set[str]:
        return {info.key for info in remote.store.list_objects("files")}.intersection(keys)

    world.holdfast("gc", "plan", "--scope", "remote,vault", "-o", plan)
    assert there() == set(keys)
    world.holdfast("gc", "apply", plan, "--allow-last-copy")
    assert there() == set()
    world.holdfast("gc", "restore", keys[0].removeprefix("files/md5/").replace("/", ""))
    assert there() == {keys[0]}
    world.holdfast("gc", "purge", "--yes")
    assert not [info.key for info in remote.store.list_objects("holdfast") if "/things/" in info.key]
    # what is used is where it was
    assert world.dvc("status", "-c") == "Cache and remote 'r2' are in sync."
    lose(world, "model.bin", "data")
    world.holdfast("pull")
    check_files(remote)
    assert all(EXPECTED.match(said) for said in remote.rules.refused), remote.rules.refused


def test_remote_doctor_du_ls_and_cost(remote: Remote) -> None:
    add_files(remote)
    remote.world.dvc("push", "-q")
    payload = remote.doctor(*QUICK, code=0)
    assert {finding["check"] for finding in payload["findings"] if finding["verdict"] == "warning"} == set()
    du = json.loads(remote.world.holdfast("remote", "du", "--json").stdout)
    assert du["objects"] == 7
    assert "files/" in remote.world.holdfast("remote", "ls").stdout
    assert json.loads(remote.world.holdfast("remote", "cost", "--json").stdout)["objects"] == 7


def test_without_the_lines_dvc_fails_and_the_doctor_names_them(remote: Remote) -> None:
    add_files(remote)
    world = remote.world
    config = world.root / ".dvc" / "aws-config"
    config.write_text("[default]\n")
    failed = run([str(TOOLS / "dvc"), "push"], world.folder, world.home, code=1)
    assert "not implemented" in failed.stderr.lower()
    payload = remote.doctor(*QUICK, code=1)
    cause = found(payload, "checksums")
    assert faults(payload) == {"checksums", "dvc"}
    lines = "`request_checksum_calculation = when_required` and `response_checksum_validation = when_required`"
    assert f".dvc/aws-config lacks {lines}: `dvc push` fails for it" in cause["says"]
    # the command that it names mends it
    world.holdfast(*cause["mend"].strip("`").split()[1:], "--offline", "--yes")
    assert config.read_text().count("when_required") == 2
    world.dvc("push", "-q")
    assert world.dvc("status", "-c") == "Cache and remote 'r2' are in sync."


def test_variables_in_place_of_the_file(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same two as variables, where a machine has them so."""
    add_files(remote)
    (remote.world.root / ".dvc" / "aws-config").unlink()
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
        monkeypatch.setenv(name, "when_required")
    remote.world.dvc("push", "-q")
    assert remote.world.dvc("status", "-c") == "Cache and remote 'r2' are in sync."
    assert remote.rules.refused == []
