"""Runs: the recorder of a training run, its arrays, its checkpoints, its checks."""
