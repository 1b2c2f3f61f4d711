"""The servers that stand for R2 in the tests say no where R2 does: the strict proxy, and Cloudflare's own local R2.

Each line is a request and what either answers; where the two differ, the strict one is as DESIGN and R2's own words have
it, and the other is what `r2_miniflare` says of it.
"""

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from proxy import R2Rules, proxy
from r2_miniflare import LocalR2, local_r2
from servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

Answer = tuple[int, str]

QUIET = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
MEBIBYTE = 1024 * 1024
DONE: Answer = (200, "")
UNKNOWN: Answer = (501, "NotImplemented")


@cache
def session() -> Any:
    """One for all clients: it reads what S3 can do, for a tenth of a second."""
    from botocore.session import Session

    return Session()


@dataclass(frozen=True)
class Asker:
    """Asks a server, never twice.

    Args:
        endpoint: the server's.
        key: of an object that is there.
    """

    endpoint: str
    key: str = field(default_factory=lambda: f"{uuid.uuid4().hex}/object")

    def client(self, key_id: str = ACCESS_KEY, secret: str = SECRET_KEY, region: str = "auto", **config: Any) -> Any:
        from botocore.config import Config

        settings = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, **(QUIET | config))
        keys = {"aws_access_key_id": key_id, "aws_secret_access_key": secret}
        return session().create_client("s3", region, endpoint_url=self.endpoint, config=settings, **keys)

    @property
    def of(self) -> dict[str, str]:
        return {"Bucket": BUCKET, "Key": self.key}

    @property
    def new(self) -> dict[str, str]:
        return {"Bucket": BUCKET, "Key": f"{self.key}-{uuid.uuid4().hex}"}

    def put(self, client: Any = None, **more: Any) -> None:
        (client or self.client()).put_object(**self.new, Body=b"1", **more)

    def upload(self, *sizes: int, of: dict[str, str] | None = None, **end: Any) -> None:
        """Send parts of these lengths and end the upload."""
        client, of = self.client(), of or self.new
        of = {**of, "UploadId": client.create_multipart_upload(**of)["UploadId"]}
        parts = [
            {"PartNumber": number, "ETag": client.upload_part(**of, PartNumber=number, Body=bytes(size))["ETag"]}
            for number, size in enumerate(sizes, 1)
        ]
        client.complete_multipart_upload(**of, MultipartUpload={"Parts": parts}, **end)

    def begun(self) -> dict[str, str]:
        of = self.new
        return {**of, "UploadId": self.client().create_multipart_upload(**of)["UploadId"]}

    def with_header(self, name: str, value: str) -> Any:
        """A client whose puts have that header, too, and signed."""
        client = self.client()
        client.meta.events.register("before-sign.s3.*", lambda request, **_: request.headers.add_header(name, value))
        return client

    def delete(self, count: int) -> None:
        keys = {"Objects": [{"Key": f"{self.key}-{number}"} for number in range(count)]}
        self.client().delete_objects(Bucket=BUCKET, Delete=keys)


def ask_as(client: Any, asker: Asker) -> None:
    client.get_object(**asker.of)


def ask_unsigned(asker: Asker) -> None:
    from botocore import UNSIGNED

    ask_as(asker.client(signature_version=UNSIGNED), asker)


def ask_at(hours: float) -> Callable[[Asker], None]:
    """As a machine does whose clock is wrong."""

    def ask(asker: Asker) -> None:
        with pytest.MonkeyPatch.context() as patch:
            now = datetime.now(timezone.utc) + timedelta(hours=hours)
            patch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: now)
            ask_as(asker.client(), asker)

    return ask


def write_twice(asker: Asker) -> None:
    client, of = asker.client(), asker.new
    client.put_object(**of, Body=b"1")
    client.put_object(**of, Body=b"2")


def end_twice(asker: Asker) -> None:
    of = asker.new
    asker.upload(5, of=of)
    asker.upload(5, of=of)


def copy_part_pinned(asker: Asker) -> None:
    client = asker.client()
    etag = client.head_object(**asker.of)["ETag"]
    client.upload_part_copy(**asker.begun(), PartNumber=1, CopySource=asker.of, CopySourceIfMatch=etag)


def list_with_more(asker: Asker) -> None:
    client = asker.client()

    def add(params: dict[str, Any], **_: Any) -> None:
        params["url"] += "&metadata=true"

    client.meta.events.register("before-call.s3.ListObjectsV2", add)
    client.list_objects_v2(Bucket=BUCKET)


@dataclass(frozen=True)
class Case:
    """A request, and what the strict proxy and Cloudflare's local R2 answer to it."""

    ask: Callable[[Asker], Any]
    strict: Answer
    local: Answer


def same(ask: Callable[[Asker], Any], answer: Answer) -> Case:
    return Case(ask, answer, answer)


