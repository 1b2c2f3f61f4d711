"""What the server answers: files, ranges, paths and limits."""

import gzip
import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.formats.source import MemorySource
from holdfast.vault.listing import Listing
from holdfast.vault.repository import open_vault
from holdfast.vault.segment import INDEX, write_segment
from holdfast.vault.server import Limits
from holdfast.vault.server_paths import is_twisted, oid_of_path
from vault_servers import Running, ask, half_sent, in_process, path_of, say, until
from vaults import keys, noise, oid_of

Make = Callable[..., Running]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(in_process(tmp_path, *arguments, **options))


@pytest.fixture
def server(make: Make) -> Running:
    return make()


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000, 3_000_001])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_what_is_put_is_there(server: Running, size: int, chunked: bool) -> None:
    data = noise(size, size)
    pieces = (data[start : start + 100_000] for start in range(0, size, 100_000))
    assert ask(server.port, "HEAD", path_of(data)).status == 404
    assert ask(server.port, "PUT", path_of(data), pieces if chunked else data).status == 201
    reply = server.get(data)
    assert reply.status == 200, server.lines
    assert (reply.status, reply.body) == (200, data)
    assert server.put(data).status == 200
    head = ask(server.port, "HEAD", path_of(data))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == reply.headers["content-length"] == str(size)
    assert head.headers["etag"] == f'"{oid_of(data)}"'
    with open_vault(server.store.inner, None) as other:
        assert other.exists([oid_of(data)])


def test_head_decodes_nothing(server: Running) -> None:
    data = noise(500_000, 1)
    server.put(data)
    server.store.calls.clear()
    assert ask(server.port, "HEAD", path_of(data)).headers["content-length"] == "500000"
    assert not [key for _, key in server.store.calls if key.startswith("packs/")]


def test_a_large_file_that_is_only_asked_for_is_not_read(server: Running) -> None:
    data = noise(8_000_000, 1)
    server.put(data)
    server.store.calls.clear()
    for _ in range(5):  # as DVC asks whether it is there
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"GET {path_of(data)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 200"
    time.sleep(0.2)
    read = [key for _, key in server.store.calls if key.startswith("packs/")]
    assert len(read) <= 5
    assert not [line for line in server.lines if "unexpected" in line or "Error" in line]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("bytes=100000-", 100_000, 199_999),
        ("bytes=65530-131080", 65_530, 131_080),
        ("bytes=199999-", 199_999, 199_999),
        ("bytes=100-999999999", 100, 199_999),
        ("bytes=-7", 199_993, 199_999),
        ("bytes=-900000", 0, 199_999),
    ],
)
def test_a_range(server: Running, asked: str, first: int, last: int) -> None:
    data = noise(200_000, 1)
    server.put(data)
    reply = server.get(data, Range=asked)
    assert (reply.status, reply.body) == (206, data[first : last + 1])
    assert reply.headers["content-range"] == f"bytes {first}-{last}/200000"


@pytest.mark.parametrize("asked", ["bytes=200000-", "bytes=-0", "bytes=300000-300001"])
def test_a_range_that_is_not_there(server: Running, asked: str) -> None:
    data = noise(200_000, 1)
    server.put(data)
    reply = server.get(data, Range=asked)
    assert (reply.status, reply.headers["content-range"]) == (416, "bytes */200000")


@pytest.mark.parametrize("asked", ["bytes=5-4", "bytes=-", "bytes=a-b", "items=1-2", "bytes=0-1,5-6", "bytes=1"])
def test_what_is_no_single_range_is_all_of_it(server: Running, asked: str) -> None:
    data = noise(200_000, 1)
    server.put(data)
    reply = server.get(data, Range=asked)
    assert (reply.status, reply.body) == (200, data)


def test_conditions(server: Running) -> None:
    data = noise(1000, 1)
    server.put(data)
    etag = server.get(data).headers["etag"]
    same = ask(server.port, "GET", path_of(data), If_None_Match=f'"x", {etag}')
    assert (same.status, same.body) == (304, b"")
    assert ask(server.port, "GET", path_of(data), If_None_Match='"x"').status == 200
    assert ask(server.port, "GET", path_of(data), Range="bytes=0-1", If_Range='"x"').body == data
    assert ask(server.port, "GET", path_of(data), Range="bytes=0-1", If_Range=etag).body == data[:2]


