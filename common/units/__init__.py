"""Units of measurement: UCUM, laboratories' spellings of it, and exact conversions."""
