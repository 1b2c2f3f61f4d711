"""A bucket that is as strict as R2: what it refuses is never sent, or not twice."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from proxy import Proxy, R2Rules, proxy
from servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server


@pytest.fixture
def link(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy(s3_server.port) as running:
        yield running


@pytest.fixture
def strict(link: Proxy) -> R2Rules:
    rules = R2Rules()
    link.rules, link.noted = rules, rules.noted
    return rules


@pytest.fixture
def store(link: Proxy, s3_server: S3Server, s3_folder: str) -> ObjectStore:
    return open_store(s3_folder, s3_server.options(link.endpoint))


def test_nothing_that_r2_refuses_is_sent(store: ObjectStore, link: Proxy, strict: R2Rules, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(40_000_000))
    store.put_file("file", tmp_path / "file")
    parts = [request.length for request in link.requests if "partNumber" in request.query]
    assert sorted(parts) == [40_000_000 - 2 * 16 * 1024 * 1024, 16 * 1024 * 1024, 16 * 1024 * 1024]
    store.put("a", b"1")
    store.put("a", b"2")
    assert store.put_if_absent("b", b"1")
    assert store.get("file") == (tmp_path / "file").read_bytes()
    list(store.list_objects())
    store.list_folders()
    store.head("a")
    store.delete("a")
    assert strict.refused == ["TooManyRequests: reduce your concurrent request rate for the same object"] * len(
        strict.refused
    )
    assert strict.refused
    assert not any(name.startswith("x-amz-checksum") for request in link.requests for name in request.headers)


def test_a_server_that_refuses_bulk_deletion_is_asked_once(store: ObjectStore, link: Proxy, strict: R2Rules) -> None:
    for number in range(5):
        store.put(f"d/{number}", b"")
    link.forget()
    store.delete_many([f"d/{number}" for number in range(3)])
    assert link.methods() == {"POST": 1, "DELETE": 3}
    store.delete_many(["d/3", "d/4"])
    assert link.methods() == {"POST": 1, "DELETE": 5}
    assert strict.refused == ["NotImplemented: header x-amz-checksum-sha256 is not implemented"]
    assert store.list_folders("d") == []
    assert list(store.list_objects()) == []


def test_the_strict_proxy_refuses_what_r2_refuses(link: Proxy, s3_folder: str, strict: R2Rules) -> None:
    """The shim is only worth something if it says no: botocore's defaults are what R2 refuses."""
    from botocore.config import Config
    from botocore.exceptions import ClientError
    from botocore.session import Session

    def client(region: str = "auto", **config: Any) -> Any:
        return Session().create_client(
            "s3", region, endpoint_url=link.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, **config),
        )  # fmt: skip

    top = s3_folder.rpartition("/")[2]

    quiet = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    plain = client(**quiet)
    plain.put_object(Bucket=BUCKET, Key=f"{top}/a", Body=b"1")
    with pytest.raises(ClientError, match="TooManyRequests"):
        plain.put_object(Bucket=BUCKET, Key=f"{top}/a", Body=b"2")
    upload = plain.create_multipart_upload(Bucket=BUCKET, Key=f"{top}/parts")["UploadId"]
    tags = [
        plain.upload_part(Bucket=BUCKET, Key=f"{top}/parts", UploadId=upload, PartNumber=number, Body=bytes(size))[
            "ETag"
        ]
        for number, size in ((1, 5 << 20), (2, 6 << 20), (3, 1))
    ]
    parts = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]}
    many = {"Objects": [{"Key": str(number)} for number in range(1001)]}
    refused = {
        "NotImplemented": [
            lambda: client().put_object(Bucket=BUCKET, Key=f"{top}/b", Body=b"1"),
            lambda: plain.put_object(Bucket=BUCKET, Key=f"{top}/c", Body=b"1", ACL="private"),
            lambda: plain.put_object(Bucket=BUCKET, Key=f"{top}/d", Body=b"1", ServerSideEncryption="AES256"),
            lambda: plain.put_object(Bucket=BUCKET, Key=f"{top}/e", Body=b"1", Tagging="a=b"),
            lambda: plain.get_object_tagging(Bucket=BUCKET, Key=f"{top}/a"),
            lambda: plain.get_bucket_versioning(Bucket=BUCKET),
            lambda: plain.list_object_versions(Bucket=BUCKET),
            lambda: plain.list_parts(Bucket=BUCKET, Key=f"{top}/parts", UploadId=upload),
        ],
        "InvalidPart": [
            lambda: plain.complete_multipart_upload(
                Bucket=BUCKET, Key=f"{top}/parts", UploadId=upload, MultipartUpload=parts
            )
        ],
        "InvalidRegionName": [lambda: client("eu-west-1", **quiet).get_object(Bucket=BUCKET, Key=f"{top}/a")],
    }
    for code, calls in refused.items():
        for call in calls:
            with pytest.raises(ClientError) as caught:
                call()
            assert caught.value.response["Error"]["Code"] == code
    strict.bulk_delete = True
    with pytest.raises(ClientError, match="MalformedXML"):
        plain.delete_objects(Bucket=BUCKET, Delete=many)
    assert plain.get_object(Bucket=BUCKET, Key=f"{top}/a")["Body"].read() == b"1"
