"""A bucket behind a network that fails: what is asked again, what is not, and what is said."""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import (
    BucketNotFoundError,
    DeniedError,
    ObjectInfo,
    ObjectNotFoundError,
    ObjectStore,
    RefusedError,
    StoreError,
    ThrottledError,
    UnreachableError,
)
from proxy import Fault, Proxy, proxy
from servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

STALL = 0.5
TOKEN = "a-token-that-nobody-may-see"


@dataclass
class Clock:
    """Time that passes only where someone sleeps."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def retry(self, **more: Any) -> Retry:
        return Retry(sleep=self.sleep, clock=lambda: self.now, jitter=lambda: 1.0, **more)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def link(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy(s3_server.port) as running:
        yield running


@pytest.fixture
def store(link: Proxy, s3_server: S3Server, s3_folder: str, clock: Clock) -> ObjectStore:
    link.inject()
    link.forget()
    link.megabytes_per_second = None
    opened = open_store(s3_folder, s3_server.options(link.endpoint, stall_seconds=STALL), retry=clock.retry())
    opened.put("there", b"0123456789" * 1000)
    link.forget()
    return opened


THERE = ObjectInfo("there", 10_000, "", datetime.now(timezone.utc))
CALLS: dict[str, tuple[str, Callable[[ObjectStore], Any], Any]] = {
    "head": ("HEAD", lambda store: store.head("there").size, 10_000),
    "get": ("GET", lambda store: store.get("there"), b"0123456789" * 1000),
    "get_range": ("GET", lambda store: store.get_range("there", 3, 5000), (b"0123456789" * 501)[3:5003]),
    "get_ranges": ("GET", lambda store: bytes(store.get_ranges("there", [(1, 2)])[0]), b"12"),
    "put": ("PUT", lambda store: store.put("new", b"new"), None),
    "put_if_absent": ("PUT", lambda store: store.put_if_absent("new", b"new"), True),
    "copy": ("PUT", lambda store: store.copy(THERE, "new"), None),
    "delete": ("DELETE", lambda store: store.delete("there"), None),
    "delete_many": ("POST", lambda store: store.delete_many(["there", "other"]), None),
    "list_objects": ("GET", lambda store: [info.key for info in store.list_objects()], ["there"]),
    "list_folders": ("GET", lambda store: store.list_folders(), []),
}
PASSING = {
    "500": Fault("status", 500),
    "503 SlowDown": Fault("status", 503, "SlowDown"),
    "429": Fault("status", 429, "TooManyRequests"),
    "408": Fault("status", 408, "RequestTimeout"),
    "the connection breaks before": Fault("reset"),
    "the answer is lost": Fault("lost"),
    "silence": Fault("silence"),
}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("verb", CALLS)
def test_a_passing_fault_is_not_seen(store: ObjectStore, link: Proxy, verb: str, fault: str) -> None:
    method, call, result = CALLS[verb]
    kind = PASSING[fault]
    link.inject(Fault(kind.kind, kind.status, kind.code, method=method))
    assert call(store) == result
    assert link.count(method) >= 2
    link.inject()
    there = sorted(info.key for info in store.list_objects())
    new = ["new", "there"]
    changed = {"put": new, "put_if_absent": new, "copy": new, "delete": [], "delete_many": []}
    assert there == changed.get(verb, ["there"])


@pytest.mark.parametrize("verb", ["get", "get_range", "list_objects", "list_folders"])
def test_a_body_cut_short_is_asked_for_again(store: ObjectStore, link: Proxy, verb: str) -> None:
    method, call, result = CALLS[verb]
    link.inject(Fault("cut", method=method, times=2))
    assert call(store) == result
    assert link.count(method) == 3


@pytest.mark.parametrize("verb", CALLS)
def test_attempts_are_bounded(store: ObjectStore, link: Proxy, clock: Clock, verb: str) -> None:
    method, call, _ = CALLS[verb]
    link.inject(Fault("status", 500, method=method, times=1000))
    with pytest.raises(UnreachableError, match=r"a fault of its own \(500.*Try again later") as caught:
        call(store)
    assert not isinstance(caught.value, ThrottledError)
    assert link.count(method) == 8
    assert clock.waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8]


def test_waits_are_random_grow_and_end(clock: Clock) -> None:
    def fail() -> None:
        clock.now += 1
        raise error

    error: UnreachableError = UnreachableError("gone")
    with pytest.raises(UnreachableError):
        clock.retry(longest_seconds=2).run(fail)
    assert clock.waits == [0.2, 0.4, 0.8, 1.6, 2, 2, 2]

    clock.waits.clear()
    error = ThrottledError("slower")  # R2: one write a second for one key
    with pytest.raises(ThrottledError):
        clock.retry().run(fail)
    assert clock.waits == [1.5, 1.5, 1.5, 1.6, 3.2, 6.4, 12.8]
    lowest = Retry(sleep=clock.sleep, clock=lambda: clock.now, jitter=lambda: 0.0)
    clock.waits.clear()
    with pytest.raises(ThrottledError):
        lowest.run(fail)
    assert clock.waits == [1, 1, 1, 1, 1.6, 3.2, 6.4]

    clock.waits.clear()
    slow = clock.retry(limit_seconds=0.5)  # each attempt takes a second: after the first, one more
    with pytest.raises(ThrottledError):
        slow.run(fail)
    assert len(clock.waits) == 1
    with pytest.raises(KeyError):
        clock.retry().run(lambda: {}["other errors are not ours"])
    assert len(clock.waits) == 1


FINAL = {
    "403": (Fault("status", 403, "AccessDenied", "no way"), DeniedError, r"access denied \(403 AccessDenied: no way\)"),
    "401": (Fault("status", 401, "Unauthorized"), DeniedError, "access denied"),
    "400": (Fault("status", 400, "InvalidArgument", "odd"), RefusedError, r"refuses \(400 InvalidArgument: odd\)"),
    "501": (Fault("status", 501, "NotImplemented"), RefusedError, "501 NotImplemented"),
    "no bucket": (Fault("status", 404, "NoSuchBucket"), BucketNotFoundError, r"no bucket s3://tests\. The server"),
}


@pytest.mark.parametrize("fault", FINAL)
@pytest.mark.parametrize("verb", [verb for verb in CALLS if verb not in ("head", "delete_many")])
def test_a_final_refusal_is_told_at_once(store: ObjectStore, link: Proxy, verb: str, fault: str) -> None:
    method, call, _ = CALLS[verb]
    final, error, text = FINAL[fault]
    link.inject(Fault(final.kind, final.status, final.code, final.message, method=method, times=99))
    with pytest.raises(error, match=text):
        call(store)
    # not by what it waited: on a busy machine a connection may fail before anything is asked
    assert link.count(method) == 1


def test_created_and_the_answer_lost(store: ObjectStore, link: Proxy) -> None:
    link.inject(Fault("lost", method="PUT", times=2))
    assert store.put_if_absent("index/a", b"ours")
    assert link.methods() == {"PUT": 3, "GET": 1}
    assert not store.put_if_absent("index/a", b"ours")  # it was there, and no answer was lost

    # the same where a fault is reported though it was done
    link.inject(Fault("lost", method="PUT"), Fault("status", 500, method="GET"))
    assert store.put_if_absent("index/b", b"ours")


def test_another_created_it_and_the_answer_was_lost(store: ObjectStore, link: Proxy) -> None:
    store.put("index/a", b"theirs")
    link.inject(Fault("lost", method="PUT"))
    assert not store.put_if_absent("index/a", b"ours")
    assert store.get("index/a") == b"theirs"


def test_throttled_is_no_lost_answer(store: ObjectStore, link: Proxy) -> None:
    """429 says that nothing was done, so equal bytes are another's."""
    store.put("index/a", b"same")
    link.inject(Fault("status", 429, "TooManyRequests", method="PUT"))
    assert not store.put_if_absent("index/a", b"same")


