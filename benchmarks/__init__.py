"""Benchmarks: weft beside what a user would pick today, in one process and in turn. Run by `weft bench`."""
