"""Studies on one machine."""
