"""Group commit: what many clients send within half a second is one session, and nobody is answered before it counts.

A client that is told that a file is there will not send it. So a file counts as there for a client that may write only
when a segment claims it: the collector then leaves it for as long as its minimum age says. What was claimed an hour
ago is claimed again when it is asked for; the minimum age must be a good deal longer than that.

A folder's listing stands for the files in it, since DVC does not ask for these once it is told that the listing is
there: they are claimed with it.
"""

import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.vault.families import Families
from holdfast.vault.oids import InvalidOidError, check_oid
from holdfast.vault.records import ConflictError
from holdfast.vault.repository import Vault
from holdfast.vault.server_metrics import Metrics
from holdfast.vault.server_spool import Upload
from holdfast.vault.session import FileToPut, RevokedError, Session

GROUP_SECONDS = 0.5
# nothing more comes that is not on its way already
QUIET_SECONDS = 0.02
GROUP_BYTES = 1 << 30
GROUP_FILES = 10_000
# uploads from this size on go in groups of their own, so that nobody else waits while they are encoded
LARGE_BYTES = 16 << 20
CLAIM_SECONDS = 3600.0
MAX_CLAIMED = 200_000
MAX_LISTING_BYTES = 256 << 20
DIRECTORY = ".dir"


class ServerStoppedError(HoldfastError):
    """The server is ending."""


@dataclass
class _Wish:
    """What a client waits for: that a file is put, or only claimed.

    Attributes:
        oid: the file.
        upload: its bytes; None where it should be there.
        done: whether it is there, and for an upload whether it was not before.
    """

    oid: str
    upload: Upload | None
    done: "Future[bool]" = field(default_factory=Future)


