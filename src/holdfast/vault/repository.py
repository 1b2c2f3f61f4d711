"""A vault: files in, files out, by oid.

A `Vault` may be used by many threads, a `Session` of it by one. What it reads it verifies: a file that is not what its
oid and its recipe say is never handed out.
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeAlias

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore
from holdfast.vault.casts import CastFiles
from holdfast.vault.chunk import chunking_of
from holdfast.vault.config import BLOCK_BYTES, KEY, PACK_BYTES, Config, read_config
from holdfast.vault.counting import CountingStore
from holdfast.vault.families import Families
from holdfast.vault.index import Index
from holdfast.vault.journal import begin_session
from holdfast.vault.oids import check_oid
from holdfast.vault.output import FileOut, VaultFile, write_files
from holdfast.vault.reading import BrokenBlobError, LostPackError, MissingBlobError, Place, Plan, Reader
from holdfast.vault.records import DamagedVaultError, Entry, Recipe
from holdfast.vault.session import Session

JOBS = 4
MAX_RESTORE_RATIO = 1.0
Failure: TypeAlias = Callable[[str, HoldfastError], object]
INDEX_FILE, JOURNALS = "index.sqlite", "sessions"
# how many files' blobs are planned at a time
FILES_A_PLAN = 20_000


class NoVaultError(HoldfastError):
    """There is no vault there."""


class VaultExistsError(HoldfastError):
    """There is a vault there already."""


class UnknownFileError(HoldfastError):
    """The vault has no file of that name."""


def init_vault(
    store: ObjectStore,
    cache_folder: Path | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
    pack_bytes: int = PACK_BYTES,
    vault_id: str | None = None,
    jobs: int = JOBS,
) -> "Vault":
    """Make a vault.

    Args:
        store: where it will be.
        cache_folder: as of `open_vault`.
        block_bytes: the most that a blob holds; a multiple of 16.
        pack_bytes: a pack that has become so long is finished.
        vault_id: 32 hex digits; None for random ones.
        jobs: as of `open_vault`.

    Raises:
        VaultExistsError: there is one.
        ValueError: lengths that do not fit.
        StoreError: the store cannot be written.
    """
    config = Config(vault_id or secrets.token_hex(16), block_bytes, pack_bytes, chunking_of(block_bytes))
    data = config.as_bytes()
    try:
        read_config(data, store.url)
    except DamagedVaultError as error:
        raise ValueError(error.message) from error
    if not store.put_if_absent(KEY, data):
        raise VaultExistsError(
            f"There is a vault in {store.url} already", hint="`holdfast push` uses it, `holdfast vault stats` shows it"
        )
    return Vault(store, config, cache_folder, jobs=jobs)


def open_vault(store: ObjectStore, cache_folder: Path | None, *, jobs: int = JOBS) -> "Vault":
    """Open a vault.

    Args:
        store: where it is.
        cache_folder: keeps the index and what interrupted pushes had finished; None to keep nothing.
        jobs: threads that encode and decode, and requests at a time.

    Raises:
        NoVaultError: there is none.
        UnknownVersionError: a later version of Holdfast made it.
        DamagedVaultError: its configuration is damaged.
        StoreError: the store cannot be read.
    """
    try:
        data = store.get(KEY)
    except ObjectNotFoundError as error:
        raise NoVaultError(f"There is no vault in {store.url}", hint="Make one: `holdfast vault init`") from error
    return Vault(store, read_config(data, store.url), cache_folder, jobs=jobs)


class Vault:
    """A vault that is open; `init_vault` and `open_vault` make it.

    Its index is that of the last `refresh`: the first question asks for one by itself, and so do a session, and
    a read that finds something missing.

    Attributes:
        config: what it was made with.
        index: what is known of it.
        store: where it is, with what was asked of it counted.
    """

    def __init__(self, store: ObjectStore, config: Config, cache_folder: Path | None, *, jobs: int) -> None:
        self.store = CountingStore(store)
        self.config, self.jobs = config, jobs
        self._folder = cache_folder / config.id if cache_folder else None
        self.index = Index(self.store, self._folder / INDEX_FILE if self._folder else None, jobs=jobs)
        self._fresh = False

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url

    def __enter__(self) -> "Vault":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def refresh(self) -> None:
        """Look what others have put, or condemned, meanwhile.

        Raises:
            DamagedTableError, DamagedVaultError: a segment of the index is damaged.
            StoreError: the store cannot be read.
        """
        self.index.refresh()
        self._fresh = True

    def exists(self, oids: Collection[str]) -> set[str]:
        """Which files can be read. A writer asks `Session.known`, which leaves out what is condemned.

        Raises:
            DamagedTableError, DamagedVaultError, StoreError: as of `refresh`.
        """
        self._look()
        return self.index.existing(oids)

    def recipe(self, oid: str) -> Recipe:
        """How a file is put together.

        Raises:
            InvalidOidError: the name is none.
            UnknownFileError: there is no such file.
            ConflictError: the name stands for two contents.
        """
        check_oid(oid)
        self._look()
        found = self.index.recipes([oid])
        if oid not in found:
            self.refresh()
            found = self.index.recipes([oid])
        if oid not in found:
            raise next(iter(self.index.damaged.values()), None) or _unknown(oid, self.url)
        return found[oid]

    def plan(self, recipe: Recipe) -> Plan:
        """Where all blobs of a file are, with their bases.

        Raises:
            MissingBlobError: one of them is nowhere.
        """
        return self.reader().plan(piece.blob for piece in recipe.pieces)

    def session(
        self,
        session_id: str | None = None,
        *,
        max_restore_ratio: float = MAX_RESTORE_RATIO,
        resume: bool = True,
        claiming: bool = True,
        leaving: Collection[str] = (),
        families: Families | None = None,
        casts: CastFiles | None = None,
    ) -> Session:
        """Announce a session, or go on with one of this machine that was interrupted.

        Args:
            session_id: 32 hex digits; None for random ones. Never one that was used before.
            max_restore_ratio: restoring a file may read so much of its own size before its blobs take no more deltas;
                0 for no deltas.
            resume: whether to go on with what was interrupted.
            claiming: whether the files that are put are claimed.
            leaving: packs upon which nothing shall be built: what they have is put again.
            families, casts: as of `Session`.

        Raises:
            DamagedTableError, DamagedVaultError: a segment of the index, or a condemned generation, is damaged.
            StoreError: the store cannot be read or written.
        """
        before = self.store.requests
        journal = begin_session(
            self.store, self._folder / JOURNALS if self._folder else None, session_id, resume=resume
        )
        try:
            self.refresh()
            return Session(
                self.store,
                self.config,
                self.index.leaving(leaving) if leaving else self.index,
                journal,
                jobs=self.jobs,
                max_restore_ratio=max_restore_ratio,
                claiming=claiming,
                families=families,
                casts=casts,
                requests_before=before,
            )
        except BaseException:
            journal.release()
            raise

    def get(self, oid: str, target: "Path | BinaryIO", *, durable: bool = False) -> int:
        """Write a file, verified; its bytes.

        Args:
            oid: its name.
            target: its path, where it is whole or not at all; or a stream, which has been given bytes before an error.
            durable: whether it shall be there after a power failure, too.

        Raises:
            UnknownFileError: there is no such file.
            IntegrityError: it cannot be put together, or is not what its name says.
            StoreError: the store cannot be read.
            OSError: the file cannot be written.
        """
        recipe = self.recipe(oid)
        start = target.tell() if not isinstance(target, Path) and target.seekable() else None
        avoid: set[Place] = set()
        while True:
            try:
                reader = self.reader()
                plan = reader.plan((piece.blob for piece in recipe.pieces), frozenset(avoid))
                for _ in write_files(reader, plan, [recipe], lambda recipe: FileOut(recipe, target, durable=durable)):
                    pass
            except (BrokenBlobError, LostPackError, MissingBlobError) as error:
                rewound = isinstance(target, Path) or start is not None
                if not rewound or not self._another_way(error, avoid):
                    raise
                recipe = self.recipe(oid)
                if not isinstance(target, Path) and start is not None:
                    target.seek(start)
                    target.truncate()
            else:
                return recipe.size

    def get_many(
        self,
        files: Iterable[tuple[str, Path]],
        on_failure: Failure | None = None,
    ) -> Iterator[tuple[str, int]]:
        """Write many files, verified, in the order in which they lie in the vault; yields name and bytes of each.

        Args:
            files: name and path of each.
            on_failure: is called for one that cannot be put together; None to raise.

        Raises:
            UnknownFileError, IntegrityError, StoreError, OSError: as of `get`.
        """
        self._look()
        wanted: dict[str, list[Path]] = {}
        for oid, path in files:
            wanted.setdefault(check_oid(oid), []).append(path)
        oids = list(wanted)
        if len(self.index.existing(oids)) < len(oids):
            self.refresh()
        for start in range(0, len(oids), FILES_A_PLAN):
            yield from self._get_part(oids[start : start + FILES_A_PLAN], wanted, on_failure)

    def open(self, oid: str) -> VaultFile:
        """A file to be read in parts.

        Raises:
            UnknownFileError: there is no such file.
            IntegrityError: it cannot be put together.
        """
        recipe = self.recipe(oid)
        avoid: set[Place] = set()

        def read(ids: Sequence[bytes]) -> Iterator[dict[bytes, bytes]]:
            rest = list(dict.fromkeys(ids))
            while rest:
                try:
                    reader = self.reader()
                    for window in reader.read(reader.plan(rest, frozenset(avoid)), rest):
                        rest = [name for name in rest if name not in window]
                        yield window
                except (BrokenBlobError, LostPackError, MissingBlobError) as error:
                    if not self._another_way(error, avoid):
                        raise

        return VaultFile(recipe, self.url, read)

    def read(self, oid: str, offset: int, count: int) -> bytes:
        """The ``count`` bytes of a file from ``offset`` on, fewer at the end.

        Raises:
            UnknownFileError, IntegrityError, StoreError: as of `get`.
        """
        return self.open(oid).read(offset, count)

    def reader(self) -> Reader:
        """What reads its blobs."""
        return Reader(self.store, self._lookup, self.jobs)

    def _lookup(self, ids: Sequence[bytes]) -> Mapping[bytes, list[Entry]]:
        return self.index.entries(ids)

    def _look(self) -> None:
        if not self._fresh:
            self.refresh()

    def _another_way(self, error: DamagedVaultError, avoid: set[Place]) -> bool:
        """Whether to try again: with another place of the blob, or after another look at the index."""
        if isinstance(error, BrokenBlobError):
            places = {(entry.pack, entry.offset) for entry in self.index.entries([error.entry.id])[error.entry.id]}
            avoid.add((error.entry.pack, error.entry.offset))
            return bool(places - avoid)
        before = self.index.known
        self.refresh()
        if isinstance(error, LostPackError):
            lost = {(entry.pack, entry.offset) for entry in self.index.all_entries() if entry.pack == error.pack}
            fresh = not lost <= avoid
            avoid |= lost
            return fresh or self.index.known != before
        return self.index.known != before

    def _get_part(
        self, oids: Sequence[str], wanted: Mapping[str, list[Path]], on_failure: Failure | None
    ) -> Iterator[tuple[str, int]]:
        rest = dict.fromkeys(oids)
        avoid: set[Place] = set()
        while rest:
            recipes = self.index.recipes(rest)
            for oid in [oid for oid in rest if oid not in recipes]:
                error = next(iter(self.index.damaged.values()), None)
                self._fail(oid, error or _unknown(oid, self.url), rest, on_failure)
            order: list[Recipe] = []
            try:
                plan = self._plan(recipes.values(), avoid)
                order = sorted(recipes.values(), key=lambda recipe: _where(plan, recipe))
                for recipe in write_files(self.reader(), plan, order, lambda recipe: _out(wanted[recipe.oid], recipe)):
                    for path in wanted[recipe.oid][1:]:
                        self.get(recipe.oid, path)
                    del rest[recipe.oid]
                    yield recipe.oid, recipe.size
            except (BrokenBlobError, LostPackError, MissingBlobError) as error:
                if not self._another_way(error, avoid):
                    self._fail_some(
                        [recipe for oid, recipe in recipes.items() if oid in rest], error, avoid, rest, on_failure
                    )
            except IntegrityError as error:
                written = len(order) - len(rest)
                self._fail(order[written].oid, error, rest, on_failure)

    def _plan(self, recipes: Iterable[Recipe], avoid: set[Place]) -> Plan:
        return self.reader().plan((piece.blob for recipe in recipes for piece in recipe.pieces), frozenset(avoid))

    def _fail(self, oid: str, error: HoldfastError, rest: dict[str, None], on_failure: Failure | None) -> None:
        if on_failure is None:
            raise error
        del rest[oid]
        on_failure(oid, error)

    def _fail_some(
        self,
        recipes: Iterable[Recipe],
        error: HoldfastError,
        avoid: set[Place],
        rest: dict[str, None],
        on_failure: Failure | None,
    ) -> None:
        """Give up the files that cannot be put together without what is to be avoided."""
        before = len(rest)
        for recipe in recipes:
            try:
                self._plan([recipe], avoid)
            except MissingBlobError:
                self._fail(recipe.oid, error, rest, on_failure)
        if len(rest) == before:
            raise error


def _unknown(oid: str, url: str) -> UnknownFileError:
    return UnknownFileError(f"{oid} is not in the vault {url}", hint="Send it: `holdfast push`")


def _out(paths: Sequence[Path], recipe: Recipe) -> FileOut:
    return FileOut(recipe, paths[0], durable=False)


def _where(plan: Plan, recipe: Recipe) -> tuple[str, int, int]:
    """Where in the vault a file begins; files without bytes first."""
    if not recipe.pieces:
        return "", 0, 0
    entry = plan.entries[recipe.pieces[0].blob]
    return entry.pack, entry.offset, recipe.pieces[0].offset
