"""The digits model that the stages share: the data's splits, and a small vision transformer."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import nn

from holdfast.errors import HoldfastError

DATA = Path("data/digits.npz")
TRAIN = Path("outputs/train")
EVALUATE = Path("outputs/evaluate")

CLASSES = tuple(str(digit) for digit in range(10))
SIDE = 8  # pixels
CLASS_TOKEN = 0


def read_params() -> dict[str, Any]:
    """The project's ``params.yaml``."""
    params: dict[str, Any] = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    return params


def read_split(split: str) -> tuple[torch.Tensor, npt.NDArray[np.int64], list[str]]:
    """Images, labels and ids of ``train``, ``val`` or ``test``.

    Returns:
        Images as float32 of shape (samples, 8, 8) in [0, 1]; labels as int64 of shape (samples,); ids of the samples,
        which say their place in the whole data set.
    """
    with np.load(DATA, allow_pickle=False) as data:
        index = data[split]
        ids = [f"digit_{number:04d}" for number in index]
        return torch.from_numpy(data["images"][index]), data["labels"][index], ids


class Attention(nn.Module):
    """Multi-head self-attention that can also say where it looked."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (batch, tokens, width) to itself, and give attention of shape (batch, heads, tokens, tokens)."""
        batch, length, width = tokens.shape
        head = width // self.heads
        query, key, value = self.qkv(tokens).view(batch, length, 3, self.heads, head).permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(-1, -2) / head**0.5).softmax(dim=-1)
        return self.out((attention @ value).transpose(1, 2).reshape(batch, length, width)), attention


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shapes as of `Attention.forward`."""
        mixed, attention = self.attention(self.norm_attention(tokens))
        tokens = tokens + mixed
        return tokens + self.mlp(self.norm_mlp(tokens)), attention


class DigitsTransformer(nn.Module):
    """A vision transformer over square patches of an 8×8 image, after Dosovitskiy et al. (2021), arXiv 2010.11929.

    Args:
        width: the tokens' size.
        depth: the number of layers.
        heads: attention heads a layer.
        patch: a patch's side in pixels; divides 8.
    """

    def __init__(self, width: int, depth: int, heads: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        patches = (SIDE // patch) ** 2
        self.embed = nn.Linear(patch * patch, width)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.position = nn.Parameter(torch.randn(1, 1 + patches, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Classify images.

        Args:
            images: float32 of shape (batch, 8, 8) in [0, 1].

        Returns:
            Logits of shape (batch, 10), and the last layer's attention from the class token to each patch, averaged
            over the heads: shape (batch, 8 / patch, 8 / patch), in [0, 1].
        """
        batch, rows = images.shape[0], SIDE // self.patch
        patches = images.view(batch, rows, self.patch, rows, self.patch).permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
        tokens = torch.cat([self.class_token.expand(batch, -1, -1), self.embed(patches)], dim=1) + self.position
        attention = torch.empty(0)
        for block in self.blocks:
            tokens, attention = block(tokens)
        looked = attention[:, :, CLASS_TOKEN, 1:].mean(dim=1).view(batch, rows, rows)
        return self.head(self.norm(tokens)[:, CLASS_TOKEN]), looked


def build_model(params: Mapping[str, Any]) -> DigitsTransformer:
    """The model that the section ``model`` of the params describes, freshly initialised."""
    return DigitsTransformer(**params["model"])


def run_stage(main: Callable[[], None]) -> NoReturn:
    """Run a stage; an expected failure is one line and its exit code, as in the command line."""
    try:
        main()
    except HoldfastError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


def choose_device(name: str) -> torch.device:
    """``auto`` is a GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
