"""Comparison of two open checkpoints: in words, in figures, in bytes."""
