"""Experiments: which runs a comparison takes, running what is missing, and its tables and report."""
