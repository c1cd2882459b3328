"""What a model wrote, as an answer of its task."""

from collections.abc import Sequence

from weft.models import Backbone
from weft.tasks import Task


def written(backbone: Backbone, task: Task, rows: Sequence[Sequence[int]]) -> list[str]:
    """Tokens of answers as text; a choice is known by its own tokens, whatever the tokenizer makes of them.

    Many tokenizers give back another text than they were given: in lower case, without accents, or with
    spaces around signs. A label word such as `Not-OK` could otherwise never be written.
    """
    known = spelt(backbone, task)
    texts = [task.parse(backbone.decode(row)) for row in rows]
    return [known.get(text, text) for text in texts]


def spelt(backbone: Backbone, task: Task) -> dict[str, str]:
    """What the tokenizer makes of a task's choices -> the choice."""
    found = {task.parse(backbone.decode(backbone.answer_tokens(word))): word for word in task.choices}
    found.pop("", None)  # of a word that is unknown to the tokenizer
    return found
