"""Answers of closed sets against PEFT's `generate`: one task, and ten tasks on the same texts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks import inputs, measure, ours, peers
from benchmarks.goals import Result, Settings
from weft.config.model import BaseConfig
from weft.data.batch import Encoded, Tokens
from weft.evaluation import answering
from weft.evaluation.answers import Answer
from weft.models import Backbone, CausalBackbone
from weft.models.base_folder import resolve
from weft.models.tuned import TunedModel, with_bank
from weft.tasks import Task, find_specs, from_spec

CHECKED = 32  # texts on which both sides' answers are compared


def closed(settings: Settings) -> list[Result]:
    """One task with a closed answer set: in the shape of t5-small, and on smollm2."""
    return [*_closed_t5(settings), *_closed_smollm2(settings)]


def predict(settings: Settings) -> list[Result]:
    """Ten tasks on the same texts, with prompts of 16 and of 8."""
    lengths = (4, 2) if settings.quick else (16, 8)
    return [
        _predict(settings, name, length)
        for name, length in zip(("predict-16", "predict-8"), lengths, strict=True)
    ]


def _closed_t5(settings: Settings) -> list[Result]:
    shape, length, count = ("tiny", 5, 8) if settings.quick else ("small", 100, 64)
    folder = inputs.t5_folder(shape, settings.folder)
    backbone = inputs.load(str(folder), settings, length=length)
    rows = inputs.drawn_rows(count, len(backbone.embeddings), seed=0)
    bank = ours.bank(backbone, length)
    peer = peers.multitask(folder, bank)
    choices = _different_starts(rows)
    task = ours.closed("task", [backbone.decode(choice) for choice in choices])
    model = with_bank(backbone, bank)
    return _compare(settings, "closed-t5", model, peer, task, [row.source for row in rows], model)


def _different_starts(rows: Sequence[Encoded]) -> list[Tokens]:
    """Three answers of four tokens."""
    tokens = [token for row in rows for token in row.source[:-1] if token > 2]
    different = list(dict.fromkeys(tokens))
    return [(*different[i : i + 3], inputs.END) for i in (0, 3, 6)]


def _closed_smollm2(settings: Settings) -> list[Result]:
    length, count = (4, 4) if settings.quick else (16, 96)
    task = inputs.task_of(settings)
    suffix = inputs.load("smollm2", settings, length=length)
    before = ours.prompts(inputs.load("smollm2", settings, length=length, position="prefix"), length, 1)
    sources = [suffix.text_tokens(text)[0] for text in inputs.texts(settings, count)]
    peer = peers.prompt_tuning(resolve(BaseConfig()).path, before.prompts_of(ours.FIRST)[0])
    model = ours.prompts(suffix, length, 1)
    return _compare(settings, "closed-smollm2", model, peer, task, sources, before)


def _compare(
    settings: Settings,
    name: str,
    model: TunedModel,
    peer: peers.PeftModel,
    task: Task,
    sources: list[Tokens],
    like: TunedModel,
) -> list[Result]:
    """Seconds of all answers: ours, PEFT's in batches of like length, and in the order given.

    Args:
        settings: rounds.
        name: of the goal.
        model: weft as it comes, which forgets its texts before every round.
        peer: PEFT.
        task: has the answers.
        sources: texts.
        like: weft with PEFT's own prompt in PEFT's place, for the comparison of answers.
    """
    backbone = model.backbone
    written = {"tokenizer": backbone.tokenizer, "max_tokens": longest(backbone, task)}
    arms = {
        "weft": lambda i: answers(forgetful(model), [task], sources),
        "PEFT": lambda i: peers.answer(peer, sources=sources, **written),
        "PEFT, order given": lambda i: peers.answer(peer, sources=sources, by_length=False, **written),
    }
    seconds, _ = measure.interleave(arms, settings.rounds)
    text = (
        f"{len(sources)} texts, {len(task.choices)} choices; PEFT writes at most {written['max_tokens']} "
        f"tokens, batches of 64; PEFT float32, weft {settings.dtype}"
    )
    checks = agreement(like, peer, task, sources[:CHECKED])
    ratio = measure.ratios(seconds, "PEFT", "weft")
    given = measure.ratios(seconds, "PEFT, order given", "weft")
    return [
        Result(name, ratio, f"{text}, of like length", seconds, checks),
        Result("same / PEFT, texts as they come", given, text),
    ]


def agreement(model: TunedModel, peer: peers.PeftModel, task: Task, sources: list[Tokens]) -> dict[str, Any]:
    """Shares of texts with the same answer at equal prompts: of the closed set, and written freely.

    PEFT answers one text at a time here, and its closed answers are those it writes when nothing but the
    choices may be written. In a batch its decoder-only models number the padding between prompt and text as
    positions, which changes answers; the last share says how many stay.
    """
    backbone, most = model.backbone, longest(model.backbone, task)
    choices = [backbone.answer_tokens(word) for word in task.choices]
    peer_answers = partial(peers.answer, peer, backbone.tokenizer, sources, max_tokens=most)
    chosen = [one.text for one in answers(model, [task], sources)]
    written = backbone.generate(model.begin(sources, [0] * len(sources)), most)
    closed = [backbone.decode(one) for one in peer_answers(batch_size=1, choices=choices)]
    free = peer_answers(batch_size=1)
    return {
        "same answers": _same(chosen, closed),
        "same written": _same(written, free),
        "PEFT in a batch as alone": _same(peer_answers(), free),
    }


def _same(one: Sequence[object], two: Sequence[object]) -> float:
    """Share of pairs that are equal."""
    return sum(a == b for a, b in zip(one, two, strict=True)) / len(two)


def answers(model: TunedModel, tasks: list[Task], sources: list[Tokens]) -> list[Answer]:
    """weft's answers of every text for every task."""
    wanted = [(source, k) for source in sources for k in range(len(tasks))]
    every, ids = [source for source, _ in wanted], [k for _, k in wanted]
    return answering.answer(model, tasks, every, ids, generate=False)


