"""Trackers: what runs log, shown elsewhere while they train: TensorBoard, trackio, Weights & Biases, MLflow.

A tracker is told what stands in a run's folder, by a process that only reads there. So nothing that happens
to a tracker reaches a training, whoever trains: this process, others beside it, or jobs of a cluster. What is
told is noted under the folder of runs, and is not told twice:

    runs/.trackers/log                             what the trackers' own clients print
    runs/.trackers/<tracker>/<project>/<run>/told.json     how far the tracker was told; files of TensorBoard
"""

from weft.tracking.companion import followed, reason
from weft.tracking.telling import Telling
from weft.tracking.trackers import NAMES, PROJECT, Trackers, asked

__all__ = ["NAMES", "PROJECT", "Telling", "Trackers", "asked", "followed", "reason"]
