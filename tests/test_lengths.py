"""Texts and prompts of unlike length in one run and in one batch: each task is as it is alone."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import EVERY_BACKBONE, build_backbone, build_reader
from test_methods_classifiers import ROWS, a_task, setup_of
from tiny_job import EXPERIMENT, command, write_job

from weft import runs, stages
from weft.evaluation.answering import TunedAnswerer
from weft.evaluation.scores import Scores
from weft.losses.terms import lm_loss_rows
from weft.methods.frozen_features import FrozenFeatures
from weft.methods.in_context import InContext
from weft.methods.weft import Weft
from weft.models.tuned import with_prompts
from weft.runs.workspace import Workspace
from weft.serving import predictor
from weft.serving.predictor import Predictor, merged
from weft.tasks import Task, template
from weft.training import runner

# answers


WORDS = "film book meal song story city river dog cat man woman child"
TEXT = " ".join([WORDS] * 3)
READS = {"short": (5, 2, True), "long": (17, 6, False), "middle": (9, 4, True)}  # text, prompt, closed


def answerer_on(backbone, name):
    """A finished prompt of a task of its own."""
    most, length, closed = READS[name]
    prompt = torch.randn(1, length, backbone.width, generator=torch.Generator().manual_seed(length))
    none = partial(template.fill, "{text}")
    task = Task(name, list, list, none, {}, choices=("yes", "no") if closed else (), max_target_tokens=5)
    return TunedAnswerer(with_prompts(backbone, backbone.scale * prompt, (name,)), (task,), (most,))


def alike(found, expected):
    assert [(one.row, one.task, one.answer, one.written, one.cut) for one in found] == [
        (one.row, one.task, one.answer, one.written, one.cut) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        if other.probabilities is not None:
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.parametrize("name", EVERY_BACKBONE)
def test_tasks_of_unlike_length_answer_in_one_batch_as_alone(name):
    """Prompts of 2, 4 and 6 tokens, texts of up to 5, 9 and 17: no row depends on those beside it.

    Where positions are counted from the start of a row, as in a BERT, unlike prompts share no batch.
    """
    backbone = build_backbone(name)
    rows = [{"text": TEXT}, {"text": "a good dog"}, {"text": WORDS}]
    every = [answerer_on(backbone, one) for one in READS]
    together = merged(every)
    assert len(together) == (1 if backbone.mixes_prompts else 3)
    found = Predictor(together).predict(rows, generate=True)
    assert len({one.cut for one in found}) == 2
    for one in every:
        alone = Predictor([one]).predict(rows, generate=True)
        alike([two for two in found if two.task == one.tasks[0].name], alone)


def two_tasks(limits):
    """Two tasks with the same rows and unlike limits, as a method is given them."""
    tasks = [a_task("tone"), a_task("mood")]
    setup = setup_of(build_backbone("llama-suffix"), tasks, (ROWS, ROWS))
    return replace(setup, source_tokens=limits, load_encoder=build_reader)


def alone_in(setup, k):
    """One task of two."""
    tasks, rows, limits = ([part[k]] for part in (setup.tasks, setup.rows, setup.source_tokens))
    return replace(setup, tasks=tuple(tasks), rows=rows, source_tokens=tuple(limits))


METHODS_OF_ROWS = {
    "features": FrozenFeatures(),
    "views": Weft(sources=False, encoders=()),
    "views, fields apart": Weft(sources=False, encoders=("bert-reader",), views=12),
    "examples": InContext(instruction="answer", context_tokens=24, calibrate=False),
}


@pytest.mark.parametrize("method", METHODS_OF_ROWS.values(), ids=METHODS_OF_ROWS)
def test_every_method_reads_each_task_up_to_its_limit(method):
    """Two tasks with unlike limits in one run: each is fitted and answered as in a run of its own."""
    setup, texts = two_tasks((2, 9)), [row.source for row in ROWS] + [WORDS]
    together = method.restore(setup, method.fit(setup))
    ids = [i % 2 for i in range(2 * len(texts))]
    found = together.answer([text for text in texts for _ in range(2)], ids)
    for k in (0, 1):
        own = alone_in(setup, k)
        alone = method.restore(own, method.fit(own)).answer(texts, [0] * len(texts))
        for one, other in zip(found[k::2], alone, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert [together.received(WORDS, (WORDS,), k).cut for k in (0, 1)] == [True, True]
    assert [together.received("a dog runs up", ("a dog runs up",), k).cut for k in (0, 1)] == [True, False]


# the whole way


LIMITS = """tasks: [tasks]
limits:
  source_tokens: 3
  tasks: {{beta: {{source_tokens: 5}}, delta: {{source_tokens: 4, train_rows: 20, test_rows: 7}}}}
