"""Evaluate the best checkpoint on the test split, and keep where the model looked."""

from pathlib import Path

import torch
from torch.nn import functional as F

from digits import CLASSES, EVALUATE, SIDE, TRAIN, build_model, choose_device, read_params, read_split, run_stage
from holdfast.runs import ArrayContract, ArrayStore
from holdfast.runs.artifacts import (
    CHECKPOINT,
    class_scores,
    confusion_matrix,
    write_csv,
    write_json,
    write_predictions,
)
from holdfast.runs.checkpoint import load_checkpoint
from holdfast.runs.plots import draw_matrix

METRICS = Path("metrics/evaluate.json")
BATCH = 64  # images held at a time, with their attention maps


def main() -> None:
    """Write ``outputs/evaluate`` and ``metrics/evaluate.json``."""
    params = read_params()
    device = choose_device(params["train"]["device"])
    torch.set_num_threads(params["train"]["threads"])
    model = build_model(params).to(device)
    model.load_state_dict(load_checkpoint(TRAIN / CHECKPOINT)["model_state_dict"])
    model.eval()

    images, labels, ids = read_split("test")
    side = SIDE // params["model"]["patch"]
    contract = ArrayContract(
        name="attention",
        key="attention_map",
        shape=(side, side),
        dtype="float32",
        minimum=0,
        maximum=1,
        scalars=("label", "prediction"),
    )
    outputs = []
    with torch.no_grad(), ArrayStore(EVALUATE / "attention_maps", contract) as store:
        for start in range(0, len(ids), BATCH):
            part = slice(start, start + BATCH)
            logits, attention = model(images[part].to(device))
            outputs.append(logits.cpu())
            store.save_batch(
                ids[part],
                attention.cpu().numpy(),
                label=labels[part].tolist(),
                prediction=logits.argmax(dim=1).tolist(),
            )
    logits = torch.cat(outputs)
    predictions = logits.argmax(dim=1).numpy()
    matrix = confusion_matrix(labels, predictions, len(CLASSES))
    scores = class_scores(matrix, CLASSES)

    probabilities = logits.softmax(dim=1).numpy()
    write_predictions(EVALUATE / "predictions.csv", ids, labels, predictions, probabilities, CLASSES)
    draw_matrix(EVALUATE / "confusion_matrix.png", matrix, CLASSES, "Confusion matrix: test")
    header = ("class", "precision", "recall", "f1", "samples")
    rows = ((score.name, score.precision, score.recall, score.f1, score.support) for score in scores)
    write_csv(EVALUATE / "class_scores.csv", header, rows)
    metrics = {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "macro_f1": sum(score.f1 for score in scores) / len(scores),
        "worst_recall": min(score.recall for score in scores),
        "test_loss": F.cross_entropy(logits, torch.from_numpy(labels)).item(),
    }
    write_json(METRICS, metrics)
    print("test: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    run_stage(main)