def test_created_and_deleted_by_another_meanwhile(store: ObjectStore, link: Proxy) -> None:
    link.inject(Fault("reset", method="PUT"), Fault("status", 412, "PreconditionFailed", method="PUT"))
    assert store.put_if_absent("index/a", b"ours")  # lost, refused, not there, and then created
    assert store.get("index/a") == b"ours"
    assert link.count("PUT") == 3


def test_a_conflict_is_no_refusal(store: ObjectStore, link: Proxy) -> None:
    """409: another create is under way, and may fail yet."""
    link.inject(Fault("status", 409, "ConditionalRequestConflict", method="PUT", times=2))
    assert store.put_if_absent("index/a", b"ours")


def test_nobody_knows(store: ObjectStore, link: Proxy) -> None:
    link.inject(Fault("lost", method="PUT", times=99))
    with pytest.raises(UnreachableError, match="the connection broke"):
        store.put_if_absent("index/a", b"ours")
    link.inject()
    assert store.get("index/a") == b"ours"  # which the error leaves open


def test_a_page_that_fails_is_asked_for_again(store: ObjectStore, link: Proxy) -> None:
    names = [f"many/{number:04}" for number in range(1500)]
    list(concurrently(lambda key: store.put(key, b""), names, 8))
    link.forget()
    link.inject(
        Fault("status", 429, "SlowDown", method="GET", skip=1),
        Fault("cut", method="GET", skip=2),
        Fault("reset", skip=0),
    )
    assert [info.key for info in store.list_objects("many")] == names
    assert link.count("GET") == 5
    link.inject(Fault("status", 400, "InvalidArgument", method="GET", skip=1))
    listing = store.list_objects("many")
    seen = [next(listing).key for _ in range(1000)]
    assert seen == names[:1000]
    with pytest.raises(RefusedError):  # a listing that is not whole does not end as if it were
        next(listing)


