"""Training: the one loop of all methods and stages, checkpoints, and a run's training in its folder."""
