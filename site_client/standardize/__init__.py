"""What was found when data were brought to the plan's codes and units, as counts."""
