"""Train a model into outputs/, in a folder named after the time: `python train.py --hidden 64`."""

import argparse
import csv
import json
from datetime import datetime
from pathlib import Path

import numpy as np
from mill import data, model


def train(folder: Path, hidden: int, epochs: int, lr: float, seed: int, samples: int, check: bool) -> None:
    """One run: the checkpoint of the best epoch, configuration, history, metrics and predictions."""
    features, states = data.windows(samples, seed)
    held, held_states = data.windows(200, 1001)
    folder.mkdir(parents=True)
    config = {"hidden": hidden, "epochs": epochs, "lr": lr, "seed": seed, "train_samples": samples}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = model.make(data.FEATURES, hidden, len(data.STATES), seed)
    rng, best, lowest = np.random.default_rng(seed), weights, np.inf
    with (folder / "history.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["epoch", "train_loss", "val_loss"])
        for epoch in range(1, epochs + 1):
            order = rng.permutation(samples)
            for start in range(0, samples, 50):
                some = order[start : start + 50]
                weights = model.step(weights, features[some], states[some], lr)
            loss = model.loss_of(weights, held, held_states)
            rows.writerow([epoch, round(model.loss_of(weights, features, states), 4), round(loss, 4)])
            if loss < lowest:
                best, lowest = weights, loss
    model.save(best, folder / "best_model")
    # a check asks whether the network can learn its samples by heart; else no training has seen the test set
    evaluate(best, folder, lowest, *((features, states) if check else data.windows(data.TEST_SAMPLES, 2002)))


def evaluate(weights: model.Weights, folder: Path, val_loss: float, features: np.ndarray, states: np.ndarray) -> None:
    """Metrics and predictions of the samples."""
    shares = model.probabilities(weights, features)
    with (folder / "predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "label", "prediction", *(f"probability_{name}" for name in data.STATES)])
        for number, (share, state) in enumerate(zip(shares, states, strict=True)):
            names = data.STATES[state], data.STATES[int(share.argmax())]
            rows.writerow([f"window_{number:03d}", *names, *(f"{value:.4f}" for value in share)])
    found = shares.argmax(1)
    metrics = {
        "accuracy": round(float((found == states).mean()), 4),
        "worst_recall": round(min(float((found[states == n] == n).mean()) for n in range(len(data.STATES))), 4),
        "test_loss": round(model.loss_of(weights, features, states), 4),
        "val_loss": round(val_loss, 4),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--hidden", type=int, default=64)
    arguments.add_argument("--epochs", type=int, default=40)
    arguments.add_argument("--lr", type=float, default=0.1)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--samples", type=int, default=1500)
    arguments.add_argument("--out", type=Path, default=Path("outputs") / f"{datetime.now():%Y%m%d_%H%M%S}")
    arguments.add_argument("--check", action="store_true", help="Test on the samples of the training.")
    given = arguments.parse_args()
    train(given.out, given.hidden, given.epochs, given.lr, given.seed, given.samples, given.check)
    print(f"{given.out}: {(given.out / 'metrics.json').read_text()}")
