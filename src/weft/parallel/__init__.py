"""Several processes at one training: who they are, what they tell each other, and whether all live."""
