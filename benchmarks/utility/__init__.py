"""Utility of the plan's own federated path on published data: `python -m benchmarks.utility`."""
