"""Numbered changes of the board's tables, forward only."""
