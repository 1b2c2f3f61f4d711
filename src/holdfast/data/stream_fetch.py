"""Brings files, or ranges of them, from wherever they are: verified where there is something to verify them by."""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from holdfast.data.sources_bytes import MD5_PREFIX, digests_of, form_of
from holdfast.data.stream_cache import StreamCache, WriteBehind
from holdfast.data.stream_files import CorruptSampleError, MissingSampleError, OpenPlace, StreamFile, Supply
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import ChangedError, ObjectNotFoundError
from holdfast.repo.dvcfiles import LISTING_SUFFIX

Result = TypeVar("Result")

# a server that has never answered is more likely a wrong name
UNKNOWN_SECONDS = 12.0
FIRST_SECONDS = 0.2
LONGEST_SECONDS = 5.0
ATTEMPTS = 1000


def patience(seconds: float) -> Retry:
    """Asking again for so many seconds and a tenth more; a server that has never answered for 12 s at most."""
    # with longer waits for an outage of hours, since the attempts have a bound
    longest = max(min(LONGEST_SECONDS, seconds / 10), 4 * seconds / ATTEMPTS, FIRST_SECONDS)
    first, waited = 1, 0.0
    while waited < min(seconds, UNKNOWN_SECONDS):
        waited += 0.75 * min(longest, FIRST_SECONDS * 2.0 ** (first - 1))  # a quarter is left out, on average
        first += 1
    return Retry(
        attempts=ATTEMPTS,
        first_attempts=first,
        first_seconds=FIRST_SECONDS,
        longest_seconds=longest,
        # one that would be asked too late is not asked: it shall have been asked at the end
        limit_seconds=seconds + longest,
    )


