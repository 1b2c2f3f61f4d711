"""Holdfast from Python: `holdfast.Vault`, `holdfast.data.stream`.

Like the command line it stands at the border: it reads the environment, and DVC's configuration around the working
directory, for credentials.
"""

import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from holdfast.cli.caches import cache_folder
from holdfast.cli.naming import open_objects
from holdfast.cli.streaming import open_stream, settle_rank, stream_folder
from holdfast.data import stream_dataset
from holdfast.formats.digest import file_md5
from holdfast.vault import repository
from holdfast.vault.families import Families
from holdfast.vault.oids import check_oid
from holdfast.vault.session import FileToPut

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


class Vault:
    """A vault, to be used as a context manager or closed with `close`; by one thread at a time.

    Files are named as DVC names them: ``md5:<32 hex digits>``, or the digits alone.

    Args:
        url: ``s3://…``, ``r2://…``, ``gs://…``, ``az://…``, or a folder. Credentials are those of the DVC remote of the
            same bucket, where the working directory is in a DVC project, else those of the environment.
        create: make the vault where there is none.
        cache: a folder for the index and for what an interrupted put had finished; None for the project's, else
            the user's.
        jobs: threads that encode and decode, and requests at a time.

    Raises:
        NoVaultError: there is none, and ``create`` is not set.
        UsageError: the URL is of no store.
        StoreError: it cannot be reached.
    """

    def __init__(
        self, url: str | Path, *, create: bool = False, cache: Path | None = None, jobs: int = repository.JOBS
    ) -> None:
        store = open_objects(str(url))
        folder = cache_folder(Path.cwd()) if cache is None else cache
        try:
            self._vault = repository.open_vault(store, folder, jobs=jobs)
        except repository.NoVaultError:
            if not create:
                raise
            try:
                self._vault = repository.init_vault(store, folder, jobs=jobs)
            except repository.VaultExistsError:  # made by somebody else a moment ago
                self._vault = repository.open_vault(store, folder, jobs=jobs)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._vault.url

    def __enter__(self) -> "Vault":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._vault.close()

    def put_file(self, path: str | Path, *, base: str | None = None) -> str:
        """Put a file; its name. It counts when this returns, and is only claimed where it was there already.

        Args:
            path: the file, which must not change meanwhile.
            base: another version of it in the vault; None for the newest file of the same tensors.

        Raises:
            IntegrityError: it changed while it was read.
            InvalidOidError: ``base`` is no name.
            StoreError: the vault cannot be written.
            OSError: the file cannot be read.
        """
        return self.put_files([path], bases={path: base} if base else {})[path]

    def put_files(
        self, paths: Iterable[str | Path], *, bases: Mapping[str | Path, str] | None = None
    ) -> dict[str | Path, str]:
        """Put many files, all of which count when this returns; their names, by path.

        Args:
            paths: the files, older versions before newer ones.
            bases: for some of them another version in the vault, or among those before.

        Raises:
            HoldfastError, OSError: as of `put_file`; none of them counts then.
        """
        chosen = {path: _oid(base) for path, base in (bases or {}).items()}
        names: dict[str | Path, str] = {}

        def files() -> Iterator[FileToPut]:
            for path in paths:
                oid = names[path] = f"md5:{file_md5(Path(path))}"
                yield FileToPut(oid, path, chosen.get(path))

        with self._vault.session(families=Families(self._vault.index)) as session:
            session.put_many(files())
            session.commit()
        return names

    def get_file(self, oid: str, path: str | Path) -> int:
        """Write a file, verified, whole or not at all; its bytes.

        Raises:
            UnknownFileError: there is no such file.
            InvalidOidError: the name is none.
            IntegrityError: it cannot be put together, or is not what its name says.
            StoreError: the vault cannot be read.
            OSError: the file cannot be written.
        """
        return self._vault.get(_oid(oid), Path(path))

    def open(self, oid: str) -> io.BufferedReader:
        """A seekable stream of a file; what is read of it is fetched, decoded and verified then.

        Raises:
            UnknownFileError, InvalidOidError, IntegrityError, StoreError: as of `get_file`, the last two by reading.
        """
        return self._vault.open(_oid(oid)).stream()

    def exists(self, oid: str) -> bool:
        """Whether a file is there, as far as is known without reading it.

        Raises:
            InvalidOidError: the name is none.
            StoreError: the vault cannot be read.
        """
        return bool(self.existing([oid]))

    def existing(self, oids: Collection[str]) -> set[str]:
        """Which of many files are there, under the names that were given.

        Raises:
            InvalidOidError, StoreError: as of `exists`.
        """
        named = {oid: check_oid(_oid(oid)) for oid in oids}
        self._vault.refresh()
        there = self._vault.exists(set(named.values()))
        return {oid for oid, full in named.items() if full in there}


