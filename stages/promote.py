"""Put the best weights at the stable path and register them as a version."""

import json
from datetime import datetime, timezone
from pathlib import Path

from digits import CLASSES, SIDE, TRAIN, read_params, run_stage
from holdfast.registry.promotion import promote_checkpoint, stable_path
from holdfast.runs.artifacts import CHECKPOINT

DESCRIPTION = "Handwritten digits, 8×8 pixels, ten classes"
METRICS = {  # what a version is known by, in the order of the registry's table
    "metrics/evaluate.json": ("accuracy", "macro_f1", "worst_recall", "test_loss"),
    "metrics/train.json": ("val_loss",),
}


def main() -> None:
    """Promote ``outputs/train``'s checkpoint to the model that ``promote.model`` names."""
    params = read_params()
    model = params["promote"]["model"]
    reached = {file: json.loads(Path(file).read_bytes()) for file in METRICS}
    metrics = {name: reached[file][name] for file, names in METRICS.items() for name in names}
    promotion = promote_checkpoint(
        Path(),
        model,
        TRAIN / CHECKPOINT,
        today=datetime.now(timezone.utc).date(),
        config={
            "architecture": "DigitsTransformer",
            "arguments": params["model"],
            "input": [SIDE, SIDE],
            "classes": list(CLASSES),
        },
        params={section: params[section] for section in ("prepare", "model", "train")},
        metrics=metrics,
        description=DESCRIPTION,
    )
    version, path = promotion.version.name, stable_path(model)
    if promotion.registered:
        print(f"registered {model}@{version}, now at {path}")
    elif promotion.current == version:
        print(f"{model}@{version} has these weights already; it is current")
    else:
        print(f"{model}@{version} has these weights already; {promotion.current} stays current")


if __name__ == "__main__":
    run_stage(main)
