"""Weights in several wrappers, tensors in several checkpoints, and casts of stored tensors: all told by content."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from holdfast.dedup.contents import CODES, HALVES, WIDE, Body, Contents
from holdfast.dedup.groups import DuplicateGroup, Kind
from holdfast.errors import HoldfastError
from holdfast.formats.cache import DigestCache, Digests, Key
from holdfast.formats.checkpoint import Checkpoint, Tensor
from holdfast.formats.content import tensor_chunks
from holdfast.formats.opening import read_checkpoint
from holdfast.vault.codec_elements import ELEMENTS, Array, cast

_WIDE_BYTES = ELEMENTS[WIDE].width
# who stores a tensor, and how often each
Owners = tuple[tuple[int, int], ...]


@dataclass
class _Shared:
    """Tensors that the same checkpoints have: how many, the bytes of one copy of each, and the bytes too many."""

    tensors: int = 0
    nbytes: int = 0
    wasted: int = 0
    hasher: "blake3" = field(default_factory=blake3)


def weights_groups(contents: Contents) -> list[DuplicateGroup]:
    """Different files with the same weights: a ``.pt`` beside its ``.safetensors``, say."""
    classes: dict[str, list[Body]] = {}
    for body in contents.bodies:
        if body.weights is not None:
            classes.setdefault(body.weights, []).append(body)
    sizes = _weight_bytes(contents)
    groups = []
    for digest, bodies in classes.items():
        if len(bodies) > 1:
            count, nbytes = sizes[bodies[0].number]
            groups.append(_group("weights", digest, nbytes, len(bodies), nbytes * (len(bodies) - 1), bodies, count))
    return groups


def shared_groups(contents: Contents) -> list[DuplicateGroup]:
    """Tensors that several checkpoints have, or one has twice; the tensors of the same checkpoints are one group.

    Weights that are equal as a whole are left to `weights_groups`: checkpoints with the same weights count as one for
    their weights' tensors.
    """
    table = contents.tensors
    if not len(table):
        return []
    owners, members = _owners(contents)
    high, low = np.frombuffer(table.high, np.uint64), np.frombuffer(table.low, np.uint64)
    bodies, nbytes = np.frombuffer(table.body, np.dtype("L")), np.frombuffer(table.nbytes, np.uint64)
    order = np.lexsort((bodies, owners, low, high))
    first = np.ones(len(order), np.bool_)
    first[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(order))
    found: dict[Owners, _Shared] = {}
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        rows = order[start:end]
        times = _times(owners[rows].tolist(), bodies[rows].tolist())
        copies = sum(times.values())
        if copies < 2:
            continue
        size = int(nbytes[rows[0]])
        shared = found.setdefault(tuple(times.items()), _Shared())
        shared.tensors += 1
        shared.nbytes += size
        shared.wasted += size * (copies - 1)
        shared.hasher.update(int(high[rows[0]]).to_bytes(8, "big") + int(low[rows[0]]).to_bytes(8, "big"))
    return [
        _group(
            "tensors",
            f"blake3:{shared.hasher.hexdigest()}",
            shared.nbytes,
            sum(times for _, times in key),
            shared.wasted,
            [contents.bodies[number] for owner, _ in key for number in members[owner]],
            shared.tensors,
        )
        for key, shared in found.items()
    ]


def cast_groups(contents: Contents, digests: DigestCache) -> list[DuplicateGroup]:
    """Tensors of bfloat16 or float16 that are what a stored float32 tensor of their name and shape is cast to.

    A wide tensor that has such a namesake is read once, cast, and its digest compared; the answer is remembered.
    """
    table = contents.tensors
    if not len(table):
        return []
    forms, codes = np.frombuffer(table.form, np.uint64), np.frombuffer(table.dtype, np.uint8)
    origins: dict[int, list[int]] = {}
    for target in HALVES:
        halves = np.flatnonzero(codes == CODES[target])
        wides = np.flatnonzero((codes == CODES[WIDE]) & np.isin(forms, forms[halves]))
        wanted = {(_digest(contents, row), table.form[row]): row for row in reversed(halves.tolist())}
        once: set[bytes] = set()
        for wide, digest in _casts(contents, wides.tolist(), target, digests):
            row = wanted.get((digest, table.form[wide]))
            # of equal halves one: the others are shared tensors
            if row is not None and (row in origins or digest not in once):
                once.add(digest)
                origins.setdefault(row, []).append(table.body[wide])
    return [
        _group(
            "cast",
            f"blake3:{shared.hasher.hexdigest()}",
            shared.nbytes,
            2,
            shared.wasted,
            [contents.bodies[number] for number in dict.fromkeys(pair)],
            shared.tensors,
        )
        for pair, shared in _pairs(contents, origins)
    ]


def _pairs(contents: Contents, origins: dict[int, list[int]]) -> Iterator[tuple[tuple[int, int], _Shared]]:
    """Checkpoints with the casts that they give to others: where several could have given one, the largest giver."""
    table = contents.tensors
    by_body: dict[int, list[int]] = {}
    for row in sorted(origins):
        by_body.setdefault(table.body[row], []).append(row)
    for half, left in by_body.items():
        while left:
            given: Counter[int] = Counter()
            for row in left:
                for wide in dict.fromkeys(origins[row]):
                    given[wide] += table.nbytes[row]
            giver = min(given, key=lambda wide: (-given[wide], wide))
            shared = _Shared()
            for row in (row for row in left if giver in origins[row]):
                shared.tensors += 1
                shared.nbytes += table.nbytes[row]
                shared.wasted += table.nbytes[row]
                shared.hasher.update(_digest(contents, row))
            yield (giver, half), shared
            left = [row for row in left if giver not in origins[row]]


def _weight_bytes(contents: Contents) -> dict[int, tuple[int, int]]:
    """Of each checkpoint how many tensors its weights have, and their bytes."""
    table = contents.tensors
    if not len(table):
        return {}
    is_weight = np.frombuffer(table.weight, np.uint8) == 1
    bodies = np.frombuffer(table.body, np.dtype("L"))[is_weight]
    nbytes = np.frombuffer(table.nbytes, np.uint64)[is_weight]
    total = len(contents.bodies)
    counts = np.bincount(bodies, minlength=total)
    # float64 counts bytes exactly up to 2^53
    sums = np.bincount(bodies, weights=nbytes.astype(np.float64), minlength=total)
    return {number: (int(counts[number]), int(sums[number])) for number in range(total)}


def _owners(contents: Contents) -> tuple[Array, dict[int, list[int]]]:
    """For each row whose the tensor is: the checkpoint's, or, of its weights, that of all with the same weights.

    Returns:
        the owner of each row, int64, shape (rows,); the checkpoints of each owner.
    """
    count = len(contents.bodies)
    classes: dict[str, int] = {}
    of_weights = np.arange(count)
    members: dict[int, list[int]] = {number: [number] for number in range(count)}
    for body in contents.bodies:
        if body.weights is not None:
            owner = classes.setdefault(body.weights, body.number)
            of_weights[body.number] = owner
            if owner != body.number:
                members[owner].append(body.number)
    bodies = np.frombuffer(contents.tensors.body, np.dtype("L")).astype(np.int64)
    is_weight = np.frombuffer(contents.tensors.weight, np.uint8) == 1
    return np.where(is_weight, of_weights[bodies], bodies), members


def _times(owners: Sequence[int], bodies: Sequence[int]) -> dict[int, int]:
    """How often each owner stores a tensor of its own accord: the most that one of its checkpoints has it."""
    most: dict[int, int] = {}
    run = 0
    for place, (owner, body) in enumerate(zip(owners, bodies, strict=True)):
        run = run + 1 if place and (owner, body) == (owners[place - 1], bodies[place - 1]) else 1
        most[owner] = max(most.get(owner, 0), run)
    return most


def _casts(contents: Contents, rows: list[int], target: str, digests: DigestCache) -> Iterator[tuple[int, bytes]]:
    """The first 16 bytes of the digest of what each row's tensor is cast to; equal tensors once."""
    table = contents.tensors
    known: dict[bytes, bytes] = {}
    by_body: dict[int, list[int]] = {}
    for row in rows:
        by_body.setdefault(table.body[row], []).append(row)
    for number, members in by_body.items():
        keys = {_cast_key(_digest(contents, row), target): _digest(contents, row) for row in members}
        known |= {keys[key]: bytes.fromhex(found.file) for key, found in digests.many(keys).items() if found.file}
        missing = {_digest(contents, row): row for row in members if _digest(contents, row) not in known}
        if missing:
            try:
                for row, digest in _cast_rows(contents, contents.bodies[number], missing.values(), target):
                    known[_digest(contents, row)] = digest
                    digests.put_key(_cast_key(_digest(contents, row), target), Digests(file=digest.hex()))
            except (OSError, HoldfastError) as error:
                contents.notes.append(f"{contents.bodies[number].label}: its casts are not known: {error}")
        yield from ((row, known[wide]) for row in members if (wide := _digest(contents, row)) in known)


