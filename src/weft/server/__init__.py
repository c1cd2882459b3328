"""Answers over HTTP: OpenAI's routes, admission, and a worker process, in which alone a model loads."""
