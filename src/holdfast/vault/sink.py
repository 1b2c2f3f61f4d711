"""Where encoded blobs and finished recipes go: into packs, which are uploaded while the next one is filled."""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from holdfast.objectstore.store import ObjectStore
from holdfast.vault.journal import Journal
from holdfast.vault.listing import Listing
from holdfast.vault.pack import MAX_RECIPES, Pack, PackBuilder
from holdfast.vault.pipeline import Pipeline
from holdfast.vault.records import Entry, Recipe

# packs on their way at a time; with the one that is being filled they bound what a session holds in memory
UPLOADS = 2
FIRST_SHARE = 8


@dataclass
class PackSink:
    """The packs of a session.

    Args:
        store: where they go.
        journal: is told of each that has arrived; what it knows of counts as put.
        pack_bytes: a pack that has become so long is finished.
        claiming: whether somebody is told that the files are there.

    Attributes:
        entries: blobs of this session, by id; without a pack while theirs is being filled.
        recipes: files of this session, by oid.
        held: encoded blobs that are not in the store yet, by id.
        packs: keys and sizes of the finished packs.
        listing: what these hold.
    """

    store: ObjectStore
    journal: Journal
    pack_bytes: int
    claiming: bool = True
    entries: dict[bytes, Entry] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(default_factory=dict)
    held: dict[bytes, "bytes | memoryview"] = field(default_factory=dict)
    packs: dict[str, int] = field(default_factory=dict)
    listing: Listing = field(default_factory=Listing)
    _builder: PackBuilder = field(default_factory=PackBuilder)
    _journaled: "Future[None]" = field(default_factory=Future)
    _uploads: Pipeline = field(default_factory=lambda: Pipeline(UPLOADS, UPLOADS, "holdfast-upload"))

    def __post_init__(self) -> None:
        self._journaled.set_result(None)
        self.packs.update(self.journal.packs)
        self.listing.add(self.journal.listing)
        self.entries.update((entry.id, entry) for entry in self.journal.listing.entries)
        self.recipes.update((recipe.oid, recipe) for recipe in self.journal.listing.recipes)

    def add(self, entry: Entry, blob: "bytes | memoryview") -> Entry:
        """Put a blob into the pack that is being filled; its entry with its place there.

        Raises:
            StoreError: a pack could not be uploaded; nothing more can be put.
        """
        placed = self._builder.add(entry, blob)
        self.entries[entry.id] = placed
        self.held[entry.id] = blob
        self._seal_if_full()
        return placed

    def add_recipes(self, recipes: Iterable[Recipe]) -> None:
        """Files all of whose blobs are in this session's packs, or in the vault.

        Raises:
            StoreError: as of `add`.
        """
        listing = self._builder.listing
        fresh = {recipe.oid: recipe for recipe in recipes if recipe.oid not in self.recipes}
        self.recipes.update(fresh)
        listing.recipes += fresh.values()
        listing.claimed += [self.claiming] * len(fresh)
        self._seal_if_full()

    def seal(self) -> None:
        """Begin to upload what is left: all packs are known then.

        Raises:
            StoreError: as of `add`.
        """
        if not self._builder.empty:
            self._seal(ahead=1)  # it is there already: to wait until it can be sent saves no memory

    def finish(self) -> None:
        """Upload what is left; all packs are in the store afterwards.

        Raises:
            StoreError: as of `add`.
        """
        self.seal()
        self._uploads.drain()

    def close(self) -> None:
        """Upload nothing more."""
        self._uploads.close()

    def _seal_if_full(self) -> None:
        target = self.pack_bytes
        if (
            self.claiming
        ):  # somebody waits: the first ones are short, so that the link is not idle until a long one is full
            target = max(target // FIRST_SHARE, min(target, sum(self.packs.values()) // 2))
        if self._builder.nbytes >= target or len(self._builder.listing.recipes) >= MAX_RECIPES:
            self._seal()

    def _seal(self, ahead: int = 0) -> None:
        pack = self._builder.finish(self.journal.session)
        self._builder = PackBuilder()
        whole = memoryview(pack.data)
        for entry in pack.listing.entries:
            self.entries[entry.id] = entry
            self.held[entry.id] = whole[entry.offset : entry.offset + entry.stored]
        self.packs[pack.key] = len(pack.data)
        self.listing.add(pack.listing)
        before, after = self._journaled, Future[None]()
        self._journaled = after
        self._uploads.submit(lambda: self._upload(pack, before, after), self._uploaded, ahead=ahead)

    def _upload(self, pack: Pack, before: "Future[None]", after: "Future[None]") -> list[Entry]:
        try:
            self.store.put(pack.key, pack.data)
            # a pack may need what is in those before it: the journal never knows it without them
            before.result()
            self.journal.add(pack.key, len(pack.data), pack.footer)
        except BaseException as error:
            after.set_exception(error)
            raise
        after.set_result(None)
        return pack.listing.entries

    def _uploaded(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.held.pop(entry.id, None)
