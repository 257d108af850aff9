"""Models of several simulated sites, trained at once as one batched tensor program."""
