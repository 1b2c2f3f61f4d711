"""``holdfast report cleanup``."""

from datetime import datetime, timezone
from pathlib import Path

import click

from holdfast.cli.caches import digest_cache
from holdfast.cli.groups import Verb
from holdfast.cli.output import human_bytes, write_or_print
from holdfast.cli.scan import scan_project
from holdfast.inventory.cleanup import plan_cleanup
from holdfast.report.cleanup import cleanup_report


@click.command(cls=Verb)
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write to FILE.")
@click.option(
    "--date", "moment", metavar="YYYY-MM-DD", type=click.DateTime(["%Y-%m-%d"]), help="Date the report so, not today."
)
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out what fits, as in .gitignore; repeatable.")
def cleanup(path: Path, output: Path | None, moment: datetime | None, exclude: tuple[str, ...]) -> None:
    """Write which model files at and below PATH (default: here) count and which could go, as Markdown; changes nothing.

    Says which families of names the scripts use, compares each file with its counterpart in a rival family to the byte,
    and sorts what could go into what is safe and what needs a decision, with the scripts that would break.

    \b
    Examples:
      holdfast report cleanup
      holdfast report cleanup models -o cleanup.md
    """
    day = datetime.now(timezone.utc).date() if moment is None else moment.date()
    scan = scan_project(path, exclude)
    with digest_cache(path) as cache:
        facts = plan_cleanup(scan, cache)
    write_or_print(cleanup_report(facts, day=day, size_text=human_bytes), output)
