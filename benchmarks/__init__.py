"""What we measure and how; docs/benchmarks.md has the figures."""
