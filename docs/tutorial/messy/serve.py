"""Answer for one window of vibration: `python serve.py 0.1 -0.3 …`."""

import sys
from pathlib import Path

import numpy as np
from mill import data, model

MODEL = "outputs/wide_20260512_091500/best_model.safetensors"


def answer(values: list[float]) -> str:
    """The state that is most probable."""
    weights = model.load(Path(MODEL))
    return data.STATES[int(model.probabilities(weights, np.array([values], np.float32)).argmax())]


if __name__ == "__main__":
    print(answer([float(value) for value in sys.argv[1:]] or [0.0] * data.FEATURES))
