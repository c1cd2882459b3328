"""Checks before any weights load: settings, base model, rows, tokens, leaks; and the health of runs."""
