"""What has been read before an answer, from which it is written."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class Context:
    """Texts and prompts that have been read; answers start from here. Used up by `generate`.

    Attributes:
        mask: positions that count.
        memory: what a family keeps of them.
        logits: of the next token.
    """

    mask: Int[Tensor, "B N"]
    memory: Any
    logits: Float[Tensor, "B V"] | None = None

    @property
    def next(self) -> Float[Tensor, "B V"]:
        """Logits of the next token.

        Raises:
            ValueError: if it has not been predicted.
        """
        if self.logits is None:
            raise ValueError("the context has no prediction")
        return self.logits
