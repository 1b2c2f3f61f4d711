"""Train a small language model for real and keep its history: what the vault's figures are measured on.

    python benchmarks/gpt_history.py FOLDER [--scale 1.0]

A transformer of 3.3 million parameters learns the source code of Python's own library, byte by byte, on the processor,
in about four minutes on two cores. Twelve checkpoints are kept: eight of pretraining (after 300, 301, 310, 350, 400,
500, 600 and 700 steps; AdamW, warm-up and a cosine down from 1e-3) and four of fine-tuning (after 701, 710, 750 and
800, at 1e-5):

    FOLDER/full/step-0300.pt     model, AdamW's state and step, float32
    FOLDER/weights/step-0300.pt  the model alone, float32
    FOLDER/bf16/step-0300.pt     the model alone, bfloat16
    FOLDER/frozen/epoch-0.pt     six more, of which only the head was trained

``--scale 0.01`` runs a hundredth of the steps.
"""

import argparse
import math
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

VOCABULARY, WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 256, 256, 4, 4, 128, 16
KEPT = Path.home() / ".cache" / "holdfast-benchmarks" / "gpt-history"
# of the steps, where a benchmark is run reduced
REDUCED_SCALE = 0.2
PRETRAINED, FINETUNED = (300, 301, 310, 350, 400, 500, 600, 700), (701, 710, 750, 800)
PEAK_RATE, LOWEST_SHARE, FINETUNING_RATE, HEAD_RATE = 1e-3, 0.1, 1e-5, 1e-4
WARM_UP_STEPS, HEAD_EPOCHS, STEPS_AN_EPOCH = 50, 6, 10
TEXT_BYTES = 6_000_000


class LanguageModel(nn.Module):
    """Predicts the next byte from up to `CONTEXT` bytes: logits of shape (batch, context, `VOCABULARY`)."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        for matrix in (parameter for parameter in self.parameters() if parameter.dim() > 1):
            nn.init.normal_(matrix, std=0.02)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Logits for bytes of shape (batch, context)."""
        length = text.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.layers(self.bytes(text) + self.places.weight[:length], mask=mask, is_causal=True))


class Training:
    """A model in training.

    Args:
        text: the bytes it learns, int64 of shape (bytes,).
    """

    def __init__(self, text: torch.Tensor) -> None:
        self.text = text
        self.model = LanguageModel()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.999), weight_decay=0.1)
        self.steps = 0

    def run(self, until: int, rate: Callable[[int], float]) -> None:
        """Go on to a step, at the learning rate that each step has."""
        while self.steps < until:
            self.steps += 1
            self.optimizer.param_groups[0]["lr"] = rate(self.steps)
            starts = torch.randint(len(self.text) - CONTEXT, (BATCH, 1))
            batch = self.text[starts + torch.arange(CONTEXT + 1)]
            logits = self.model(batch[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()

    def full(self) -> dict[str, Any]:
        """All that training would be taken up from."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.steps}


def main() -> None:
    """Train and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the steps")
    options = parser.parse_args()
    make_history(options.folder, options.scale)


def kept_history(folder: Path | None, scale: float = 1.0) -> Path:
    """The folder of a history; it is trained now where there is none.

    Args:
        folder: Where it is; None for that of the benchmarks, one for each scale.
        scale: How much of the steps.
    """
    folder = folder or (KEPT if scale == 1 else KEPT.with_name(f"{KEPT.name}-{scale:g}"))
    if not folder.exists():
        # under another name until it is whole
        partly = folder.with_name(f"{folder.name}.partly")
        shutil.rmtree(partly, ignore_errors=True)
        make_history(partly, scale)
        partly.rename(folder)
    return folder


def make_history(folder: Path, scale: float = 1.0) -> None:
    """Write the whole history into a folder."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    for kind in ("full", "weights", "bf16", "frozen"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    training = Training(library_text())
    pretraining = PRETRAINED[-1] * scale

    def rate(step: int) -> float:
        if step > max(len(PRETRAINED), round(pretraining)):
            return FINETUNING_RATE
        share = (1 + math.cos(math.pi * min(1.0, step / pretraining))) / 2
        return PEAK_RATE * min(1.0, step / WARM_UP_STEPS) * (LOWEST_SHARE + (1 - LOWEST_SHARE) * share)

    for step in (*PRETRAINED, *FINETUNED):
        # however few the steps are, no two checkpoints are of the same one
        training.run(max(training.steps + 1, round(step * scale)), rate)
        weights = training.model.state_dict()
        torch.save(training.full(), folder / "full" / f"step-{step:04}.pt")
        torch.save(weights, folder / "weights" / f"step-{step:04}.pt")
        torch.save(
            {name: tensor.bfloat16() for name, tensor in weights.items()}, folder / "bf16" / f"step-{step:04}.pt"
        )
        print(f"step {step}", flush=True)

    for name, parameter in training.model.named_parameters():
        parameter.requires_grad_(name == "head.weight")
        parameter.grad = None
    for epoch in range(HEAD_EPOCHS):
        training.run(training.steps + max(1, round(STEPS_AN_EPOCH * scale)), lambda _: HEAD_RATE)
        torch.save(training.model.state_dict(), folder / "frozen" / f"epoch-{epoch}.pt")


def library_text() -> torch.Tensor:
    """The first bytes of the modules of Python's library, in the order of their names; int64."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = b"".join(module.read_bytes() for module in modules)[:TEXT_BYTES]
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


if __name__ == "__main__":
    main()
