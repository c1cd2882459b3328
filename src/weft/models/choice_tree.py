"""Closed answer sets as trees of tokens, by which choices are scored (docs/decisions/0002-choices.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from weft.data.batch import Tokens


@dataclass(frozen=True)
class ChoiceTree:
    """A closed answer set as a tree of tokens: where answers part, and what must be read to get there.

    Attributes:
        prefixes: token paths that lead to a later parting; `()` is the root.
        branches: for each prefix, the tokens that may follow, in the order of first use.
        steps: for each choice, its partings as (prefix number, token's place among the branches).
    """

    prefixes: tuple[Tokens, ...]
    branches: tuple[Tokens, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, choices: Sequence[Tokens]) -> "ChoiceTree":
        """The tree of a set of answers, each with its end token.

        Raises:
            ValueError: if two answers are the same tokens.
        """
        if len(set(choices)) < len(choices):
            raise ValueError("two choices are the same tokens")
        following: dict[Tokens, list[int]] = {(): []}
        for choice in choices:
            for i, token in enumerate(choice):
                branch = following.setdefault(choice[:i], [])
                if token not in branch:
                    branch.append(token)
        prefixes = tuple(prefix for prefix, branch in following.items() if len(branch) > 1 or not prefix)
        number = {prefix: i for i, prefix in enumerate(prefixes)}
        steps = tuple(
            tuple(
                (number[choice[:i]], following[choice[:i]].index(token))
                for i, token in enumerate(choice)
                if choice[:i] in number
            )
            for choice in choices
        )
        return cls(prefixes, tuple(tuple(following[prefix]) for prefix in prefixes), steps)

    @cached_property
    def paths(self) -> tuple[Tokens, ...]:
        """What must be read to know the logits behind every prefix: those that begin no longer one."""
        longest = [one for one in self.prefixes if one]
        return tuple(
            one
            for one in longest
            if not any(len(other) > len(one) and other[: len(one)] == one for other in longest)
        )

    def row_log_probs(self, logits: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, " C"]:
        """As `log_probs`, of one row, given the logits of the branches alone behind each prefix."""
        parts = [torch.log_softmax(one.float(), -1) for one in logits]
        return torch.stack([torch.stack([parts[i][j] for i, j in steps]).sum() for steps in self.steps])

    def log_probs(self, logits: Sequence[Float[Tensor, "B V"]]) -> Float[Tensor, "B C"]:
        """Log-probability of every choice, given the next-token logits after each prefix."""
        parts = [
            torch.log_softmax(one[:, list(branch)].float(), -1)
            for one, branch in zip(logits, self.branches, strict=True)
        ]
        columns = [torch.stack([parts[i][:, j] for i, j in steps]).sum(0) for steps in self.steps]
        return torch.stack(columns, 1)
