"""How `tests/fixtures/format-1` was made. Run by hand, once: `cd tests; python -m reference.make_format_1`.

The folder holds a base model, data, run folders of every stage, and `golden.json`, which says what the
runs answered. Later versions of weft must read it as it is, so it is never made again.
"""

import json
import os
import sys
from pathlib import Path

import torch
from conftest import END, PAD, VOCABULARY, build_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from weft import runs, stages
from weft.config.task import TaskSpec
from weft.data.batch import collate
from weft.runs import Run, parents
from weft.runs.config import AdaptRun, EvaluateRun, SourceRun, TeacherRun
from weft.runs.workspace import Workspace

FOLDER = Path(__file__).parents[1] / "fixtures" / "format-1"
NAMES = {"alpha": ("yes", "no"), "beta": ("red", "blue"), "gamma": ("good", "bad")}
NOUNS = ("film", "book", "meal", "song", "river", "dog")
TEXTS = ("the film is good", "a river runs down", "the dog hates the meal")


def make_base(folder: Path) -> None:
    """A model of two layers whose random weights are large enough that prompts matter."""
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    places = {"max_position_embeddings": 64, "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": END}
    torch.manual_seed(11)
    config = LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.5, **sizes, **places)
    LlamaForCausalLM(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def make_data(folder: Path) -> None:
    """Rows whose third word decides."""
    folder.mkdir()
    for k, name in enumerate(NAMES):
        for split, start in (("train", 0), ("dev", 3), ("test", 1)):
            rows = [
                {"text": f"the {noun} is {('fine', 'not')[(i + k) % 2]}", "label": "yn"[i % 2]}
                for i, noun in enumerate(NOUNS[start:] + NOUNS[:start])
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}-{split}.jsonl").write_text(lines, "utf-8")


def specs(*names: str) -> tuple[TaskSpec, ...]:
    """The tasks, whose files lie in the data folder."""
    return tuple(
        TaskSpec(
            name=name,
            files={split: f"{name}-{split}.jsonl" for split in ("train", "dev", "test")},
            in_data_root=True,
            source="{text}",
            target="{label}",
            labels=dict(zip("yn", NAMES[name], strict=True)),
            max_target_tokens=3,
        )
        for name in names
    )


def optim(**rates: float) -> dict[str, object]:
    """Six short steps."""
    return {"lr": rates, "steps": 6, "batch_size": 4, "eval_every": 3}


def make_runs(workspace: Workspace) -> None:
    """One run of every stage and kind."""
    common = {"base": {"model": "base", "dtype": "float32"}, "prompt": {"length": 3}}
    sources, gamma = specs("alpha", "beta"), specs("gamma")
    teachers = {
        spec.name: stages.perform(TeacherRun(**common, tasks=(spec,), optim=optim(prompt=0.1)), workspace).id
        for spec in sources
    }
    both = optim(shared=0.1, factors=0.1)
    source = stages.perform(SourceRun(**common, tasks=sources, teachers=teachers, optim=both), workspace).id
    mpt = {"method": {"name": "mpt"}, "source": source, "optim": both}
    factors = {"method": {"name": "mpt", "train": "factors"}, "source": source, "optim": optim(factors=0.1)}
    full = {"method": {"name": "full"}, "optim": optim(model=0.01)}
    adapted = [
        stages.perform(AdaptRun(**common, tasks=gamma, **how), workspace) for how in (mpt, factors, full)
    ]
    stages.perform(EvaluateRun(**common, tasks=gamma, run=adapted[0].id), workspace)


def answers(run: Run, workspace: Workspace) -> dict[str, list[list[list[float]]]]:
    """Logits `[B, T, V]` of each of a run's tasks for the texts above, each with the first choice."""
    model, tasks = parents.load(run, workspace)
    found = {}
    for number, task in enumerate(tasks):
        rows = [model.backbone.encode(text, task.choices[0]) for text in TEXTS]
        with torch.no_grad():
            found[task.name] = model(collate(rows, [number] * len(rows))).logits.tolist()
    return found


def main() -> None:
    """Make the folder, which must not be there."""
    sys.argv = ["weft"]  # env.json keeps the command
    FOLDER.mkdir(parents=True)
    os.chdir(FOLDER)
    make_base(Path("base"))
    make_data(Path("data"))
    workspace = Workspace(Path("finished"), Path("data"))
    make_runs(workspace)
    trained = [run for run in runs.finished(workspace.root) if run.config().stage != "evaluate"]
    golden = {run.id: answers(run, workspace) for run in trained}
    Path("golden.json").write_text(json.dumps(golden, indent=0), "utf-8")
    for lock in Path("finished").glob("*/lock*"):
        lock.unlink()


if __name__ == "__main__":
    main()
