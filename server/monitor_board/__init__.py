"""The monitor board: opens the sites' reports, keeps them, judges them, decides."""
