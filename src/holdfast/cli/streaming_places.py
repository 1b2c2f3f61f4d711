"""Where the files of a stream are, by their names: what DVC tracks, sources of the catalogue, URLs.

Git, DVC's configuration and the catalogue are asked, and no server.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from holdfast.cli.caches import cache_folder
from holdfast.cli.naming import store_options
from holdfast.cli.sources_places import bucket_url
from holdfast.data.catalogue import Catalogue, Source, find_catalogue
from holdfast.data.catalogue_reading import read_catalogue
from holdfast.data.stream_files import BucketPlace, OpenPlace, Place, StreamFile, Supply
from holdfast.data.stream_listing import TrackedOut
from holdfast.errors import NotARepositoryError, UsageError
from holdfast.objectstore.location import is_url, locate
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.options import StoreOptions
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import ObjectNotFoundError
from holdfast.repo.dvcfiles import LEGACY_MD5, MD5, Out
from holdfast.repo.workspace import Project, find_project

if TYPE_CHECKING:  # with numpy and the codec 0.3 s, where there is one
    from holdfast.vault.repository import Vault

VAULT_JOBS = 4
VAULT_CONFIG = "config.json"  # as of holdfast.vault.config, which takes as long to import as all of a vault
PUSH = "One who has it sends it: `dvc push` or `holdfast push`"
UPLOAD = "Upload it again, or make the stream anew: it was there when that was made"


@dataclass(frozen=True)
class VaultPlace:
    """A vault, as a place of files that DVC tracks.

    Attributes:
        url: where it is.
        options: how it is reached.
        folder: for its index.
    """

    url: str
    options: StoreOptions = field(repr=False)
    folder: Path

    @property
    def local(self) -> bool:
        """Whether it is a folder."""
        return locate(self.url).scheme == "file"

    def open(self, keys: Collection[str], retry: Retry) -> OpenPlace | None:
        """The vault with what it has of the files; None where there is none.

        Raises:
            HoldfastError: it cannot be read.
        """
        store = open_store(self.url, self.options, retry=retry)
        try:
            store.head(VAULT_CONFIG)
        except ObjectNotFoundError:
            return None
        from holdfast.vault.repository import open_vault  # 0.3 s that a project without one need not pay

        vault = open_vault(store, self.folder, jobs=VAULT_JOBS)
        # asked for all at once: a vault that does not know a file looks at its bucket again
        return _OpenVault(vault, frozenset(vault.exists({_oid(key) for key in keys})))


@dataclass(frozen=True)
class _OpenVault:
    vault: "Vault"
    known: frozenset[str]

    def size(self, file: StreamFile) -> int:
        return self.vault.recipe(self._oid(file)).size

    def read(self, file: StreamFile) -> bytes:
        whole = self.vault.open(self._oid(file))
        return whole.read(0, whole.size)

    def read_range(self, file: StreamFile, offset: int, count: int) -> bytes:
        return self.vault.read(self._oid(file), offset, count)

    def _oid(self, file: StreamFile) -> str:
        oid = _oid(file.key)
        if oid not in self.known:
            raise ObjectNotFoundError(f"{oid} is not in the vault {self.vault.url}")
        return oid


def _oid(key: str) -> str:
    return f"{MD5}:{key}"


@dataclass(frozen=True)
class Prefix:
    """A folder of a bucket."""

    url: str
    options: StoreOptions
    prefix: str
    named: str = ""
    checksum: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Object:
    """One object of a bucket."""

    url: str
    options: StoreOptions
    key: str
    named: str


Wanted: TypeAlias = "tuple[int, TrackedOut | Prefix | Object]"


class Finder:
    """Finds what names mean; asks git, DVC's configuration and the catalogue, and no server.

    Args:
        remote: the DVC remote to read from, None for the project's vault and default remote.
        bucket: the URL of another bucket than the catalogue's.
    """

    def __init__(self, remote: str | None, bucket: str | None) -> None:
        self.supplies: list[Supply] = []
        self._remote, self._bucket = remote, bucket
        self._known: dict[object, int] = {}
        self._outs: dict[str | None, dict[str, Out]] = {}
        try:
            self._project: Project | None = find_project(Path.cwd())
        except NotARepositoryError as error:
            self._project, self._none = None, error

    def find(self, name: str) -> list[Wanted]:
        """What a name means.

        Raises:
            UsageError: nothing.
            HoldfastError: a file that would say cannot be read.
        """
        if is_url(name):
            return [self._of_url(name)]
        revision, colon, path = name.partition(":")
        if colon and revision and path and not Path(name).exists():
            return self._of_revision(name, revision, path)
        if self._project is not None:
            place = Path(name).absolute()  # links below are DVC's own, into its cache
            place = place.parent.resolve() / place.name
            if place.is_relative_to(self._project.git_root):
                inside = place.relative_to(self._project.git_root).as_posix()
                if found := self._tracked("" if inside == "." else inside, None):
                    return found
        root = find_catalogue(Path.cwd())
        if root is not None:
            catalogue = read_catalogue(root).refuse_problems()
            try:
                sources = catalogue.select([name])
            except UsageError:
                sources = []
            if sources:
                return [one for source in sources for one in self._of_source(catalogue, source)]
        if self._project is None and root is None:
            raise NotARepositoryError(f"{name} is no URL, and {self._none.message}", hint=self._none.hint)
        hint = "`dvc list . -R --dvc-only` and `holdfast sources list` name what there is; `dvc add` tracks a file"
        raise UsageError(f"{name} is neither tracked by DVC nor a source of the catalogue", hint=hint)

    def _of_url(self, url: str) -> Wanted:
        location = locate(url)
        if location.scheme == "memory":
            raise UsageError(f"{url}: what is in the memory of a process no other one can read")
        root = location.written or "/"
        options = store_options(url)
        place = BucketPlace(root, options)
        supply = self._supply((root, *_who(options)), lambda: Supply((place,), None, UPLOAD))
        path, named = location.path.strip("/"), f"{root.rstrip('/')}/"
        if url.endswith("/") or not path:
            return supply, Prefix(root, options, path, named)
        return supply, Object(root, options, path, named)

    def _of_revision(self, name: str, revision: str, path: str) -> list[Wanted]:
        if self._project is None:
            raise NotARepositoryError(f"{name} is no file, and {self._none.message}", hint=self._none.hint)
        # as with `git show`: from the top of the repository, or with ./ from here
        place = path
        if path.startswith(("./", "../")):
            place = (Path.cwd() / path).resolve().relative_to(self._project.git_root).as_posix()
        found = self._tracked(place.strip("/").removeprefix("./"), revision)
        if not found:
            hint = f"`dvc list . --rev {revision} -R --dvc-only` names what it has"
            raise UsageError(f"DVC tracks no {place} in commit {revision}", hint=hint)
        return found

    def _of_source(self, catalogue: Catalogue, source: Source) -> list[Wanted]:
        if source.dvc and self._project is not None and self._bucket is None:
            path = (catalogue.root / source.dvc).absolute()
            if path.is_relative_to(self._project.git_root):
                found = self._tracked(path.relative_to(self._project.git_root).as_posix(), None)
                if found:
                    return found
        if not source.prefix:
            hint = f"`holdfast sources add {source.id} --update --prefix …` maps it"
            raise UsageError(f"{source.id} has neither a prefix nor a path that DVC tracks", hint=hint)
        url = self._bucket or bucket_url(catalogue)
        if not url:
            raise UsageError(
                "the catalogue names no bucket",
                hint="Write `bucket: s3://…` into sources.yaml, or name it with bucket=",
            )
        options = store_options(url)
        supply = self._supply((url, *_who(options)), lambda: Supply((BucketPlace(url, options),), None, UPLOAD))
        hint = f"`holdfast sources verify {source.domain} --remote` says what is where"
        return [(supply, Prefix(url, options, source.prefix, checksum=source.checksum, hint=hint))]

    def _tracked(self, place: str, revision: str | None) -> list[Wanted]:
        """The outs at, above or below a path from the git root."""
        outs = self._read_outs(revision)
        above = [place, *(place[:end] for end in range(len(place) - 1, 0, -1) if place[end] == "/")]
        whole = next((path for path in above if path in outs), None)
        if whole is not None:
            part = place[len(whole) + 1 :]
            paths = [whole]
        else:
            part = ""
            paths = sorted(path for path in outs if not place or path.startswith(f"{place}/"))
        return [(self._project_supply(), self._as_wanted(outs[path], part)) for path in paths]

    def _as_wanted(self, out: Out, part: str) -> TrackedOut:
        assert self._project is not None
        if out.hash_name == LEGACY_MD5:
            hint = "`dvc cache migrate --dvc-files` gives it one, `dvc push` sends it"
            raise UsageError(f"{out.path} was tracked by DVC 2, which has no md5 of its bytes", hint=hint)
        prefix = f"{self._project.prefix}/" if self._project.prefix else ""
        return TrackedOut(out.path.removeprefix(prefix), out.oid, part, out.size, out.nfiles)

    def _read_outs(self, revision: str | None) -> dict[str, Out]:
        if revision not in self._outs:
            assert self._project is not None
            # imported here: 60 ms that URLs need not pay
            import pygit2

            from holdfast.repo.history import HistoryReader, read_workspace

            # not opened as one whose history is read: the machines that train most often have a shallow clone
            repository = pygit2.Repository(str(self._project.git_root))
            if revision is None:
                sightings = iter(read_workspace(repository).sightings)
            else:
                sightings = HistoryReader(repository).read_revision(revision)
            found: dict[str, Out] = {}
            for sighting in sightings:
                # what other worktrees and registered versions name is not what lies here
                if (revision is None and sighting.origin.ref) or sighting.version:
                    continue
                known = found.get(sighting.out.path)
                if known is None or known.hash_name == LEGACY_MD5:
                    found[sighting.out.path] = sighting.out
            self._outs[revision] = found
        return self._outs[revision]

    def _project_supply(self) -> int:
        return self._supply("project", self._make_project_supply)

    def _make_project_supply(self) -> Supply:
        from holdfast.cli.vaults import vault_url  # with the vault's modules, 0.3 s that a bucket's files need not pay
        from holdfast.repo.dvc import default_remote, local_cache, remotes

        project = self._project
        assert project is not None
        sections = remotes(project.root)
        if self._remote is not None and self._remote not in sections:
            raise UsageError(f"{self._remote} is no DVC remote", hint="`dvc remote list` names them")
        chosen = self._remote or default_remote(project.root)
        names = [chosen] if chosen in sections else list(sections)
        places: list[Place] = []
        remedy = PUSH
        try:
            url = vault_url(project, self._remote)
            places.append(VaultPlace(url, store_options(url), cache_folder(project.root)))
        except UsageError:
            pass  # no remote beside which one would lie
        for name in names:
            url = str(sections[name].get("url", ""))
            if not is_url(url):
                url = str((project.root / url).resolve())
            try:
                places.append(BucketPlace(url, store_options(url), remote=True))
            except UsageError:  # a server of another kind, which DVC itself knows; what it brought is in its cache
                remedy = f"The remote {name} is none to stream from: `dvc fetch` brings it, or name another by remote="
        return Supply(tuple(places), local_cache(project.root).folder, remedy)

    def _supply(self, key: object, make: Callable[[], Supply]) -> int:
        if key not in self._known:
            self._known[key] = len(self.supplies)
            self.supplies.append(make())
        return self._known[key]


def _who(options: StoreOptions) -> tuple[str | None, ...]:
    """What tells two ways to the same bucket apart: folders of it may belong to different DVC remotes."""
    return options.endpoint, options.access_key_id, options.profile
