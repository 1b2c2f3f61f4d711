"""What is there: training runs and what they reached, models outside of runs, rules in ``holdfast.yaml``."""