CASES = {
    # what boto and others send beyond what R2 knows
    "boto's own checksum": Case(
        lambda at: at.put(at.client(request_checksum_calculation="when_supported")), UNKNOWN, DONE
    ),
    "a checksum that is asked for": Case(lambda at: at.put(ChecksumAlgorithm="SHA256"), UNKNOWN, DONE),
    "a trailer": Case(lambda at: at.put(at.with_header("x-amz-trailer", "x-amz-checksum-crc32")), UNKNOWN, DONE),
    "chunks": Case(lambda at: at.put(at.with_header("Content-Encoding", "aws-chunked")), UNKNOWN, DONE),
    "an ACL": Case(lambda at: at.put(ACL="private"), UNKNOWN, DONE),
    "a grant": same(lambda at: at.put(GrantRead="id=somebody"), UNKNOWN),
    "encryption": Case(lambda at: at.put(ServerSideEncryption="AES256"), UNKNOWN, DONE),
    "encryption by a key": same(lambda at: at.put(ServerSideEncryption="aws:kms", SSEKMSKeyId="k"), UNKNOWN),
    "a tag": same(lambda at: at.put(Tagging="a=b"), UNKNOWN),
    "tags": same(lambda at: at.client().get_object_tagging(**at.of), UNKNOWN),
    "an object's ACL": same(lambda at: at.client().get_object_acl(**at.of), UNKNOWN),
    "versions": same(lambda at: at.client().list_object_versions(Bucket=BUCKET), UNKNOWN),
    "a policy": same(lambda at: at.client().get_bucket_policy(Bucket=BUCKET), UNKNOWN),
    "parts": same(lambda at: at.client().list_parts(**at.begun()), UNKNOWN),
    "a part's copy on a condition": same(copy_part_pinned, UNKNOWN),
    "a listing with more": same(list_with_more, UNKNOWN),
    "a listing": same(lambda at: at.client().list_objects_v2(Bucket=BUCKET, Prefix="a", FetchOwner=False), DONE),
    "whether there are versions": same(lambda at: at.client().get_bucket_versioning(Bucket=BUCKET), DONE),
    # parts
    "equal parts": same(lambda at: at.upload(5 * MEBIBYTE, 5 * MEBIBYTE, 1), DONE),
    "a part that is longer": Case(
        lambda at: at.upload(5 * MEBIBYTE, 6 * MEBIBYTE, 1), (400, "InvalidPart"), (404, "NoSuchUpload")
    ),
    "a last part that is longer": Case(
        lambda at: at.upload(5 * MEBIBYTE, 6 * MEBIBYTE), (400, "InvalidPart"), (404, "NoSuchUpload")
    ),
    "a part that is short": same(lambda at: at.upload(MEBIBYTE, MEBIBYTE), (400, "EntityTooSmall")),
    "part 10,001": same(
        lambda at: at.client().upload_part(**at.begun(), PartNumber=10_001, Body=b""), (400, "InvalidArgument")
    ),
    # deletions: R2 has refused them for their checksum
    "a deletion of several": Case(lambda at: at.delete(3), UNKNOWN, DONE),
    # one write a second
    "a second write": Case(write_twice, (429, "TooManyRequests"), DONE),
    "a second upload": Case(end_twice, (429, "TooManyRequests"), DONE),
    # who asks
    "a key that is not known": same(lambda at: ask_as(at.client("e" * 32), at), (401, "Unauthorized")),
    "a key that is none of R2's": Case(
        lambda at: ask_as(at.client("AKIAEXAMPLE"), at), (400, "InvalidArgument"), (401, "Unauthorized")
    ),
    "a wrong secret": same(lambda at: ask_as(at.client(secret="wrong"), at), (403, "SignatureDoesNotMatch")),
    "nobody": same(ask_unsigned, (400, "InvalidArgument")),
    "a clock that is behind": same(ask_at(-1), (403, "RequestTimeTooSkewed")),
    "a clock that is ahead": same(ask_at(1), (403, "RequestTimeTooSkewed")),
    "a clock that is a little off": same(ask_at(0.2), DONE),
    "another region": Case(lambda at: ask_as(at.client(region="eu-west-1"), at), (400, "InvalidRegionName"), DONE),
    "all buckets": Case(lambda at: at.client().list_buckets(), (403, "AccessDenied"), DONE),
    # what every server of the kind says
    "an object": same(lambda at: ask_as(at.client(), at), DONE),
    "no object": same(lambda at: at.client().get_object(**at.new), (404, "NoSuchKey")),
    "no bucket": same(lambda at: at.client().list_objects_v2(Bucket="no-such-bucket"), (404, "NoSuchBucket")),
    "bytes behind the end": same(
        lambda at: at.client().get_object(**at.of, Range="bytes=100-200"), (416, "InvalidRange")
    ),
    "a create of what is there": same(
        lambda at: at.client().put_object(**at.of, Body=b"2", IfNoneMatch="*"), (412, "PreconditionFailed")
    ),
    "an upload of what is there": Case(
        lambda at: at.upload(5, of=at.of, IfNoneMatch="*"), (412, "PreconditionFailed"), DONE
    ),
}


