"""The way up: the bytes of a child become lines that somebody reads."""
