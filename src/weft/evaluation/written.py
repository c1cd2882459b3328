"""What a model wrote, as an answer of its task."""

from collections.abc import Sequence

from weft.models import Backbone
from weft.tasks import Task


def written(backbone: Backbone, task: Task, rows: Sequence[Sequence[int]]) -> list[str]:
    """Tokens of answers as text; a choice is known by its own tokens, whatever the tokenizer makes of them.

    Many tokenizers give back another text than they were given: in lower case, without accents, or with
    spaces around signs. A label word such as `Not-OK` could otherwise never be written.
    """
    spelt = {task.parse(backbone.decode(backbone.answer_tokens(word))): word for word in task.choices}
    spelt.pop("", None)  # of a word that is unknown to the tokenizer
    texts = [task.parse(backbone.decode(row)) for row in rows]
    return [spelt.get(text, text) for text in texts]
