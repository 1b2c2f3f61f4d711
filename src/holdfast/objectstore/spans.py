"""Spans of an object: which are fetched together, and how what was fetched is cut up again."""

from bisect import bisect_right
from collections.abc import Sequence

from holdfast.objectstore.store import Data


def check_span(offset: int, count: int) -> None:
    """See that a span is one.

    Raises:
        ValueError: it begins before the object, or has fewer than no bytes.
    """
    if offset < 0 or count < 0:
        raise ValueError(f"no span: {count} bytes from {offset} on")


def merged(spans: Sequence[tuple[int, int]], gap_bytes: int, limit_bytes: int) -> list[tuple[int, int]]:
    """Spans (offset, count) that cover ``spans``, ascending, none longer than ``limit_bytes`` unless one of them is.

    Args:
        spans: in any order; empty ones are left out.
        gap_bytes: how far apart two may lie to be fetched together.
        limit_bytes: how long what is fetched together may get.
    """
    found: list[tuple[int, int]] = []
    for offset, count in sorted((span for span in spans if span[1]), key=lambda span: (span[0], -span[1])):
        if found:
            start, length = found[-1]
            end = max(start + length, offset + count)
            inside = end == start + length
            if inside or (offset <= start + length + gap_bytes and end - start <= limit_bytes):
                found[-1] = (start, end - start)
                continue
        found.append((offset, count))
    return found


def cut(spans: Sequence[tuple[int, int]], whole: Sequence[tuple[int, int]], data: Sequence[Data]) -> list[memoryview]:
    """The spans as views of what was fetched for them.

    Args:
        spans: what is wanted.
        whole: what was fetched, as `merged` has it.
        data: the bytes of each of ``whole``.
    """
    starts = [start for start, _ in whole]
    views = []
    for offset, count in spans:
        if not count:
            views.append(memoryview(b""))
            continue
        place = bisect_right(starts, offset) - 1
        start = offset - starts[place]
        views.append(memoryview(data[place])[start : start + count])
    return views
