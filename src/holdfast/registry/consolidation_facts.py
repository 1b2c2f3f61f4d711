"""What of a run goes into the registry: its file of weights, its benchmarks, what it was trained with, its name."""

import json
import math
import re
from typing import Any

from holdfast.errors import HoldfastError, UsageError
from holdfast.inventory.run_record import WEIGHT_ROLES, Run
from holdfast.registry.consolidation import APP
from holdfast.registry.entries import MODEL_ID
from holdfast.registry.registration import WEIGHTS_SUFFIXES


def pick_weights(run: Run, chosen: str | None, name: str) -> str:
    """The file of weights that stands for a run: the one that is chosen, the best, or the only one.

    Raises:
        UsageError: the chosen one is none of the run's.
        HoldfastError: there is none, or it is not clear which.
    """
    files = [f for f in run.files if f.role in WEIGHT_ROLES - {"state"} and f.path.lower().endswith(WEIGHTS_SUFFIXES)]
    if chosen is not None:
        if chosen not in [file.path for file in files]:
            raise UsageError(f"{name} has no file of weights {chosen}", hint="Name it from the run's folder")
        return chosen
    if any(file.role == "shard" for file in files):
        raise HoldfastError("its weights are cut into shards", hint="`holdfast registry register` takes their folder")
    models = [file.path for file in files if file.role == "model"]
    every = [file.path for file in files]
    for found in ([path for path in every if _is_best(path)], models, every):
        if len(found) == 1:
            return found[0]
    if not every:
        raise HoldfastError("it has no file of weights that a weights digest can be taken of")
    hint = f"Choose: --weights {name}=FILE"
    raise HoldfastError(f"{len(every)} files may be its weights: {', '.join(every[:4])}", hint=hint)


def _is_best(path: str) -> bool:
    return "best" in re.split(r"[^a-z0-9]+", path.lower())


def benchmarks(run: Run) -> dict[str, Any]:
    """A run's metrics as the registry keeps them; the scores of classes under ``classes``, where gates find them."""
    values = {**run.best, **run.final}
    found: dict[str, Any] = {name: value for name, value in sorted(values.items()) if math.isfinite(value)}
    classes = {
        score.name: {key: value for key, value in vars(score).items() if key != "name" and value is not None}
        for score in run.classes
    }
    return {**found, "classes": classes} if classes else found


def model_name(series: str) -> str:
    """A series as the name of a model, without its application."""
    name = re.sub(r"[^a-z0-9_-]+", "_", series.lower()).lstrip("_-") or "model"
    return name if MODEL_ID.fullmatch(f"{APP}/{name}") else "model"


def trained_with(run: Run) -> dict[str, Any]:
    """A run's configuration with numbers for what looks like one."""
    return {key: _value(text) for key, text in sorted(run.config.items())}


def _value(text: str) -> Any:
    """The number or truth value that a configuration's text is, else the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"True": True, "False": False}.get(text, text)
    if isinstance(value, float) and not math.isfinite(value):
        return text
    return value if isinstance(value, bool | int | float) else text
