"""The vault: a deduplicating store of checkpoints and everything beside them."""
