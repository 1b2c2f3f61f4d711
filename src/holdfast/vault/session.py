"""One writer's visit to a vault: announce, look, put, commit.

The order is what safety rests on (docs/design/vault.md): the session is announced before the index is read, packs
are in the store before the segment that names them, and the segment is the one moment at which all of it counts.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeAlias

from blake3 import blake3

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.source import FileSource, Source, read_exactly
from holdfast.objectstore.store import StoreError
from holdfast.vault.casts import CastFiles
from holdfast.vault.coders import Coders
from holdfast.vault.config import Config
from holdfast.vault.counting import CountingStore
from holdfast.vault.encoding import FileEncoder, Tally
from holdfast.vault.families import Families
from holdfast.vault.index import Index
from holdfast.vault.journal import Journal
from holdfast.vault.measuring import Bundle
from holdfast.vault.oids import check_md5, check_oid, hasher_of
from holdfast.vault.pipeline import Pipeline
from holdfast.vault.records import ConflictError
from holdfast.vault.segment import INDEX, SESSIONS, write_segment
from holdfast.vault.sink import PackSink
from holdfast.vault.small_files import SMALL_BYTES, SmallFile, read_small
from holdfast.vault.split import Split, split_source

BUNDLE_BYTES = 1 << 20
FILES_A_LOOK = 1000


def _nobody(_oid: str, _size: int) -> None:
    """Is told, and says nothing."""


class RevokedError(HoldfastError):
    """A collector ended the session before it committed: what it sent does not count."""


class FileToPut(NamedTuple):
    """A file for `Session.put_many`.

    Attributes:
        oid: its name.
        path: where it is.
        base_oid: another version of it, against which its parts may be stored; None for what the session's families
            know, empty for none at all.
        base_path: where that is, if it is on this machine; saves fetching it.
        max_restore_ratio: as of `Session`, for this file; None for the session's.
        cast_oid: a file of which it may be a cast, with the same tensors in wider numbers; None for what the session's
            casts know.
    """

    oid: str
    path: "str | Path"
    base_oid: str | None = None
    base_path: "str | Path | None" = None
    max_restore_ratio: float | None = None
    cast_oid: str | None = None


class _Failures:
    """Keeps what went wrong with files until it can be raised: within the pipeline it would end all that follow."""

    def __init__(self) -> None:
        self._errors: list[HoldfastError] = []

    def add(self, _oid: str, error: HoldfastError) -> None:
        self._errors.append(error)

    def check(self) -> None:
        if self._errors:
            raise self._errors.pop(0)


@dataclass(frozen=True)
class Statistics:
    """What a session did.

    Attributes:
        files: put.
        skipped: files that were there already.
        raw_bytes: of the files that were put.
        stored_bytes: of the packs that were sent.
        new_blobs: sent.
        known_blobs: parts of files that were there already.
        packs: sent.
        requests: to the store.
    """

    files: int = 0
    skipped: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    new_blobs: int = 0
    known_blobs: int = 0
    packs: int = 0
    requests: int = 0


Failure: TypeAlias = Callable[[str, HoldfastError], object]
OnPut: TypeAlias = Callable[[str, int], object]
Digests: TypeAlias = dict[str, tuple[int, bytes]]
_LookedUp: TypeAlias = tuple[list[FileToPut], Digests, Future[list[SmallFile | None]]]


class Session:
    """A session that has been announced; used as a context manager, by one thread at a time.

    What was put counts, all at once, when `commit` returns. Where the ``with`` ends without it, nothing counts; the
    packs that were sent are remembered on this machine, and the next session goes on from them.

    Args:
        store: where the vault is.
        config: what it was made with.
        index: refreshed after the session was announced.
        journal: of this session.
        jobs: threads that encode.
        max_restore_ratio: restoring a file may read so much of its own size before its blobs take no more deltas;
            0 for no deltas.
        claiming: whether the files that are put are claimed, since somebody is told that they are there.
        families: knows other versions of files that come without; None for nobody.
        casts: knows what files are casts of; None for nobody.
    """

    def __init__(
        self,
        store: CountingStore,
        config: Config,
        index: Index,
        journal: Journal,
        *,
        jobs: int,
        max_restore_ratio: float,
        claiming: bool = True,
        families: Families | None = None,
        casts: CastFiles | None = None,
        requests_before: int = 0,
    ) -> None:
        self.id = journal.session
        self._store, self._config, self._index, self._journal = store, config, index, journal
        self._requests_before = requests_before
        self._families, self._casts = families, casts
        self._sink = PackSink(store, journal, config.pack_bytes, claiming)
        self._sent_before = sum(journal.packs.values()), len(journal.packs)
        # threads beyond the processors only wait for one another
        self._pipeline = Pipeline(min(jobs, os.cpu_count() or 1))
        self._tally = Tally()
        self._encoder = FileEncoder(
            store, index, self._sink, self._pipeline, self._tally, jobs=jobs, max_restore_ratio=max_restore_ratio
        )
        self._bundle = Bundle()
        self._claims: dict[str, None] = {}
        self._decided = False

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def known(self, oids: Collection[str]) -> set[str]:
        """Which files are there already, or were put in this session: they need not be put.

        They are not claimed by that: see `claim`.
        """
        known = self._index.standing(oids)
        known.update(oid for oid in oids if oid in self._sink.recipes or oid in self._encoder.in_flight)
        return known

    def expect(self, nbytes: int, files: int = 1, coders: Coders | None = None) -> None:
        """Prepare for files of so many bytes: it takes a moment, and pays where they are many.

        Args:
            nbytes: of all of them.
            files: how many.
            coders: processes that encode them; None to start some where they pay.
        """
        self._encoder.expect(nbytes, files, coders)

    def claim(self, oids: Iterable[str]) -> None:
        """Say in this session's segment that these files, of `known`, were acknowledged: collectors then leave them."""
        self._claims.update(dict.fromkeys(map(check_oid, oids)))

    def put(
        self,
        oid: str,
        source: Source,
        split: Split | None = None,
        *,
        base_oid: str | None = None,
        base_source: Source | None = None,
        again: bool = False,
    ) -> bool:
        """Put a file; one that is there already is only claimed. Whether it was put.

        Args:
            oid: its name; its md5 is compared.
            source: its bytes, which are read twice, and must not change meanwhile.
            split: how it is cut; None to find out.
            base_oid: another version of it, against which its parts may be stored.
            base_source: that version, where it is at hand; saves fetching it.
            again: put it though it is there, since what it is made of is not.

        Raises:
            WrongNameError: the file is not what its oid says.
            ConflictError: the vault has another content under this oid.
            IntegrityError: it changed while it was read.
            StoreError: a pack could not be uploaded; nothing more can be put.
            OSError: the file cannot be read.
        """
        check_oid(oid)
        if not again and self.known([oid]):
            self.claim([oid])
            self._tally.skipped += 1
            return False
        digests = self._index.digests([oid])
        if source.size <= SMALL_BYTES:
            self._put_small(oid, read_exactly(source, 0, source.size), source.name, digests, _nobody)
            return True
        cut = split or self._split(source)
        failures = _Failures()
        self._encoder.put(oid, source, cut, digests.get(oid), failures.add, _nobody, base_oid, base_source)
        self._pipeline.drain()
        failures.check()
        return True

    def put_many(
        self,
        files: Iterable[FileToPut],
        on_failure: Failure | None = None,
        on_put: OnPut = _nobody,
    ) -> int:
        """Put many files, those that are there already left out; how many were put.

        Args:
            files: in any order; the same order gives the same packs.
            on_failure: is called for a file that is not what its oid says, or cannot be read; None to raise.
            on_put: is called with the name and the bytes of a file when it is in a pack, or there already.

        Raises:
            WrongNameError, ConflictError, IntegrityError, StoreError: as of `put`; the last alone where there
                is an ``on_failure``.
            UnreadableFileError: a file cannot be read.
        """
        before = self._tally.files
        failures = _Failures()
        failed = on_failure or failures.add
        for part, digests, reading in self._looked_up(files, on_put):
            for file, small in zip(part, reading.result(), strict=True):
                if self._is_put(file.oid):  # it is named twice
                    self._tally.skipped += 1
                    on_put(file.oid, 0)
                else:
                    self._put_path(file, small, digests, failed, on_put)
                    failures.check()
        self._close_bundle(on_put)
        self._pipeline.drain()
        failures.check()
        return self._tally.files - before

    def commit(self) -> Statistics:
        """Make all that was put count, at once.

        Raises:
            RevokedError: a collector ended the session: begin again.
            StoreError: the store did not answer: what was put counts, or not; the next session finds out.
        """
        self._close_bundle()
        self._pipeline.drain()
        self._sink.finish()
        listing = self._sink.listing
        listing.claims = [oid for oid in self._claims if oid not in self._sink.recipes]
        if listing.recipes or listing.claims or listing.entries:
            data = write_segment(listing, self._sink.packs)
            if not self._store.put_if_absent(f"{INDEX}/{self.id}", data):
                self._compare(data)
            self._decided = True
            self._index.add(self.id, data)
        self._decided = True
        self._journal.discard()
        with contextlib.suppress(StoreError):  # all of it counts; a collector takes away what is left
            self._store.delete(f"{SESSIONS}/{self.id}")
        return self.statistics()

    def statistics(self) -> Statistics:
        """What it has done so far."""
        sent_bytes, sent_packs = self._sent_before
        return Statistics(
            files=self._tally.files,
            skipped=self._tally.skipped,
            raw_bytes=self._tally.raw_bytes,
            stored_bytes=sum(self._sink.packs.values()) - sent_bytes,
            new_blobs=self._tally.new_blobs,
            known_blobs=self._tally.known_blobs,
            packs=len(self._sink.packs) - sent_packs,
            requests=self._store.requests - self._requests_before,
        )

    def close(self) -> None:
        """End without committing, unless that was done."""
        self._pipeline.close()
        self._sink.close()
        self._encoder.close()
        if not self._decided:
            if self._sink.packs or self._journal.resumed:
                self._journal.release()
            else:
                self._journal.discard()
                with contextlib.suppress(StoreError):
                    self._store.delete(f"{SESSIONS}/{self.id}")

    def _compare(self, data: bytes) -> None:
        """Somebody has decided this session already: an earlier attempt of ours, or a collector."""
        if self._store.get(f"{INDEX}/{self.id}") != data:
            self._decided = True
            self._journal.discard()
            raise RevokedError(
                f"A collector ended the session {self.id} before it was done", hint="Run the command again"
            )

    def _looked_up(self, files: Iterable[FileToPut], on_put: OnPut) -> Iterator[_LookedUp]:
        """Those that are not there, some at a time; the next are read while one is at work with what it got."""
        waiting: _LookedUp | None = None
        for part in _parts(files, FILES_A_LOOK):
            oids = [check_oid(file.oid) for file in part]
            known = self.known(oids)
            self._claims.update(dict.fromkeys(oid for oid in oids if oid in known))
            self._tally.skipped += len(known)
            for oid in known:
                on_put(oid, 0)
            missing = [file for file in part if file.oid not in known]
            digests = self._index.digests([file.oid for file in missing])
            ready = waiting
            waiting = missing, digests, self._encoder.read_ahead([file.path for file in missing])
            if ready is not None:
                yield ready
        if waiting is not None:
            yield waiting

    def _is_put(self, oid: str) -> bool:
        return oid in self._encoder.in_flight or oid in self._sink.recipes

    def _put_path(
        self, file: FileToPut, small: SmallFile | None, digests: Digests, failed: Failure, on_put: OnPut
    ) -> None:
        try:
            data = small.data if small is not None else read_small(file.path)
            if data is not None:
                self._put_small(file.oid, data, file.path, digests, on_put, small)
                return
            with contextlib.ExitStack() as stack:
                source = stack.enter_context(FileSource(Path(file.path)))
                split = self._split(source)
                base_oid, base_path, cast_oid = file.base_oid, file.base_path, file.cast_oid
                if self._families is not None:
                    kin = self._families.base(file.oid, split)
                    if base_oid is None and kin is not None:
                        base_oid, base_path = kin, self._families.place(kin)
                if self._casts is not None and cast_oid is None:
                    cast_oid = self._casts.look(file.oid, source, split)
                base = stack.enter_context(FileSource(Path(base_path))) if base_path else None
                self._encoder.put(
                    file.oid,
                    source,
                    split,
                    digests.get(file.oid),
                    failed,
                    on_put,
                    base_oid or None,
                    base,
                    file.max_restore_ratio,
                    cast_oid,
                )
        except IntegrityError as error:
            failed(file.oid, error)
        except OSError as error:
            failed(file.oid, UnreadableFileError(f"{file.path} cannot be read: {error.strerror or error}"))

    def _put_small(
        self,
        oid: str,
        data: bytes,
        name: "str | Path",
        digests: Digests,
        on_put: OnPut,
        hashed: SmallFile | None = None,
    ) -> None:
        if hashed is not None and oid.startswith("md5:"):
            check_md5(oid, hashed, str(name))
        elif (hasher := hasher_of(oid)) is not None:
            hasher.update(data)
            check_md5(oid, hasher, str(name))
        digest = blake3(data).digest() if hashed is None else hashed.digest
        if digests and digests.get(oid, (len(data), digest)) != (len(data), digest):
            raise ConflictError(f"{oid} has another content in {self._store.url} than in {name}")
        self._encoder.in_flight.add(oid)
        self._bundle.add(oid, data, digest)
        if self._bundle.nbytes >= BUNDLE_BYTES:
            self._close_bundle(on_put)

    def _close_bundle(self, on_put: OnPut = _nobody) -> None:
        if self._bundle.files:
            self._encoder.put_bundle(self._bundle, on_put)
            self._bundle = Bundle()

    def _split(self, source: Source) -> Split:
        return split_source(source, block_bytes=self._config.block_bytes, chunking=self._config.chunking)


class UnreadableFileError(HoldfastError):
    """A file cannot be read."""


def _parts(files: Iterable[FileToPut], length: int) -> Iterator[list[FileToPut]]:
    rest = iter(files)
    while part := list(islice(rest, length)):
        yield part
