"""The other half of the sequences of `test_vault_sequences`: two processes share them."""

from test_vault_sequences import SEEDS, run_many


def test_nothing_is_lost_in_as_many_sequences_again() -> None:
    run_many(SEEDS, SEEDS)