class Fetcher:
    """Brings files; used by many threads, in the process that made it.

    Places are opened when they are first needed. A file is looked for in DVC's cache, in the stream's own, and in the
    supply's places, in this order.

    Args:
        supplies: where files come from, by their number.
        keys: for each supply all keys that may be wanted.
        cache: what was fetched is kept there; None to keep nothing.
        retry: when to ask a server again.

    Attributes:
        bytes_from: how many bytes came from where: ``dvc``, ``cache``, or a place's URL.
    """

    def __init__(
        self,
        supplies: Sequence[Supply],
        keys: Callable[[int], Sequence[str]],
        cache: StreamCache | None,
        retry: Retry,
    ) -> None:
        self.bytes_from: Counter[str] = Counter()
        self._supplies, self._keys, self._cache, self._retry = supplies, keys, cache, retry
        self._behind = None if cache is None else WriteBehind(cache)
        self._open: dict[tuple[int, int], OpenPlace | None] = {}
        self._counting, self._opening = threading.Lock(), threading.Lock()

    def whole(self, file: StreamFile) -> bytes:
        """All of a file.

        Raises:
            MissingSampleError: it is nowhere.
            CorruptSampleError: its bytes are not those of its checksum, twice.
            IntegrityError: the object was replaced since the stream was made.
            HoldfastError: a place cannot be read.
        """
        supply = self._supplies[file.supply]
        path = supply.cached(file)
        if path is not None:
            with suppress(OSError):
                data = path.read_bytes()
                if found_in(data, file.checksum) == file.checksum:
                    return self._counted("dvc", data)
        identity = _identity(supply, file)
        if (kept := self._kept(identity)) is not None:
            return kept
        data, url = self._read(file, lambda place: place.read(file))
        if file.checksum and found_in(data, file.checksum) != file.checksum:
            # once more, since it may have been the way; what a bucket has itself stays as it is
            data, url = self._read(file, lambda place: place.read(file))
            if (found := found_in(data, file.checksum)) != file.checksum:
                raise CorruptSampleError(
                    f"{file.name} in {url} is damaged: its bytes have {found} instead of {file.checksum}",
                    hint="Delete the object, and push it from a clone that has it: `dvc push`, `holdfast push`",
                )
        self._keep(identity, data)
        return self._counted(url, data)

    def part(self, file: StreamFile, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes of a file. There is no checksum of them: length and state of the object are held to.

        Raises:
            as of `whole`, but for `CorruptSampleError`.
        """
        supply = self._supplies[file.supply]
        path = supply.cached(file)
        if path is not None:
            with suppress(OSError), open(path, "rb", buffering=0) as stream:
                data = os.pread(stream.fileno(), count, offset)
                if len(data) == count:
                    return self._counted("dvc", data)
        identity = _identity(supply, file)
        identity = f"{identity} {offset}+{count}" if identity else ""
        if (kept := self._kept(identity)) is not None:
            return kept
        data, url = self._read(file, lambda place: place.read_range(file, offset, count))
        self._keep(identity, data)
        return self._counted(url, data)

    def size(self, file: StreamFile) -> int:
        """The bytes of a file.

        Raises:
            as of `part`.
        """
        if file.size is not None:
            return file.size
        path = self._supplies[file.supply].cached(file)
        if path is not None:
            with suppress(OSError):
                return path.stat().st_size
        return self._read(file, lambda place: place.size(file))[0]

    def flush(self) -> None:
        """Wait until all that was fetched is in the cache, for those who come next."""
        if self._behind is not None:
            self._behind.flush()

    def _read(self, file: StreamFile, read: Callable[[OpenPlace], Result]) -> tuple[Result, str]:
        """What the first place gives that has a file, and its URL."""
        supply = self._supplies[file.supply]
        for number, place in enumerate(supply.places):
            opened = self._opened(file.supply, number)
            if opened is None:
                continue
            try:
                return read(opened), place.url
            except ObjectNotFoundError:
                continue
            except ChangedError as error:
                raise IntegrityError(
                    f"{file.name} was replaced in {place.url} since the stream was made",
                    hint="Make the stream anew; what DVC tracks does not change under a training",
                ) from error
        what = f"{file.name} ({file.checksum})" if file.checksum else file.name
        raise MissingSampleError(f"{what} is not in {supply.told()}", hint=supply.remedy or None)

    def _opened(self, supply: int, number: int) -> OpenPlace | None:
        with self._opening:
            if (supply, number) not in self._open:
                place = self._supplies[supply].places[number]
                self._open[supply, number] = place.open(self._keys(supply), self._retry)
            return self._open[supply, number]

    def _kept(self, identity: str) -> bytes | None:
        if self._cache is None or not identity:
            return None
        data = self._cache.get(identity)
        return None if data is None else self._counted("cache", data)

    def _keep(self, identity: str, data: bytes) -> None:
        if self._behind is not None and identity:
            self._behind.put(identity, data)

    def _counted(self, where: str, data: bytes) -> bytes:
        with self._counting:
            self.bytes_from[where] += len(data)
        return data


def found_in(data: bytes, checksum: str) -> str:
    """The checksum of bytes, taken as another one was; empty for none."""
    if checksum.startswith(MD5_PREFIX):
        suffix = LISTING_SUFFIX if checksum.endswith(LISTING_SUFFIX) else ""
        return f"{MD5_PREFIX}{hashlib.md5(data, usedforsecurity=False).hexdigest()}{suffix}"
    if not checksum:
        return ""
    form = form_of(checksum)
    digests: Mapping[str, str] = digests_of([data], checksum)
    if form not in digests:
        raise HoldfastError(f"{checksum} is a checksum of a kind that is not known", hint="md5, sha256 and blake3 are")
    return f"{form}:{digests[form]}"


def _identity(supply: Supply, file: StreamFile) -> str:
    """What names a file's bytes for ever; empty where nothing does, or where they are on this machine anyway."""
    if supply.local:
        return ""
    if file.checksum:
        return file.checksum
    return f"{supply.places[0].url} {file.key} {file.etag} {file.size}" if file.etag else ""
