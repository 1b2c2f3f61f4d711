"""What to do about a group: the command that frees its bytes, or why there is none."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from holdfast.dedup.duplicates import Collected
from holdfast.dedup.groups import DuplicateGroup
from holdfast.dedup.reflink import can_clone

LINKS = "dvc config cache.type reflink,hardlink,symlink"
VAULT = "holdfast push"
MAX_COMMAND_CHARACTERS = 100
NO_PROJECT = "a vault stores it once: dvc init, holdfast vault init"


def with_advice(groups: list[DuplicateGroup], collected: Collected, names: Mapping[str, str]) -> list[DuplicateGroup]:
    """The groups with what to do about each, and with the names of their objects.

    Args:
        groups: any.
        collected: where they were found.
        names: a path for each oid that had one.
    """
    clones = can_clone(collected.folder, collected.folder)
    linked = frees(collected, clones=clones)
    return [
        replace(
            group,
            names=tuple(names.get(oid, "") for oid in group.oids),
            advice=_advice(group, collected, linked=linked, clones=clones),
        )
        for group in groups
    ]


def frees(collected: Collected, *, clones: bool) -> bool:
    """Whether the links that DVC is set to make free anything here: the first of its types that works is no copy."""
    for kind in collected.link_types:
        if kind == "reflink" and not (clones and collected.cache is not None and _clones_cache(collected)):
            continue
        if kind == "hardlink" and not (collected.cache is not None and _one_device(collected.folder, collected.cache)):
            continue
        return kind != "copy"
    return False


def _clones_cache(collected: Collected) -> bool:
    assert collected.cache is not None
    return collected.cache.is_dir() and can_clone(collected.cache, collected.folder)


def _one_device(folder: Path, cache: Path) -> bool:
    return cache.is_dir() and folder.stat().st_dev == cache.stat().st_dev


def _advice(group: DuplicateGroup, collected: Collected, *, linked: bool, clones: bool) -> str:
    if group.kind == "checkout":
        return _planned(group) if linked else f"{LINKS}; {_planned(group)}"
    if group.kind == "duplicate":
        if not group.paths:
            return "dvc cache migrate"
        tracked = sum((collected.folder / path) in collected.tracked for path in group.paths)
        if clones or (linked and tracked):
            return _planned(group)
        if tracked:
            return f"{LINKS}; {_planned(group)}"
        if collected.cache is None:
            return "keep one of them"
        return f"keep one of them, or: dvc add {_quoted(group.paths)}"
    vault = VAULT if collected.cache is not None else NO_PROJECT
    if group.kind == "weights" and len(group.paths) > 1:
        return f"holdfast diff {_quoted(group.paths[:2])}; keep one, or {vault}"
    return vault


def _planned(group: DuplicateGroup) -> str:
    return f"holdfast dedup plan {_quoted(group.paths)}"


def _quoted(paths: tuple[str, ...]) -> str:
    quoted = " ".join(shlex.quote(path) for path in paths)
    # a longer command is no easier to read than the paths above it
    return quoted if len(quoted) <= MAX_COMMAND_CHARACTERS else "PATH…"
