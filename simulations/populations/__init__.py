"""Generated patients with a known risk model, in hospitals whose differences can be dialled."""
