"""The engine on a bank: mixed tasks, PEFT and transformers beside it, one text, and the size of the bank."""

import gc
import random
import resource
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from benchmarks import inputs, measure, peers
from benchmarks.goals import Result, Settings
from benchmarks.served import Served, name_of
from weft.config.model import BaseConfig
from weft.models import Backbone, CausalBackbone
from weft.models.base_folder import resolve
from weft.serving.base import served_texts
from weft.serving.engine import Engine
from weft.serving.requests import Request, Response
from weft.serving.settings import EngineSettings

LENGTH, ROWS, TOKENS = 16, 32, 8
TASKS, EACH = 16, 4  # of the comparison with PEFT: tasks, and texts of each
MANY, WORDS, SAMPLE = 100, 170, 10  # tasks of one text, its words, and how many of the requests are timed
SIZES, QUICK = (1, 1_000, 100_000, 1_000_000), (1, 20, 200)


def run(settings: Settings) -> list[Result]:
    """All four comparisons on smollm2."""
    length = 4 if settings.quick else LENGTH
    suffix = inputs.load("smollm2", settings, length=length)
    prefix = inputs.load("smollm2", settings, length=length, position="prefix")
    alike = inputs.load("smollm2", settings, length=length, position="prefix", dtype="float32")
    return [
        _mixed(settings, suffix, "serve-mixed"),
        _mixed(settings, prefix, "serve-mixed-prefix"),
        *_peers(settings, alike),
        *_one_text(settings, suffix),
        *_sizes(settings, suffix),
    ]


def bank_of(settings: Settings, backbone: Backbone, name: str, **how: Any) -> Served:
    return Served(settings.folder / f"bank-{name}", backbone, 4 if settings.quick else LENGTH, **how)


def _forget(backbone: Backbone) -> None:
    """As if no text had been read."""
    if isinstance(backbone, CausalBackbone):
        backbone.texts = served_texts(backbone, 1 << 30)


def _mixed(settings: Settings, backbone: Backbone, name: str) -> Result:
    """A batch of as many tasks as rows beside a batch of one task; the tasks answer alike."""
    rows = 4 if settings.quick else ROWS
    served = bank_of(settings, backbone, name, alike=True, closed=False, tokens=TOKENS)
    engine = Engine(backbone, served.grown(rows), EngineSettings(rows=rows))
    texts = inputs.texts(settings, rows)
    many = [Request(name_of(i), text=text) for i, text in enumerate(texts)]
    one = [Request(name_of(0), text=text) for text in texts]
    _forget(backbone)
    arms = {"mixed": lambda i: engine.generate(many), "one task": lambda i: engine.generate(one)}
    seconds, given = measure.interleave(arms, settings.rounds)
    place = "behind" if backbone.keeps_texts else "before"
    text = (
        f"{rows} rows of {rows} tasks and of one, prompts of {served.form.shape[0]} {place} texts, what "
        f"can be kept was read before, {TOKENS} tokens at most; numbers of tasks differ by 1e-6"
    )
    same = [a.written for a in given["mixed"]] == [b.written for b in given["one task"]]
    return Result(
        name, measure.ratios(seconds, "mixed", "one task"), text, seconds, {"same answers": float(same)}
    )


def _peers(settings: Settings, backbone: Backbone) -> list[Result]:
    """The same requests answered task by task by PEFT, and all in one batch by transformers."""
    tasks, each = (2, 2) if settings.quick else (TASKS, EACH)
    served = bank_of(settings, backbone, "peers", closed=False, tokens=TOKENS)
    snapshot = served.grown(tasks)
    texts = inputs.texts(settings, tasks * each)
    requests = [Request(name_of(i % tasks), text=text) for i, text in enumerate(texts)]
    prompts = [torch.tensor(snapshot.prompt(snapshot.find(name_of(k)))) for k in range(tasks)]
    sources = [backbone.text_tokens(text)[0] for text in texts]
    folder = resolve(BaseConfig()).path
    peer = peers.prompt_tuning(folder, prompts[0])

    def task_by_task(_: int) -> list[str]:
        found: dict[int, str] = {}
        for k, prompt in enumerate(prompts):
            places = range(k, len(texts), tasks)
            peers.set_prompt(peer, prompt)
            own = [sources[i] for i in places]
            written = peers.answer(peer, backbone.tokenizer, own, max_tokens=TOKENS)
            found |= {i: backbone.decode(one) for i, one in zip(places, written, strict=True)}
        return [found[i] for i in range(len(texts))]

    rows = len(texts)
    engine = Engine(backbone, snapshot, EngineSettings(rows=rows, read_tokens=8192))
    fresh = lambda: Engine(backbone, snapshot, engine.settings)  # noqa: E731
    arms: dict[str, Callable[[int], object]] = {
        "weft": lambda i: _written(engine.generate(requests)),
        "weft, no prompt kept": lambda i: _written(fresh().generate(requests)),
        "PEFT, task by task": task_by_task,
        "transformers, one batch": lambda i: _one_batch(backbone, prompts, sources),
    }
    seconds, given = measure.interleave(arms, settings.rounds)
    said = (
        f"{tasks} tasks of {each} texts each, prompts of {len(prompts[0])} before them, {TOKENS} tokens at "
        "most; both in float32"
    )
    checks = {
        f"same answers as {name}": _share(given["weft"], given[name])
        for name in ("PEFT, task by task", "transformers, one batch")
    }
    return [
        Result(
            "serve-peft",
            measure.ratios(seconds, "PEFT, task by task", "weft"),
            f"{said}; keys and values of prompts kept",
            seconds,
            checks,
        ),
        Result(
            "same, no prompt read before",
            measure.ratios(seconds, "PEFT, task by task", "weft, no prompt kept"),
            said,
        ),
        Result(
            "transformers, one merged batch / weft",
            measure.ratios(seconds, "transformers, one batch", "weft"),
            f"{said}; weft's own model, prompts put before the texts by hand, in the order given",
        ),
    ]


