"""Windows of vibration, made up but the same each time: twelve features, three states."""

import numpy as np

STATES = ("idle", "cutting", "chatter")
FEATURES = 12
FORMS = 6
SPREAD = 0.65
TEST_SAMPLES = 400


def windows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features, float32 (count, 12), and states, int64 (count)."""
    rng = np.random.default_rng(seed)
    states = rng.integers(0, len(STATES), count)
    # each state has several forms, so that a model needs its hidden units
    forms = np.random.default_rng(7).normal(size=(len(STATES), FORMS, FEATURES)).astype(np.float32)
    features = forms[states, rng.integers(0, FORMS, count)] + SPREAD * rng.normal(size=(count, FEATURES))
    return (np.round(features * 16) / 16).astype(np.float32), states  # the sensor's steps
