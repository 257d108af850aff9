"""What a noisy step is, what it costs, and the record of what was spent."""
