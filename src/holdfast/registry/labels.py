"""Moving labels: aliases on and off, protected or not, and versions that are not to be used any more."""

from collections.abc import Sequence

from holdfast.errors import HoldfastError, UsageError
from holdfast.registry.entries import CURRENT, Deprecation, Model, Version, check_alias
from holdfast.registry.store import LockedModel, Registry
from holdfast.registry.writing import plain_deprecations


class ProtectedAliasError(HoldfastError):
    """The alias is protected."""


def assign_alias(registry: Registry, model_id: str, alias: str, label: str, *, force: bool = False) -> Version:
    """Put an alias on a version.

    Args:
        registry: the registry.
        model_id: ``app/name``.
        alias: the alias, which may be on another version.
        label: the version, or a label of it.
        force: also where the alias is protected.

    Raises:
        UsageError: it is no name for an alias.
        ProtectedAliasError: the alias is protected, and on another version.
        UnknownModelError, UnknownVersionError: there is no such model or version.
        EntryError: a file of the model is broken; nothing is written.
        OSError: the registry cannot be written.
    """
    check_alias(alias)
    registry.model(model_id)
    with registry.lock(model_id) as held:
        model = held.model
        version = model.named(label)
        if model.aliases.get(alias) != version.name:
            check_protection(model, alias, force=force)
            held.change({"aliases": {**model.aliases, alias: version.name}})
        return version


def unassign_alias(registry: Registry, model_id: str, alias: str, *, force: bool = False) -> str:
    """Take an alias off; the version that it was on.

    Raises:
        UsageError: the model has no such alias, or it is ``current``.
        ProtectedAliasError: the alias is protected.
        UnknownModelError: there is no such model.
        EntryError: a file of the model is broken; nothing is written.
        OSError: the registry cannot be written.
    """
    registry.model(model_id)
    with registry.lock(model_id) as held:
        model = held.model
        if alias not in model.aliases:
            known = ", ".join(sorted(model.aliases)) or "none"
            raise UsageError(f"{model_id} has no alias {alias}", hint=f"Its aliases are: {known}")
        check_protection(model, alias, force=force)
        held.change({"aliases": {name: target for name, target in model.aliases.items() if name != alias}})
        return model.aliases[alias]


def protect_alias(registry: Registry, model_id: str, alias: str, *, protected: bool) -> bool:
    """Let an alias be moved by ``force`` alone, or freely again; whether that was news.

    Raises:
        UsageError: it is no name for an alias.
        UnknownModelError: there is no such model.
        EntryError: a file of the model is broken; nothing is written.
        OSError: the registry cannot be written.
    """
    check_alias(alias)
    registry.model(model_id)
    with registry.lock(model_id) as held:
        model = held.model
        if (alias in model.protected) == protected:
            return False
        names = [*model.protected, alias] if protected else [name for name in model.protected if name != alias]
        held.change({"protected": sorted(names)})
        return True


def deprecate_version(registry: Registry, model_id: str, label: str, reason: str, today: str) -> Version:
    """Say that a version is not to be used any more, and why.

    Raises:
        UsageError: there is no reason, or the version is the champion or current.
        UnknownModelError, UnknownVersionError: there is no such model or version.
        EntryError: a file of the model is broken; nothing is written.
        OSError: the registry cannot be written.
    """
    if not reason.strip() or "\n" in reason:
        raise UsageError("a deprecation needs a reason of one line", hint="--reason TEXT; `holdfast check` shows it")
    registry.model(model_id)
    with registry.lock(model_id) as held:
        model = held.model
        version = model.named(label)
        labels = [name for name in model.labels(version.name) if name in (CURRENT, "production")]
        if labels:
            raise UsageError(
                f"{model_id}@{version.name} is {' and '.join(labels)}",
                hint=f"Put another version there first: `holdfast registry rollback {model_id}`",
            )
        _set_deprecations(held, {**model.deprecations, version.name: Deprecation(reason.strip(), today)})
        return version


def undeprecate_version(registry: Registry, model_id: str, label: str) -> Version:
    """Take a deprecation back.

    Raises:
        UnknownModelError, UnknownVersionError: there is no such model or version.
        EntryError: a file of the model is broken; nothing is written.
        OSError: the registry cannot be written.
    """
    registry.model(model_id)
    with registry.lock(model_id) as held:
        model = held.model
        version = model.named(label)
        if version.name in model.deprecations:
            kept = {name: item for name, item in model.deprecations.items() if name != version.name}
            _set_deprecations(held, kept)
        return version


def check_protection(model: Model, aliases: str | Sequence[str], *, force: bool) -> None:
    """Raise a `ProtectedAliasError` where one of the aliases is protected and ``force`` is not set."""
    names = [aliases] if isinstance(aliases, str) else aliases
    guarded = [name for name in names if name in model.protected]
    if guarded and not force:
        raise ProtectedAliasError(
            f"the alias {guarded[0]} of {model.id} is protected",
            hint="Promote through the gate, or use --force; `holdfast registry unprotect` ends the protection",
        )


def _set_deprecations(held: LockedModel, deprecations: dict[str, Deprecation]) -> None:
    held.change({"deprecations": plain_deprecations(deprecations)})
