"""One writer's visit to a vault: announce, look, put, commit.

The order is what safety rests on (docs/design/vault.md): the session is announced before the index is read, packs
are in the store before the segment that names them, and the segment is the one moment at which all of it counts.
"""

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

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
from holdfast.vault.putting import Failure, Failures, FileToPut, OnPut, Statistics, UnreadableFileError, nobody
from holdfast.vault.records import ConflictError
from holdfast.vault.segment import INDEX, SESSIONS, write_segment
from holdfast.vault.sink import PackSink
from holdfast.vault.small_files import BUNDLE_BYTES, SMALL_BYTES, Answer, Group, read_small
from holdfast.vault.split import Split, split_source

FILES_A_LOOK = 4000

Digests: TypeAlias = dict[str, tuple[int, bytes]]
_LookedUp: TypeAlias = tuple[list[FileToPut], Digests]


class RevokedError(HoldfastError):
    """A collector ended the session before it committed: what it sent does not count."""


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
            self._put_small(oid, read_exactly(source, 0, source.size), source.name, digests, nobody)
            return True
        cut = split or self._split(source)
        failures = Failures()
        self._encoder.put(oid, source, cut, digests.get(oid), failures.add, nobody, base_oid, base_source)
        self._pipeline.drain()
        failures.check()
        return True

    def put_many(
        self,
        files: Iterable[FileToPut],
        on_failure: Failure | None = None,
        on_put: OnPut = nobody,
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
        failures = Failures(on_failure)
        # who reads small files knows nothing of what was put one by one, and the blobs are the same whoever it is
        self._close_bundle(on_put)
        twice: list[FileToPut] = []
        for part, digests, answer in self._read(self._looked_up(files, twice, on_put)):
            start = 0
            for group in answer.groups:
                found = zip(part[start : group.stop], answer.files[start : group.stop], strict=True)
                self._put_group(found, group, digests, failures, on_put)
                start = group.stop
            for file in part[start:]:
                self._put_path(file, digests, failures, on_put)
        for file in twice:
            if self._is_put(file.oid):
                self._tally.skipped += 1
                on_put(file.oid, 0)
            else:
                self._put_path(file, self._index.digests([file.oid]), failures, on_put)
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
        self._sink.seal()
        listing = self._sink.listing
        listing.claims = [oid for oid in self._claims if oid not in self._sink.recipes]
        data = b""
        if listing.recipes or listing.claims or listing.entries:
            # while the last packs are on their way. To the index of this session it counts when it is committed, and
            # nowhere does what the bucket does not list
            data = write_segment(listing, self._sink.packs)
            self._index.leaving(()).add(self.id, data)
        self._sink.finish()
        if data:
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

    def _looked_up(self, files: Iterable[FileToPut], twice: list[FileToPut], on_put: OnPut) -> Iterator[_LookedUp]:
        """Those that are not there, some at a time; what is named again is set aside, since it may be there then."""
        named: set[str] = set()
        for part in _parts(files, FILES_A_LOOK):
            oids = [check_oid(file.oid) for file in part]
            existing = self._index.existing(oids)
            known = {*filter(self._is_put, oids), *(self._index.standing(existing) if existing else ())}
            digests = self._index.digests(existing - known) if existing else {}
            self._claims.update(dict.fromkeys(oid for oid in oids if oid in known))
            missing = []
            for file in part:
                if file.oid in known:
                    self._tally.skipped += 1
                    on_put(file.oid, 0)
                elif file.oid in named:
                    twice.append(file)
                else:
                    named.add(file.oid)
                    missing.append(file)
            if missing:
                yield missing, digests

    def _read(self, parts: Iterable[_LookedUp]) -> Iterator[tuple[list[FileToPut], Digests, Answer]]:
        """What was read of small files: the next ones are read while one is at work with what it got."""
        ready, begun = None, 0
        rest = iter(parts)
        following = next(rest, None)
        while following is not None:
            (part, digests), following = following, None
            while part:
                asked = [(file.oid, digests.get(file.oid, (0, b""))[1], file.path) for file in part]
                reading = self._encoder.read_ahead(asked, begun)
                if ready is not None:
                    yield ready
                if following is None:  # looked up now, so that nobody waits for it later
                    following = next(rest, None)
                answer = reading.result()
                count, begun = len(answer.files), answer.begun(begun)
                ready, part = (part[:count], digests, answer), part[count:]
        if ready is not None:
            yield ready

    def _is_put(self, oid: str) -> bool:
        return oid in self._encoder.in_flight or oid in self._sink.recipes

    def _put_group(
        self,
        files: "Iterable[tuple[FileToPut, tuple[int, bytes] | None]]",
        group: Group,
        digests: Digests,
        failures: Failures,
        on_put: OnPut,
    ) -> None:
        """Put small files that were read, and those between them that were not taken."""
        bundle, at = Bundle(name=group.name, nbytes=group.nbytes, encoded=group.data), 0
        for file, found in files:
            if found is None:
                self._put_path(file, digests, failures, on_put)
                continue
            length, digest = found
            if group.name:
                bundle.files.append((file.oid, length, digest))
            else:
                self._add_small(file.oid, group.data[at : at + length], digest, on_put)
                at += length
        if group.name:
            self._close_bundle(on_put)  # begun with a file that was not taken, and could be read after all
            self._encoder.put_bundle(bundle, on_put)

    def _put_path(self, file: FileToPut, digests: Digests, failures: Failures, on_put: OnPut) -> None:
        try:
            data = read_small(file.path)
            if data is not None:
                self._put_small(file.oid, data, file.path, digests, on_put)
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
                    failures.add,
                    on_put,
                    base_oid or None,
                    base,
                    file.max_restore_ratio,
                    cast_oid,
                )
        except IntegrityError as error:
            failures.add(file.oid, error)
        except OSError as error:
            failures.add(file.oid, UnreadableFileError(f"{file.path} cannot be read: {error.strerror or error}"))
        failures.check()

    def _put_small(self, oid: str, data: bytes, name: "str | Path", digests: Digests, on_put: OnPut) -> None:
        if (hasher := hasher_of(oid)) is not None:
            hasher.update(data)
            check_md5(oid, hasher, str(name))
        digest = blake3(data).digest()
        if digests and digests.get(oid, (len(data), digest)) != (len(data), digest):
            raise ConflictError(f"{oid} has another content in {self._store.url} than in {name}")
        self._add_small(oid, data, digest, on_put)

    def _add_small(self, oid: str, data: "bytes | memoryview", digest: bytes, on_put: OnPut) -> None:
        self._encoder.in_flight.add(oid)
        self._bundle.add(oid, data, digest)
        if self._bundle.nbytes >= BUNDLE_BYTES:
            self._close_bundle(on_put)

    def _close_bundle(self, on_put: OnPut = nobody) -> None:
        if self._bundle.files:
            self._encoder.put_bundle(self._bundle, on_put)
            self._bundle = Bundle()

    def _split(self, source: Source) -> Split:
        return split_source(source, block_bytes=self._config.block_bytes, chunking=self._config.chunking)


def _parts(files: Iterable[FileToPut], length: int) -> Iterator[list[FileToPut]]:
    rest = iter(files)
    while part := list(islice(rest, length)):
        yield part


__all__ = ["BUNDLE_BYTES", "FileToPut", "RevokedError", "Session", "Statistics", "UnreadableFileError"]
