"""What noisy counts say about a model, and how surely; arithmetic alone, no files, no network."""
