"""The repository: git history, and the adapter to DVC."""
