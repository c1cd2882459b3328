"""Soft prompts: what a prompt is, how it is composed of a shared part and task factors, and how it starts.

Tensors in, tensors out: no language model, no run, no configuration.
"""
