"""``holdfast remote``: set up where data and models are kept, and see how it fares."""

import click

from holdfast.cli.groups import LazyGroup

VERBS = {
    "cost": ("holdfast.cli.remote_usage:cost", "Say what a remote costs a month."),
    "doctor": ("holdfast.cli.remote_doctor:doctor", "Examine a remote, and say what mends what is wrong."),
    "du": ("holdfast.cli.remote_usage:du", "Say how much lies in a remote, by prefix and by what wrote it."),
    "ls": ("holdfast.cli.remote_usage:ls", "List a remote's folders and objects."),
    "setup": ("holdfast.cli.remote_setup:setup", "Set up a remote for DVC and Holdfast."),
}


@click.group(cls=LazyGroup, table=VERBS)
def command() -> None:
    """Set up where data and models are kept, and see how it fares."""
