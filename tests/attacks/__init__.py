"""Hostile files, and what the tests of formats share."""
