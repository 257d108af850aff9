"""Data quality for a steward: figures, what needs a look, and pages to read them on."""
