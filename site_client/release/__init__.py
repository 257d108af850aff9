"""The one way out of a site: checks, budget, log, signature."""
