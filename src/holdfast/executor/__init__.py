"""Map over tasks: in this process, or on a cluster of others with the same results."""
