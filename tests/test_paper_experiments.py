"""The experiment files of the paper and of the local bases: their plans, and the paper's on a tiny T5."""

import re
from collections import Counter
from pathlib import Path

import pytest
from made_up import tiny_t5, write_rows
from test_experiments import name_of
from tiny_job import command

from weft.config.files import load_config
from weft.experiments.config import Experiment
from weft.experiments.jobs import plan, specs_of
from weft.experiments.rates import _all_but_rates

CONFIGS = Path(__file__).parents[1] / "configs" / "experiments"
PLANS = {  # teachers, source stages, adaptations, evaluations
    "paper/glue": (6, 1, 309, 338),
    "paper/superglue": (6, 1, 198, 215),
    "paper/others": (6, 1, 159, 172),
    "paper/mrqa": (6, 1, 135, 144),
    "paper/nlg": (6, 1, 36, 36),
    "paper/fewshot": (6, 1, 3720, 3734),
    "paper/ablations": (36, 26, 540, 545),
    "paper/scale": (6, 1, 117, 120),
    "paper/rates": (6, 1, 132, 132),
    "local/core": (5, 1, 438, 472),
    "local/glue": (5, 1, 186, 223),
    "local/superglue": (5, 1, 123, 145),
    "local/transfer": (15, 3, 234, 240),
    "local/fewshot": (5, 1, 189, 192),
    "local/ablations": (20, 24, 136, 140),
    "local/nlg": (5, 1, 5, 6),
    "local/rates": (5, 1, 78, 78),
}
TRAINED = ("full", "adapter", "bitfit", "lora", "ia3", "prompt_tuning", "attempt", "dept", "ulpt", "mpt")


def loaded(name):
    return load_config(CONFIGS / f"{name}.yaml", Experiment)


@pytest.mark.parametrize("name", PLANS)
def test_plans_have_their_runs(name):
    """Golden: what each file takes."""
    experiment = loaded(name)
    counts = Counter(job.config.stage for job in plan(experiment, specs_of(experiment), name_of).jobs)
    assert tuple(counts[stage] for stage in ("teachers", "source", "adapt", "evaluate")) == PLANS[name]
    assert experiment.name == name.replace("/", "-")


def test_every_file_of_the_paper_is_here():
    """A file without a golden plan is one that nobody checked."""
    assert {f"paper/{path.stem}" for path in CONFIGS.glob("paper/*.yaml")} <= {*PLANS}


@pytest.mark.parametrize("folder", ["paper", "local"])
def test_files_of_a_folder_share_teachers_and_source_stage(folder):
    """What one has trained no other trains again; generation alone is on another base."""
    sources = {}
    for name in PLANS:
        if name.startswith(folder) and name != "paper/nlg":
            whole = loaded(name)
            one = whole.model_copy(update={"rows": whole.rows[:1], "targets": whole.targets[:1]})
            sources[name] = plan(one, specs_of(one), name_of).source
    assert len(set(sources.values())) == 1


@pytest.mark.parametrize(
    "name", ["paper/glue", "paper/superglue", "paper/mrqa", "paper/others", "local/core"]
)
def test_every_method_has_the_same_budget(name):
    """Steps times rows; a group has those of its targets together."""
    experiment = loaded(name)
    budgets = set()
    sizes = [len(names) for names in experiment.groups.values()] or [len(experiment.targets)]
    for row in experiment.rows:
        if row.optim:
            budgets.add(row.optim.steps * row.optim.batch_size // (sizes[0] if row.group else 1))
    assert len(budgets) == 1
    assert set(TRAINED) <= {row.method.name for row in experiment.rows}


def test_the_core_has_what_it_must():
    """At least eight targets, every method, three seeds."""
    core = loaded("local/core")
    assert len(core.targets) >= 8
    assert len(core.seeds) >= 3
    untrained = {"majority", "no_prompt", "in_context", "tfidf", "frozen_features", "sentence_embeddings"}
    assert {row.method.name for row in core.rows} == {*TRAINED, *untrained, "alora", "weft"}


@pytest.mark.parametrize("name", ["paper/rates", "local/rates"])
def test_grids_have_three_rates_a_method(name):
    """Every method that the tables train, prompt tuning too, on dev rows of one seed."""
    experiment = loaded(name)
    assert (experiment.split, len(experiment.seeds)) == ("dev", 1)
    assert set(Counter(map(_all_but_rates, experiment.rows)).values()) == {3}
    assert {row.method.name for row in experiment.rows} >= set(TRAINED)


def small(name, folder):
    """A file of the paper with two steps of four rows, one seed and few rows."""
    text = (CONFIGS / f"{name}.yaml").read_text("utf-8")
    text = re.sub(r"steps: \d+", "steps: 2", text)
    text = re.sub(r"eval_every: \d+", "eval_every: 2", text)
    text = re.sub(r"batch_size: \d+", "batch_size: 4", text)
    text = re.sub(r"(?m)^seeds: .*$", "seeds: [0]", text)
    text = text.replace("../../../docs", str(CONFIGS.parents[1] / "docs"))
    own = re.search(r"(?m)^  tasks: .*$", text)
    few = "train_rows: 12, dev_rows: 4, test_rows: 4, source_tokens: 64"
    limits = f"limits: {{{few}, {own[0].strip()}}}\n" if own else f"limits: {{{few}}}\n"
    text = re.sub(r"(?m)^limits:.*\n(?:  .*\n)*", limits, text)
    path = folder / f"{Path(name).name}.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A tiny T5, and made-up rows of every task of the paper."""
    folder = tmp_path_factory.mktemp("paper")
    tiny_t5(folder / "base")
    specs = specs_of(loaded("paper/glue"))
    files = [loaded(name) for name in PLANS if name.startswith("paper")]
    names = {task for one in files for task in (*one.sources, *one.targets)}
    write_rows([specs[name] for name in sorted(names)], folder / "data")
    return folder


def arguments(shelf, path):
    return path, "--base", shelf / "base", "--data", shelf / "data", "--runs", shelf / "runs", "--quiet"


@pytest.mark.slow
def test_the_paper_s_superglue_passes_its_checks(shelf, tmp_path, capsys):
    """The whole pass with the true columns, and nothing trained."""
    assert command("run", *arguments(shelf, small("paper/superglue", tmp_path)), "--dry-run") == 0
    assert "runs, " in capsys.readouterr().out
    assert not (shelf / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name in PLANS if name.startswith("paper")])
def test_the_paper_s_experiments_run_end_to_end(shelf, tmp_path, name, capsys):
    """Two steps of everything on a tiny T5: every row has a score on every target that it can answer."""
    assert command("run", *arguments(shelf, small(name, tmp_path))) == 0
    out = capsys.readouterr().out
    assert "missing evaluations" not in out
    assert "Differences from MPT" in out
    assert Path(out.strip().splitlines()[-1].removeprefix("report: ")).is_file()
