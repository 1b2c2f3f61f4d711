"""Which files somebody was told of, and when: they stay for a while, whoever names them."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from holdfast.vault.segment import Segment
from holdfast.vault.survey import Survey

# a server tells clients for an hour that a file is there before it claims it again; a claim must outlive that by far
FLOOR = timedelta(hours=2)


def claims(found: Survey) -> dict[str, datetime]:
    """Each file that was claimed, and when that was last, by the store's clock.

    A collector that takes a segment away copies its claims with their times, so that they do not become younger.
    """
    latest: dict[str, datetime] = {}
    for segment in found.segments:
        written = found.written.get(segment.session)
        if written is not None:
            for oid, since in _of(segment, written):
                if oid not in latest or latest[oid] < since:
                    latest[oid] = since
    return latest


def recent_claims(found: Survey, now: datetime, recent: timedelta) -> dict[str, datetime]:
    """Those that are younger than ``recent``, which is taken for no less than `FLOOR`.

    Args:
        found: what is in the vault.
        now: by the store's clock.
        recent: how long a claim counts.
    """
    least = now - max(recent, FLOOR)
    return {oid: since for oid, since in claims(found).items() if since > least}


def _of(segment: Segment, written: datetime) -> Iterator[tuple[str, datetime]]:
    rows = segment.rows
    yield from ((oid, written) for oid, claimed in zip(rows.oids, rows.claimed.tolist(), strict=True) if claimed)
    for oid, since in zip(rows.claims, rows.since, strict=True):
        # a clock that was set back makes no claim younger than its segment
        yield oid, min(written, datetime.fromtimestamp(since, timezone.utc)) if since else written