class Committer:
    """Puts and claims, in groups; may be used from many threads.

    Args:
        vault: the vault.
        metrics: are told of each group.
        log: is told of what fails.
        clock: seconds, of no meaning but their differences.
    """

    def __init__(
        self,
        vault: Vault,
        metrics: Metrics,
        log: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vault, self._metrics, self._log, self._clock = vault, metrics, log, clock
        self._families = Families(vault.index)
        self._claimed: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._arriving = 0
        self._small = _Lane(self, "holdfast-commit")
        self._large = _Lane(self, "holdfast-commit-large")

    @property
    def arriving(self) -> int:
        """Uploads that have begun and are no wishes yet."""
        return self._arriving

    def arrives(self, change: int) -> None:
        """An upload has begun (1), or is a wish or given up (-1)."""
        with self._lock:
            self._arriving += change

    def put(self, upload: Upload) -> "Future[bool]":
        """Put a file that has arrived; whether it was not there before, once that counts.

        The upload belongs to the committer from here on. Of several of one file at once, one is put.

        The future raises:
            ConflictError: the vault has another content under this oid.
            HoldfastError: it could not be committed; sending it again may help.
        """
        lane = self._large if upload.size >= LARGE_BYTES else self._small
        return lane.add(_Wish(upload.oid, upload))

    def claim(self, oid: str) -> "Future[bool]":
        """See that a file stays; whether it is there, once its claim counts.

        The future raises:
            HoldfastError: it could not be committed.
        """
        with self._lock:
            since = self._claimed.get(oid)
        if since is not None and self._clock() - since < CLAIM_SECONDS:
            known: Future[bool] = Future()
            known.set_result(True)
            return known
        return self._small.add(_Wish(oid, None))

    def forget_claims(self) -> None:
        """Claim all anew: a collector was here."""
        with self._lock:
            self._claimed.clear()

    def stop(self, seconds: float) -> bool:
        """End when all that was wished for is done; whether that was so in time."""
        until = time.monotonic() + seconds
        lanes = (self._small, self._large)
        for lane in lanes:
            lane.stop()
        return all(lane.join(max(0.0, until - time.monotonic())) for lane in lanes)

    def commit(self, first: _Wish, more: Callable[[float, int, int], list[_Wish]]) -> None:
        """Fulfil a wish and those that come soon after, all with one segment.

        Args:
            first: the wish.
            more: gives others that come until a moment, given how many and how many bytes there are.
        """
        wishes = [first]
        began, until = self._clock(), time.monotonic() + GROUP_SECONDS
        group = _Group()
        failure: HoldfastError | None = None
        try:
            try:
                self._try(wishes, group, lambda count, nbytes: more(until, count, nbytes))
            except RevokedError:  # a collector waited too long for us: once more, with all that is here
                group = _Group()
                self._try(wishes, group, lambda _count, _nbytes: [])
        except BaseException as raised:  # whatever it is, nobody may wait for ever
            failure = raised if isinstance(raised, HoldfastError) else _UnexpectedError(raised)
            self._log(f"A group of {len(wishes)} could not be committed: {failure}")
        self._metrics.count("groups_total", result="failed" if failure else "committed")
        self._metrics.observe("commit_seconds", self._clock() - began)
        if failure is None:
            self._remember(group.claimed)
        for wish in wishes:
            if wish.upload is not None:
                wish.upload.discard()
        for wish in wishes:
            error = failure or (group.failed.get(wish.oid) if wish.upload is not None else None)
            if error is not None:
                wish.done.set_exception(error)
            else:
                wish.done.set_result(wish.oid in (group.new if wish.upload is not None else group.claimed))

    def _try(self, wishes: list[_Wish], group: "_Group", more: Callable[[int, int], list[_Wish]]) -> None:
        """One session for the wishes, to which those are added that come meanwhile."""
        part = list(wishes)
        with self._vault.session(families=self._families) as session:
            while part:
                self._put(session, [wish for wish in part if wish.upload is not None], group)
                self._claim(session, [wish for wish in part if wish.upload is None], group)
                part = more(len(wishes), sum(wish.upload.size for wish in wishes if wish.upload is not None))
                wishes += part
            statistics = session.commit()
        for name, amount in (
            ("files_total", statistics.files),
            ("raw_bytes_total", statistics.raw_bytes),
            ("stored_bytes_total", statistics.stored_bytes),
            ("revived_total", group.revived),
        ):
            self._metrics.count(name, amount)

    def _put(self, session: Session, wishes: list[_Wish], group: "_Group") -> None:
        for wish in wishes:
            if wish.upload is not None and not self._agrees(wish.upload):
                group.failed[wish.oid] = _conflict(wish.oid)
        oids = [wish.oid for wish in wishes if wish.oid not in group.failed]
        if not oids:
            return
        known = session.known(oids)
        group.new |= set(oids) - known

        def fail(oid: str, error: HoldfastError) -> None:
            group.failed[oid] = error
            group.new.discard(oid)

        def files() -> Iterator[FileToPut]:
            for wish in wishes:
                if wish.upload is not None and wish.oid not in group.failed:
                    yield FileToPut(wish.oid, wish.upload.path)

        session.put_many(files(), fail)
        group.claimed |= set(oids) - group.failed.keys()
        for wish in wishes:
            if wish.upload is not None and wish.oid.endswith(DIRECTORY) and wish.oid not in group.failed:
                data = wish.upload.path.read_bytes() if wish.upload.size <= MAX_LISTING_BYTES else b""
                self._keep(session, members(wish.oid, data), group)

    def _agrees(self, upload: Upload) -> bool:
        """Whether the vault has nothing else under the name of an upload: an md5 may be of two files."""
        try:
            known = self._vault.index.digests([upload.oid]).get(upload.oid)
        except ConflictError:  # it has two already
            return False
        return known in (None, (upload.size, upload.digest))

    def _claim(self, session: Session, wishes: list[_Wish], group: "_Group") -> None:
        there = self._keep(session, [wish.oid for wish in wishes], group)
        for oid in there:
            if oid.endswith(DIRECTORY):
                self._keep(session, members(oid, self._listing(oid)), group)

    def _listing(self, oid: str) -> bytes:
        try:
            file = self._vault.open(oid)
            return file.read(0, file.size) if file.size <= MAX_LISTING_BYTES else b""
        except IntegrityError as error:  # whoever reads it is told; the others of the group are not to blame
            self._log(f"What {oid} lists cannot be kept: {error}")
            return b""

    def _keep(self, session: Session, oids: Collection[str], group: "_Group") -> set[str]:
        """Claim those that are there; those that are condemned are put again. Returns both."""
        wanted = set(oids) - group.claimed
        known = session.known(wanted)
        session.claim(sorted(known))
        kept = known | (set(oids) & group.claimed)
        for oid in sorted(self._vault.exists(wanted - known)):
            try:
                session.put(oid, self._vault.open(oid))
            except IntegrityError as error:  # what is condemned and damaged is not there
                self._log(f"{oid} is condemned, and cannot be kept: {error}")
            else:
                group.revived += 1
                kept.add(oid)
        group.claimed |= kept
        return kept

    def _remember(self, oids: Iterable[str]) -> None:
        now = self._clock()
        with self._lock:
            for oid in oids:
                self._claimed[oid] = now
                self._claimed.move_to_end(oid)
            while len(self._claimed) > MAX_CLAIMED:
                self._claimed.popitem(last=False)


@dataclass
class _Group:
    """What became of the wishes of a group.

    Attributes:
        new: files that were put.
        claimed: files that count with the group's segment.
        failed: uploads that are not put, and why.
        revived: how many were condemned.
    """

    new: set[str] = field(default_factory=set)
    claimed: set[str] = field(default_factory=set)
    failed: dict[str, HoldfastError] = field(default_factory=dict)
    revived: int = 0


class _Lane:
    """One thread, with one session after the other."""

    def __init__(self, committer: Committer, name: str) -> None:
        self._committer = committer
        self._changed = threading.Condition()
        self._queue: deque[_Wish] = deque()
        self._open: dict[tuple[str, bool], _Wish] = {}
        self._stopping = False
        # a daemon: a store that does not answer cannot keep a process that was told to end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, wish: _Wish) -> "Future[bool]":
        key = (wish.oid, wish.upload is None)
        with self._changed:
            same = self._open.get(key)
            if same is None and not self._stopping:
                self._open[key] = wish
                self._queue.append(wish)
                self._changed.notify_all()
                wish.done.add_done_callback(lambda _: self._closed(key))
                return wish.done
        if wish.upload is not None:
            wish.upload.discard()
        if same is not None and wish.upload is not None and same.upload is not None:
            if wish.upload.digest == same.upload.digest:
                return same.done
            wish.done.set_exception(_conflict(wish.oid))
            return wish.done
        if same is not None:
            return same.done
        wish.done.set_exception(ServerStoppedError("The server is ending", hint="Try again when it is back"))
        return wish.done

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _closed(self, key: tuple[str, bool]) -> None:
        with self._changed:
            self._open.pop(key, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    return
                first = self._queue.popleft()
            self._committer.commit(first, self._more)

    def _more(self, until: float, count: int, nbytes: int) -> list[_Wish]:
        """What else has come; none when the group is full, its time is over, or nothing more is on its way."""
        with self._changed:
            while count < GROUP_FILES and nbytes < GROUP_BYTES:
                if self._queue:
                    found: list[_Wish] = []
                    while self._queue and count + len(found) < GROUP_FILES and nbytes < GROUP_BYTES:
                        found.append(self._queue.popleft())
                        nbytes += found[-1].upload.size if found[-1].upload else 0
                    return found
                left = until - time.monotonic()
                if left <= 0 or self._stopping:
                    break
                if not self._changed.wait(min(left, QUIET_SECONDS)) and not self._committer.arriving:
                    break
        return []


class _UnexpectedError(HoldfastError):
    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")


def members(oid: str, data: bytes) -> list[str]:
    """The files of a folder, by the bytes of its listing; none where it is no listing."""
    kind = oid.partition(":")[0]
    found: dict[str, None] = {}
    try:
        for entry in json.loads(data):
            found[check_oid(f"{kind}:{entry['md5']}")] = None
    except (ValueError, TypeError, KeyError, RecursionError, InvalidOidError):
        return []
    return list(found)


def _conflict(oid: str) -> ConflictError:
    return ConflictError(f"{oid} has another content in the vault than what was sent")