steps: {{gamma: 2, delta: 3}}
"""
METHODS = """rows:
  - label: prompt tuning
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 9, batch_size: 6, eval_every: 2}}
  - label: MPT group
    method: {{name: mpt, start: mean}}
    group: true
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 9, batch_size: 6}}
"""
ALLOWED = "allow: [leaks, duplicates, cuts]\n"
OWN = EXPERIMENT[: EXPERIMENT.index("rows:")].replace("tasks: [tasks]\n", LIMITS)
OWN = OWN.replace("allow: [leaks, duplicates]\nshots: 6\n", ALLOWED).replace("[0, 1]", "[0]") + METHODS


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Two sources and two targets with limits of their own, on a model that keeps texts."""
    folder = tmp_path_factory.mktemp("lengths")
    write_job(folder, "llama", "suffix", OWN)
    assert command("run", folder / "tiny.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


def of(job, start):
    return [run for run in runs.finished(job / "runs") if run.id.startswith(start)]


def test_a_source_run_reads_each_task_up_to_its_own_limit(job):
    """Texts of five tokens: three of alpha, all of beta, in the same batches."""
    [run] = of(job, "source-")
    prepared = stages.prepare(run.config(), Workspace(job / "runs"))
    assert [sorted(set(task.lengths)) for task in prepared.train] == [[3], [5]]
    assert [(task.cut, len(task)) for task in prepared.train] == [(40, 40), (0, 40)]
    batch = prepared.batches(0)
    assert {len(source) for source in batch.sources} == {3, 5}
    for source, task in zip(batch.sources, batch.task_ids.tolist(), strict=True):
        assert len(source) == (3, 5)[task]
    model = prepared.model
    found = lm_loss_rows(model(batch).logits, batch.labels).tolist()
    rows = [batch.pick([i]) for i in range(len(found))]
    alone = [lm_loss_rows(model(one).logits, one.labels).item() for one in rows]
    assert found == pytest.approx(alone, abs=1e-4)


def test_dev_rows_are_read_as_training_rows_are(job, monkeypatch):
    """Of every task of a run up to its own limit."""
    [run] = of(job, "source-")
    workspace, seen = Workspace(job / "runs"), {}
    model = stages.prepare(run.config(), workspace).model

    def noted(model, task, examples, sources, **more):
        seen[task.name] = {len(source) for source in sources}
        return Scores(len(examples), {task.main_metric: 1.0}, None), []

    monkeypatch.setattr(runner.answering, "evaluate", noted)
    assert runner._validator(run.config(), model, workspace)() == 1.0
    assert seen == {"alpha": {3}, "beta": {5}}


def test_targets_have_their_own_steps_rows_and_limits(job):
    """As their results say; the group trains for both."""
    results = [run.result() for run in of(job, "adapt-")]
    found = {"+".join(one["tasks"]): one for one in results}
    assert {names: one["steps"] for names, one in found.items()} == {"gamma": 2, "delta": 3, "gamma+delta": 5}
    for one in results:
        for name, rows in one["rows"].items():
            assert (rows["train"], rows["cut"]) == {"gamma": (40, 40), "delta": (20, 20)}[name]
    scores = [run.result()["scores"] for run in of(job, "evaluate-")]
    scored = {name: score["rows"] for one in scores for name, score in one.items()}
    assert scored == {"gamma": 12, "delta": 7}


def test_predict_of_one_file_cuts_each_row_by_its_task(job):
    """Of runs of their own, in one batch, and of the group: rows as those of each task alone."""
    alone = [run.id for run in of(job, "adapt-prompt-tuning")]
    [group] = [run.id for run in of(job, "adapt-mpt")]
    texts = ["the good film", "the good film is", "the good film is up", "the bad city a b c d"]
    for names in (alone, [group]):
        rows = [{"text": text, "task": ("gamma", "delta")[i % 2]} for i, text in enumerate(texts * 2)]
        model = predictor.load(*names, root=job / "runs")
        assert len(model.answerers) == 1
        found = model.predict(rows, generate=True)
        for name, most in (("gamma", 3), ("delta", 4)):
            own = [one for one, row in zip(found, rows, strict=True) if row["task"] == name]
            texts_of = [row["text"] for row in rows if row["task"] == name]
            assert [one.cut for one in own] == [len(text.split()) > most for text in texts_of]
            short = [{"text": " ".join(text.split()[:most])} for text in texts_of]
            for one, other in zip(own, model.predict(short, generate=True, task=name), strict=True):
                assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
                assert one.written == other.written


def test_the_pass_counts_cuts_by_each_limit_and_names_the_key(job, capsys):
    """Of the dry run: every text of five tokens is cut where its task reads fewer."""
    assert command("run", job / "tiny.yaml", "--runs", job / "other", "--dry-run") == 0
    said = "".join(capsys.readouterr())
    for name, most in (("alpha", 3), ("gamma", 3), ("delta", 4)):
        assert f"texts are cut to {most} tokens" in said
        assert f"limits.tasks.{name}.source_tokens" in said
    assert "task beta" not in said


def test_a_file_of_rows_is_scored_by_the_limits_of_its_tasks(job, tmp_path, capsys):
    """Of one task of the group, whose limit is then that of the evaluation."""
    [group] = [run.id for run in of(job, "adapt-mpt")]
    lines = [{"text": f"the good film {word}", "label": "y"} for word in ("up", "down", "not")]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    arguments = (group, tmp_path / "new.jsonl", "--task", "delta", "--runs", job / "runs", "--quiet")
    assert command("evaluate", *arguments, "--json") == 0
    run = runs.find(job / "runs", json.loads(capsys.readouterr().out)["run"])
    assert run.id == group
    scored = [one.config() for one in of(job, "evaluate-") if one.config().run == group]
    assert {(one.tasks[0].name, one.limits.source_tokens) for one in scored} == {("gamma", 3), ("delta", 4)}


def test_an_export_states_the_limit_of_its_task(job, tmp_path):
    [group] = [run.id for run in of(job, "adapt-mpt")]
    for name, most in (("gamma", 3), ("delta", 4)):
        out = tmp_path / name
        assert command("export", group, name, "--to", "numpy", "--out", out, "--runs", job / "runs") == 0
        assert json.loads((out / "prompt.json").read_text("utf-8"))["source_tokens"] == most


def test_the_table_says_steps_and_caps(job, capsys):
    assert command("run", job / "tiny.yaml", "--runs", job / "runs", "--quiet") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Steps of every training by gradient: gamma 2, delta 3." in said
    assert "at most 20 training rows of delta, at most 7 scored rows of delta" in said
