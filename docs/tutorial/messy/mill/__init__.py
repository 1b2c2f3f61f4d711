"""States of a milling machine, told from its vibration."""
