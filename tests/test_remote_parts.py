"""The pieces of a doctor: what a server shows before it knows who asks, figures, and what it takes to clear up."""

import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.objectstore.doctor_configuration import Subject, check_configuration, checksum_setting
from holdfast.objectstore.findings import Finding, health
from holdfast.objectstore.location import locate
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.probe import Trial, cleared, percentile
from holdfast.objectstore.probe_rounds import Speed, best_jobs, try_creates
from holdfast.objectstore.probe_s3 import AnswerError, probe_of
from holdfast.objectstore.probe_server import reach_server
from holdfast.objectstore.store import Data, ObjectStore
from proxy import Refusal, Request, proxy
from servers import BUCKET, S3Server

R2 = "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"


def certificate(folder: Path, days: float) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself; its file and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def secure_server(folder: Path, days: float) -> Iterator[tuple[str, Path]]:
    """The URL of a server with TLS, and the file of its certificate."""
    paths = certificate(folder, days)
    server = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", paths[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


def verdicts(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in findings}


def test_a_certificate(tmp_path: Path) -> None:
    with secure_server(tmp_path, 90.5) as (url, authority):
        refused = reach_server(url)
        assert not refused.answered
        (tls,) = refused.findings
        assert (tls.check, tls.verdict) == ("tls", "fault")
        assert "the certificate of 127.0.0.1 is refused: self-signed certificate" in tls.says
        trusted = reach_server(url, ca_path=authority)
        assert verdicts(trusted.findings) == {"server": "ok", "tls": "ok", "clock": "ok"}
        assert "valid for 90 days" in trusted.findings[1].says
        assert abs((trusted.now or datetime.min) - datetime.now(timezone.utc)) < timedelta(seconds=30)
        unlooked = reach_server(url, verify_tls=False)
        assert verdicts(unlooked.findings)["tls"] == "warning"


@pytest.mark.parametrize(("days", "verdict"), [(13.0, "warning"), (15.0, "ok"), (-1.0, "fault")])
def test_a_certificate_that_ends(tmp_path: Path, days: float, verdict: str) -> None:
    with secure_server(tmp_path, days) as (url, authority):
        assert verdicts(reach_server(url, ca_path=authority).findings)["tls"] == verdict


def test_the_worst_decides() -> None:
    ok, note, warning, fault = (Finding("x", verdict, "") for verdict in ("ok", "note", "warning", "fault"))
    assert health([]) == health([ok, note]) == "healthy"
    assert health([warning, ok]) == "impaired"
    assert health([warning, fault, ok]) == "broken"


def test_percentiles_are_by_nearest_rank() -> None:
    times = [float(number) for number in range(100, 0, -1)]
    assert [percentile(times, share) for share in (0.5, 0.95, 0.99)] == [50.0, 95.0, 99.0]
    assert [percentile(times[:60], share) for share in (0.5, 0.95, 0.99)] == [70.0, 97.0, 100.0]
    assert percentile([3.0], 0.5) == 3.0


def test_the_jobs_that_are_worth_it() -> None:
    def speeds(size: int, *rates: float) -> list[Speed]:
        return [Speed(size, 2**place, 8, rate, 2 * rate) for place, rate in enumerate(rates)]

    small, middle, large = speeds(1000, 1, 2, 4, 8), speeds(10**6, 10, 19, 20, 18), speeds(64 * 10**6, 50)
    assert best_jobs([*small, *middle]) == 2
    assert best_jobs([*small, *middle, *large]) == 2
    assert best_jobs(small) == 8
    assert best_jobs(large) is None
    # the slower direction counts
    assert best_jobs([Speed(10**6, 1, 8, 90, 10), Speed(10**6, 2, 8, 20, 20)]) == 2


def section(**options: str) -> Subject:
    url = "s3://models/team"
    return Subject("r2", locate(url), {"url": url, **options}, {"url"}, options.get("endpointurl", R2), None)


@pytest.mark.parametrize(
    ("options", "says", "mend"),
    [
        ({"acl": "private"}, "acl is set, and R2 refuses it", "dvc remote modify --unset r2 acl"),
        ({"sse": "AES256"}, "sse is set", "--unset r2 sse"),
        ({"region": "eu-west-1"}, "R2 has but `auto`", "dvc remote modify r2 region auto"),
        ({"endpointurl": f"{R2}/models"}, "the bucket belongs into the URL alone", f"endpointurl {R2}`"),
        ({"configpath": "/nowhere/aws-config"}, "which does not exist", "holdfast remote setup r2 --name r2"),
    ],
)
def test_options_that_r2_refuses(options: dict[str, str], says: str, mend: str) -> None:
    (finding,) = check_configuration(section(**options), {})
    assert says in finding.says
    assert mend in finding.mend
    assert finding.verdict in ("fault", "warning")
    (fine,) = check_configuration(section(region="auto"), {})
    assert fine.verdict == "ok"


