"""Answers for new rows: finished runs as one predictor."""