def longest(backbone: Backbone, task: Task) -> int:
    """Tokens of the longest answer, its end token included: without it nobody sees that it ends."""
    return max(len(backbone.answer_tokens(word)) for word in task.choices)


def forgetful(model: TunedModel) -> TunedModel:
    """The same model with no text read yet."""
    old = model.backbone
    if not isinstance(old, CausalBackbone):
        return model
    backbone = CausalBackbone(
        old.lm, old.tokenizer, suffix=old.suffix, name=old.name, base_hash=old.base_hash
    )
    return TunedModel(backbone, model.prompts, model.trained, model.tasks)


def ten_tasks() -> list[Task]:
    """Answer sets of the demo's eight tasks, and two of them again."""
    found = [from_spec(spec) for spec in find_specs([inputs.DEMO]).values()]
    return [ours.closed(f"{task.name}-{i}", task.choices) for i, task in enumerate([*found, *found[:2]])]


def _predict(settings: Settings, name: str, length: int) -> Result:
    tasks = ten_tasks()[:2] if settings.quick else ten_tasks()
    model = ours.prompts(inputs.load("smollm2", settings, length=length), length, len(tasks))
    backbone = model.backbone
    sources = [backbone.text_tokens(one)[0] for one in inputs.texts(settings, 3 if settings.quick else 500)]
    before = ours.prompts(inputs.load("smollm2", settings, length=length, position="prefix"), length, 1)
    peer = peers.prompt_tuning(resolve(BaseConfig()).path, before.prompts_of(ours.FIRST)[0])
    checks = agreement(before, peer, tasks[0], sources[:CHECKED])
    prompts = model.prompts.prompts.detach()

    def one_task(number: int) -> None:
        k = number % len(tasks)
        peers.set_prompt(peer, prompts[k])
        peers.answer(peer, backbone.tokenizer, sources, max_tokens=longest(backbone, tasks[k]))

    arms = {
        "weft, all tasks": lambda i: answers(forgetful(model), tasks, sources),
        "PEFT, one task": one_task,
    }
    seconds, _ = measure.interleave(arms, settings.rounds, warm=False)
    ratio = [len(tasks) * one for one in measure.ratios(seconds, "PEFT, one task", "weft, all tasks")]
    mean = sum(map(len, sources)) / len(sources)
    text = (
        f"{len(tasks)} tasks on {len(sources)} texts of {mean:.0f} tokens, prompt {length}; PEFT answers "
        "one task a round, times the number of tasks, which share nothing; weft begins with no text read"
    )
    return Result(name, ratio, text, seconds, checks)