def test_the_command_that_sets_up_anew() -> None:
    account = R2.partition("//")[2].partition(".")[0]
    assert section().setup == f"holdfast remote setup r2 --name r2 --account-id {account} --bucket models --prefix team"
    there = section(endpointurl=R2.replace(".r2", ".eu.r2")).setup
    assert f"--account-id {account} --bucket models --jurisdiction eu --prefix team" in there
    assert "setup s3 --name r2 --bucket models --endpoint http://host:1" in section(endpointurl="http://host:1").setup


def test_what_boto_will_read(tmp_path: Path) -> None:
    both = "request_checksum_calculation = when_required\nresponse_checksum_validation = WHEN_REQUIRED\n"
    config, other, home = tmp_path / "config", tmp_path / "other", tmp_path / ".aws" / "config"
    config.write_text(f"[default]\n{both}")
    other.write_text(f"[default]\nregion = auto\n[profile mine]\n{both}")
    home.parent.mkdir()
    home.write_text(f"[default]\n{both}")
    here = {"configpath": str(config)}
    assert checksum_setting(here, {}).quiet
    assert checksum_setting({}, {"HOME": str(tmp_path)}).quiet
    assert not checksum_setting({}, {"HOME": str(tmp_path / "x")}).quiet
    hidden = checksum_setting(here, {"AWS_CONFIG_FILE": str(other)})
    assert not hidden.quiet
    assert hidden.origin == str(other)
    assert len(hidden.missing) == 2
    assert checksum_setting({"configpath": str(other), "profile": "mine"}, {}).quiet
    assert checksum_setting({"configpath": str(other)}, {"AWS_PROFILE": "mine"}).quiet
    loud = checksum_setting(here, {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported"})
    assert loud.missing == ["request_checksum_calculation = when_required"]
    variables = dict.fromkeys(("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"), "when_required")
    assert checksum_setting({}, variables).quiet


@dataclass
class Careless:
    """A store that tells the first few who create an object that they have, whatever it keeps."""

    inner: ObjectStore
    yes: int
    kept: bytes = b"writer 0"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put_if_absent(self, key: str, _data: Data) -> bool:
        self.inner.put(key, self.kept)
        self.yes -= 1
        return self.yes >= 0


def test_a_store_where_not_exactly_one_creates_is_found() -> None:
    store = open_store("memory://")
    assert try_creates(Trial("a"), store)
    assert not try_creates(Trial("b"), Careless(store, 4))
    assert not try_creates(Trial("c"), Careless(store, 0))
    # one says so, and another's bytes are there
    assert not try_creates(Trial("d"), Careless(store, 1, b"writer 9"))


def test_unfinished_uploads_are_ended(s3_server: S3Server) -> None:
    folder = s3_server.make_folder().rpartition("/")[2]
    client = s3_server.client()
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{folder}/trial/parts")
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{folder}/somebody/parts")
    store, trial = open_store(f"s3://{BUCKET}/{folder}", s3_server.options()), Trial("trial")
    probe = probe_of(store, trial, watched=False)
    assert probe is not None
    with cleared(trial, store, abort_uploads=probe.abort_uploads) as left:
        trial.ask("put", lambda: store.put("trial/x", b""), key="trial/x")
        store.put("trial/y", b"of a request whose answer was lost")
    assert left == []
    assert list(store.list_objects()) == []
    uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=folder)["Uploads"]
    assert [upload["Key"] for upload in uploads] == [f"{folder}/somebody/parts"]
    assert probe_of(open_store("memory://"), trial) is None


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_both_settings_reach_the_requests(s3_server: S3Server, method: str) -> None:
    """What boto adds to a write and what it asks of a read are two settings; a server may refuse either."""

    def rules(request: Request, _body: bytes) -> Refusal | None:
        adds = any(name.startswith(("x-amz-checksum", "x-amz-sdk-checksum")) for name in request.headers)
        return Refusal(501, "NotImplemented") if request.method == method and adds else None

    with proxy(s3_server.port) as link:
        link.rules = rules
        trial = Trial("trial")
        store = open_store(s3_server.make_folder(), s3_server.options(link.endpoint))
        probe = probe_of(store, trial)
        assert probe is not None
        probe.put("quiet", "when_required")
        with pytest.raises(AnswerError, match="501 NotImplemented"):
            probe.put("loud", "when_supported")
        assert [request.headers for request in link.requests if "loud" in request.path and request.method == method]
