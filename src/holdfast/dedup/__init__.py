"""Deduplication: what is stored twice."""