def stream(
    what: str | Path | Sequence[str | Path],
    *,
    match: str | None = None,
    decode: Callable[[str, Any], Any] | None = None,
    record_bytes: int | None = None,
    rows: bool = False,
    shuffle: bool = False,
    seed: int = 0,
    batch_size: int = 1,
    drop_last: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    jobs: int = stream_dataset.JOBS,
    ahead_bytes: int = stream_dataset.AHEAD_BYTES,
    cache: str | Path | None = None,
    cache_bytes: int = stream_dataset.CACHE_BYTES,
    page_bytes: int = stream_dataset.PAGE_BYTES,
    outage_seconds: float = stream_dataset.OUTAGE_SECONDS,
    remote: str | None = None,
    bucket: str | None = None,
) -> stream_dataset.Stream:
    """Samples straight from where their files are: a bucket, a DVC remote, a vault, a cache.

    Which files there are is found out now, their bytes come when a pass needs them, some ahead, each once. A pass is an
    epoch. Over all ranks and workers an epoch has each sample exactly once.

    Args:
        what: a file or folder that DVC tracks, a part of such a folder, or a folder with such in it; ``REV:path`` of a
            commit; a source or a domain of the catalogue; a URL of an object, or with a slash at its end of a folder;
            or several of these. What DVC tracks comes before a source of the same name.
        match: only files whose whole name fits this pattern: ``*.npz``.
        decode: makes a sample of a file's name and bytes; without it a sample is a tuple of both. It must be fit for
            pickling where workers are not forked.
        record_bytes: samples are records of so many bytes, read by range; they are called ``path#number``.
        rows: samples are the rows of ``.npy`` files, as arrays in the machine's byte order, read by range.
        shuffle: whether the order changes with each epoch; it follows from seed and epoch alone.
        seed: of that order.
        batch_size: samples of a batch. They are dealt to ranks and workers in such blocks, of records in pages.
        drop_last: leave out what is no whole batch for every rank, so that all ranks have as many.
        rank: of this process, from 0 on.
        world_size: number of ranks. Without both, those of torch's process group, else RANK and WORLD_SIZE, else one.
        jobs: requests at a time, of each worker.
        ahead_bytes: what a worker has fetched, and not given, has no more bytes than this and one file; with shuffled
            records some 64 MiB more.
        cache: a folder for what came; None for the project's, else the user's.
        cache_bytes: its bound; 0 to keep nothing.
        page_bytes: shuffled records stay together in pages of so many bytes, each of which is a request; a worker mixes
            256 pages with one another.
        outage_seconds: how long a server may be away; one that has never answered is given up after some 12 s.
        remote: the DVC remote that tracked files come from; None for the project's vault and its default remote.
        bucket: the URL that catalogued files come from, in place of the catalogue's.

    Raises:
        UsageError: a name is of nothing, there is no file, or arguments do not go together.
        MissingSampleError: the listing of a tracked folder is nowhere.
        IntegrityError: it is damaged.
        StoreError: a bucket cannot be read.
    """
    own_rank, ranks = settle_rank(rank, world_size)
    settings = stream_dataset.Settings(
        shuffle=shuffle,
        seed=seed,
        batch_size=batch_size,
        drop_last=drop_last,
        rank=own_rank,
        world_size=ranks,
        jobs=jobs,
        ahead_bytes=ahead_bytes,
        cache=stream_folder(Path.cwd()) if cache is None else Path(cache).absolute(),
        cache_bytes=cache_bytes,
        page_bytes=page_bytes,
        outage_seconds=outage_seconds,
    )
    return open_stream(
        what,
        settings,
        match=match,
        decode=decode,
        record_bytes=record_bytes,
        rows=rows,
        remote=remote,
        bucket=bucket,
    )


def _oid(oid: str) -> str:
    return f"md5:{oid}" if _MD5.fullmatch(oid) else oid
