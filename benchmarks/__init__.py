"""How fast procpool is, as ratios to other ways of doing the same work. `python -m benchmarks`."""
