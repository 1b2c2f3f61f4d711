"""``holdfast sources``: the group, whose verbs are loaded when they are called."""

import click

from holdfast.cli.groups import LazyGroup

VERBS = {
    "add": ("holdfast.cli.sources_edit:add", "Add a source, or change one."),
    "coverage": ("holdfast.cli.sources_show:coverage", "Show how much is told, tracked and there, by domain."),
    "import": ("holdfast.cli.sources_import:import_", "Add the sources of a CSV or JSON file, or of a bucket."),
    "list": ("holdfast.cli.sources_show:list_", "List the sources."),
    "pull": ("holdfast.cli.sources_pull:pull", "Bring sources here, verified."),
    "schema": ("holdfast.cli.sources_edit:schema", "Print the JSON Schema of the catalogue's files."),
    "verify": (
        "holdfast.cli.sources_verify:verify_sources",
        "Check the catalogue, and what DVC and the bucket have of it.",
    ),
}


@click.group("sources", cls=LazyGroup, table=VERBS)
def command() -> None:
    """Keep the catalogue of data sources: what there is, whether it is there, and how it comes here."""
