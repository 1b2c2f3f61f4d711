"""A small network in NumPy, its training, and its file: the form of safetensors, written by hand."""

import json
import struct
from pathlib import Path

import numpy as np

Weights = dict[str, np.ndarray]

# weights are whole numbers of these, and so are shares: then each sum below is exact, and every machine, however it
# adds, learns the same bits
WEIGHT_STEP, SHARE_STEP = 2.0**-16, 2.0**-20


def make(features: int, hidden: int, states: int, seed: int) -> Weights:
    """New weights, float32."""
    rng = np.random.default_rng(seed)
    return {
        "body.weight": _stepped(rng.normal(0, features**-0.5, (features, hidden))),
        "body.bias": np.zeros(hidden, np.float32),
        "head.weight": _stepped(rng.normal(0, hidden**-0.5, (hidden, states))),
        "head.bias": np.zeros(states, np.float32),
    }


def probabilities(weights: Weights, features: np.ndarray) -> np.ndarray:
    """The probability of each state, (count, states)."""
    return _forward(weights, features)[1]


def loss_of(weights: Weights, features: np.ndarray, states: np.ndarray) -> float:
    """Mean of −log of the probability of what is right."""
    right = probabilities(weights, features)[np.arange(len(states)), states]
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def step(weights: Weights, features: np.ndarray, states: np.ndarray, lr: float) -> Weights:
    """The weights after one step of gradient descent."""
    hidden, shares = _forward(weights, features)
    errors = shares - np.eye(shares.shape[1])[states]
    back = (errors @ weights["head.weight"].T.astype(float)) * (hidden > 0)
    slopes = {
        "body.weight": features.T.astype(float) @ back,
        "body.bias": back.sum(0),
        "head.weight": hidden.T @ errors,
        "head.bias": errors.sum(0),
    }
    return {name: _stepped(value - lr / len(states) * slopes[name]) for name, value in weights.items()}


def save(weights: Weights, path: Path) -> None:
    """Write `path` with the suffix .safetensors."""
    header, at = {}, 0
    for name, value in sorted(weights.items()):
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + b"".join(weights[name].tobytes() for name in header)
    path.with_suffix(".safetensors").write_bytes(data)


def load(path: Path) -> Weights:
    """Read what `save` wrote."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    body = data[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in json.loads(data[8 : 8 + length]).items()
    }


def _forward(weights: Weights, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exact = {name: value.astype(float) for name, value in weights.items()}
    hidden = np.maximum(features.astype(float) @ exact["body.weight"] + exact["body.bias"], 0)
    scores = hidden @ exact["head.weight"] + exact["head.bias"]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return hidden, np.round(shares / shares.sum(1, keepdims=True) / SHARE_STEP) * SHARE_STEP


def _stepped(values: np.ndarray) -> np.ndarray:
    return (np.round(values / WEIGHT_STEP) * WEIGHT_STEP).astype(np.float32)
