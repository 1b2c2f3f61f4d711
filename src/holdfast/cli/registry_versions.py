"""The table of a model's versions, as wide as the terminal is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from holdfast.cli.output import COLUMN_GAP, Table, human_bytes, plural
from holdfast.cli.registry_columns import GateMetrics, MetricColumn, metric_columns
from holdfast.cli.registry_stored import Added
from holdfast.cli.registry_tables import text_width
from holdfast.registry.table import VersionTable

REVISION_DIGITS = 7
EDGES = 2  # a space on either side of a table
NAMES_LISTED = 6
UNKNOWN = "–"

_size = lru_cache(maxsize=4096)(human_bytes)


@dataclass
class VersionsView:
    """How versions are shown.

    Args:
        added: what each added.
        gate: what the gate looks at.
        day: today.
        picked: metrics that are wanted; empty for all.
        every: each class has its own column.
        width: characters of a line; None where it may have any number.
        aligned: whether cells are in a column of equal characters.

    Attributes:
        hidden: what did not fit.
    """

    added: Added
    gate: GateMetrics
    day: date
    picked: Sequence[str] = ()
    every: bool = False
    width: int | None = None
    aligned: bool = True
    hidden: list[str] = field(default_factory=list)

    def block(self, table: VersionTable) -> Table:
        """The table of a model's versions, the newest first."""
        metrics = metric_columns(table, self.gate, self.picked, every=self.every)
        champion = table.names.index(table.champion) if table.champion is not None else None
        columns = {
            "version": list(table.names),
            "labels": [", ".join(table.labels.get(name, ())) for name in table.names],
            **{metric.header: metric.cells(champion, aligned=self.aligned) for metric in metrics},
            "size": list(map(_size, table.sizes)),
            "new bytes": self._new(table),
            "age": self._ages(table.dates),
            "commit": [rev[:REVISION_DIGITS] for rev in table.revs],
        }
        self._fit(columns, metrics)
        title = f"{table.id}, {plural(len(table.names), 'version')}"
        title += f": {table.description}" if table.description else ""
        right = {"size", "new bytes", "age"}
        if not self.aligned:  # else the cells are as wide as each other
            right |= {metric.header for metric in metrics}
        rows = list(zip(*(cells[::-1] for cells in columns.values()), strict=True))
        return Table(list(columns), rows, title, frozenset(right & columns.keys()))

    def hidden_sentence(self) -> str:
        """What did not fit, for people; empty where all did."""
        names = list(dict.fromkeys(self.hidden))
        if not names:
            return ""
        more = f" and {len(names) - NAMES_LISTED} more" if len(names) > NAMES_LISTED else ""
        listed = ", ".join(names[:NAMES_LISTED])
        return f"Not shown for want of width: {listed}{more}. `--metrics A,B` picks, `--all-metrics` shows all."

    def _fit(self, columns: dict[str, list[str]], metrics: Sequence[MetricColumn]) -> None:
        """Take out what the terminal has no room for: of metrics first those that the gate does not look at."""
        if self.width is None:
            return
        first = [metric.header for metric in metrics if metric.of_gate or self.picked]
        others = [metric.header for metric in metrics if metric.header not in first]
        if not first:
            first, others = others[:1], others[1:]
        kept = {"version", "labels", *(first if self.picked else first[:1])}
        wishes = [name for name in ["size", "new bytes", *first, "age", *others, "commit"] if name not in kept]
        widths = {name: max(map(text_width, [name, *cells])) + COLUMN_GAP for name, cells in columns.items()}
        room = self.width - EDGES + COLUMN_GAP - sum(widths[name] for name in kept)
        for name in wishes:
            if widths[name] <= room:
                kept.add(name)
                room -= widths[name]
        shown = {metric.header: metric.name for metric in metrics}
        for name in [name for name in columns if name not in kept]:
            del columns[name]
            self.hidden.append(shown.get(name, name))

    def _new(self, table: VersionTable) -> list[str]:
        counts = self.added.models[table.id]
        if self.added.source == "files":
            # of a folder whose listing nobody read some files may be in earlier versions
            whole = zip(counts, table.sizes, strict=True)
            return [_size(count) if count is not None else f"≤ {_size(size)}" for count, size in whole]
        return [_size(count) if count is not None else UNKNOWN for count in counts]

    def _ages(self, dates: Sequence[str]) -> list[str]:
        told = {text: age(text, self.day) for text in set(dates)}
        return [told[text] for text in dates]


def age(text: str, day: date) -> str:
    """How long ago a day was."""
    days = (day - date.fromisoformat(text)).days
    return "today" if days <= 0 else f"{days} d" if days < 365 else f"{days / 365:.1f} y"
