"""Put the best weights at the stable path and register them as a version."""

import json
from datetime import datetime, timezone
from pathlib import Path

from digits import CLASSES, SIDE, TRAIN, read_params
from holdfast.registry.promotion import promote_checkpoint, stable_path
from holdfast.runs.artifacts import CHECKPOINT

DESCRIPTION = "Handwritten digits, 8×8 pixels, ten classes"
METRICS = (Path("metrics/evaluate.json"), Path("metrics/train.json"))


def main() -> None:
    """Promote ``outputs/train``'s checkpoint to the model that ``promote.model`` names."""
    params = read_params()
    model = params["promote"]["model"]
    metrics = {name: value for file in METRICS for name, value in json.loads(file.read_bytes()).items()}
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
    main()