@torch.no_grad()
def _one_batch(
    backbone: Backbone, prompts: Sequence[torch.Tensor], sources: Sequence[tuple[int, ...]]
) -> list[str]:
    """`generate` of transformers on prompts and texts that somebody put together."""
    kind = backbone.embeddings.dtype
    parts = [
        torch.cat([prompts[i % len(prompts)].to(kind), backbone.embed(torch.tensor(source))])
        for i, source in enumerate(sources)
    ]
    longest = max(map(len, parts))
    embeds = torch.stack(
        [torch.cat([part.new_zeros(longest - len(part), part.shape[1]), part]) for part in parts]
    )
    mask = torch.tensor([[0] * (longest - len(part)) + [1] * len(part) for part in parts])
    end, padding = backbone.tokenizer.eos_token_id, backbone.tokenizer.pad_token_id
    config = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=end, pad_token_id=padding)
    rows = backbone.lm.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=config).tolist()
    return [backbone.decode(row[: row.index(end)] if end in row else row) for row in rows]


def _written(found: Sequence[Response]) -> list[str]:
    return [one.written or "" for one in found]


def _share(one: Any, two: Any) -> float:
    """Of answers that are the same."""
    return sum(a == b for a, b in zip(one, two, strict=True)) / len(one)


def _one_text(settings: Settings, backbone: Backbone) -> list[Result]:
    """A long text under many tasks at once, beside as many requests of one task each."""
    count, sample = (6, 2) if settings.quick else (MANY, SAMPLE)
    engine = Engine(backbone, bank_of(settings, backbone, "text").grown(count), EngineSettings())
    text = _long(settings)
    requests = [Request(name_of(i), text=text) for i in range(count)]

    def alone(_: int) -> list[Response]:
        found = []
        for request in requests[:sample]:
            _forget(backbone)
            found += engine.generate([request])
        return found

    def other_texts(_: int) -> list[Response]:
        _forget(backbone)
        words = text.split()
        return engine.generate(
            [Request(name_of(i), text=" ".join(words[i:] + words[:i])) for i in range(sample)]
        )

    def together(_: int) -> list[Response]:
        _forget(backbone)
        return engine.generate(requests)

    arms = {"alone": alone, "other texts": other_texts, "together": together}
    seconds, given = measure.interleave(arms, settings.rounds)
    found = [one.answer for one in given["together"]]
    checks = {"same answers": _share([one.answer for one in given["alone"]], found[:sample])}
    said = (
        f"{count} tasks of two answers, one text of {given['together'][0].prompt_tokens} tokens, prompts of "
        f"{given['together'][0].virtual_tokens} behind it; nothing read before"
    )
    times = count / sample
    return [
        Result(
            "serve-one-text",
            [times * one for one in measure.ratios(seconds, "alone", "together")],
            f"{said}; the others one by one, {sample} of them timed, times {times:g}",
            seconds,
            checks,
        ),
        Result(
            "same / texts of their own, in one batch",
            [times * one for one in measure.ratios(seconds, "other texts", "together")],
            f"{said}; the others have as long texts of their own, {sample} at once, times {times:g}",
        ),
    ]


def _long(settings: Settings) -> str:
    """Some texts as one."""
    words: list[str] = []
    for text in inputs.texts(settings, 60):
        words += text.split()
    return " ".join(words[: 20 if settings.quick else WORDS])


def _sizes(settings: Settings, backbone: Backbone) -> list[Result]:
    """The same texts for tasks of a small bank and of a large one."""
    sizes = QUICK if settings.quick else SIZES
    rows = 4 if settings.quick else ROWS
    texts = inputs.texts(settings, rows)
    bounds = EngineSettings(rows=rows)
    banks = {
        size: Engine(
            backbone, bank_of(settings, backbone, f"of-{size}", dtype="bfloat16").grown(size), bounds
        )
        for size in sizes
    }
    memory: dict[int, float] = {}

    def answers(size: int) -> Callable[[int], object]:
        draw = random.Random(size)

        def timed(_: int) -> object:
            requests = [Request(name_of(draw.randrange(size)), text=text) for text in texts]
            found = banks[size].generate(requests)
            gc.collect()
            memory[size] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            return found

        return timed

    _forget(backbone)
    arms = {f"{size:,}": answers(size) for size in sizes}
    seconds, _ = measure.interleave(arms, settings.rounds)
    medians = {name: measure.Spread.of(times).median for name, times in seconds.items()}
    told = "; ".join(f"{name} tasks {median:.2f} s" for name, median in medians.items())
    said = f"{rows} rows of tasks drawn at random, texts read before, two answers; {told}"
    first = f"{sizes[0]:,}"
    return [
        Result(
            "serve-flat" if size == sizes[-1] else f"rows of a bank of {size:,} / of {first}",
            measure.ratios(seconds, f"{size:,}", first),
            said if size == sizes[-1] else f"as {sizes[-1]:,}",
            seconds if size == sizes[-1] else {},
            {"peak memory of the process in MB": round(max(memory.values()))} if size == sizes[-1] else {},
            unit="times",
        )
        for size in sizes[1:]
    ]
