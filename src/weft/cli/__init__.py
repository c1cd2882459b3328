"""The command line: one function a verb, and no logic of its own."""

from weft.cli import answers, experiments, stages, tools
from weft.cli.app import app
from weft.cli.entry import main

__all__ = ["answers", "app", "experiments", "main", "stages", "tools"]
