"""Settings and their files: what a YAML file may say, with every default and its meaning.

Settings that several rooms share stand here. Those of one method stand in its file (`weft.methods`), those
of a run in `weft.runs.config`, those of an experiment in `weft.experiments.config`. Loads without torch.
"""
