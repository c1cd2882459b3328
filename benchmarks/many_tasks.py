"""One text under many tasks of `method: weft`: what further tasks cost, and what a new task does.

    .venv/bin/python -m benchmarks.many_tasks [--rounds 5] [--texts 32] [--joined 3]

Three of the demo's tasks, 16 rows an answer, under the source prompts that come with weft. The same texts
are answered for one task, for all three, and for a hundred (the heads of the three, again and again); `text`
is the bare text through both models, which no classifier on them could do without.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from cyclopts import App

from benchmarks.measure import Spread, interleave
from weft import runs, stages
from weft.config.model import BaseConfig
from weft.config.training import PromptConfig
from weft.methods.weft import ViewClassifiers, Weft
from weft.models.kept_readings import KeptReadings
from weft.runs import bundled, parents
from weft.runs.config import AdaptRun
from weft.runs.workspace import Workspace
from weft.tasks import find_specs

DEMO = Path(__file__).parents[1] / "demo/tasks"
NAMES, MANY = ("urgency", "banking", "formality"), 100
app = App(name="benchmarks.many_tasks", result_action="return_value")


@app.default
def many_tasks(*, rounds: int = 5, texts: int = 32, joined: int = 1) -> None:
    """Print seconds of the fit, and of answers for one, three and a hundred tasks beside the text alone.

    Args:
        rounds: of each, in turn.
        texts: how many are answered together.
        joined: rows that make a text; those of the demo are short.
    """
    with TemporaryDirectory() as folder:
        workspace = Workspace(root=Path(folder), keep_texts=False)
        alone = [_fitted(workspace, (name,)) for name in NAMES]
        print("fit of a task, models at hand:", ", ".join(f"{run.seconds():.1f} s" for run in alone))
        run = _fitted(workspace, NAMES)
        answerer = parents.load(run, workspace)
        assert isinstance(answerer, ViewClassifiers)
        rows = [row.source for task in answerer.tasks for row in task.load("test")]
        asked = [" ".join(rows[i : i + joined]) for i in range(0, len(rows), joined)][:texts]
        tokens = [len(answerer.views.backbone.text_tokens(text)[0]) for text in asked]
        print(f"{len(asked)} texts of {min(tokens)} to {max(tokens)} tokens, {fmean(tokens):.0f} on average")
        seconds, _ = interleave(_arms(answerer, asked), rounds)
    found = {name: Spread.of(times) for name, times in seconds.items()}
    for name, spread in found.items():
        ratios = [one / text for one, text in zip(seconds[name], seconds["text"], strict=True)]
        ratio = Spread.of(ratios)
        print(
            f"{name:12s} {spread.median:6.2f} s ({spread.low:.2f} to {spread.high:.2f}), "
            f"{ratio.median:.2f} times the text ({ratio.low:.2f} to {ratio.high:.2f})"
        )


def _fitted(workspace: Workspace, names: tuple[str, ...]) -> runs.Run:
    """A run of these tasks."""
    source, teachers = bundled.start("smollm2")
    specs = find_specs([DEMO])
    config = AdaptRun(
        base=BaseConfig(),
        prompt=PromptConfig(length=8),
        tasks=tuple(specs[name] for name in names),
        method=Weft(),
        source=source,
        teachers=teachers,
        shots=16,
    )
    return stages.perform(config, workspace)


def _arms(answerer: ViewClassifiers, texts: list[str]) -> dict[str, Callable[[int], object]]:
    """What is timed; nothing that was read before is kept."""
    views = answerer.views
    bare = {view for view in views.names if not view.prompt}

    def answers(count: int) -> Callable[[int], object]:
        tasks = tuple(replace(answerer.tasks[k % 3], name=f"task{k}", _made={}) for k in range(count))
        heads = tuple(answerer.heads[k % 3] for k in range(count))
        limits = answerer.source_tokens[:1] * count
        many = replace(answerer, tasks=tasks, source_tokens=limits, heads=heads)
        pairs = [(text, k) for text in texts for k in range(count)]
        return forgetful(lambda: many.answer([text for text, _ in pairs], [k for _, k in pairs]))

    def forgetful(work: Callable[[], object]) -> Callable[[int], object]:
        def timed(_: int) -> object:
            for model in (views.backbone, *views.encoders.values()):
                model.kept = KeptReadings()
            return work()

        return timed

    return {
        "text": forgetful(lambda: views.read(texts, answerer.source_tokens[0], bare)),
        "1 task": answers(1),
        "3 tasks": answers(3),
        f"{MANY} tasks": answers(MANY),
    }


if __name__ == "__main__":
    sys.exit(app())
