"""A bank from an experiment: the row that answers best, or one that is named, with its scores."""

import pytest
from tiny_job import SHORT, command, write_job

from weft import bank
from weft.runs import Run

EXPERIMENT = (
    SHORT.replace("seeds: [0]", "seeds: [1, 0]")
    + """\
  - {{label: TF-IDF, method: {{name: tfidf}}}}
  - {{label: readers, method: {{name: weft, encoders: [], sources: false}}}}
  - label: prompts
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
  - label: group
    method: {{name: mpt, start: mean}}
    group: true
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
"""
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished experiment and its runs."""
    folder = tmp_path_factory.mktemp("fill")
    job = write_job(folder, "llama", "suffix", EXPERIMENT)
    assert command("run", job, "--runs", folder / "runs", "--quiet") == 0
    return job, folder / "runs"


def fill(place, finished, *more):
    return command("bank", "fill", place, finished[0], "--runs", finished[1], *more)


def test_the_best_row_that_a_bank_keeps_goes_in_with_its_scores(finished, tmp_path, capsys):
    """By the average over seeds and targets; the tasks are those of the first seed."""
    assert fill(tmp_path / "bank", finished) == 0
    assert "generation 1: gamma, delta" in capsys.readouterr().out
    every = [Run(path) for path in finished[1].glob("evaluate-*")]
    scores = {label: [] for label in ("weft", "prompt_tuning", "mpt")}
    for run in every:
        scored = run.config().run
        if scored and (method := Run(finished[1] / scored).config().method.name) in scores:
            found = run.result()["scores"]
            scores[method] += [(one["metrics"]["accuracy"], scored) for one in found.values()]
    best = max(scores.values(), key=lambda some: sum(score for score, _ in some))
    with bank.open(tmp_path / "bank").snapshot() as snapshot:
        entries = [snapshot.find(name) for name in ("gamma", "delta")]
    assert {entry.run for entry in entries} <= {run for _, run in best}
    assert all(Run(finished[1] / entry.run).config().seed == 1 for entry in entries)
    assert all((entry.metrics["accuracy"], entry.run) in best for entry in entries)


def test_another_row_under_other_names_joins_it_once(finished, tmp_path, capsys):
    """What is there stays as it is: to fill again makes no generation."""
    place, group = tmp_path / "bank", ("--row", "group", "--prefix", "group/")
    assert [fill(place, finished, "--row", "prompts"), fill(place, finished, *group)] == [0, 0]
    capsys.readouterr()
    assert [fill(place, finished, "--row", "prompts"), fill(place, finished, *group)] == [0, 0]
    assert capsys.readouterr().out.count("generation 2 has them already") == 2
    with bank.open(place).snapshot() as snapshot:
        assert snapshot.names() == ["delta", "gamma", "group/delta", "group/gamma"]
        assert snapshot.find("group/gamma").kind == "factors"
        assert snapshot.find("gamma").kind == "prompt"


@pytest.mark.parametrize(
    ("row", "says"), [("promts", "did you mean 'prompts'"), ("TF-IDF", "it keeps: readers, prompts, group")]
)
def test_other_rows_are_refused(finished, tmp_path, capsys, row, says):
    """Those that are not there, and those that leave something else; no bank is made."""
    assert fill(tmp_path / "bank", finished, "--row", row) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "bank").exists()


def test_an_unfinished_experiment_fills_nothing(finished, tmp_path, capsys):
    """It says so."""
    assert command("bank", "fill", tmp_path / "bank", finished[0], "--runs", tmp_path / "runs") == 4
    assert "no row that a bank keeps is finished" in capsys.readouterr().err
