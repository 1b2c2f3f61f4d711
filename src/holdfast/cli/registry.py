"""``holdfast registry``: the group, whose verbs are loaded when they are called."""

import click

from holdfast.cli.groups import LazyGroup

VERBS = {
    "assign": ("holdfast.cli.registry_labels:assign", "Put an alias on a version."),
    "consolidate": (
        "holdfast.cli.registry_consolidate:consolidate",
        "Keep, register and archive runs, as a plan first.",
    ),
    "deprecate": ("holdfast.cli.registry_labels:deprecate", "Say that a version is not to be used any more."),
    "diff": ("holdfast.cli.registry_history:diff", "Say how two versions differ."),
    "export": ("holdfast.cli.registry_exchange:export", "Write the registry as one file."),
    "get": ("holdfast.cli.registry_objects:get", "Write a version's file, without a checkout."),
    "history": ("holdfast.cli.registry_history:history", "Show what changed, or what each label was on that day."),
    "import": ("holdfast.cli.registry_exchange:import_", "Register what another registry lists."),
    "list": ("holdfast.cli.registry_show:list_", "List the models."),
    "promote": ("holdfast.cli.registry_promote:promote", "Judge a checkpoint, and put it into use where it passes."),
    "protect": ("holdfast.cli.registry_labels:protect", "Keep an alias from being moved by accident."),
    "register": ("holdfast.cli.registry_register:register", "Register a file or folder as a version."),
    "resolve": ("holdfast.cli.registry_resolve:resolve", "Mend what a merge left of the registry."),
    "rm": ("holdfast.cli.registry_rm:remove", "Show what stands in the way of removing a version; remove it."),
    "rollback": ("holdfast.cli.registry_rollback:rollback", "Put the version before into use again."),
    "select": ("holdfast.cli.registry_select:select", "Say which version to use."),
    "show": ("holdfast.cli.registry_show:show", "Show the versions of a model, with what they reached."),
    "sign": ("holdfast.cli.registry_sign:sign", "Sign a version's bytes."),
    "tag": ("holdfast.cli.registry_tag:tag", "Make git tags for versions and aliases, in GTO's form."),
    "unassign": ("holdfast.cli.registry_labels:unassign", "Take an alias off."),
    "unprotect": ("holdfast.cli.registry_labels:unprotect", "Let an alias be moved freely again."),
    "verify": ("holdfast.cli.registry_objects:verify", "Check files, labels and every version's bytes."),
}


@click.group("registry", cls=LazyGroup, table=VERBS)
def command() -> None:
    """Register versions of models; see, move and undo what is in use."""
