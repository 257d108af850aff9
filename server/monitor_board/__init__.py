"""The monitor board: opens the sites' sealed reports and says what they mean for the model."""
