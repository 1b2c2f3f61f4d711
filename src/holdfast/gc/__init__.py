"""Garbage collection: what keeps an object alive, what may go, and why."""