def test_a_server_with_an_order_of_its_own_is_not_asked_for_the_rest(store: ObjectStore, link: Proxy) -> None:
    """It might leave out what it thinks lies before."""
    names = [f"many/a/{number:04}" for number in range(1200)] + ["many/a.txt"]
    list(concurrently(lambda key: store.put(key, b""), names, 8))
    link.inject(Fault("cut", method="GET", skip=1))
    listing = store.list_objects("many")
    assert next(listing).key == "many/a/0000"
    assert [info.key for info in listing][-1] == "many/a.txt"  # in order so far, so the rest could be asked for
    store.put("many/a/z", b"")
    store.put("many/0/first", b"")
    store.put("many/0.txt", b"")  # SeaweedFS: behind what is in 0/
    link.inject(Fault("cut", method="GET", skip=1))
    with pytest.raises(UnreachableError):
        list(store.list_objects("many"))


def test_what_marks_a_folder_is_no_object_in_it(s3_server: S3Server, s3_folder: str) -> None:
    top = s3_folder.rpartition("/")[2]
    for key in (f"{top}/", f"{top}/models/", f"{top}/models/m"):
        s3_server.client().put_object(Bucket=BUCKET, Key=key, Body=b"")
    store = open_store(s3_folder, s3_server.options())
    assert [info.key for info in store.list_objects("models")] == ["models/m"]
    assert [info.key for info in store.list_objects()] == ["models", "models/m"]
    assert store.list_folders() == ["models"]


def test_deletion_in_bulk(store: ObjectStore, link: Proxy) -> None:
    names = [f"many/{number:04}" for number in range(1500)]
    store.delete_many(names)
    assert link.methods() == {"POST": 2}
    store.delete_many(["one"])
    assert link.methods() == {"POST": 2, "DELETE": 1}


def test_one_key_that_may_not_be_deleted(store: ObjectStore, link: Proxy) -> None:
    for number in range(5):
        store.put(f"d/{number}", b"")
    link.inject(
        Fault("status", 403, "AccessDenied", method="POST"),
        Fault("status", 403, "AccessDenied", method="DELETE", path="/d/2", times=9),
    )
    with pytest.raises(DeniedError, match="/d/2: access denied"):
        store.delete_many([f"d/{number}" for number in range(5)])
    assert [info.key for info in store.list_objects("d")] == ["d/2"]


