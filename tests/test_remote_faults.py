"""`holdfast remote doctor` before all that goes wrong with a server: the finding names what it is."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from proxy import Fault, Refusal, Request
from remote_world import QUICK, Remote, faults, found, strict_remote
from servers import S3Server


@pytest.fixture
def remote(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with strict_remote(tmp_path, s3_server, monkeypatch) as found:
        yield found


def test_a_wrong_secret(remote: Remote) -> None:
    remote.world.dvc("remote", "modify", "--local", "r2", "secret_access_key", "not-the-secret-of-ada")
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {"credentials"}
    wrong = found(payload, "credentials")
    assert "the secret is not the one of this access key id" in wrong["says"]
    assert "--credentials FILE" in wrong["mend"]
    assert "not-the-secret-of-ada" not in json.dumps(payload)


def test_a_key_that_nobody_knows_and_none_at_all(remote: Remote) -> None:
    remote.world.dvc("remote", "modify", "--local", "r2", "access_key_id", "AKIAEVE")
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {"credentials"}
    assert "Credential access key has length 7, should be 32" in found(payload, "credentials")["says"]
    remote.world.dvc("remote", "modify", "--local", "r2", "access_key_id", "e" * 32)
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {"credentials"}
    assert "does not know this access key id" in found(payload, "credentials")["says"]
    (remote.world.root / ".dvc" / "config.local").unlink()
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {"credentials"}
    assert "there are no credentials for" in found(payload, "credentials")["says"]


@pytest.mark.parametrize(
    ("status", "code", "check", "says"),
    [
        (401, "Unauthorized", "credentials", "does not know this access key id (401 Unauthorized)"),
        (403, "SignatureDoesNotMatch", "credentials", "the secret is not the one of this access key id (403"),
        (400, "ExpiredToken", "credentials", "the session token has expired"),
        (400, "InvalidArgument", "credentials", "400 InvalidArgument: Credential access key has length 6"),
        (403, "AccessDenied", "permissions", "the key may not list the bucket (403 AccessDenied)"),
        (400, "InvalidRegionName", "configuration", "not in the region that is configured"),
        (403, "RequestTimeTooSkewed", "clock", "refuses what was signed by this machine's clock"),
        (404, "NoSuchBucket", "bucket", "there is no bucket tests at"),
    ],
)
def test_each_refusal_is_named(remote: Remote, status: int, code: str, check: str, says: str) -> None:
    message = "Credential access key has length 6, should be 32"
    remote.link.rules = lambda _request, _body: Refusal(status, code, message)
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {check}
    finding = found(payload, check)
    assert says in finding["says"]
    assert finding["mend"]
    # nothing else was tried, and nothing written
    assert remote.link.count("PUT") == 0


@pytest.mark.parametrize(("hours", "says"), [(3, "3.0 h behind the server's"), (-1, "60 min ahead of the server's")])
def test_a_clock_that_is_hours_off(remote: Remote, hours: int, says: str) -> None:
    """To the server every signature has expired, or is of a time to come."""
    remote.rules.ahead = timedelta(hours=hours)
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {"clock"}
    clock = found(payload, "clock")
    assert says in clock["says"]
    assert "timedatectl" in clock["mend"]
    assert sum(finding["check"] == "clock" for finding in payload["findings"]) == 1
    assert set(remote.rules.refused) >= {"InvalidArgument: Authorization"}
    assert remote.link.count("PUT") == 0


def test_a_clock_that_is_minutes_off(remote: Remote) -> None:
    remote.rules.ahead = timedelta(minutes=10)
    payload = remote.doctor(*QUICK, code=3)
    clock = found(payload, "clock")
    assert clock["verdict"] == "warning"
    assert "10 min behind the server's; from 15 minutes on it refuses every request" in clock["says"]
    assert found(payload, "rounds")["verdict"] == "ok"


def test_a_bucket_that_is_not_there(remote: Remote) -> None:
    remote.world.dvc("remote", "modify", "r2", "url", "s3://no-such-bucket/x")
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {"bucket"}
    assert "there is no bucket no-such-bucket at" in found(payload, "bucket")["says"]


def test_a_key_that_may_only_read(remote: Remote) -> None:
    remote.store.put("there", b"something")

    remote.rules.read_only = True
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {"permissions"}
    assert "the key may list and read, and not write" in found(payload, "permissions")["says"]
    assert remote.left() == ["there"]


def test_a_server_that_fails_each_fifth_time(remote: Remote) -> None:
    remote.link.inject(Fault("status", 500, times=10**9, every=5))
    payload = remote.doctor(*QUICK, code=3)
    faulty = found(payload, "faults")
    assert faulty["verdict"] == "warning"
    assert "500 InternalError" in faulty["says"]
    share = int(faulty["says"].split("%")[0])
    assert 8 <= share <= 30, faulty["says"]
    assert found(payload, "rounds")["verdict"] == "ok"
    remote.link.inject()
    assert remote.left() == []


@pytest.mark.soak  # a quarter of a minute on the link
def test_a_slow_link(remote: Remote) -> None:
    remote.link.megabytes_per_second = 1.5
    payload = remote.doctor("--rounds", "1", "--sizes", "1MB,64MB", code=3)
    slow = found(payload, "speed")
    assert slow["verdict"] == "warning"
    assert "the link is slow: 1." in slow["says"]
    notes = [item["says"] for item in payload["findings"] if item["check"] == "speed" and item["verdict"] == "note"]
    assert notes == ["objects of 64,000,000 bytes would have taken too long, and were left out"]
    assert {cell["size"] for cell in payload["speeds"]} == {1_000_000}
    assert all(0.5e6 < cell["up"] < 2e6 for cell in payload["speeds"])
    assert "left out" in found(payload, "parts")["says"]
    remote.link.megabytes_per_second = None
    assert remote.left() == []


def test_a_server_that_is_not_there(remote: Remote) -> None:
    remote.world.dvc("remote", "modify", "r2", "endpointurl", "http://127.0.0.1:9")
    payload = remote.doctor(*QUICK, code=1)
    assert faults(payload) == {"server"}
    assert "127.0.0.1:9 gives no answer: the connection is refused" in found(payload, "server")["says"]
    remote.world.dvc("remote", "modify", "r2", "endpointurl", "https://no-such-name.invalid")
    payload = remote.doctor(*QUICK, code=1)
    assert "the name no-such-name.invalid is not known" in found(payload, "server")["says"]


def test_a_store_that_gives_other_bytes_is_broken(remote: Remote) -> None:
    """What is read is compared: a get that answers with another object's bytes is found."""
    real = remote.rules

    @dataclass(frozen=True)
    class Lie(Refusal):
        def encoded(self, head_only: bool) -> bytes:
            body = bytes(16 * 1024)
            head = (
                f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nETag: "x"\r\n'
                f"Last-Modified: {format_datetime(datetime.now(timezone.utc), usegmt=True)}\r\n\r\n"
            )
            return head.encode() + (b"" if head_only else body)

    def rules(request: Request, body: bytes) -> Refusal | None:
        if request.method == "GET" and "round-0001" in request.path and "range" not in request.headers:
            return Lie(200, "")
        return real(request, body)

    remote.link.rules = rules
    payload = remote.doctor(*QUICK, code=1)
    assert "was read with other bytes than were written" in found(payload, "rounds")["says"]
    remote.link.rules = real
    assert remote.left() == []
