"""``holdfast report``: the group, whose verbs are loaded when they are called."""

import click

from holdfast.cli.groups import LazyGroup

VERBS = {
    "cleanup": ("holdfast.cli.report_cleanup:cleanup", "Write which model files count, and which could go."),
    "consolidation": (
        "holdfast.cli.report_consolidation:consolidation",
        "Write which runs to keep, archive and remove.",
    ),
    "html": ("holdfast.cli.report_html:html", "Write models, runs, storage and lineage as one page."),
    "pr": ("holdfast.cli.report_pr:pull_request", "Write what a pull request changes, for its reviewers."),
}


@click.group("report", cls=LazyGroup, table=VERBS)
def command() -> None:
    """Write reports of what was found."""
