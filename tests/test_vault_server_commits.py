"""Nobody is told that a file is there before it counts, and what goes wrong is told to all whom it concerns."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest

from faults import Rule
from holdfast.errors import HoldfastError
from holdfast.formats.source import MemorySource
from holdfast.vault.families import Families
from holdfast.vault.repository import open_vault
from holdfast.vault.segment import CONDEMNED, SESSIONS, write_condemned
from holdfast.vault.server import Limits
from holdfast.vault.server_access import Access
from holdfast.vault.server_commits import CLAIM_SECONDS, GROUP_SECONDS, LARGE_BYTES, Committer, members
from holdfast.vault.server_metrics import Metrics
from holdfast.vault.server_reading import Catalogue
from holdfast.vault.split import split_source
from vault_servers import READ_TOKEN, WRITE_TOKEN, Running, ask, half_sent, in_process, path_of, say, until
from vaults import bf16_history, history, keys, noise, oid_of, put_all, read_all

COMMITS = frozenset({"put_if_absent"})
WRITES = frozenset({"put", "put_file", "put_if_absent"})
SECONDS = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with in_process(tmp_path) as running:
        yield running


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(24) as threads:
        yield threads


def put_elsewhere(server: Running, files: Sequence[bytes]) -> None:
    """As another machine does."""
    with open_vault(server.store.inner, None) as other:
        put_all(other, files)


def sees(server: Running, data: bytes) -> bool:
    """Whether somebody without a cache finds a file in the bucket."""
    with open_vault(server.store.inner, None) as other:
        return bool(other.exists([oid_of(data)]))


def test_many_uploads_share_a_segment(server: Running, clients: ThreadPoolExecutor) -> None:
    files = [noise(20_000, number) for number in range(48)]
    assert {reply.status for reply in clients.map(server.put, files)} == {201}
    assert len(server.segments()) <= 16
    with open_vault(server.store.inner, None) as other:
        read_all(other, files)
    assert not keys(server.store.inner, SESSIONS)


def test_an_upload_alone_does_not_wait_for_others(server: Running) -> None:
    server.put(noise(1000, 0))
    seconds = []
    for number in range(1, 6):
        began = time.monotonic()
        assert server.put(noise(1000, number)).status == 201
        seconds.append(time.monotonic() - began)
    # one that waits takes that long each time, a busy machine does not
    assert min(seconds) < GROUP_SECONDS


def test_an_upload_waits_for_one_that_is_on_its_way_half_a_second(server: Running) -> None:
    slow, fast = noise(1000, 1), noise(1000, 2)
    with half_sent(server.port, slow) as connection:
        began = time.monotonic()
        assert server.put(fast).status == 201
        assert 0.4 < time.monotonic() - began < 5
        connection.sendall(slow[500:])
        assert connection.recv(12) == b"HTTP/1.1 201"


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_nothing_is_acknowledged_before_it_counts(server: Running, clients: ThreadPoolExecutor, method: str) -> None:
    data = noise(100_000, 1)
    if method != "PUT":
        put_elsewhere(server, [data])
    go_on = threading.Event()
    server.store.wait = lambda: go_on.wait(SECONDS) or None
    server.store.rules = [Rule("delay", COMMITS, key="index/")]
    before = server.claims()
    reply = clients.submit(ask, server.port, method, path_of(data), data if method == "PUT" else None)
    until(lambda: any(key.startswith("index/") for verb, key in server.store.calls if verb == "put_if_absent"))
    time.sleep(0.3)
    assert not reply.done()
    assert server.claims() == before
    go_on.set()
    assert reply.result().status == (201 if method == "PUT" else 200)
    assert server.claims() == [*before, oid_of(data)]


@pytest.mark.parametrize("key", ["index/", "packs/", "sessions/"])
def test_a_failed_commit_fails_all_of_its_group(server: Running, clients: ThreadPoolExecutor, key: str) -> None:
    files = [noise(30_000, number) for number in range(12)]
    server.store.rules = [Rule("refuse", WRITES, key=key)]
    replies = list(clients.map(server.put, files))
    assert {reply.status for reply in replies} == {503}
    assert all(reply.headers["retry-after"] for reply in replies)
    assert not any(b"memory" in reply.body for reply in replies)
    assert not any(sees(server, data) for data in files)
    assert server.metric("holdfast_spooled_bytes") == 0
    server.store.rules = []
    assert {server.get(data).status for data in files} == {404}
    # what was sent of it is gone on with
    assert {reply.status for reply in clients.map(server.put, files)} <= {200, 201}
    with open_vault(server.store.inner, None) as other:
        read_all(other, files)


def test_a_lost_answer_is_no_acknowledgement(server: Running) -> None:
    data = noise(30_000, 1)
    server.store.rules = [Rule("lose", COMMITS, key="index/")]
    assert server.put(data).status == 503
    server.store.rules = []
    assert server.put(data).status in (200, 201)
    assert server.get(data).body == data


def test_a_revoked_session_is_begun_again(server: Running) -> None:
    data = noise(100_000, 1)
    revoked: list[str] = []

    def revoke() -> None:  # what a collector does that has waited long enough
        revoked.append(server.store.calls[-1][1])
        assert server.store.inner.put_if_absent(revoked[-1], b"")

    server.store.wait = revoke
    server.store.rules = [Rule("delay", COMMITS, key="index/", at=1)]
    assert server.put(data).status == 201
    assert len(revoked) == 1
    assert sees(server, data)


def test_uploads_of_the_same_file_at_once_are_one(server: Running, clients: ThreadPoolExecutor) -> None:
    data = noise(1_000_000, 1)
    replies = list(clients.map(lambda _: server.put(data), range(12)))
    assert {reply.status for reply in replies} <= {200, 201}
    packs = server.store.inner.list_objects("packs")
    assert sum(info.size for info in packs) < 1_200_000
    assert server.metric("holdfast_files_total") == 1
    assert server.metric("holdfast_spooled_bytes") == 0


def test_a_wrong_upload_among_others_fails_alone(server: Running, clients: ThreadPoolExecutor) -> None:
    files = [noise(20_000, number) for number in range(10)]
    paths = [path_of(data) for data in files]
    sent = [data if number % 3 else b"wrong" for number, data in enumerate(files)]
    replies = list(clients.map(server.put, sent, paths))
    assert [reply.status for reply in replies] == [201 if number % 3 else 422 for number in range(10)]
    assert [sees(server, data) for data in files] == [number % 3 > 0 for number in range(10)]


def collision() -> tuple[bytes, bytes]:
    """Two files whose md5 is the same, though they differ in six bytes (Wang and others, 2004)."""
    first = bytes.fromhex(
        "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a"
        "085125e8f7cdc99fd91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0"
        "e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70"
    )
    second = bytearray(first)
    for place in (19, 45, 59, 83, 109, 123):
        second[place] ^= 0x80
    assert path_of(first) == path_of(bytes(second))
    return first, bytes(second)


def test_another_content_under_a_name_is_refused(server: Running) -> None:
    first, second = collision()
    assert server.put(first).status == 201
    assert server.put(second).status == 409
    assert server.put(first).status == 200
    assert server.get(first).body == first


def test_another_content_at_the_same_time(server: Running, clients: ThreadPoolExecutor) -> None:
    first, second = collision()
    statuses = [reply.status for reply in clients.map(server.put, [first, second] * 6)]
    assert 409 in statuses
    stored = server.get(first).body
    assert stored in (first, second)
    for sent, status in zip([first, second] * 6, statuses, strict=True):
        assert status in ((200, 201) if sent == stored else (409,))


def test_a_large_upload_keeps_nobody_waiting(tmp_path: Path, clients: ThreadPoolExecutor) -> None:
    with in_process(tmp_path, pack_bytes=8 << 20, block_bytes=1 << 20) as server:
        large, small = noise(LARGE_BYTES, 1), noise(1000, 2)
        go_on = threading.Event()
        server.store.wait = lambda: go_on.wait(SECONDS) or None
        server.store.rules = [Rule("delay", frozenset({"put"}), key="packs/", at=1)]
        reply = clients.submit(server.put, large)
        until(lambda: any(key.startswith("packs/") for _, key in server.store.calls))
        assert server.put(small).status == 201
        assert not reply.done()
        go_on.set()
        assert reply.result().status == 201
        assert server.get(large).body == large


def test_a_client_that_waits_is_told_that_the_answer_will_come(tmp_path: Path) -> None:
    data = noise(1000, 1)
    with in_process(tmp_path, limits=Limits(fresh_seconds=0, pulse_seconds=0.2)) as server:
        server.store.wait = lambda: time.sleep(2)
        server.store.rules = [Rule("delay", COMMITS, key="index/")]

        async def put() -> int:
            # as DVC does it, which has sixty seconds for one
            timeout = aiohttp.ClientTimeout(total=None, sock_read=1)
            url = f"http://127.0.0.1:{server.port}{path_of(data)}"
            async with aiohttp.ClientSession(timeout=timeout) as session, session.put(url, data=data) as reply:
                return reply.status

        assert asyncio.run(put()) == 201
        # HTTP/1.0 has no such thing
        other = noise(1000, 2)
        head = f"PUT {path_of(other)} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        assert say(server.port, head.encode() + other)[9:12] == b"201"


def test_who_may_write_gets_a_claim_and_who_reads_does_not(tmp_path: Path) -> None:
    data, token = noise(100_000, 1), {"Authorization": f"Bearer {WRITE_TOKEN}"}
    with in_process(tmp_path, Access(READ_TOKEN, WRITE_TOKEN)) as server:
        put_elsewhere(server, [data])
        before = server.claims()
        assert server.get(data, Authorization=f"Bearer {READ_TOKEN}").body == data
        assert server.claims() == before
        assert ask(server.port, "HEAD", path_of(data), **token).status == 200
        assert server.claims() == [*before, oid_of(data)]
        for _ in range(3):  # not again for an hour
            assert server.get(data, **token).body == data
        assert server.claims() == [*before, oid_of(data)]


def test_an_hour_later_a_claim_is_made_again(server: Running) -> None:
    data, now, lines = noise(1000, 1), [0.0], []
    put_all(server.vault, [data])
    committer = Committer(server.vault, Metrics(), lines.append, clock=lambda: now[0])
    for moment, count in ((0.0, 2), (CLAIM_SECONDS - 1, 2), (CLAIM_SECONDS, 3)):
        now[0] = moment
        assert committer.claim(oid_of(data)).result(SECONDS)
        assert len(server.claims()) == count
    committer.forget_claims()
    assert committer.claim(oid_of(data)).result(SECONDS)
    assert len(server.claims()) == 4
    assert not committer.claim(oid_of(b"nowhere")).result(SECONDS)
    assert committer.stop(SECONDS)
    with pytest.raises(HoldfastError, match="ending"):
        committer.claim(oid_of(b"late")).result(SECONDS)
    assert not lines


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_listing_is_claimed_with_its_files(server: Running, method: str) -> None:
    files = [noise(1000, number) for number in range(3)]
    listing = json.dumps(
        [{"md5": oid_of(data).removeprefix("md5:"), "relpath": f"{number}"} for number, data in enumerate(files)]
    ).encode()
    put_all(server.vault, files)
    path = path_of(listing, suffix=".dir")
    if method == "GET":
        with server.vault.session() as session:
            session.put(f"{oid_of(listing)}.dir", MemorySource(listing))
            session.commit()
    before = Counter(server.claims())
    assert ask(server.port, method, path, listing if method == "PUT" else None).status in (200, 201)
    assert Counter(server.claims()) - before == Counter([f"{oid_of(listing)}.dir", *map(oid_of, files)])


def test_listings_and_what_is_none() -> None:
    listing = b'[{"md5": "' + b"a" * 32 + b'", "relpath": "x"}]'
    assert members("md5:0.dir", listing) == [f"md5:{'a' * 32}"]
    assert members("md5-dos2unix:0.dir", listing) == [f"md5-dos2unix:{'a' * 32}"]
    for data in (b"", b"{}", b"[1]", b'[{"md5": 1}]', b'[{"md5": "../x"}]', b"[" * 100_000, b"\xff", b"null"):
        assert members("md5:0.dir", data) == []


def condemn(server: Running) -> None:
    packs, segments = keys(server.store.inner, "packs"), [key.partition("/")[2] for key in server.segments()]
    server.store.inner.put(f"{CONDEMNED}/{'1' * 32}", write_condemned(packs, segments))


def test_what_is_condemned_is_put_again_for_who_may_write(tmp_path: Path) -> None:
    files = [noise(1000, 1), noise(300_000, 2)]
    with in_process(tmp_path, Access(READ_TOKEN, WRITE_TOKEN)) as server:
        put_elsewhere(server, files)
        condemn(server)
        for data in files:
            assert server.get(data, Authorization=f"Bearer {READ_TOKEN}").body == data
        assert len(server.segments()) == 1
        for data in files:
            assert server.get(data, Authorization=f"Bearer {WRITE_TOKEN}").body == data
        with open_vault(server.store.inner, None) as other, other.session() as session:
            assert session.known(map(oid_of, files)) == set(map(oid_of, files))


def test_a_damaged_listing_fails_nobody_else(server: Running, clients: ThreadPoolExecutor) -> None:
    listing, files = b'[{"md5": "' + b"a" * 32 + b'", "relpath": "x"}]', [noise(1000, number) for number in range(6)]
    with server.vault.session() as session:
        session.put(f"{oid_of(listing)}.dir", MemorySource(listing))
        session.commit()
    for key in keys(server.store.inner, "packs"):
        data = bytearray(server.store.inner.get(key))
        data[len(listing) // 2] ^= 1
        server.store.inner.put(key, bytes(data))
    go_on = threading.Event()
    server.store.wait = lambda: go_on.wait(SECONDS) or None
    server.store.rules = [Rule("delay", frozenset({"put"}), key="sessions/", at=1)]
    damaged = clients.submit(ask, server.port, "GET", path_of(listing, suffix=".dir"))
    until(lambda: ("put", "sessions/") in [(verb, key[:9]) for verb, key in server.store.calls])
    others = [clients.submit(server.put, data) for data in files]
    until(lambda: server.metric("holdfast_received_bytes_total") == 6000)
    go_on.set()
    assert {reply.result().status for reply in others} == {201}
    assert damaged.result().status == 500
    assert server.metric('holdfast_groups_total{result="committed"}') == 1


def test_what_a_collector_moved_is_read_where_it_is_now(server: Running) -> None:
    data = noise(3_000_000, 1)
    assert server.put(data).status == 201
    assert server.get(data).body == data
    packs, segments = keys(server.store.inner, "packs"), server.segments()
    condemn(server)
    put_elsewhere(server, [data])  # which stores it anew, since nothing builds upon what is condemned
    for key in packs:
        server.store.inner.delete(key)
    for key in segments:
        server.store.inner.put(key, b"")
    assert server.get(data).body == data
    assert server.get(data, Range="bytes=1000000-1000099").body == data[1_000_000:1_000_100]


def test_claims_do_not_outlive_a_collector(server: Running) -> None:
    data = noise(1000, 1)
    assert server.put(data).status == 201
    assert server.get(data).status == 200
    condemn(server)
    assert server.get(noise(10, 9)).status == 404  # something that is missing makes it look
    assert server.get(data).body == data
    with open_vault(server.store.inner, None) as other, other.session() as session:
        assert session.known([oid_of(data)])


def test_a_store_that_is_away_is_no_missing_file(server: Running) -> None:
    data = noise(1000, 1)
    put_elsewhere(server, [data])
    server.store.rules = [Rule("refuse")]
    assert server.get(data).status == 503
    assert server.get(b"unknown").status == 503
    server.store.rules = []
    assert server.get(data).body == data


def test_families_find_the_newest_version(server: Running) -> None:
    ours, theirs = bf16_history(3, 60_000), history(2, 60_000)
    put_all(server.vault, [ours[0], theirs[0]])
    families = Families(server.vault.index)

    def base(data: bytes) -> str | None:
        return families.base(oid_of(data), split_source(MemorySource(data)))

    assert base(ours[1]) == oid_of(ours[0])
    assert base(ours[2]) == oid_of(ours[1])
    assert base(theirs[1]) == oid_of(theirs[0])
    assert base(noise(500_000, 1)) is None
    assert base(theirs[1]) is None, "no file is stored against itself"


def test_what_others_put_is_looked_for_once_a_second(server: Running) -> None:
    data, now, changes = noise(1000, 1), [100.0], []
    catalogue = Catalogue(server.vault, lambda: changes.append(now[0]), 1.0, lambda: now[0])
    assert catalogue.size(oid_of(data)) is None
    put_elsewhere(server, [data])
    now[0] = 100.9
    before = len(server.store.calls)
    assert catalogue.size(oid_of(data)) is None
    assert len(server.store.calls) == before
    now[0] = 101.0
    assert catalogue.size(oid_of(data)) == 1000
    condemn(server)
    now[0] = 103.0
    assert catalogue.size(oid_of(b"missing")) is None
    assert changes == [103.0]