def _cast_rows(contents: Contents, body: Body, rows: Iterable[int], target: str) -> Iterator[tuple[int, bytes]]:
    with body.open() as source:
        checkpoint = read_checkpoint(source)
        for row in rows:
            tensor = checkpoint.tensors[contents.tensors.place[row]]
            yield row, _cast_digest(checkpoint, tensor, target)


def _cast_digest(checkpoint: Checkpoint, tensor: Tensor, target: str) -> bytes:
    hasher = blake3()
    rest = b""
    for piece in tensor_chunks(checkpoint, tensor):
        data = rest + piece if rest else piece
        whole = len(data) - len(data) % _WIDE_BYTES
        rest = data[whole:]
        numbers = np.frombuffer(data, ELEMENTS[WIDE].unsigned, whole // _WIDE_BYTES)
        hasher.update(cast(numbers, WIDE, target).tobytes())
    return hasher.digest()[:16]


def _cast_key(digest: bytes, target: str) -> Key:
    raw = blake3(b"cast to " + target.encode() + b"\0" + digest).digest()
    a, b, c, d = (int.from_bytes(raw[start : start + 8], "little") for start in range(0, 32, 8))
    return a, b, c, d


def _digest(contents: Contents, row: int) -> bytes:
    return contents.tensors.high[row].to_bytes(8, "big") + contents.tensors.low[row].to_bytes(8, "big")


def _group(
    kind: Kind, digest: str, size: int, copies: int, wasted: int, bodies: Iterable[Body], tensors: int
) -> DuplicateGroup:
    listed = list(bodies)
    return DuplicateGroup(
        digest=digest,
        size=size,
        copies=copies,
        wasted=wasted,
        kind=kind,
        paths=tuple(sorted({path for body in listed for path in body.paths})),
        oids=tuple(sorted({oid for body in listed for oid in body.oids})),
        tensors=tensors,
    )
