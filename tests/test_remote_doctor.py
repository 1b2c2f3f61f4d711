"""`holdfast remote doctor` of what `remote setup` wrote, and of what was changed there afterwards."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy import Fault
from remote_world import QUICK, Remote, faults, found, strict_remote
from servers import SECRET_KEY, S3Server
from worlds import make_repository


@pytest.fixture
def remote(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with strict_remote(tmp_path, s3_server, monkeypatch) as found:
        yield found


def test_what_setup_wrote_is_healthy_through_the_strict_server(remote: Remote, tmp_path: Path) -> None:
    payload = remote.doctor("--rounds", "5", "--sizes", "1KB,1MB", "-o", str(tmp_path / "report.md"), code=0)
    verdicts = {finding["check"]: finding["verdict"] for finding in payload["findings"]}
    for check in ("configuration", "server", "clock", "credentials", "checksums", "rounds", "parts", "creates"):
        assert verdicts[check] == "ok", check
    assert "501 NotImplemented" in found(payload, "checksums")["says"]
    assert "put off (429)" in found(payload, "rewrites")["says"]
    assert "dvc gc -c" in found(payload, "deletions")["says"]
    assert "wrote, listed and read" in found(payload, "dvc")["says"]
    # each verb once a round, and no percentile below the one before
    assert {item["verb"]: item["count"] for item in payload["latencies"]} == dict.fromkeys(
        ("put", "head", "get", "range", "list", "delete"), 5
    )
    assert all(0 < item["p50"] <= item["p95"] <= item["p99"] < 30 for item in payload["latencies"])
    assert {cell["size"] for cell in payload["speeds"]} == {1000, 1_000_000}
    assert payload["jobs"] in (1, 2, 4, 8, 16)
    assert 0 < payload["dollars"] < 0.01
    assert payload["bytes_up"] > 34_000_000
    assert "| rounds | ok | 5 rounds, each byte compared |" in (tmp_path / "report.md").read_text()
    assert remote.left() == []


def test_a_server_that_deletes_together_is_told_so(remote: Remote) -> None:
    remote.rules.bulk_delete = True
    payload = remote.doctor(*QUICK, code=0)
    assert found(payload, "deletions")["verdict"] == "ok"
    assert "read and deleted" in found(payload, "dvc")["says"]
    assert remote.left() == []


@pytest.mark.soak  # test_remote_matrix does it with none of the lines
def test_without_the_two_lines_they_are_named_as_the_cause(remote: Remote) -> None:
    config = remote.world.root / ".dvc" / "aws-config"
    config.write_text("[default]\nresponse_checksum_validation = when_required\n")
    payload = remote.doctor(*QUICK, code=1)
    cause = found(payload, "checksums")
    assert cause["verdict"] == "fault"
    assert ".dvc/aws-config lacks `request_checksum_calculation = when_required`" in cause["says"]
    assert "response_checksum_validation" not in cause["says"]
    assert "501 NotImplemented" in cause["says"]
    # DVC itself was asked, and does fail; and the command that is named mends it
    assert faults(payload) == {"checksums", "dvc"}
    assert remote.left() == []
    assert cause["mend"].startswith("`holdfast remote setup ")
    remote.world.holdfast(*cause["mend"].strip("`").split()[1:], "--offline", "--yes")
    assert found(remote.doctor(*QUICK, code=0), "checksums")["verdict"] == "ok"


def test_a_variable_that_hides_the_two_lines(remote: Remote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("[default]\nregion = auto\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "other"))
    payload = remote.doctor(*QUICK, code=1)
    hidden = found(payload, "configuration")
    assert "AWS_CONFIG_FILE is set to" in hidden["says"]
    assert hidden["mend"] == "`unset AWS_CONFIG_FILE`"
    assert f"{tmp_path / 'other'} lacks `request_checksum" in found(payload, "checksums")["says"]
    assert "dvc" in faults(payload)


def test_secrets_in_the_committed_file_and_options_that_r2_refuses(remote: Remote) -> None:
    remote.world.dvc("remote", "modify", "r2", "secret_access_key", SECRET_KEY)
    payload = remote.doctor(*QUICK, code=3)
    assert "git shows it to everybody" in found(payload, "secrets")["says"]
    assert SECRET_KEY not in json.dumps(payload)


def test_a_folder_is_examined_too_and_left_as_it_was(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.holdfast("remote", "setup", "local", "--folder", str(tmp_path / "far"), "--yes")
    payload = json.loads(world.holdfast("remote", "doctor", "--json", *QUICK).stdout)
    assert payload["health"] == "healthy"
    assert "read and deleted" in found(payload, "dvc")["says"]
    assert list((tmp_path / "far").rglob("*")) == []


def test_what_cannot_be_examined(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    assert "no default remote" in world.holdfast("remote", "doctor", code=2).stderr
    assert "there is no DVC remote none" in world.holdfast("remote", "doctor", "none", code=2).stderr
    world.dvc("remote", "add", "web", "https://example.org/dvc")
    assert "web is no bucket and no folder" in world.holdfast("remote", "doctor", "web", code=2).stderr
    assert "is no number of bytes" in world.holdfast("remote", "doctor", "web", "--sizes", "much", code=2).stderr


# what lies between, and how healthy the remote is then
LINKS = {"none": 0, "strict": 0, "strict, and a fifth of the requests fails": 3, "strict and slow": 3}


@pytest.mark.soak
@pytest.mark.parametrize("link", LINKS)
def test_sixty_rounds(remote: Remote, link: str) -> None:
    if link == "none":
        remote.world.dvc("remote", "modify", "r2", "endpointurl", remote.server.endpoint)
    if "fails" in link:
        remote.link.inject(Fault("status", 500, times=10**9, every=5))
    if "slow" in link:
        remote.link.megabytes_per_second = 1.5
    payload = remote.doctor(code=LINKS[link])
    assert {item["count"] for item in payload["latencies"]} == {60}
    assert found(payload, "rounds")["says"] == "60 rounds, each byte compared"
    sizes = {1000, 1_000_000} if "slow" in link else {1000, 1_000_000, 64_000_000}
    assert {cell["size"] for cell in payload["speeds"]} == sizes
    warned = {finding["check"] for finding in payload["findings"] if finding["verdict"] == "warning"}
    assert warned == ({"faults"} if "fails" in link else {"speed"} if "slow" in link else set())
    assert faults(payload) == set()
    assert "501 NotImplemented" in found(payload, "checksums")["says"] or link == "none"
    remote.link.inject()
    remote.link.megabytes_per_second = None
    assert remote.left() == []


@pytest.mark.soak
def test_sixty_rounds_interrupted_anywhere(remote: Remote) -> None:
    for seconds in (2.0, 3.0, 4.5, 6.0, 8.0):
        with remote.start_doctor() as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
        assert process.returncode in (0, 130)
        assert remote.left() == []
