"""Train the digits transformer, record the run, and go on after an interruption."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from digits import CLASSES, DATA, TRAIN, build_model, choose_device, read_params, read_split, run_stage
from holdfast.formats.digest import file_digest
from holdfast.runs import ResumeFile, RunRecorder, resume_key, seed_everything
from holdfast.runs.artifacts import write_json
from holdfast.runs.checkpoint import load_checkpoint

METRICS = Path("metrics/train.json")
# no DVC out: DVC deletes a stage's outs before it runs the stage
RESUME = Path("outputs/.resume/train.pt")


def main() -> None:
    """Train; write the run folder ``outputs/train`` and ``metrics/train.json``."""
    params = read_params()
    settings = params["train"]
    device = choose_device(settings["device"])
    torch.set_num_threads(settings["threads"])  # sums are added in the order of the threads: more threads, other bits
    resume = ResumeFile(RESUME, _key(params, device))

    seed_everything(settings["seed"])
    model = build_model(params).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"])
    images, labels, _ = read_split("train")
    batches = -(-len(images) // settings["batch_size"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings["lr"], total_steps=settings["epochs"] * batches
    )
    state = resume.load()  # also puts the random generators back to where they were
    first = 1
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"] + 1
        print(f"going on after epoch {state['epoch']} of an interrupted run")

    run = RunRecorder(
        TRAIN,
        classes=CLASSES,
        monitor="val_loss",
        params={section: params[section] for section in ("prepare", "model", "train")},
        seed=settings["seed"],
        resume=state["run"] if state else None,
    )
    with run:
        for epoch in range(first, settings["epochs"] + 1):
            model.train()
            total = right = 0.0
            order = torch.randperm(len(images))
            for indices in order.split(settings["batch_size"]):
                batch, truth = images[indices].to(device), torch.from_numpy(labels[indices.numpy()]).to(device)
                logits, _ = model(batch)
                loss = F.cross_entropy(logits, truth, label_smoothing=settings["label_smoothing"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(indices)
                right += (logits.argmax(dim=1) == truth).sum().item()
            metrics = {"train_loss": total / len(images), "train_accuracy": right / len(images)}
            metrics |= _validate(model, device)
            run.log_epoch(epoch, metrics, model=model, optimizer=optimizer)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            print(f"epoch {epoch:3d}  {shown}", flush=True)
            resume.save(
                {
                    "epoch": epoch,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "run": run.state(),
                }
            )
        _record_best(run, params, device)
    resume.remove()


def _record_best(run: RunRecorder, params: Mapping[str, Any], device: torch.device) -> None:
    model = build_model(params).to(device)
    checkpoint = load_checkpoint(run.folder / run.checkpoint)
    model.load_state_dict(checkpoint["model_state_dict"])
    model.eval()
    images, labels, ids = read_split("val")
    with torch.no_grad():
        logits, _ = model(images.to(device))
    run.log_predictions(ids, labels, logits.softmax(dim=1).cpu().numpy(), matrix="validation")
    for split in ("train", "val", "test"):
        run.log_class_distribution(split, read_split(split)[1])
    write_json(
        METRICS,
        {
            "val_loss": run.best_value,
            "val_accuracy": checkpoint["metrics"]["val_accuracy"],
            "best_epoch": run.best_epoch,
        },
    )


@torch.no_grad()
def _validate(model: torch.nn.Module, device: torch.device) -> dict[str, float]:
    model.eval()
    images, labels, _ = read_split("val")
    logits, _ = model(images.to(device))
    truth = torch.from_numpy(labels).to(device)
    return {
        "val_loss": F.cross_entropy(logits, truth).item(),
        "val_accuracy": float(np.mean((logits.argmax(dim=1) == truth).cpu().numpy())),
    }


def _key(params: Mapping[str, Any], device: torch.device) -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return resume_key(
        params={section: params[section] for section in ("prepare", "model", "train")},
        data=file_digest(DATA),
        code=[file_digest(source) for source in sources],
        torch=torch.__version__,
        device=str(device),
    )


if __name__ == "__main__":
    run_stage(main)
