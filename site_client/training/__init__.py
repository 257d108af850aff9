"""Local training and evaluation under differential privacy; the patient is the unit."""
