"""``holdfast report consolidation``."""

from datetime import datetime, time, timezone
from pathlib import Path

import click

from holdfast.cli.groups import Verb
from holdfast.cli.output import human_bytes, write_or_print
from holdfast.inventory.run_verdicts import sort_folder
from holdfast.report.consolidation import consolidation_report


@click.command(cls=Verb)
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write to FILE.")
@click.option(
    "--date", "moment", metavar="YYYY-MM-DD", type=click.DateTime(["%Y-%m-%d"]), help="Date the report so, not today."
)
def consolidation(path: Path, output: Path | None, moment: datetime | None) -> None:
    """Write which runs at and below PATH (default: here) to keep, archive and remove, as Markdown; changes nothing.

    The same folder gives the same report on the same date. The rules are those of `holdfast runs classify`.

    \b
    Examples:
      holdfast report consolidation
      holdfast report consolidation experiments -o consolidation.md
    """
    now = datetime.now(timezone.utc) if moment is None else datetime.combine(moment, time.max, timezone.utc)
    write_or_print(consolidation_report(sort_folder(path, now), day=now.date(), size_text=human_bytes), output)
