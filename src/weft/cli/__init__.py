"""The command line: one function a verb, and no logic of its own."""

from weft.cli.entry import main

__all__ = ["main"]
