"""Checkpoint formats and digests: headers and byte spans, never unpickling."""
