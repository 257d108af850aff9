"""Numbered changes of the coordinator's tables, forward only."""