def test_a_part_that_fails_is_sent_again(store: ObjectStore, link: Proxy, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(40_000_000))
    link.inject(
        Fault("status", 500, method="PUT", path="partNumber=2"), Fault("lost", method="PUT", path="partNumber=3")
    )
    store.put_file("file", tmp_path / "file")
    assert link.count("PUT", "partNumber") == 5
    assert store.head("file").size == 40_000_000


def test_neighbours_are_fetched_together(store: ObjectStore, link: Proxy) -> None:
    store.put("pack", os.urandom(3_000_000))
    link.forget()
    spans = [(offset, 1000) for offset in range(0, 400_000, 2000)]
    store.get_ranges("pack", [*spans, (2_900_000, 5)])
    assert link.count("GET") == 2
    assert link.bytes_down < 420_000
    store.get_ranges("pack", spans[:3], gap_bytes=0)
    assert link.count("GET") == 5


def test_what_the_server_says_of_the_request_is_not_repeated(
    s3_server: S3Server, link: Proxy, s3_folder: str, clock: Clock
) -> None:
    """A server that refuses a signature quotes what was signed, the session's token in it."""
    options = s3_server.options(link.endpoint, session_token=TOKEN)
    store = open_store(s3_folder, options, retry=clock.retry())
    quoted = f"<CanonicalRequest>GET x-amz-security-token:{TOKEN}</CanonicalRequest><Secret>{SECRET_KEY}</Secret>"
    for status, code in ((403, "SignatureDoesNotMatch"), (400, "InvalidRequest"), (500, "InternalError")):
        link.inject(Fault("status", status, code, details=quoted, times=99))
        with pytest.raises(StoreError) as caught:
            store.get("key")
        link.inject()
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(store) + repr(options)
        assert code in told
        assert TOKEN not in told
        assert SECRET_KEY not in told


def test_wrong_and_missing_credentials(s3_server: S3Server, s3_folder: str, clock: Clock, tmp_path: Path) -> None:
    wrong = replace(s3_server.options(), secret_access_key="wrong")
    with pytest.raises(DeniedError, match=r"s3://tests/\w+/key: access denied .*127\.0\.0\.1:\d+") as caught:
        open_store(s3_folder, wrong, retry=clock.retry()).get("key")
    assert ACCESS_KEY not in str(caught.value)
    with pytest.raises(DeniedError, match="there are no credentials for s3://"):
        open_store(s3_folder, replace(wrong, access_key_id=None, secret_access_key=None, home=tmp_path))
    with pytest.raises(DeniedError, match="go together"):
        open_store(s3_folder, replace(wrong, access_key_id=None))
    nobody = open_store(s3_folder, replace(wrong, access_key_id=None, secret_access_key=None, anonymous=True))
    with pytest.raises(DeniedError):
        nobody.get("key")


def test_servers_that_are_not_there(s3_server: S3Server, clock: Clock) -> None:
    nowhere = open_store("s3://bucket", s3_server.options("http://127.0.0.1:1"), retry=clock.retry())
    with pytest.raises(
        UnreachableError, match=r"the connection was refused\. The server that was asked is 127\.0\.0\.1:1$"
    ):
        nowhere.get("key")
    assert len(clock.waits) == 2  # its name is likely to be wrong
    unknown = open_store("s3://bucket", s3_server.options("http://no.invalid"), retry=clock.retry(attempts=1))
    with pytest.raises(UnreachableError, match="the server's name is not known"):
        unknown.put("key", b"")
    plain = open_store(
        "s3://bucket", s3_server.options(f"https://127.0.0.1:{s3_server.port}"), retry=clock.retry(attempts=1)
    )
    with pytest.raises(UnreachableError, match="the connection broke"):
        plain.get("key")
    missing = open_store("s3://no-such-bucket-here", s3_server.options(), retry=clock.retry())
    with pytest.raises(BucketNotFoundError, match="there is no bucket s3://no-such-bucket-here"):
        missing.put("key", b"")
    with pytest.raises(BucketNotFoundError):
        list(missing.list_objects())
    with pytest.raises(ObjectNotFoundError):  # a HEAD has no body to say more
        missing.head("key")


