"""A bucket that is as strict as R2: what it refuses is never sent, or not twice."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from proxy import Proxy, R2Rules, proxy
from servers import S3Server


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
    assert strict.refused == ["TooManyRequests: Reduce your concurrent request rate for the same object."] * len(
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
    (refused,) = strict.refused
    assert refused.startswith("NotImplemented: Header 'x-amz-checksum-sha256' with value ")
    assert store.list_folders("d") == []
    assert list(store.list_objects()) == []
