"""What a server counts, in Prometheus' text form."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0)
PREFIX = "holdfast_"

COUNTERS = {
    "requests_total": "Requests answered, by method and status; 499 is a client that left.",
    "received_bytes_total": "Bytes of files received.",
    "sent_bytes_total": "Bytes of files sent.",
    "groups_total": "Groups of uploads and claims, by whether they were committed.",
    "files_total": "Files put into the vault.",
    "raw_bytes_total": "Bytes of the files put into the vault.",
    "stored_bytes_total": "Bytes that these take in the vault.",
    "revived_total": "Files that were condemned, and put again since they were asked for.",
}
HISTOGRAMS = {
    "request_seconds": "How long requests took, from their head to the last byte of the answer.",
    "commit_seconds": "How long groups took, from their session's announcement to its commit.",
}
GAUGES = {
    "requests_active": "Requests under way.",
    "requests_waiting": "Requests that wait for others to end.",
    "spooled_bytes": "Bytes of uploads on this machine that are not committed yet.",
}


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * len(BUCKETS_SECONDS))
    total: int = 0
    seconds: float = 0.0

    def lines(self, name: str) -> Iterator[str]:
        for bound, count in zip(BUCKETS_SECONDS, self.counts, strict=True):
            yield f'{name}_bucket{{le="{bound:g}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self.total}'
        yield f"{name}_sum {self.seconds:.6f}"
        yield f"{name}_count {self.total}"


class Metrics:
    """Counts; may be used from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, int]] = {name: {} for name in COUNTERS}
        self._histograms = {name: _Histogram() for name in HISTOGRAMS}
        self._gauges: dict[str, Callable[[], int]] = {}

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter of `COUNTERS`; the values of labels are from small sets."""
        key = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        with self._lock:
            values = self._counts[name]
            values[key] = values.get(key, 0) + amount

    def observe(self, name: str, seconds: float) -> None:
        """Take in a duration for one of `HISTOGRAMS`."""
        with self._lock:
            histogram = self._histograms[name]
            histogram.total += 1
            histogram.seconds += seconds
            for place, bound in enumerate(BUCKETS_SECONDS):
                histogram.counts[place] += seconds <= bound

    def gauge(self, name: str, value: Callable[[], int]) -> None:
        """Say how one of `GAUGES` is read."""
        self._gauges[name] = value

    def as_text(self) -> str:
        """All of it."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        with self._lock:
            for name, text in COUNTERS.items():
                yield from _head(name, text, "counter")
                for labels, value in sorted(self._counts[name].items()) or [("", 0)]:
                    yield f"{PREFIX}{name}{f'{{{labels}}}' if labels else ''} {value}"
            for name, text in HISTOGRAMS.items():
                yield from _head(name, text, "histogram")
                yield from self._histograms[name].lines(PREFIX + name)
        for name, value_of in self._gauges.items():
            yield from _head(name, GAUGES[name], "gauge")
            yield f"{PREFIX}{name} {value_of()}"


def _head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {text}"
    yield f"# TYPE {PREFIX}{name} {kind}"
