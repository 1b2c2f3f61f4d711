"""Work cut into parts whose borders depend on the names alone: one more object changes one part, not all behind it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from blake3 import blake3

Item = TypeVar("Item")

MOST = 4


def cut(
    items: Iterable[Item], key_of: Callable[[Item], str], mean: int, cost_of: Callable[[Item], int] = lambda _: 1
) -> Iterator[list[Item]]:
    """The items in parts of some ``mean`` items, and of `MOST` times that at most.

    A part ends behind a name whose digest says so: one in ``mean`` does, wherever it stands. So the parts of two lists
    are the same where the lists are, but for the rest of the part in which they differ.

    Args:
        items: in an order that depends on the names alone.
        key_of: an item's name.
        mean: items of a part, on average.
        cost_of: for how many items one counts; a part has one at least.
    """
    part: list[Item] = []
    cost = 0
    for item in items:
        own = cost_of(item)
        if part and cost + own > MOST * mean:
            yield part
            part, cost = [], 0
        part.append(item)
        cost += own
        if _number_of(key_of(item)) % mean == 0:
            yield part
            part, cost = [], 0
    if part:
        yield part


def name_of(task: str, facts: Iterable[Sequence[str | int]]) -> str:
    """What a part of some work is called: 32 hex digits of the digest of all that its result depends on.

    Args:
        task: what is done, in which version, with which settings.
        facts: texts and numbers of each item.
    """
    hasher = blake3(f"{task}\0".encode())
    for fact in facts:
        text = "\0".join(map(str, fact))
        hasher.update(f"{len(text)}\0{text}".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest(length=16)


def _number_of(key: str) -> int:
    return int.from_bytes(blake3(key.encode("utf-8", "surrogateescape")).digest(8), "little")
