"""``holdfast gc``: the group, whose verbs are loaded when they are called."""

import click

from holdfast.cli.groups import LazyGroup

VERBS = {
    "apply": ("holdfast.cli.gc_apply:apply", "Do what a plan says; what goes can be restored."),
    "list": ("holdfast.cli.gc_held:list_", "Show what went and can still be restored."),
    "plan": ("holdfast.cli.gc_plan:plan", "Show what could go and what stays, and why."),
    "purge": ("holdfast.cli.gc_held:purge", "Delete for good what has waited long enough."),
    "restore": ("holdfast.cli.gc_held:restore_", "Bring back what went."),
    "roots": (
        "holdfast.cli.gc_roots:roots",
        "Show what other clones need of a vault or remote; say what this one does.",
    ),
    "run": ("holdfast.cli.gc_apply:run", "Plan and apply at once, within the bounds of the policy."),
}


@click.group("gc", cls=LazyGroup, table=VERBS)
def command() -> None:
    """See what may be deleted, and why; take it away, and bring it back."""
