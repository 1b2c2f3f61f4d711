"""Taking things away so that they can be brought back: plan, quarantine, restore, purge."""
