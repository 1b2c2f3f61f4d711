"""Reports: what the rooms below found, as Markdown that people read and review."""
