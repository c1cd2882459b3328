"""Answers of a model, and their scores against the accepted ones."""
