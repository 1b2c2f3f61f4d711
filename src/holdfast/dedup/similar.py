"""Near-duplicates: checkpoints that are close to another one, which a vault stores as the difference."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence

from blake3 import blake3

from holdfast.dedup.contents import Body
from holdfast.dedup.estimate import SAMPLE_BLOCKS, Sample, sample_pair
from holdfast.dedup.groups import DuplicateGroup
from holdfast.errors import HoldfastError
from holdfast.inventory.ref_families import name_families
from holdfast.repo.lineage import Lineage, ObjectKey
from holdfast.vault.split import Split, split_source

SPLITS_KEPT = 64
REMEMBERED = 8  # checkpoints for each slot, the newest
# a pair takes a tenth of a second; those that may save most come first
MAX_PAIRS = 200
# a base must make what changed that much smaller than it is alone, or the two are not close
CLOSE = 0.95

Progress = Callable[[int, int], object]


def similar_groups(
    bodies: Sequence[Body],
    lineage: Lineage,
    notes: list[str],
    *,
    max_pairs: int = MAX_PAIRS,
    blocks: int = SAMPLE_BLOCKS,
    progress: Progress = lambda _done, _total: None,
) -> list[DuplicateGroup]:
    """Pairs of checkpoints of which the vault would store one as its difference to the other.

    Args:
        bodies: the checkpoints.
        lineage: which object was which file before.
        notes: gets a line for what cannot be read, or is too much.
        max_pairs: how many are sampled, the largest first.
        blocks: how many blocks of a pair.
        progress: called with pairs done, and all.
    """
    pairs = find_pairs(bodies, lineage)
    pairs.sort(key=lambda pair: (-pair[0].size, pair[0].number))
    if len(pairs) > max_pairs:
        notes.append(f"of {len(pairs):,} pairs of similar checkpoints the {max_pairs:,} largest were sampled")
    groups = []
    splits = _Splits()
    for number, (body, base) in enumerate(pairs[:max_pairs], 1):
        try:
            sample = sample_pair(body.open, base.open, blocks=blocks, splits=(splits.of(body), splits.of(base)))
        except (OSError, HoldfastError) as error:
            notes.append(f"{body.label}: not compared to {base.label}: {error}")
            continue
        if is_close(sample):
            groups.append(_group(body, base, sample))
        progress(number, min(len(pairs), max_pairs))
    return groups


class _Splits:
    """How checkpoints are cut, the last ones remembered: a base is often that of several, or in the next pair."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, Split] = OrderedDict()

    def of(self, body: Body) -> Split:
        if body.number not in self._known:
            with body.open() as source:
                self._known[body.number] = split_source(source)
        self._known.move_to_end(body.number)
        while len(self._known) > SPLITS_KEPT:
            self._known.popitem(last=False)
        return self._known[body.number]


def is_close(sample: Sample) -> bool:
    """Whether a base helps: some bytes are equal, or what changed becomes smaller than it would be alone."""
    return bool(sample.changed) and (sample.same > 0 or sample.ratio <= CLOSE * sample.alone)


def find_pairs(bodies: Sequence[Body], lineage: Lineage) -> list[tuple[Body, Body]]:
    """For each checkpoint the one that the vault would take as its base, older ones first; at most one each.

    Of checkpoints with the same weights the largest stands for all. The base is the version right before it of the same
    path in git's history; else, of those with the most tensors of the same names, types and shapes, one of the same
    family of names, the newest. It always comes before in the list, so that no two rest on each other.
    """
    bodies = _largest(bodies)
    by_key = {key: body for body in bodies for key in body.keys}
    families = name_families({path for body in bodies for path in body.paths})
    newest: dict[int, list[Body]] = {}
    before: set[int] = set()
    pairs = []
    for body in _older_first(bodies, by_key, lineage):
        older = (by_key[key] for own in body.keys for key in lineage.older(own) if key in by_key)
        previous = next((other for other in older if other.number in before), None)
        base = previous or _relative(body, newest, families)
        before.add(body.number)
        for slot in body.slots:
            newest[slot] = [*newest.get(slot, ()), body][-REMEMBERED:]
        if base is not None:
            pairs.append((body, base))
    return pairs


def _largest(bodies: Sequence[Body]) -> list[Body]:
    """Of checkpoints with the same weights the largest: that they are the same is told already."""
    largest: dict[str, Body] = {}
    for body in bodies:
        if body.weights is not None and body.size > (known.size if (known := largest.get(body.weights)) else -1):
            largest[body.weights] = body
    return [body for body in bodies if body.weights is None or largest[body.weights] is body]


def _older_first(bodies: Sequence[Body], by_key: Mapping[ObjectKey, Body], lineage: Lineage) -> list[Body]:
    """By age of their files, but never before a version that their paths had before: a fetch makes old ones new."""
    ordered: dict[int, Body] = {}
    for body in sorted(bodies, key=lambda body: (body.modified, body.number)):
        if body.number not in ordered:
            older = [by_key[key] for own in body.keys for key in reversed(lineage.older(own)) if key in by_key]
            ordered |= {other.number: other for other in older if other.number not in ordered}
            ordered[body.number] = body
    return list(ordered.values())


def _relative(body: Body, newest: Mapping[int, Sequence[Body]], families: Mapping[str, str]) -> Body | None:
    common: Counter[int] = Counter()
    known: dict[int, Body] = {}
    for slot in body.slots:
        for other in newest.get(slot, ()):
            common[other.number] += 1
            known[other.number] = other
    own = {families[path] for path in body.paths}
    return max(
        known.values(),
        key=lambda other: (
            common[other.number],
            not own.isdisjoint(families[path] for path in other.paths),
            other.modified,
            other.number,
        ),
        default=None,
    )


def _group(body: Body, base: Body, sample: Sample) -> DuplicateGroup:
    identity = "\n".join([*body.paths, *body.oids, "against", *base.paths, *base.oids])
    return DuplicateGroup(
        digest=f"blake3:{blake3(identity.encode('utf-8', 'surrogateescape')).hexdigest()}",
        size=body.size,
        copies=2,
        wasted=sample.saving,
        kind="similar",
        paths=(*body.paths, *(path for path in base.paths if path not in body.paths)),
        oids=tuple(dict.fromkeys((*body.oids, *base.oids))),
        estimate=sample.estimate(),
        base=base.label,
    )
