"""Worlds that several test modules build: real git, real DVC, real files."""
