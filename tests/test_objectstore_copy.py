"""Copies within a store: by the server in one request, by the server in parts, from file to file."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore.bucket import BucketStore
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.parts import MAX_PARTS, part_bytes
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import (
    BucketNotFoundError,
    ChangedError,
    DeniedError,
    NotConnectedError,
    ObjectInfo,
    ObjectNotFoundError,
    ObjectStore,
    UnreachableError,
)
from proxy import Fault, Proxy, R2Rules, proxy
from servers import BUCKET, S3Server

MEBIBYTE = 1024 * 1024
PART = 5 * MEBIBYTE  # the least that S3 takes
PARTS = os.urandom(2 * PART + 4321)


def patient() -> Retry:
    return Retry(sleep=lambda _: None)


@pytest.fixture
def link(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy(s3_server.port) as running:
        yield running


@pytest.fixture
def bucket(link: Proxy, s3_server: S3Server, s3_folder: str) -> BucketStore:
    """A bucket whose server is asked to copy by parts what is longer than 5 MiB."""
    return with_parts(open_store(s3_folder, s3_server.options(link.endpoint), retry=patient()))


def with_parts(store: ObjectStore) -> BucketStore:
    assert isinstance(store, BucketStore)
    assert store.copier is not None
    store.copy_single_bytes = PART
    store.copier = replace(store.copier, part_bytes=PART)
    return store


@pytest.mark.parametrize("kind", ["memory", "folder", "s3", "r2"])
def test_a_copy_is_the_same(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, s3_server: S3Server, link: Proxy
) -> None:
    if kind in ("s3", "r2"):
        rules = R2Rules()
        if kind == "r2":
            link.rules, link.noted = rules, rules.noted
        store = open_store(request.getfixturevalue("s3_folder"), s3_server.options(link.endpoint))
    else:
        store = open_store("memory://" if kind == "memory" else str(tmp_path / "store"))
    for key in ("a", "ä b/100%", "a~2Fb"):
        store.put(key, key.encode())
        store.copy(store.head(key), f"new/folder/{key}")
        assert store.get(f"new/folder/{key}") == key.encode() == store.get(key)
    store.put("empty", b"")
    store.put("a", b"longer than before")
    store.copy(store.head("empty"), "a")
    assert store.get("a") == b""
    with pytest.raises(ObjectNotFoundError, match="nothing does not exist"):
        store.copy(ObjectInfo("nothing", 1, "", store.head("a").modified), "b")
    assert store.list_folders() == (["new", "ä b"])


def test_a_folder_copies_the_state_that_was_meant(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a", b"one")
    info = store.head("a")
    store.put("a", b"other")
    with pytest.raises(ChangedError, match="a was replaced"):
        store.copy(info, "b")
    assert [found.key for found in store.list_objects()] == ["a"]


def test_in_parts(bucket: BucketStore, link: Proxy, s3_server: S3Server, s3_folder: str) -> None:
    top = s3_folder.rpartition("/")[2]
    s3_server.client().put_object(
        Bucket=BUCKET, Key=f"{top}/large ü", Body=PARTS, ContentType="model/x", Metadata={"made-by": "ada"}
    )
    link.forget()
    bucket.copy(bucket.head("large ü"), "waiting/large")
    assert bucket.get("waiting/large") == PARTS
    parts = [request for request in link.requests if "partNumber" in request.query]
    assert sorted(request.headers["x-amz-copy-source-range"] for request in parts) == [
        f"bytes=0-{PART - 1}", f"bytes={2 * PART}-{len(PARTS) - 1}", f"bytes={PART}-{2 * PART - 1}",
    ]  # fmt: skip
    assert link.bytes_up < 10_000, "the bytes stay with the server"
    head = s3_server.client().head_object(Bucket=BUCKET, Key=f"{top}/waiting/large")
    assert (head["ContentType"], head["Metadata"]) == ("model/x", {"made-by": "ada"})
    bucket.put("small", bytes(PART))
    link.forget()
    bucket.copy(bucket.head("small"), "waiting/small")
    assert link.methods() == {"HEAD": 1, "PUT": 1}


def test_in_parts_as_r2_wants_it(bucket: BucketStore, link: Proxy) -> None:
    rules = R2Rules()
    link.rules, link.noted = rules, rules.noted
    bucket.put("large", PARTS)
    etag = bucket.head("large").etag
    bucket.copy(bucket.head("large"), "waiting/large")
    assert bucket.get("waiting/large") == PARTS
    # R2 knows no condition on the copy of a part; the first ones at most are sent with it
    assert set(rules.refused) == {
        f"NotImplemented: Header 'x-amz-copy-source-if-match' with value '{etag}' not implemented"
    }
    assert 1 <= len(rules.refused) <= 3
    sizes = [size for parts in rules._parts.values() for _, size in sorted(parts.items())]
    assert sizes == [PART, PART, 4321]


def test_a_source_that_changes_where_parts_have_no_condition(bucket: BucketStore, link: Proxy) -> None:
    """R2 says nothing: the source is looked at again before the copy comes to be."""
    rules = R2Rules(second=0.0)
    link.rules, link.noted = rules, rules.noted
    bucket.put("large", PARTS)
    info = bucket.head("large")
    bucket.put("large", PARTS[::-1])
    with pytest.raises(ChangedError, match="large was replaced while it was being copied"):
        bucket.copy(info, "waiting/large")
    assert link.count("POST", "uploadId") == 0
    assert [found.key for found in bucket.list_objects()] == ["large"]


def test_a_source_that_changes_between_parts(bucket: BucketStore) -> None:
    bucket.put("large", PARTS)
    info = bucket.head("large")
    bucket.put("large", PARTS[::-1])
    with pytest.raises(ChangedError, match="large was replaced"):
        bucket.copy(info, "waiting/large")
    assert [found.key for found in bucket.list_objects()] == ["large"]


FAULTS = {
    "a part fails": Fault("status", 500, method="PUT", path="partNumber=2"),
    "a part's answer is lost": Fault("lost", method="PUT", path="partNumber=3"),
    "too many parts": Fault("status", 503, "SlowDown", method="PUT", path="partNumber", times=3),
    "no beginning": Fault("reset", method="POST", path="uploads"),
    "no end": Fault("status", 500, method="POST", path="uploadId"),
    "the end's answer is lost": Fault("lost", method="POST", path="uploadId"),
    "it cannot be asked for": Fault("status", 503, method="HEAD"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_of_a_part_is_not_seen(bucket: BucketStore, link: Proxy, fault: str) -> None:
    bucket.put("large", PARTS)
    info = bucket.head("large")
    link.inject(FAULTS[fault])
    bucket.copy(info, "waiting/large")
    assert FAULTS[fault].done > 0
    assert bucket.get("waiting/large") == PARTS


def test_what_cannot_be_ended_is_aborted(bucket: BucketStore, link: Proxy, s3_server: S3Server, s3_folder: str) -> None:
    bucket.put("large", PARTS)
    info = bucket.head("large")
    for fault, error in (
        (Fault("status", 403, "AccessDenied", method="PUT", path="partNumber=2", times=99), DeniedError),
        (Fault("status", 500, method="PUT", path="partNumber=2", times=99), UnreachableError),
        (Fault("status", 404, "NoSuchBucket", method="POST", times=99), BucketNotFoundError),
    ):
        link.inject(fault)
        with pytest.raises(error, match=r"large|bucket"):
            bucket.copy(info, "waiting/large")
        link.inject()
        assert [found.key for found in bucket.list_objects()] == ["large"]
        client: Any = s3_server.client()
        uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=s3_folder.rpartition("/")[2])
        assert uploads.get("Uploads", []) == []


def test_no_server(s3_server: S3Server, s3_folder: str, bucket: BucketStore) -> None:
    bucket.put("large", PARTS)
    info = bucket.head("large")
    gone = with_parts(open_store(s3_folder, s3_server.options("http://127.0.0.1:1"), retry=patient()))
    with pytest.raises(NotConnectedError, match="cannot be reached"):
        gone.copy(info, "waiting/large")


@pytest.mark.parametrize("size", [1, PART, PART + 1, 5 * 1024**3 + 1, 5 * 1024**4])
def test_parts_are_few_enough(size: int) -> None:
    length = part_bytes(size, 512 * MEBIBYTE)
    assert 512 * MEBIBYTE <= length <= 5 * 1024**3
    assert -(-size // length) <= MAX_PARTS
