"""The way out: what other programs see of procpool."""