@pytest.mark.parametrize("size", [10, 100_000, 2_000_000])
def test_wrong_bytes_are_refused_and_nothing_is_stored(server: Running, size: int) -> None:
    data = noise(size, 1)
    reply = server.put(data[:-1] + b"x" if data[-1:] != b"x" else data[:-1] + b"y", path_of(data))
    assert reply.status == 422
    assert b"and not that of its name" in reply.body
    assert not keys(server.store.inner, "packs")
    assert not server.segments()
    assert server.get(data).status == 404
    assert server.metric("holdfast_spooled_bytes") == 0
    assert server.put(data).status == 201
    assert server.put(b"something else", path_of(data)).status == 422


def test_a_legacy_path_has_the_md5_of_unix_line_ends(server: Running) -> None:
    text = b"a,b\r\n1,2\r\n" * 10_000
    path = path_of(text.replace(b"\r\n", b"\n"), legacy=True)
    assert server.put(text, path_of(text, legacy=True)).status == 422
    assert server.put(text, path).status == 201
    assert ask(server.port, "GET", path).body == text
    assert server.get(text).status == 404


def test_the_run_cache_is_read_and_not_written(server: Running) -> None:
    entry, key, value = b"cmd: x\n", "ab" * 32, "cd" * 32
    path = f"/runs/ab/{key}/{value}"
    assert server.put(entry, path).status == 403
    with open_vault(server.store, None) as other, other.session() as session:
        session.put(f"runs:{key}/{value}", MemorySource(entry))
        session.commit()
    assert ask(server.port, "GET", path).body == entry


GOOD = "0" * 30


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"/files/md5/00/{GOOD}", 404),  # well written, and not there
        ("/", 404),
        ("/files/md5", 404),
        (f"/files/md5/00/{GOOD}0", 404),
        (f"/files/md5/00/{GOOD[:-1]}", 404),
        (f"/files/md5/00/{GOOD[:-1]}A", 404),
        (f"/files/md5/00/{GOOD}.dir.dir", 404),
        (f"/files/sha256/00/{GOOD}", 404),
        ("/config.json", 404),
        (f"/runs/00/{'1' * 64}/{'2' * 64}", 404),
        (f"/files/md5/00/{GOOD}/", 404),
        (f"//files/md5/00/{GOOD}", 400),
        (f"/files/md5/../md5/00/{GOOD}", 400),
        (f"/files/./md5/00/{GOOD}", 400),
        ("/..", 400),
        (f"/files/md5/%2e%2e/{GOOD}", 400),
        (f"/files/md5/00/{GOOD}%00", 400),
        (f"/files/md5/00/{GOOD}?x=1", 400),
        (f"/files\\md5/00/{GOOD}", 400),
        (f"http://127.0.0.1/files/md5/00/{GOOD}", 400),
        ("*", 400),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_only_known_paths(server: Running, method: str, target: str, status: int) -> None:
    body = "" if method == "GET" else "Content-Length: 1\r\n"
    text = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{body}\r\n{'x' if body else ''}"
    if method == "PUT" and target == f"/files/md5/00/{GOOD}":
        status = 422
    elif method == "PUT" and target.startswith("/runs/"):
        status = 404
    assert say(server.port, text.encode())[9:12] == b"%d" % status
    assert not server.segments()


def test_paths_and_their_oids() -> None:
    md5 = hashlib.md5(b"x").hexdigest()
    assert oid_of_path(f"/files/md5/{md5[:2]}/{md5[2:]}") == f"md5:{md5}"
    assert oid_of_path(f"/files/md5/{md5[:2]}/{md5[2:]}.dir") == f"md5:{md5}.dir"
    assert oid_of_path(f"/{md5[:2]}/{md5[2:]}") == f"md5-dos2unix:{md5}"
    run = "ab" + "c" * 62
    assert oid_of_path(f"/runs/ab/{run}/{run}") == f"runs:{run}/{run}"
    assert oid_of_path(f"/runs/ac/{run}/{run}") is None
    assert oid_of_path(f"/files/md5/{md5[:2]}/{md5[2:]}\n") is None
    assert all(map(is_twisted, ("/a b", "/ä", "/a\n", "a", "")))
    assert not is_twisted("/files/md5/..x")


def test_what_is_no_http_or_too_long(server: Running) -> None:
    assert b" 400 " in say(server.port, b"nonsense\r\n\r\n").partition(b"\r\n")[0]
    long = b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert b" 400 " in say(server.port, long).partition(b"\r\n")[0]
    wide = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n"
    assert b" 400 " in say(server.port, wide).partition(b"\r\n")[0]
    assert ask(server.port, "GET", "/health").body == b"ok\n"
    assert not [line for line in server.lines if "Traceback" in line]


def test_other_methods_are_refused(server: Running) -> None:
    data = b"posted"
    post = ask(server.port, "POST", path_of(data), data)
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD, PUT")
    assert b"method PUT" in post.body
    assert ask(server.port, "DELETE", path_of(data)).status == 405
    assert ask(server.port, "PUT", "/health", b"").status == 405
    assert server.get(data).status == 404


