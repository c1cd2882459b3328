"""The whole of it: from raw rows to scores, weft's stages against PEFT under the Hugging Face Trainer."""

from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import set_seed

from benchmarks import inputs, measure, peers
from benchmarks.goals import Result, Settings
from weft import stages
from weft.config.model import BaseConfig
from weft.config.training import LimitsConfig, OptimConfig, PromptConfig
from weft.data.batch import Encoded
from weft.methods.prompt_tuning import PromptTuning
from weft.models import answer_tokens, load_tokenizer
from weft.models.base_folder import resolve
from weft.runs.config import AdaptRun, EvaluateRun
from weft.runs.workspace import Workspace

RATE = 0.05


def run(settings: Settings) -> list[Result]:
    """Seconds from files of rows to a score: loading, tokens, training, answers."""
    steps, rows, size, length = (1, 4, 4, 4) if settings.quick else (50, 500, 16, 16)
    shape = (steps, rows, size, length)
    arms = {"weft": lambda i: _weft(settings, *shape), "PEFT": lambda i: _peft(settings, *shape)}
    seconds, given = measure.interleave(arms, settings.rounds, warm=False)
    task = inputs.task_of(settings)
    scored = min(rows, len(task.load("test")))
    text = (
        f"{task.name}, 16 rows an answer, {steps} steps of {size}, prompt {length}, {scored} test rows; "
        "both load the model; weft chooses among the answers, PEFT writes them; PEFT float32 under "
        f"Seq2SeqTrainer, weft {settings.dtype}"
    )
    checks = {f"accuracy, {name}": score for name, score in given.items()}
    return [Result("whole-job", measure.ratios(seconds, "PEFT", "weft"), text, seconds, checks)]


def _weft(settings: Settings, steps: int, rows: int, size: int, length: int) -> float | None:
    """The adapt and the evaluate stage, in a folder of runs of its own; gives the accuracy."""
    spec = inputs.task_spec(settings)
    common = {
        "base": BaseConfig(dtype=settings.dtype),
        "prompt": PromptConfig(length=length),
        "limits": LimitsConfig(test_rows=rows),
        "tasks": (spec,),
    }
    with TemporaryDirectory(dir=settings.folder) as folder:
        workspace = Workspace(Path(folder), settings.data)
        optim = OptimConfig(lr={"prompt": RATE}, steps=steps, batch_size=size)
        trained = stages.perform(AdaptRun(**common, method=PromptTuning(), shots=16, optim=optim), workspace)
        scored = stages.perform(EvaluateRun(**common, run=trained.id, generate=False), workspace)
        return scored.result()["scores"][spec.name]["metrics"]["accuracy"]


def _peft(settings: Settings, steps: int, rows: int, size: int, length: int) -> float:
    """PEFT's prompt tuning under the Trainer, and `generate`; gives the accuracy."""
    set_seed(0)
    folder, task = resolve(BaseConfig()), inputs.task_of(settings)
    tokenizer = load_tokenizer(folder)
    train = [
        Encoded(tuple(tokenizer(one.source)["input_ids"]), answer_tokens(tokenizer, one.target, spaced=True))
        for one in inputs.shots(task)
    ]
    model = peers.sampled_prompt_tuning(folder.path, length)
    collate = peers.causal_inputs(tokenizer.pad_token_id)
    options = {"steps": steps, "batch_size": size, "rate": RATE, "folder": settings.folder / "trainer"}
    peers.trainer(model, train, collate, **options).train()
    test = task.load("test")[:rows]
    most = max(len(answer_tokens(tokenizer, word, spaced=True)) for word in task.choices)
    sources = [tuple(tokenizer(one.source)["input_ids"]) for one in test]
    written = peers.answer(model, tokenizer, sources, max_tokens=most)
    texts = [tokenizer.decode(list(row)).strip() for row in written]
    return 100 * sum(text in one.accepted for text, one in zip(texts, test, strict=True)) / len(test)
