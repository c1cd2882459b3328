"""Base models and rows: random weights in the shape of T5, smollm2, drawn rows and those of real tasks."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from benchmarks.goals import Settings
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.config.training import OptimConfig, PromptConfig
from weft.data.batch import Encoded, Tokens
from weft.data.selection import few_shot
from weft.methods.prompt_tuning import PromptTuning
from weft.models import Backbone
from weft.runs.config import AdaptRun
from weft.runs.workspace import Workspace
from weft.tasks import BUILTIN, Example, Task, find_specs, from_spec

DEMO = Path(__file__).parents[1] / "demo" / "tasks"
PAD, END = 0, 1
T5_SHAPES = {
    "tiny": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 500},
    "small": {},  # T5Config's own: 6 + 6 layers of width 512
    "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    "large": {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
}


def t5_config(shape: str) -> T5Config:
    """The configuration of a T5 of a known size."""
    return T5Config(decoder_start_token_id=PAD, **T5_SHAPES[shape])


def t5_folder(shape: str, folder: Path) -> Path:
    """A T5 with seeded random weights and a tokenizer of numbers, on disk as any base model is."""
    path = folder / f"t5-{shape}"
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            lm = T5ForConditionalGeneration(t5_config(shape))
        lm.save_pretrained(path)
        number_tokenizer(lm.config.vocab_size).save_pretrained(path)
    return path


def number_tokenizer(words: int) -> PreTrainedTokenizerFast:
    """Token i is written as the number i; texts end with the end token, as T5's do."""
    special = ("<pad>", "</s>", "<unk>")
    vocabulary = {**{name: i for i, name in enumerate(special)}, **{str(i): i for i in range(3, words)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def drawn_rows(count: int, words: int, *, seed: int) -> list[Encoded]:
    """Rows as in `performance.md`: lengths lognormal with median 40 and mean 54, answers of 2 to 5 tokens."""
    draw = random.Random(seed)

    def tokens(length: int) -> Tokens:
        return (*(draw.randrange(3, words) for _ in range(length - 1)), END)

    lengths = [min(256, max(2, round(draw.lognormvariate(3.689, 0.775)))) for _ in range(count)]
    return [Encoded(tokens(length), tokens(draw.randint(2, 5))) for length in lengths]


def load(model: str, settings: Settings, *, length: int, position: str = "auto", **choices: str) -> Backbone:
    """A frozen base model with the choices that weft makes for a run on this machine, but those given."""
    spec = find_specs([DEMO])["banking"]
    config = AdaptRun(
        base=BaseConfig(**{"model": model, "dtype": settings.dtype, **choices}),
        prompt=PromptConfig(length=length, position=position),
        tasks=(spec,),
        method=PromptTuning(),
        optim=OptimConfig(lr={"prompt": 0.1}, steps=1),
    )
    return Workspace(settings.folder / "runs").backbone(config)


def task_spec(settings: Settings) -> TaskSpec:
    """The task whose rows are used: CR of the task data where they are given, else the demo's banking."""
    if settings.data is not None:
        return find_specs([BUILTIN / "cr.yaml"])["cr"]
    return find_specs([DEMO])["banking"]


def task_of(settings: Settings) -> Task:
    """That task, ready to read its rows."""
    return from_spec(task_spec(settings), settings.data)


def shots(task: Task) -> list[Example]:
    """16 rows of every answer."""
    return few_shot(task.load("train"), 16, seed=0, task=task.name)


def texts(settings: Settings, count: int) -> list[str]:
    """Different texts that weft would answer: of the task's test rows, or of all the demo's rows."""
    if settings.data is not None:
        found = [one.source for one in task_of(settings).load("test")]
    else:
        demo = [from_spec(spec) for spec in find_specs([DEMO]).values()]
        found = [one.source for task in demo for split in task.splits for one in task.load(split)]
    different = sorted(set(found))
    return random.Random(0).sample(different, min(count, len(different)))