def test_a_file_that_is_too_large(make: Make) -> None:
    server = make(limits=Limits(max_bytes=100_000))
    data = noise(100_001, 1)
    assert server.put(data).status == 413
    assert ask(server.port, "PUT", path_of(data), iter([data[:60_000], data[60_000:]])).status == 413
    assert server.put(data[:-1]).status == 201
    assert server.metric("holdfast_spooled_bytes") == 0


def test_what_is_compressed_is_refused(server: Running) -> None:
    data = b"a" * 1000
    assert server.put(gzip.compress(data), path_of(data), Content_Encoding="gzip").status == 415


@pytest.mark.parametrize("text", [b"", b"GET /health HTT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_client_that_asks_for_nothing_is_sent_away(make: Make, text: bytes) -> None:
    server = make(limits=Limits(idle_seconds=0.3))
    assert say(server.port, text, seconds=10) == b""
    # who has asked may ask again
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(0.5)


@pytest.mark.parametrize("size", [30_000, 3_000_000])
def test_a_file_that_is_put_together_wrongly_is_never_sent_whole(server: Running, size: int) -> None:
    """Each blob is what it should be, and the whole is not: what a recipe says is not believed either."""
    right, wrong = noise(size, 1), noise(size, 2)
    server.put(right)
    with open_vault(server.store.inner, None) as other:
        recipe = other.recipe(oid_of(right))._replace(oid=oid_of(wrong), digest=bytes(32))
    segment = write_segment(Listing(recipes=[recipe], claimed=[True]), {})
    assert server.store.inner.put_if_absent(f"{INDEX}/{'f' * 32}", segment)
    assert server.get(right).body == right
    if size < 1 << 20:
        assert server.get(wrong).status == 500
    else:
        with pytest.raises(Exception, match=r"IncompleteRead|reset|aborted|Connection"):
            server.get(wrong)
    # a part cannot tell
    assert server.get(wrong, Range="bytes=0-9").body == right[:10]


def test_too_many_requests_are_sent_away(make: Make) -> None:
    server = make(limits=Limits(max_requests=1, max_waiting=1, wait_seconds=0.3))
    data = noise(1000, 1)
    with half_sent(server.port, data) as connection, ThreadPoolExecutor(4) as clients:
        replies = list(clients.map(lambda _: server.get(data), range(4)))
        assert {reply.status for reply in replies} == {503}
        assert all(reply.headers["retry-after"] for reply in replies)
        connection.sendall(data[500:])
        assert connection.recv(12) == b"HTTP/1.1 201"
    assert server.get(data).body == data


def test_an_upload_that_pauses_or_breaks_off_leaves_nothing(make: Make) -> None:
    server = make(limits=Limits(idle_seconds=0.3))
    data = noise(100_000, 1)
    with half_sent(server.port, data) as connection:
        assert connection.recv(12) == b"HTTP/1.1 408"
    with half_sent(server.port, data):
        pass
    until(lambda: server.metric("holdfast_spooled_bytes") == 0)
    assert server.get(data).status == 404
    assert not server.segments()


def test_a_damaged_file_is_never_sent_whole(server: Running) -> None:
    small, large = noise(30_000, 1), noise(3_000_000, 2)
    server.put(small)
    server.put(large)
    for key in keys(server.store.inner, "packs"):
        data = bytearray(server.store.inner.get(key))
        data[len(data) // 2] ^= 1
        server.store.inner.put(key, bytes(data))
    reply = server.get(small)
    assert reply.status == 500
    assert b"memory" not in reply.body
    with pytest.raises(Exception, match=r"IncompleteRead|reset|aborted|Connection"):
        server.get(large)
    assert any("cut off" in line for line in server.lines)


def test_metrics_are_prometheus_text(server: Running) -> None:
    data = noise(300_000, 1)
    server.put(data)
    server.get(data)
    reply = ask(server.port, "GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    helped = set()
    for line in reply.body.decode().splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif not line.startswith("#"):
            name, _, value = line.partition("{")[0].split()[0], None, float(line.rpartition(" ")[2])
            assert value >= 0
            assert {name, name.removesuffix("_bucket"), name.removesuffix("_sum"), name.removesuffix("_count")} & helped
    assert server.metric("holdfast_received_bytes_total") == 300_000
    assert server.metric("holdfast_sent_bytes_total") == 300_000
    assert server.metric('holdfast_requests_total{code="201",method="PUT"}') == 1
    assert server.metric("holdfast_raw_bytes_total") == 300_000
    assert server.metric("holdfast_requests_active") == 0
