"""Which blobs are stored as deltas at a push: only so many that restoring the file stays as cheap as fetching it raw.

Restoring a file reads its blobs and all their bases, each once. At a push that never takes more stored bytes than the
file has, so that a pull never reads more than it would without a vault. Deltas against long chains store less and read
more; `repack` makes that choice anew for what is rarely read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.vault.reading import Place
from holdfast.vault.records import MAX_DEPTH, Entry

# what an encoded blob may have more than it holds: its head, and for each of its blocks (`holdfast.vault.codec.encode`)
HEAD_BYTES, BLOCK_HEAD_BYTES, CODEC_BLOCK_BYTES = 36, 14, 1 << 21


def most_stored(plain: int) -> int:
    """The most bytes that a blob with so many plain ones takes when it has no base."""
    return plain + HEAD_BYTES + BLOCK_HEAD_BYTES * -(-plain // CODEC_BLOCK_BYTES)


def most_of_cast(plain: int) -> int:
    """The most bytes that a blob with so many plain ones takes as a cast: with more it is something else."""
    return plain // 16 + HEAD_BYTES + BLOCK_HEAD_BYTES


@dataclass
class RestoreBudget:
    """Counts what restoring one file reads, with the worst assumed for the blobs that are not encoded yet.

    Args:
        limit: the most that it may be, in bytes; a delta is allowed while the count stays within.

    Attributes:
        reads: bytes read so far, with what is assumed.
    """

    limit: float
    reads: int = 0
    _places: set[Place] = field(default_factory=set)

    def count(self, chain: Iterable[Entry]) -> None:
        """A blob that is there already, with its bases."""
        for entry in chain:
            place = (entry.pack, entry.offset)
            if place not in self._places:
                self._places.add(place)
                self.reads += entry.stored

    def expect(self, plain: int) -> None:
        """A blob that will be encoded, of so many plain bytes."""
        self.reads += most_stored(plain)

    def extra(self, chain: Iterable[Entry]) -> int:
        """What a base and those below it add to what is read."""
        return sum(entry.stored for entry in chain if (entry.pack, entry.offset) not in self._places)

    def allows(self, plain: int, stored: int, chain: Sequence[Entry]) -> bool:
        """Whether an expected blob may be a delta of so many bytes against a chain."""
        return self.reads - most_stored(plain) + stored + self.extra(chain) <= self.limit

    def encoded(self, plain: int, stored: int, chain: Sequence[Entry] = ()) -> None:
        """An expected blob has become so many bytes, against a chain or alone."""
        self.reads += stored - most_stored(plain)
        self.count(chain)


@dataclass
class BaseChoice:
    """Chooses the base of each blob of a file, and learns from how large the deltas before became.

    What it says depends on what it was told alone, so that the same file in the same vault gets the same bases.

    Args:
        budget: of the file.
    """

    budget: RestoreBudget
    _deltas: int = 0
    _plain: int = 0

    def candidate(self, plain: int, chain: Sequence[Entry]) -> Sequence[Entry]:
        """The chain to try: that of the nearest base whose delta is likely to be allowed; empty for none.

        Args:
            plain: the blob's bytes.
            chain: the place of the same part of the file's other version, and of the bases below it.
        """
        for start in range(_first_base(chain), len(chain)):
            entry = chain[start]
            likely = max(entry.stored if entry.base else 0, self._share() * plain)
            if self.budget.allows(plain, int(likely), chain[start:]):
                return chain[start:]
        return ()

    def cast(self, plain: int, chain: Sequence[Entry]) -> Sequence[Entry]:
        """The chain of what a blob may be a cast of, if a cast is allowed; empty for not.

        Args:
            plain: the blob's bytes.
            chain: the place of the wider blob, and of the bases below it.
        """
        allowed = chain and chain[0].depth < MAX_DEPTH and self.budget.allows(plain, most_of_cast(plain), chain)
        return chain if allowed else ()

    def tried(self, plain: int, stored: int) -> None:
        """A delta of so many bytes was made."""
        self._deltas += stored
        self._plain += plain

    def _share(self) -> float:
        return self._deltas / self._plain if self._plain else 0.0


def _first_base(chain: Sequence[Entry]) -> int:
    """The nearest base of a chain that may have a delta; where the chain is as deep as it may be, one half-way down.

    From there on as many again follow one another closely, where the next one below would be further off each time.
    """
    if not chain or chain[0].depth < MAX_DEPTH:
        return 0
    return next(place for place, entry in enumerate(chain) if entry.depth <= MAX_DEPTH // 2)
