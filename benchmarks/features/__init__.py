"""The feature build's benchmark: generated MEDS data, the plan, and the three programs compared."""
