"""Holdfast from Python: `holdfast.Vault`.

Like the command line it stands at the border: it reads the environment, and DVC's configuration around the working
directory, for credentials.
"""

import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from holdfast.cli.caches import cache_folder
from holdfast.cli.naming import open_objects
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


def _oid(oid: str) -> str:
    return f"md5:{oid}" if _MD5.fullmatch(oid) else oid
