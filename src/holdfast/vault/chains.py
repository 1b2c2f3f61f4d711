"""In which order the versions of files are stored when all of them are at hand, and each against which other one.

The newest version of a path is what is read most: it is stored whole. Each older one is stored against the next newer
one, a chain that runs backward in time. What must stay quick to restore (*hot*) goes first, under the limit of a push,
and what is only kept (*cold*) after it, under none but the depth of a chain.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from holdfast.repo.lineage import Lineage, ObjectKey


class Link(NamedTuple):
    """A file in its place of the order.

    Attributes:
        key: the file.
        base: the file that comes before it and that it is stored against; None for one that is stored whole.
        cold: whether restoring it may read however much.
    """

    key: ObjectKey
    base: ObjectKey | None
    cold: bool


def chain_order(lineage: Lineage, keys: Iterable[ObjectKey], hot: Collection[ObjectKey]) -> list[Link]:
    """The files in the order in which they are to be stored: hot ones first, and newer ones before older ones.

    Each chain goes to its end before the next one begins, so that few files need to be at hand at a time.

    Args:
        lineage: the versions of each path.
        keys: the files; of two newest versions that are equally new the later one goes first.
        hot: those that must stay quick to restore, whether or not they are among ``keys``.
    """
    newest_first = lineage.oldest_first(keys)[::-1]
    before: set[ObjectKey] = set()
    links = []
    for key in sorted(newest_first, key=lambda key: key not in hot):
        base = next((other for other in (*lineage.newer(key), *lineage.older(key)) if other in before), None)
        links.append(Link(key, base, key not in hot))
        before.add(key)
    return [link for cold in (False, True) for link in _chain_by_chain([link for link in links if link.cold == cold])]


def _chain_by_chain(links: Sequence[Link]) -> Iterator[Link]:
    inside = {link.key for link in links}
    after: dict[ObjectKey, list[Link]] = {}
    stack: list[Link] = []
    for link in reversed(links):
        if link.base is not None and link.base in inside:
            after.setdefault(link.base, []).append(link)
        else:
            stack.append(link)
    while stack:
        link = stack.pop()
        yield link
        stack += after.get(link.key, ())
