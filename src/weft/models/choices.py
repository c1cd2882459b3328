"""Closed answers of rows that each have a set of their own, scored together."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from weft.data.batch import Tokens
from weft.models.backbone import Backbone
from weft.models.choice_tree import ChoiceTree
from weft.models.context import Context

LOGITS = 64 << 20  # numbers at once: a vocabulary for each token that is read


def choice_log_probs(
    backbone: Backbone, context: Context, rows: Sequence[int], trees: Sequence[ChoiceTree]
) -> list[Float[Tensor, " C"]]:
    """Log-probability of every choice of each row when only its choices may be written (nats).

    What parts at the first token is known already; all that parts later, in whatever row, is read at once,
    or in a few parts where that are many logits.

    Args:
        backbone: the model.
        context: from `begin`; stays as it was.
        rows: of the context.
        trees: the choices of each of these rows.
    """
    found: dict[tuple[int, Tokens], Tensor] = {}
    asked = [(i, path) for i, tree in enumerate(trees) for path in tree.paths]
    for some in parts_that_fit(asked, len(backbone.embeddings)):
        logits = backbone.after(context, [rows[i] for i, _ in some], [path for _, path in some])
        for (i, path), behind in zip(some, logits, strict=True):
            own = zip(trees[i].prefixes, trees[i].branches, strict=True)
            for prefix, branch in own:
                if prefix and path[: len(prefix)] == prefix:
                    found[i, prefix] = behind[len(prefix) - 1, list(branch)]
    for i, (row, tree) in enumerate(zip(rows, trees, strict=True)):
        found[i, ()] = context.next[row, list(tree.branches[0])]
    return [
        tree.row_log_probs([found[i, prefix] for prefix in tree.prefixes]) for i, tree in enumerate(trees)
    ]


def parts_that_fit(asked: Sequence[tuple[int, Tokens]], words: int) -> list[list[tuple[int, Tokens]]]:
    """Paths of like length together, so many that their logits have room."""
    parts: list[list[tuple[int, Tokens]]] = []
    for one in sorted(asked, key=lambda pair: len(pair[1])):
        if parts and (len(parts[-1]) + 1) * len(one[1]) * words <= LOGITS:
            parts[-1].append(one)
        else:
            parts.append([one])
    return parts
