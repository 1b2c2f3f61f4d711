"""Holdfast: a model registry, deduplication and safe garbage collection on top of DVC and git."""

__version__ = "0.1.0"
