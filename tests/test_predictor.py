"""Answers of several tasks together: what each task may read and write stays its own."""

import torch

from weft.evaluation.answering import TunedAnswerer
from weft.models.tuned import with_prompts
from weft.serving.predictor import Predictor, merged
from weft.tasks import Task

WORDS = "film book meal song story city river dog cat man woman child"
LIMITS, LONGEST = {"reads": 100, "writes": 10}, {"reads": 3, "writes": 100}


def open_task(name):
    """A task with free answers, whose text is the field `text`."""
    source, none = (lambda row: row["text"]), (lambda _: [])
    return Task(name, none, none, source, {}, max_target_tokens=LONGEST[name])


def predictor(backbone, names):
    """Prompts of 4 tokens for some of the tasks, each as a run of its own gives it."""
    found = []
    for name in names:
        prompt = torch.randn(1, 4, backbone.width, generator=torch.Generator().manual_seed(len(name)))
        model = with_prompts(backbone, prompt, (name,))
        found.append(TunedAnswerer(model, (open_task(name),), LIMITS[name]))
    return Predictor(merged(found))


def test_long_texts_and_long_answers_meet_in_no_batch(make_backbone):
    """On 128 positions, a task that reads 100 tokens and one that writes 100: each as it is alone."""
    backbone = make_backbone("gpt2-suffix")
    backbone.tokenizer.eos_token_id = 1 << 20  # no answer ends early
    row = {"text": " ".join([WORDS] * 10)}
    together = predictor(backbone, list(LIMITS)).predict([row, row])
    assert [(one.row, one.task) for one in together] == [(i, name) for i in (0, 1) for name in LIMITS]
    for name in LIMITS:
        alone = predictor(backbone, [name]).predict([row, row])
        assert [one for one in together if one.task == name] == alone
    assert len(alone[0].answer.split()) > 128 - 4 - LIMITS["reads"]  # words that would not have had room
