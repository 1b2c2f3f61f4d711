"""What DVC knows of metrics: a part of the adapter, beside `holdfast.repo.dvc`."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError


def read_metric(root: Path, revisions: Sequence[str], name: str) -> dict[str, float]:
    """One metric of several commits; those that do not have it, or not as a finite number, are left out.

    Args:
        root: the project's folder.
        revisions: commits, 40 hex digits.
        name: ``accuracy``, ``classes.cat.f1``, or with its file: ``metrics/eval.json:accuracy``.

    Raises:
        HoldfastError: DVC cannot read the project.
    """
    # imported here: 400 ms
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    wanted_file, _, key = name.rpartition(":")
    try:
        with Repo(str(root)) as repo:
            shown = repo.metrics.show(revs=list(revisions), hide_workspace=True)
    except DvcException as error:
        raise HoldfastError(f"the metrics of the experiments cannot be read: {error}") from error
    found: dict[str, float] = {}
    for revision in revisions:
        files = shown.get(revision, {}).get("data", {})
        values = [
            value
            for file, content in sorted(files.items())
            if not wanted_file or file == wanted_file
            for path, value in _numbers(content.get("data"))
            if path == key
        ]
        if values:
            found[revision] = values[0]
    return found


def _numbers(content: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _numbers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(content, int | float) and not isinstance(content, bool) and math.isfinite(content):
        yield path, float(content)