def test_a_server_that_was_there_is_waited_for(s3_server: S3Server, s3_folder: str, clock: Clock) -> None:
    with proxy(s3_server.port) as link:
        store = open_store(s3_folder, s3_server.options(link.endpoint), retry=clock.retry())
        store.put("key", b"1")
    with pytest.raises(UnreachableError, match="the connection was refused"):
        store.get("key")
    assert len(clock.waits) == 7


def test_never_connected_is_no_lost_answer(s3_server: S3Server, s3_folder: str, clock: Clock) -> None:
    """Equal bytes are another's where nothing of ours was ever sent."""
    with ExitStack() as stack:
        port = 0

        def start(seconds: float) -> None:
            clock.sleep(seconds)
            if len(clock.waits) == 2:
                stack.enter_context(proxy(s3_server.port, port))

        with proxy(s3_server.port) as link:
            port = link.port
        retry = replace(clock.retry(), sleep=start)
        store = open_store(s3_folder, s3_server.options(link.endpoint), retry=retry)
        open_store(s3_folder, s3_server.options()).put("key", b"same")
        assert not store.put_if_absent("key", b"same")
        assert len(clock.waits) == 2


def test_the_process_environment_changes_nothing(
    store: ObjectStore, link: Proxy, s3_server: S3Server, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_SESSION_TOKEN": TOKEN,
        "AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other", "AWS_SKIP_SIGNATURE": "true", "AWS_REGION": "eu",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_UNSIGNED_PAYLOAD": "false", "AWS_BUCKET": "another",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    other = open_store(s3_folder, s3_server.options(link.endpoint))
    other.put("new", b"new")
    assert other.get("there") == store.get("there")
    for request in link.requests:
        assert "x-amz-security-token" not in request.headers
        assert "/us-east-1/s3/" in request.headers["authorization"]
        assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        assert request.path.startswith(f"/{BUCKET}/")


def test_interrupted_at_once(link: Proxy, s3_folder: str) -> None:
    """Ctrl-C ends a command that waits for a server which says nothing."""
    link.inject(Fault("silence", times=99))
    script = (
        # what a shell starts in the background ignores SIGINT, and so does all that is started by it
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from holdfast.objectstore.opening import open_store;"
        "from holdfast.objectstore.options import StoreOptions;"
        f"store = open_store('{s3_folder}', StoreOptions(endpoint='{link.endpoint}', access_key_id='a', secret_access_key='b'));"
        "print('asking', flush=True); store.get('key')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asking\n"
    before = link.count()
    end = time.monotonic() + 10
    while link.count() == before and time.monotonic() < end:
        time.sleep(0.02)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert "KeyboardInterrupt" in errors
    link.inject()


def test_a_fork_is_refused(s3_server: S3Server, s3_folder: str) -> None:
    """obstore in a fork would hang there and bring down its parent."""
    script = (
        "import os; from holdfast.objectstore.opening import open_store;"
        "from holdfast.objectstore.options import StoreOptions; from holdfast.objectstore.store import StoreError\n"
        f"store = open_store('{s3_folder}', StoreOptions(endpoint='{s3_server.endpoint}', access_key_id='{ACCESS_KEY}',"
        f" secret_access_key='{SECRET_KEY}'))\n"
        "store.put('key', b'1')\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    try: store.get('key')\n"
        "    except StoreError as error: print(error, flush=True)\n"
        "    os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), store.get('key'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("buckets cannot be used in a process forked")
    assert done.stdout.endswith("7 b'1'\n")


def test_the_link_can_be_slow(store: ObjectStore, link: Proxy) -> None:
    data = os.urandom(3_000_000)
    link.megabytes_per_second = 10
    start = time.monotonic()
    store.put("slow", data)
    up = time.monotonic() - start
    assert store.get("slow") == data
    both = time.monotonic() - start
    assert 0.25 < up < 3
    assert 0.55 < both < 6
    assert link.bytes_up == 3_000_000
