"""A bucket's objects go, wait and come back: with faults at every call, on a real S3 server, and on one as strict as R2."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from faults import FaultyStore, Kind, Rule
from holdfast.errors import UsageError
from holdfast.objectstore.bucket import BucketStore
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import DeniedError, ObjectInfo, ObjectStore, StoreError, UnreachableError
from holdfast.removal.batches import OtherPlanError, RemovalError, batch_id
from holdfast.removal.bucket import BucketPlace, thing_of
from holdfast.removal.names import UnsafeKeyError, flat_name
from holdfast.removal.place import Thing
from proxy import Fault, Proxy, R2Rules, proxy
from removal_world import BATCH, PLAN, planned
from servers import S3Server

PART = 5 * 1024 * 1024
LONG = "/".join(["deep" * 12] * 6)
KEYS = sorted(
    ["files/md5/ab/" + "c" * 30, "files/md5/cd/" + "e" * 30, "ab/" + "d" * 30, "ä b/100%~+.txt", LONG, "empty"]
)
KEPT = "files/md5/ab/" + "f" * 30


def filled(store: ObjectStore) -> ObjectStore:
    for key in KEYS:
        store.put(key, b"" if key == "empty" else key.encode() * 100)
    store.put(KEPT, b"kept")
    return store


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list_objects()}


def waiting(place: BucketPlace) -> list[str]:
    return [thing.key for batch in place.batches() for thing in batch.things]


@pytest.fixture
def link(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy(s3_server.port) as running:
        yield running


@pytest.fixture(params=["memory", "folder", "s3", "r2"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param in ("memory", "folder"):
        return filled(open_store("memory://" if request.param == "memory" else str(tmp_path / "store")))
    server: S3Server = request.getfixturevalue("s3_server")
    link: Proxy = request.getfixturevalue("link")
    if request.param == "r2":
        rules = R2Rules(second=0.2)
        link.rules, link.noted = rules, rules.noted
    return filled(open_store(request.getfixturevalue("s3_folder"), server.options(link.endpoint)))


@pytest.fixture
def memory() -> ObjectStore:
    return filled(open_store("memory://"))


def test_all_comes_back(store: ObjectStore) -> None:
    place = BucketPlace(store, "quarantine")
    before = contents(store)
    things = planned(place, KEYS)
    assert things == [
        thing_of(info) for info in sorted(store.list_objects(), key=lambda info: info.key) if info.key != KEPT
    ]
    told: list[tuple[int, int]] = []
    moved = place.take(BATCH, PLAN, things, lambda done, total: told.append((done, total)))
    assert (moved.done, moved.left) == (tuple(KEYS), ())
    assert moved.bytes == sum(map(len, before.values())) - 4 == told[-1][0] == told[-1][1]
    assert [key for key in contents(store) if not key.startswith("quarantine/")] == [KEPT]
    (batch,) = place.batches()
    assert (batch.id, batch.complete, batch.plan) == (BATCH, True, PLAN)
    assert [(thing.key, thing.size) for thing in batch.things] == [(thing.key, thing.size) for thing in things]
    assert abs(batch.since - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert abs(place.now() - datetime.now(timezone.utc)) < timedelta(minutes=1)
    applied = json.loads(store.get(f"quarantine/{BATCH}/applied.json"))
    assert (applied["things"], applied["bytes"], applied["left"]) == (len(KEYS), moved.bytes, [])
    assert place.take(BATCH, PLAN, things).done == tuple(KEYS), "taken again"
    with pytest.raises(OtherPlanError):
        place.take(BATCH, b"another", things)
    back = place.restore(BATCH)
    assert (back.done, back.bytes, back.left) == (moved.done, moved.bytes, ())
    assert contents(store) == before
    assert place.batches() == []


def test_some_are_purged(store: ObjectStore) -> None:
    place = BucketPlace(store, "quarantine")
    place.take(BATCH, PLAN, planned(place, KEYS))
    gone = place.purge(BATCH, [LONG, "empty", "nothing"])
    assert gone.done == tuple(sorted([LONG, "empty"]))
    assert gone.bytes == len(LONG) * 100
    assert gone.left == (("nothing", f"it does not wait in {BATCH}"),)
    assert waiting(place) == sorted(set(KEYS) - {LONG, "empty"})
    assert place.restore(BATCH, KEYS[:1]).done == tuple(KEYS[:1])
    place.purge(BATCH)
    assert sorted(contents(store)) == sorted([KEPT, KEYS[0]])
    assert place.purge(BATCH).done == ()


def test_what_has_changed_or_gone_stays(memory: ObjectStore) -> None:
    place = BucketPlace(memory, "quarantine")
    things = planned(place, KEYS)
    memory.put(KEYS[0], memory.get(KEYS[0]))  # the same bytes, pushed again
    memory.delete(KEYS[1])
    moved = place.take(BATCH, PLAN, things)
    assert moved.left == ((KEYS[0], "it has changed since it was planned"), (KEYS[1], "it is not there any more"))
    assert moved.done == tuple(KEYS[2:])
    assert place.batches()[0].complete
    memory.put(KEYS[2], b"new")
    again = place.take(BATCH, PLAN, things)
    assert (KEYS[2], "it waits already, and something else has come to its place") in again.left
    assert memory.get(KEYS[2]) == b"new"


# the third question is about the copy, the fourth about the thing again
@pytest.mark.parametrize("moment", [Rule("delay", frozenset({"copy"}), at=1), Rule("delay", frozenset({"head"}), at=4)])
def test_what_changes_meanwhile_stays(memory: ObjectStore, moment: Rule) -> None:
    things = planned(BucketPlace(memory, "quarantine"), KEYS)
    writer = FaultyStore(memory, [replace(moment)], lambda: memory.put(KEYS[0], b"written meanwhile"))
    moved = BucketPlace(writer, "quarantine", jobs=1).take(BATCH, PLAN, things)
    assert moved.left == ((KEYS[0], "it has changed since it was planned"),)
    assert memory.get(KEYS[0]) == b"written meanwhile"
    assert KEYS[0] not in waiting(BucketPlace(memory, "quarantine"))


def test_what_is_gone_before_it_is_copied(memory: ObjectStore) -> None:
    things = planned(BucketPlace(memory, "quarantine"), KEYS)
    writer = FaultyStore(memory, [Rule("delay", frozenset({"copy"}), at=1)], lambda: memory.delete(KEYS[0]))
    moved = BucketPlace(writer, "quarantine", jobs=1).take(BATCH, PLAN, things)
    assert moved.left == ((KEYS[0], "it is not there any more"),)


def test_nothing_is_overwritten(memory: ObjectStore) -> None:
    place = BucketPlace(memory, "quarantine")
    before = contents(memory)
    place.take(BATCH, PLAN, planned(place, KEYS))
    memory.put(KEYS[0], before[KEYS[0]])
    memory.put(KEYS[1], b"another")
    memory.put(KEYS[3], b"x" * len(before[KEYS[3]]))
    back = place.restore(BATCH)
    assert back.left == tuple((key, "something else has come to its place") for key in (KEYS[1], KEYS[3]))
    assert waiting(place) == [KEYS[1], KEYS[3]]
    assert memory.get(KEYS[1]) == b"another"
    memory.delete(KEYS[1])
    memory.delete(KEYS[3])
    assert place.restore(BATCH).left == ()
    assert contents(memory) == before


KINDS: tuple[Kind, ...] = ("refuse", "lose")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["take", "restore", "purge"])
def test_a_fault_at_every_call(verb: str, kind: Kind) -> None:
    failed = 0
    for number in range(1, 500):
        inner = filled(open_store("memory://"))
        before = contents(inner)
        calm = BucketPlace(inner, "quarantine", jobs=1)
        things = planned(calm, KEYS)
        if verb != "take":
            calm.take(BATCH, PLAN, things)
        rule = Rule(kind, at=number)
        place = BucketPlace(FaultyStore(inner, [rule]), "quarantine", jobs=1)
        call: Callable[[BucketPlace], Any] = {
            "take": lambda place, things=things: place.take(BATCH, PLAN, things),
            "restore": lambda place: place.restore(BATCH),
            "purge": lambda place: place.purge(BATCH),
        }[verb]  # type: ignore[assignment]
        try:
            call(place)
        except UnreachableError:
            failed += 1
        if rule.seen < number:
            break
        if verb != "purge":
            assert set(KEYS) <= set(contents(inner)) | set(waiting(calm)), f"lost by a fault at call {number}"
        # this process still lives, so that what it could not take back counts until it ends
        inner.delete_many([info.key for info in inner.list_objects("quarantine/lock")])
        call(calm)
        if verb == "take":
            assert waiting(calm) == KEYS
            calm.restore(BATCH)
        if verb != "purge":
            assert contents(inner) == before | {key: data for key, data in contents(inner).items() if "/clock/" in key}
        else:
            assert sorted(contents(inner)) == [KEPT]
    assert failed > 8
    assert number < 499


class LyingStore(FaultyStore):
    """A store whose copies are of the right size and have a wrong byte."""

    def copy(self, source: ObjectInfo, target: str) -> None:
        data = self.inner.get(source.key)
        self.inner.put(target, data[:-1] + b"?" if data else b"")


def test_a_copy_that_is_none_is_noticed(memory: ObjectStore) -> None:
    before = contents(memory)
    honest = BucketPlace(memory, "quarantine")
    things = planned(honest, KEYS)
    liar = BucketPlace(LyingStore(memory), "quarantine")
    moved = liar.take(BATCH, PLAN, things)
    assert moved.done == ("empty",)
    assert {reason for _, reason in moved.left} == {"the store's copy of it is not the same"}
    assert {key: data for key, data in contents(memory).items() if "quarantine" not in key} == {
        key: data for key, data in before.items() if key != "empty"
    }
    assert waiting(honest) == ["empty"]
    assert not honest.batches()[0].complete
    honest.take(BATCH, PLAN, things)
    back = liar.restore(BATCH)
    assert back.done == ("empty",)
    assert set(waiting(honest)) == set(KEYS) - {"empty"}, "the good ones are kept"


def test_what_the_store_refuses_stays(memory: ObjectStore) -> None:
    class Strict(FaultyStore):
        def copy(self, source: ObjectInfo, target: str) -> None:
            if source.key in refused:
                raise DeniedError(f"{source.key}: access denied")
            super().copy(source, target)

    place = BucketPlace(Strict(memory), "quarantine")
    things = planned(place, KEYS)
    refused = set(KEYS[:2])
    moved = place.take(BATCH, PLAN, things)
    assert moved.left == tuple((key, f"{key}: access denied") for key in KEYS[:2])
    assert not place.batches()[0].complete
    place.restore(BATCH)
    refused = set(KEYS)
    things = planned(place, KEYS)
    with pytest.raises(DeniedError, match="access denied"):
        place.take(BATCH, PLAN, things)
    assert [key for key in contents(memory) if "quarantine" in key] == []


def on_s3(s3_folder: str, s3_server: S3Server, link: Proxy) -> BucketStore:
    store = open_store(s3_folder, s3_server.options(link.endpoint), retry=Retry(sleep=lambda _: None))
    assert isinstance(store, BucketStore)
    return store


def test_large_objects_go_by_parts(s3_folder: str, s3_server: S3Server, link: Proxy) -> None:
    store = on_s3(s3_folder, s3_server, link)
    assert store.copier is not None
    store.copy_single_bytes, store.copier = PART, replace(store.copier, part_bytes=PART)
    rules = R2Rules(bulk_delete=True, second=0.0)
    link.rules, link.noted = rules, rules.noted
    data = os.urandom(2 * PART + 99)
    store.put("models/large.pt", data)
    place = BucketPlace(store, "quarantine")
    link.forget()
    assert place.take(BATCH, PLAN, planned(place, ["models/large.pt"])).done == ("models/large.pt",)
    assert link.count("PUT", "partNumber") - len(rules.refused) == 3
    assert link.bytes_up < 10_000
    assert store.get(f"quarantine/{BATCH}/things/models~2Flarge.pt") == data
    assert place.restore(BATCH).done == ("models/large.pt",)
    assert store.get("models/large.pt") == data
    # R2 takes no condition with the copy of a part, which is asked again without
    assert all(said.startswith("NotImplemented") for said in rules.refused)
    # it was pushed again while it waited: its etag says nothing, so that all of it is compared
    place.take(BATCH, PLAN, planned(place, ["models/large.pt"]))
    store.put("models/large.pt", data)
    assert place.restore(BATCH).left == ()
    place.take(BATCH, PLAN, planned(place, ["models/large.pt"]))
    store.put("models/large.pt", data[:PART] + bytes([data[PART] ^ 1]) + data[PART + 1 :])
    assert place.restore(BATCH).left != ()


@pytest.mark.parametrize("bulk", [True, False])
def test_many_are_deleted_in_bulk_where_that_is_possible(
    s3_folder: str, s3_server: S3Server, link: Proxy, bulk: bool
) -> None:
    store = on_s3(s3_folder, s3_server, link)
    rules = R2Rules(bulk_delete=bulk, second=0.0)
    link.rules, link.noted = rules, rules.noted
    keys = [f"files/md5/ab/{number:030x}" for number in range(300)]
    for key in keys:
        store.put(key, key.encode())
    place = BucketPlace(store, "quarantine")
    things = planned(place, keys)
    link.forget()
    assert place.take(BATCH, PLAN, things).done == tuple(keys)
    singles = link.count("DELETE")
    assert link.count("POST") == 1
    assert singles == (1 if bulk else 301), "the lock is one"
    assert link.count("PUT", "things/") == 300
    assert link.count("HEAD") <= 3 * 300 + 2
    assert place.restore(BATCH).done == tuple(keys)
    assert [info.key for info in store.list_objects()] == keys


def test_one_that_may_not_be_deleted(s3_folder: str, s3_server: S3Server, link: Proxy) -> None:
    store = on_s3(s3_folder, s3_server, link)
    for key in ("a", "b", "c"):
        store.put(key, key.encode())
    place = BucketPlace(store, "quarantine")
    things = planned(place, ["a", "b", "c"])
    link.inject(
        Fault("status", 403, "AccessDenied", method="POST", times=9),
        Fault("status", 403, "AccessDenied", method="DELETE", path="[0-9a-f]{32}/b$", times=9),
    )
    moved = place.take(BATCH, PLAN, things)
    assert moved.done == ("a", "c")
    ((key, reason),) = moved.left
    assert key == "b"
    assert "access denied" in reason
    assert store.get("b") == b"b"
    assert waiting(place) == ["a", "c"]
    link.inject()
    assert place.take(BATCH, PLAN, things).done == ("a", "b", "c")
    assert place.batches()[0].complete


HOSTILE = ["../outside", "/etc", "a/../b", "", "a//b", "quarantine", "quarantine/x"]


@pytest.mark.parametrize("key", HOSTILE)
def test_a_plan_cannot_lead_out(memory: ObjectStore, key: str) -> None:
    place = BucketPlace(memory, "quarantine")
    with pytest.raises(UnsafeKeyError):
        place.take(BATCH, PLAN, [Thing(key, 1, "")])
    assert [info.key for info in memory.list_objects("quarantine")] == []


def test_what_others_put_into_the_quarantine_is_left_alone(memory: ObjectStore) -> None:
    place = BucketPlace(memory, "quarantine")
    place.take(BATCH, PLAN, planned(place, KEYS))
    things = f"quarantine/{BATCH}/things"
    for name in ("..~2Foutside", f"~~{'0' * 64}", "x/y", "a b"):
        memory.put(f"{things}/{name}", b"hostile")
    memory.put(f"quarantine/{BATCH}/keys/{'0' * 64}", b"../outside")
    memory.put("quarantine/readme/x", b"")
    assert waiting(place) == KEYS
    assert place.restore(BATCH).done == tuple(KEYS)
    assert memory.head(f"{things}/x/y").size == 7
    assert not any("outside" in key for key in contents(memory) if not key.startswith("quarantine"))


def test_wrong_places_and_ids(memory: ObjectStore) -> None:
    for folder in ("q", "a/qq", ""):
        with pytest.raises(RemovalError, match="cannot be a quarantine"):
            BucketPlace(memory, folder)
    for call in (
        lambda place: place.take("../x", b"", []),
        lambda place: place.restore("x"),
        lambda place: place.purge(batch_id(b"") + "/.."),
    ):
        with pytest.raises(UsageError, match="is not the id of a batch"):
            call(BucketPlace(memory, "quarantine"))


def test_a_store_that_cannot_be_written(memory: ObjectStore) -> None:
    class ReadOnly(FaultyStore):
        def put(self, key: str, data: Any) -> None:  # noqa: ARG002 - a store's form
            raise DeniedError(f"{key}: access denied")

    place = BucketPlace(ReadOnly(memory), "quarantine")
    things = planned(place, KEYS)
    with pytest.raises(StoreError, match="access denied"):
        place.take(BATCH, PLAN, things)
    assert set(KEYS) <= set(contents(memory))


def test_long_names_are_kept_beside(memory: ObjectStore) -> None:
    place = BucketPlace(memory, "quarantine")
    place.take(BATCH, PLAN, planned(place, [LONG]))
    assert flat_name(LONG).startswith("~~")
    memory.delete_many([info.key for info in memory.list_objects(f"quarantine/{BATCH}/keys")])
    assert waiting(place) == [], "nobody knows whose it is"
    assert place.restore(BATCH).done == ()
    assert memory.get(f"quarantine/{BATCH}/things/{flat_name(LONG)}") == LONG.encode() * 100
    memory.put(f"quarantine/{BATCH}/keys/{flat_name(LONG)[2:]}", LONG.encode())
    assert place.restore(BATCH).done == (LONG,)
