"""Scenarios: what goes wrong, operation by operation, and which conditions must hold all along."""
