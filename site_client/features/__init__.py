"""From patients' values to the feature matrix that the plan defines."""
