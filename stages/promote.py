"""Judge the best weights; where the gate lets them pass, put them at the stable path and register them as a version."""

import json
from datetime import datetime, timezone
from pathlib import Path

import yaml

from digits import CLASSES, EVALUATE, SIDE, TRAIN, read_params, run_stage
from holdfast.registry.gate_rules import read_rules
from holdfast.registry.objects import Stores
from holdfast.registry.promotion import METRICS_FILE, Candidate, Promotion, promote_checkpoint
from holdfast.repo.dvc import local_cache
from holdfast.runs.artifacts import CHECKPOINT, write_json

DESCRIPTION = "Handwritten digits, 8×8 pixels, ten classes"
METRICS = {  # what a version is known by, in the order of the registry's table
    "metrics/evaluate.json": ("accuracy", "macro_f1", "worst_recall", "test_loss"),
    "metrics/train.json": ("val_loss",),
}


def main() -> None:
    """Promote ``outputs/train``'s checkpoint to the model that ``promote.model`` names, and write the verdict.

    A refused candidate is a result, too: it has no version, and the stage ends well.
    """
    params = read_params()
    model = params["promote"]["model"]
    reached = {file: json.loads(Path(file).read_bytes()) for file in METRICS}
    config = {
        "model": model,
        "architecture": "DigitsTransformer",
        "arguments": params["model"],
        "input": [SIDE, SIDE],
        "classes": list(CLASSES),
    }
    candidate = Candidate(
        source=TRAIN / CHECKPOINT,
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode(),
        params={section: params[section] for section in ("prepare", "model", "train")},
        metrics={name: reached[file][name] for file, names in METRICS.items() for name in names},
        predictions=EVALUATE / "predictions.csv",
        description=DESCRIPTION,
    )
    done = promote_checkpoint(
        Path(),
        model,
        candidate,
        today=datetime.now(timezone.utc).date(),
        rules=read_rules(Path("params.yaml")),
        stores=Stores(Path(), local_cache(Path()).folder),
    )
    write_json(Path(METRICS_FILE), done.judgement.as_metrics())
    for line in [*done.judgement.lines(), _told(done)]:
        print(line)


def _told(done: Promotion) -> str:
    if done.version is None:
        return f"refused: {done.model}@{done.current} stays current" if done.current else "refused: there is no version"
    name = f"{done.model}@{done.version.name}"
    if done.registered:
        alone = f"; {done.lost} is nowhere to be found, and it was judged alone" if done.lost else ""
        return f"registered {name}, now at {done.stable}{alone}"
    if done.current == done.version.name:
        return f"{name} has these weights already; it is current"
    return f"{name} has these weights already; {done.current} stays current"


if __name__ == "__main__":
    run_stage(main)
