"""The study plan: one file that a steward can read, approve and hold everyone to."""
