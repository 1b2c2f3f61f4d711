"""How much of the catalogue is told, tracked and there, domain by domain; as numbers and as a picture."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.atomic import write_atomically
from holdfast.data.catalogue import Catalogue, Source
from holdfast.data.sources_survey import Survey
from holdfast.data.sources_verification import Tracked

# what is counted of every domain, in the order of the columns
ASPECTS = ("url", "licence", "version", "updates", "prefix", "checksum", "tracked")
PRESENT = "present"
DPI = 110


@dataclass(frozen=True)
class DomainCoverage:
    """The sources of a domain.

    Attributes:
        domain: its name.
        sources: how many.
        counts: how many of them have each aspect; those of `ASPECTS`, and `PRESENT` where the bucket was looked at.
            A checksum that DVC has written down counts.
        size: bytes: those in the bucket where it was looked at, else those that the entries or DVC say.
    """

    domain: str
    sources: int
    counts: Mapping[str, int]
    size: int


def cover(catalogue: Catalogue, tracked: Mapping[str, Tracked], survey: Survey | None = None) -> list[DomainCoverage]:
    """The coverage of each domain, in the order of the index.

    Args:
        catalogue: whose.
        tracked: what DVC has at the catalogue's paths.
        survey: what lies in the bucket; None where nobody looked.
    """
    by_domain: dict[str, list[Source]] = {domain: [] for domain in catalogue.domains}
    for source in catalogue.sources:
        by_domain[source.domain].append(source)
    return [_covered(domain, sources, tracked, survey) for domain, sources in by_domain.items()]


def total(parts: Sequence[DomainCoverage]) -> DomainCoverage:
    """All domains as one."""
    names = parts[0].counts if parts else {}
    counts = {name: sum(part.counts[name] for part in parts) for name in names}
    return DomainCoverage("all", sum(part.sources for part in parts), counts, sum(part.size for part in parts))


def draw_coverage(path: Path, parts: Sequence[DomainCoverage]) -> None:
    """Draw the shares as a table of colours, a row a domain; PNG.

    Raises:
        PlotLibraryMissingError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    try:
        # imported here: an extra, and 0.4 s that only a picture needs
        from matplotlib.figure import Figure
        from matplotlib.text import Text
    except ModuleNotFoundError as error:
        from holdfast.runs.plots import PlotLibraryMissingError  # see above

        hint = "`pip install 'holdfast[train]'` brings it"
        raise PlotLibraryMissingError("matplotlib is not installed", hint=hint) from error
    rows = [*parts, total(parts)] if len(parts) > 1 else list(parts)
    columns = list(rows[0].counts)
    shares = [[_share(row, name) for name in columns] for row in rows]
    figure = Figure(figsize=(2.4 + 0.95 * len(columns), 1.4 + 0.42 * len(rows)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), [f"{row.domain} ({row.sources:,})" for row in rows])
    axes.xaxis.tick_top()
    # white lines between the cells
    axes.set_xticks([place - 0.5 for place in range(1, len(columns))], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, len(rows))], minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for y, row in enumerate(rows):
        for x, name in enumerate(columns):
            colour = "white" if shares[y][x] > 0.6 else "black"
            axes.text(x, y, share_text(row, name), ha="center", va="center", color=colour, fontsize=9)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names are text, not formulas
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())


def share_text(part: DomainCoverage, name: str) -> str:
    """The share of an aspect as people read it: 100 % is all, and never what is nearly all."""
    if not part.sources:
        return "–"
    count = part.counts[name]
    percent = round(100 * count / part.sources)
    if count < part.sources:
        percent = min(99, percent)
    return f"{max(1, percent) if count else 0} %"


def _share(part: DomainCoverage, name: str) -> float:
    return part.counts[name] / part.sources if part.sources else 0.0


def _covered(
    domain: str, sources: Sequence[Source], tracked: Mapping[str, Tracked], survey: Survey | None
) -> DomainCoverage:
    outs = [tracked.get(source.dvc) if source.dvc else None for source in sources]
    counts = {
        name: sum(not source.lacks(name) for source in sources)
        for name in ASPECTS
        if name not in ("checksum", "tracked")
    }
    counts["checksum"] = sum(
        bool(source.checksum or (out and out.oid)) for source, out in zip(sources, outs, strict=True)
    )
    counts["tracked"] = sum(out is not None for out in outs)
    if survey is not None:
        counts[PRESENT] = sum(source.prefix in survey.held for source in sources)
        size = sum(survey.held[prefix].size for prefix in {source.prefix for source in sources} & set(survey.held))
    else:
        size = sum(
            source.size if source.size is not None else (out.size if out and out.size is not None else 0)
            for source, out in zip(sources, outs, strict=True)
        )
    return DomainCoverage(domain, len(sources), counts, size)
