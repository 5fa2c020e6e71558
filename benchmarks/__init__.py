"""Comparisons with what others offer, each with a bar to clear: `python -m benchmarks`."""
