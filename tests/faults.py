"""A store that goes wrong when it is told to, over any other one."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from holdfast.objectstore.store import (
    GAP_BYTES,
    RANGE_JOBS,
    Data,
    ObjectInfo,
    ObjectStore,
    UnreachableError,
)

Result = TypeVar("Result")
Kind = Literal["refuse", "lose", "truncate", "flip", "delay", "duplicate"]
READS = frozenset({"get", "get_range", "get_ranges"})
WRITES = frozenset({"put", "put_file", "put_if_absent", "copy", "delete", "delete_many"})
VERBS = READS | WRITES | {"head", "list_objects", "list_folders"}


@dataclass
class Rule:
    """Which calls go wrong, and how.

    Args:
        kind: ``refuse`` raises `UnreachableError` and does nothing; ``lose`` does it and raises that; ``truncate`` gives
            back one byte less of what is read; ``flip`` gives it back with one bit turned; ``delay`` waits before;
            ``duplicate`` does a write twice.
        verbs: of the store; all of them by default.
        every: each n-th call of these.
        at: only the call of that number, counted from 1 over these verbs; 0 for no such limit.
        key: only calls whose key begins so.
    """

    kind: Kind
    verbs: frozenset[str] = VERBS
    every: int = 1
    at: int = 0
    key: str = ""
    seen: int = 0

    def strikes(self, verb: str, key: str) -> bool:
        if verb not in self.verbs or not key.startswith(self.key):
            return False
        self.seen += 1
        return self.seen == self.at if self.at else self.seen % self.every == 0


@dataclass
class FaultyStore:
    """An `ObjectStore` over another one whose calls go wrong by rules.

    Args:
        inner: does the work.
        rules: the first that strikes counts.
        wait: what ``delay`` calls; a test may let another writer go first in it.

    Attributes:
        calls: verb and key of all calls.
    """

    inner: ObjectStore
    rules: Sequence[Rule] = ()
    wait: Callable[[], None] = lambda: None
    calls: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return self.inner.url

    def head(self, key: str) -> ObjectInfo:
        return self._call("head", key, lambda: self.inner.head(key))

    def get(self, key: str, *, etag: str = "") -> bytes:
        return self._read("get", key, lambda: self.inner.get(key, etag=etag))

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:
        return self._read("get_range", key, lambda: self.inner.get_range(key, offset, count, etag=etag))

    def get_ranges(
        self, key: str, spans: Sequence[tuple[int, int]], *, gap_bytes: int = GAP_BYTES, jobs: int = RANGE_JOBS
    ) -> list[memoryview]:
        kind = self._kind("get_ranges", key)
        views = self._done(kind, lambda: self.inner.get_ranges(key, spans, gap_bytes=gap_bytes, jobs=jobs))
        return [*views[:-1], memoryview(_damaged(kind, bytes(views[-1])))] if views else views

    def put(self, key: str, data: Data) -> None:
        self._call("put", key, lambda: self.inner.put(key, data))

    def put_file(self, key: str, path: Path) -> None:
        self._call("put_file", key, lambda: self.inner.put_file(key, path))

    def put_if_absent(self, key: str, data: Data) -> bool:
        return self._call("put_if_absent", key, lambda: self.inner.put_if_absent(key, data))

    def copy(self, source: ObjectInfo, target: str) -> None:
        self._call("copy", source.key, lambda: self.inner.copy(source, target))

    def delete(self, key: str) -> None:
        self._call("delete", key, lambda: self.inner.delete(key))

    def delete_many(self, keys: Iterable[str]) -> None:
        listed = list(keys)
        self._call("delete_many", listed[0] if listed else "", lambda: self.inner.delete_many(listed))

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        kind = self._kind("list_objects", prefix)
        found = self._done(kind, lambda: self.inner.list_objects(prefix, after=after))
        if kind == "truncate":  # a listing that ends early is told, as one over a network is
            yield from list(found)[:-1]
            raise UnreachableError(f"{self.url}/{prefix}: the connection broke")
        yield from found

    def list_folders(self, prefix: str = "") -> list[str]:
        return self._call("list_folders", prefix, lambda: self.inner.list_folders(prefix))

    def _kind(self, verb: str, key: str) -> Kind | None:
        with self._lock:
            self.calls.append((verb, key))
            struck = [rule.kind for rule in self.rules if rule.strikes(verb, key)]
        return struck[0] if struck else None

    def _call(self, verb: str, key: str, do: Callable[[], Result]) -> Result:
        return self._done(self._kind(verb, key), do, writes=verb in WRITES)

    def _read(self, verb: str, key: str, do: Callable[[], bytes]) -> bytes:
        kind = self._kind(verb, key)
        return _damaged(kind, self._done(kind, do))

    def _done(self, kind: Kind | None, do: Callable[[], Result], *, writes: bool = False) -> Result:
        if kind == "refuse":
            raise UnreachableError(f"{self.url}: the connection broke before anything was done")
        if kind == "delay":
            self.wait()
        result = do()
        if kind == "duplicate" and writes:
            do()
        if kind == "lose":
            raise UnreachableError(f"{self.url}: the connection broke before the answer came")
        return result


def _damaged(kind: Kind | None, data: bytes) -> bytes:
    if kind == "truncate":
        return data[:-1]
    if kind == "flip" and data:
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return data