@pytest.fixture
def rules() -> R2Rules:
    return R2Rules()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalR2]:
    with local_r2(tmp_path_factory.mktemp("r2") / "server") as running:
        yield running


@pytest.fixture
def strict(s3_server: S3Server, rules: R2Rules) -> Iterator[Asker]:
    with proxy(s3_server.port) as link:
        asker = Asker(link.endpoint)
        asker.client().put_object(**asker.of, Body=b"0123456789")
        link.rules, link.noted = rules, rules.noted
        yield asker


def answer(asker: Asker, ask: Callable[[Asker], Any]) -> Answer:
    from botocore.exceptions import ClientError

    try:
        ask(asker)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    return DONE


@pytest.mark.parametrize("name", CASES)
def test_what_the_strict_proxy_answers(strict: Asker, name: str) -> None:
    assert answer(strict, CASES[name].ask) == CASES[name].strict


@pytest.mark.parametrize("name", CASES)
def test_what_cloudflares_own_answers(local: LocalR2, name: str) -> None:
    asker = Asker(local.endpoint)
    asker.client().put_object(**asker.of, Body=b"0123456789")
    assert answer(asker, CASES[name].ask) == CASES[name].local


@pytest.mark.parametrize("kind", ["strict", "local"])
def test_a_thousand_and_one_keys(kind: str, request: pytest.FixtureRequest, rules: R2Rules) -> None:
    rules.bulk_delete = True
    server = request.getfixturevalue(kind)
    asker = server if isinstance(server, Asker) else Asker(server.endpoint)
    assert answer(asker, lambda at: at.delete(1001)) == (400, "MalformedXML")
    assert answer(asker, lambda at: at.delete(1000)) == DONE


def test_a_key_rests_for_a_second_and_others_do_not(strict: Asker, rules: R2Rules) -> None:
    rules.second = 0.3
    client = strict.client()
    client.put_object(**strict.of, Body=b"1")
    assert answer(strict, lambda at: client.put_object(**at.of, Body=b"2")) == (429, "TooManyRequests")
    assert answer(strict, lambda at: client.put_object(**at.new, Body=b"2")) == DONE
    assert answer(strict, lambda at: client.get_object(**at.of)) == DONE
    deadline = datetime.now(timezone.utc) + timedelta(seconds=30)
    while answer(strict, lambda at: client.put_object(**at.of, Body=b"3")) != DONE:
        assert datetime.now(timezone.utc) < deadline
    assert client.get_object(**strict.of)["Body"].read() == b"3"


def test_a_key_that_may_only_read(strict: Asker, rules: R2Rules) -> None:
    rules.read_only = True
    client = strict.client()
    for refused in (
        lambda at: client.put_object(**at.of, Body=b"2"),
        lambda at: client.delete_object(**at.of),
        lambda at: client.create_multipart_upload(**at.of),
    ):
        assert answer(strict, refused) == (403, "AccessDenied")
    assert client.get_object(**strict.of)["Body"].read() == b"0123456789"
    assert rules.refused == ["AccessDenied: Access Denied"] * 3


def test_its_clock_is_in_its_answers(strict: Asker, rules: R2Rules) -> None:
    from botocore.exceptions import ClientError

    rules.ahead = timedelta(hours=3)
    with pytest.raises(ClientError, match="RequestTimeTooSkewed") as caught:
        ask_as(strict.client(), strict)
    said = parsedate_to_datetime(caught.value.response["ResponseMetadata"]["HTTPHeaders"]["date"])
    assert timedelta(hours=2.9) < said - datetime.now(timezone.utc) < timedelta(hours=3.1)


def test_the_local_r2_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Killed or not: neither Node nor the engine is left."""
    script = (
        "import sys; from pathlib import Path; from r2_miniflare import local_r2\n"
        "with local_r2(Path(sys.argv[1])) as running:\n"
        "    print(running.endpoint, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "server")]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        assert endpoint.startswith("http://127.0.0.1:")
        assert len(running_in(tmp_path)) >= 2, "Node and the engine"
        process.kill()
    end = time.monotonic() + 30
    while running_in(tmp_path):
        assert time.monotonic() < end, running_in(tmp_path)
        time.sleep(0.05)


def running_in(folder: Path) -> list[str]:
    """Processes that work in a folder or have it in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            works = str(folder).encode() in (place / "environ").read_bytes()
            if works:
                found.append((place / "cmdline").read_bytes().decode(errors="replace").replace("\0", " "))
        except OSError:
            continue
    return found
