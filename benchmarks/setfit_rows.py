"""SetFit on the rows of an experiment, by its own package with its own settings, in its own environment.

    .venv/bin/python -m benchmarks.setfit_rows rows EXPERIMENT ROWS.json [--data FOLDER]
    OTHER/bin/python benchmarks/setfit_rows.py train ROWS.json ENCODER OUT.json

The first writes what every row of the table trains on and is scored on: texts and answers of each target and
seed. The second needs setfit and no weft: it fine-tunes the whole encoder (a folder, such as that of
all-MiniLM-L6-v2) contrastively for one epoch of all pairs, then fits its logistic regression, and prints
accuracy and seconds.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any


def rows(experiment: Path, out: Path, data: Path | None) -> None:
    """Write the training and test rows of every target and seed."""
    from weft import tasks
    from weft.config.files import load_config
    from weft.data.selection import few_shot, subset
    from weft.experiments.config import Experiment
    from weft.experiments.jobs import specs_of

    plan = load_config(experiment, Experiment)
    specs = specs_of(plan)
    cells = []
    for name in plan.targets:
        task = tasks.from_spec(specs[name], data)
        test = [(row.source, row.target) for row in subset(task.load("test"), plan.limits.test_rows)]
        for seed in plan.seeds:
            drawn = few_shot(task.load("train"), plan.shots, plan.shots_total, seed=seed, task=name)
            train = [(row.source, row.target) for row in drawn]
            cells.append({"target": name, "seed": seed, "train": train, "test": test})
    out.write_text(json.dumps(cells), "utf-8")
    print(f"{len(cells)} draws in {out}")


def train(cells: list[dict[str, Any]], encoder: Path, out: Path) -> None:
    """SetFit with its package's defaults on each draw; scores as they come, and a line a target."""
    found = []
    for cell in cells:
        start = time.monotonic()
        guesses = fitted(cell["train"], encoder, cell["seed"])([text for text, _ in cell["test"]])
        right = [guess == answer for guess, (_, answer) in zip(guesses, cell["test"], strict=True)]
        found.append(
            {
                "target": cell["target"],
                "seed": cell["seed"],
                "accuracy": 100 * statistics.fmean(right),
                "seconds": round(time.monotonic() - start, 1),
            }
        )
        print(json.dumps(found[-1]), flush=True)
        out.write_text(json.dumps(found), "utf-8")
    for target in dict.fromkeys(one["target"] for one in found):
        scores = [one["accuracy"] for one in found if one["target"] == target]
        seconds = statistics.fmean(one["seconds"] for one in found if one["target"] == target)
        print(f"{target}: {statistics.fmean(scores):.1f} ({len(scores)} seeds), {seconds:.0f} s a task")


def fitted(pairs: list[tuple[str, str]], encoder: Path, seed: int) -> Any:
    """A trained model: texts -> answers."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    answers = sorted({answer for _, answer in pairs})
    model = SetFitModel.from_pretrained(str(encoder), labels=answers)
    texts = Dataset.from_dict(
        {"text": [text for text, _ in pairs], "label": [answers.index(answer) for _, answer in pairs]}
    )
    settings = TrainingArguments(seed=seed, report_to="none", save_strategy="no")
    Trainer(model=model, args=settings, train_dataset=texts).train()
    return model.predict


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("rows")
    first.add_argument("experiment", type=Path)
    first.add_argument("out", type=Path)
    first.add_argument("--data", type=Path)
    second = commands.add_parser("train")
    second.add_argument("rows", type=Path)
    second.add_argument("encoder", type=Path)
    second.add_argument("out", type=Path)
    asked = parser.parse_args()
    if asked.command == "rows":
        rows(asked.experiment, asked.out, asked.data)
    else:
        train(json.loads(asked.rows.read_text("utf-8")), asked.encoder, asked.out)


if __name__ == "__main__":
    main()
