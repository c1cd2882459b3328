"""Experiments: which runs a file takes, what they need, and that a run that fails takes no other with it."""

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import build_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from weft.config.files import load_config
from weft.config.task import TaskSpec
from weft.config.training import FactorConfig
from weft.errors import ConfigError, DataError, Faults, NumericError, ResourceError, WeftError
from weft.experiments import execution
from weft.experiments.config import Experiment
from weft.experiments.jobs import plan, specs_of
from weft.experiments.stage_files import load_run
from weft.models import Seq2SeqBackbone
from weft.models.tuned import with_bank
from weft.progress import Progress
from weft.prompts.bank import new_bank
from weft.runs import Run
from weft.runs.config import AdaptRun, EvaluateRun, SourceRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.training import runner
from weft.training.course import Progress as Progressed

STAGES = ["teachers", "source", "adapt", "evaluate"]
SOURCES, TARGETS, SEEDS = ("s1", "s2", "s3"), ("t1", "t2"), (0, 1, 2)
SPECS = {name: TaskSpec(name=name, source=f"{name} {{x}}", target="{y}") for name in SOURCES + TARGETS}


def optim(*groups):
    """Settings of one training."""
    return {"lr": dict.fromkeys(groups, 0.1), "steps": 4}


BANK = optim("shared", "factors")


ROWS = (
    {"label": "majority", "method": {"name": "majority"}},
    {"label": "frozen", "method": {"name": "no_prompt"}},
    {"label": "PT", "method": {"name": "prompt_tuning"}, "optim": optim("prompt")},
    {"label": "SPoT", "method": {"name": "prompt_tuning", "start": "nearest"}, "optim": optim("prompt")},
    {"label": "MPT", "method": {"name": "mpt"}, "optim": BANK},
)


def experiment(**changes):
    """A small experiment: three sources, two targets, three seeds, five rows."""
    settings = {
        "name": "small",
        "tasks": ("tasks",),
        "sources": SOURCES,
        "targets": TARGETS,
        "shots": 4,
        "seeds": SEEDS,
        "teachers": {"optim": optim("prompt")},
        "source": {"optim": BANK},
        "rows": ROWS,
        **changes,
    }
    return Experiment.model_validate(settings)


def name_of(config):
    """A name from the whole configuration, as a run's name is."""
    return f"{config.stage}-{hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:12]}"


def planned(specs=SPECS, **changes):
    """The plan of the small experiment with some settings changed."""
    return plan(experiment(**changes), specs, name_of)


def of_stage(jobs, stage):
    """The jobs of one stage."""
    return [job for job in jobs.jobs if job.config.stage == stage]


# the plan


def test_plan_counts_its_runs():
    """One teacher a source, one source stage, one training per target, seed and row that trains."""
    counts = Counter(job.config.stage for job in planned().jobs)
    trained, untrained = 3, 2
    assert counts == {
        "teachers": len(SOURCES),
        "source": 1,
        "adapt": trained * len(TARGETS) * len(SEEDS),
        "evaluate": trained * len(TARGETS) * len(SEEDS) + untrained * len(TARGETS),
    }


def test_jobs_have_names_of_their_own_and_parents_before_them():
    """No run twice, and every run after those that it needs."""
    jobs = planned().jobs
    seen = set()
    for job in jobs:
        assert job.id not in seen
        assert set(job.needs) <= seen
        assert job.id == name_of(job.config)
        seen.add(job.id)
    tiers = [STAGES.index(job.config.stage) for job in jobs]
    assert tiers == sorted(tiers)


def test_teachers_are_shared_by_all_seeds():
    """Teachers and the source stage are trained once, with a seed of their own."""
    one, three = planned(seeds=(7,)), planned(seeds=(7, 8, 9))
    assert one.teachers == three.teachers
    assert one.source == three.source
    assert list(one.teachers) == list(SOURCES)
    for stage in ("teachers", "source"):
        assert of_stage(one, stage) == of_stage(three, stage)


def test_every_teacher_has_its_task_alone():
    """A teacher is trained on one source task, and the plan knows it by that task."""
    jobs = {job.id: job for job in of_stage(planned(), "teachers")}
    for task, run in planned().teachers.items():
        assert [spec.name for spec in jobs[run].config.tasks] == [task]
        assert jobs[run].needs == ()


def test_source_names_all_teachers_as_parents():
    """The source stage has the sources in their order, and a teacher for each."""
    (job,) = of_stage(planned(), "source")
    assert isinstance(job.config, SourceRun)
    assert [spec.name for spec in job.config.tasks] == list(SOURCES)
    assert job.config.teachers == planned().teachers
    assert set(job.needs) == set(planned().teachers.values())


def test_trainings_name_the_parents_that_they_read():
    """MPT starts from the source stage, SPoT from the teachers, plain prompt tuning from nothing."""
    made = planned()
    parents = {"MPT": {made.source}, "SPoT": set(made.teachers.values()), "PT": set()}
    jobs = {job.id: job for job in made.jobs}
    for cell in made.cells:
        if cell.trained:
            job = jobs[cell.trained]
            assert isinstance(job.config, AdaptRun)
            assert set(job.needs) == parents[cell.row]
            assert job.config.source == (made.source if cell.row == "MPT" else None)
            assert job.config.teachers == (made.teachers if cell.row == "SPoT" else {})
            assert (job.config.tasks, job.config.seed) == ((SPECS[cell.target],), cell.seed)


def test_cells_fill_the_table():
    """Every row, target and seed has one score, from an evaluation of that target."""
    made = planned()
    jobs = {job.id: job for job in made.jobs}
    places = [(cell.row, cell.target, cell.seed) for cell in made.cells]
    assert sorted(places) == sorted((row["label"], t, s) for row in ROWS for t in TARGETS for s in SEEDS)
    for cell in made.cells:
        job = jobs[cell.run]
        assert isinstance(job.config, EvaluateRun)
        assert job.config.tasks == (SPECS[cell.target],)
        assert job.config.run == cell.trained
        assert job.needs == ((cell.trained,) if cell.trained else ())


@pytest.mark.parametrize("row", ["majority", "frozen"])
def test_what_trains_nothing_is_scored_once_for_all_seeds(row):
    """The majority answer and the frozen model have no training and one evaluation per target."""
    cells = [cell for cell in planned().cells if cell.row == row]
    assert all(cell.trained is None for cell in cells)
    assert len(cells) == len(TARGETS) * len(SEEDS)
    assert len({cell.run for cell in cells}) == len(TARGETS)


def test_every_seed_of_a_training_is_a_run_of_its_own():
    """Three seeds are three trainings and three evaluations."""
    cells = [cell for cell in planned().cells if cell.row == "PT"]
    assert len({cell.trained for cell in cells}) == len({cell.run for cell in cells}) == len(cells)


def test_group_trains_all_targets_in_one_run():
    """With `group` there is one training a seed, and one evaluation a target and seed of it."""
    made = planned(rows=({"label": "G", "method": {"name": "mpt"}, "optim": BANK, "group": True},))
    trainings = of_stage(made, "adapt")
    assert [job.config.seed for job in trainings] == list(SEEDS)
    assert all(job.config.tasks == tuple(SPECS[name] for name in TARGETS) for job in trainings)
    assert len({cell.run for cell in made.cells}) == len(made.cells) == len(TARGETS) * len(SEEDS)
    assert {cell.trained for cell in made.cells} == {job.id for job in trainings}


def trained_together(made):
    """The targets of every training, of the first seed."""
    return [tuple(spec.name for spec in job.config.tasks) for job in of_stage(made, "adapt")[:: len(SEEDS)]]


MANY = {**SPECS, **{name: SPECS["t1"].model_copy(update={"name": name}) for name in ("t3", "t4", "t5")}}


def test_each_named_group_trains_its_targets_in_one_run():
    """Two groups and a target that is in none; another row trains every target alone as before."""
    targets = ("t1", "t2", "t3", "t4", "t5")
    groups = {"one": ("t3", "t1"), "two": ("t5", "t4")}
    rows = ({"label": "G", "method": {"name": "mpt"}, "optim": BANK, "group": True}, ROWS[4])
    made = planned(MANY, targets=targets, groups=groups, rows=rows)
    assert trained_together(made) == [
        ("t1", "t3"),
        ("t4", "t5"),
        ("t2",),
        *((name,) for name in targets if name != "t2"),  # of which there is a run already
    ]
    cells = {cell.target: cell.trained for cell in made.cells if (cell.row, cell.seed) == ("G", SEEDS[0])}
    assert cells["t1"] == cells["t3"] != cells["t4"] == cells["t5"]
    assert len(made.cells) == 2 * len(targets) * len(SEEDS)
    alone = {cell.trained for cell in made.cells if (cell.row, cell.target) == ("MPT", "t2")}
    assert alone == {cell.trained for cell in made.cells if (cell.row, cell.target) == ("G", "t2")}


def test_groups_change_nothing_of_rows_without_group():
    """Naming groups leaves every run of other rows as it was."""
    assert planned(groups={"both": TARGETS}).jobs == planned().jobs


@pytest.mark.parametrize(("name", "count", "parameters"), [("glue", 8, 10468), ("superglue", 5, 16228)])
def test_the_paper_s_groups_have_the_paper_s_parameters(name, count, parameters):
    """Golden: 10,468 a task for GLUE's eight and 16,228 for SuperGLUE's five, at l = 100 and d = 768."""
    path = Path(__file__).parents[1] / "configs" / "experiments" / "paper" / f"{name}.yaml"
    paper = load_config(path, Experiment)
    made = plan(paper, specs_of(paper), name_of)
    (run,) = {cell.trained for cell in made.cells if (cell.row, cell.seed) == ("MPT, in a group", 0)}
    (job,) = (job for job in made.jobs if job.id == run)
    names = tuple(spec.name for spec in job.config.tasks)
    assert (names, len(names)) == (paper.targets, count)
    bank = new_bank(torch.zeros(paper.prompt.length, 768), FactorConfig(), names, seed=0)
    sizes = {"d_model": 768, "d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1}
    lm = T5ForConditionalGeneration(T5Config(vocab_size=72, **sizes)).eval()
    model = with_bank(Seq2SeqBackbone(lm, build_tokenizer(ends_texts=True), name="t5"), bank)
    l, d = 100, 768  # noqa: E741 - the paper's letter
    found = runner._summary(model, Progressed(4))["parameters_per_task"]
    assert found == (l * d + count * (l + d)) / count == parameters


def test_settings_reach_the_runs_that_they_are_for():
    """Shots of a row before those of the experiment, the cap on test rows in scores alone, the split."""
    rows = ({**ROWS[2], "shots": 9}, ROWS[4])
    made = planned(rows=rows, limits={"train_rows": 50, "test_rows": 7}, split="dev", eval_batch=3)
    assert {job.config.shots for job in of_stage(made, "adapt")} == {9, 4}
    drawn = planned(rows=({**ROWS[2], "shots_total": 9}, ROWS[4]))
    assert {(job.config.shots, job.config.shots_total) for job in of_stage(drawn, "adapt")} == {
        (None, 9),
        (4, None),
    }
    drawn = planned(rows=({**ROWS[2], "shots": 3}, ROWS[4]), shots=None, shots_total=32)
    assert {(job.config.shots, job.config.shots_total) for job in of_stage(drawn, "adapt")} == {
        (3, None),
        (None, 32),
    }
    for job in made.jobs:
        scored = isinstance(job.config, EvaluateRun)
        assert job.config.limits.test_rows == (7 if scored else None)
        assert job.config.limits.train_rows == 50
        assert not scored or (job.config.split, job.config.batch_size) == ("dev", 3)


def test_labels_name_the_split_that_is_scored():
    """What a person reads while dev rows are scored does not say test."""
    for split in ("test", "dev"):
        assert all(job.label.endswith(split) for job in of_stage(planned(split=split), "evaluate"))


def test_two_rows_with_the_same_settings_share_their_runs():
    """A row under two labels is trained once and stands in the table twice."""
    made = planned(rows=(ROWS[2], {**ROWS[2], "label": "again"}))
    assert len(of_stage(made, "adapt")) == len(TARGETS) * len(SEEDS)
    assert len(made.cells) == 2 * len(TARGETS) * len(SEEDS)


# seeds of the source stage, and rows with settings of their own


def test_sources_vary_with_the_seed_where_it_is_asked_for():
    """Golden: a source stage and teachers for every seed, and each training starts from those of its seed."""
    made = planned(vary_sources=True)
    counts = Counter(job.config.stage for job in made.jobs)
    assert (counts["teachers"], counts["source"]) == (len(SOURCES) * len(SEEDS), len(SEEDS))
    jobs = {job.id: job.config for job in made.jobs}
    for cell in made.cells:
        if cell.row == "SPoT":
            assert {jobs[run].seed for run in jobs[cell.trained].teachers.values()} == {cell.seed}
        if cell.row == "MPT":
            source = jobs[jobs[cell.trained].source]
            assert source.seed == cell.seed
            assert {jobs[run].seed for run in source.teachers.values()} == {cell.seed}
    labels = {job.label for job in of_stage(made, "source")}
    assert labels == {"source · seed 0", "source · seed 1", "source · seed 2"}


def test_seed_0_of_varied_sources_is_the_source_stage_that_is_trained_once():
    """What was trained for one experiment is not trained again for the other."""
    once, varied = planned(), planned(vary_sources=True)
    assert (once.source, once.teachers) == (varied.source, varied.teachers)
    kept = {cell.trained for cell in once.cells} & {cell.trained for cell in varied.cells}
    seeds = {cell.seed for cell in once.cells if cell.row == "MPT" and cell.trained in kept}
    assert seeds == {0}
    with pytest.raises(ValueError, match="there are no sources"):
        experiment(sources=(), teachers=None, source=None, vary_sources=True)


def own(label, **settings):
    """A row of MPT with settings of its own."""
    return {"label": label, "method": {"name": "mpt"}, "optim": BANK, "settings": settings}


def test_rows_have_source_stages_of_their_own():
    """Golden: another lambda shares the teachers, another length nothing, other sources what they can."""
    rows = (
        ROWS[4],
        own("lambda", **{"source.distill.weight": 0.5}),
        own("short", **{"prompt.length": 7}),
        own("two", sources=["s1", "s3"]),
    )
    made = planned(rows=rows, seeds=(0,))
    jobs = {job.id: job.config for job in made.jobs}
    source = {cell.row: jobs[jobs[cell.trained].source] for cell in made.cells}
    assert Counter(job.config.stage for job in made.jobs)["source"] == len(rows)
    assert Counter(job.config.stage for job in made.jobs)["teachers"] == 2 * len(SOURCES)
    assert source["MPT"].teachers == source["lambda"].teachers == made.teachers
    assert source["lambda"].distill.weight == 0.5
    assert not set(source["short"].teachers.values()) & set(made.teachers.values())
    assert source["two"].teachers == {name: made.teachers[name] for name in ("s1", "s3")}
    for cell in made.cells:
        length = 7 if cell.row == "short" else 100
        assert jobs[cell.trained].prompt.length == jobs[cell.run].prompt.length == length
        assert cell.trained in {need for job in made.jobs if job.id == cell.run for need in job.needs}
    places = [job.id for job in made.jobs]
    assert all(places.index(need) < places.index(job.id) for job in made.jobs for need in job.needs)


def test_settings_of_a_row_that_starts_fresh_plan_no_source_stage():
    """Prompt tuning of another length needs no teachers of that length."""
    rows = (ROWS[4], {**ROWS[2], "settings": {"prompt.length": 7}})
    made = planned(rows=rows)
    assert len(of_stage(made, "source")) == 1
    assert {job.config.prompt.length for job in of_stage(made, "adapt")} == {7, 100}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": ["t1"]}, "a row has no 'targets' of its own"),
        ({"source.distill.weight": -1}, "settings of row 'odd': source.distill.weight: .* greater than"),
        ({"source.distil.weight": 1}, "settings of row 'odd': source.distil: Extra inputs"),
        ({"sources": ["s1"]}, "settings of row 'odd': sources: a shared prompt needs two or more"),
        ({"source.factors.rank": 200}, "settings of row 'odd': .*exceeds prompt.length"),
        ({"source.factors.train": False}, "settings of row 'odd': .*optim.lr must name what is trained"),
        ({"sources.9.x": 1}, "settings of row 'odd': there is nothing at '9'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_their_row(settings, said):
    """The row and the key are named, whatever the fault."""
    with pytest.raises(ValueError, match=said):
        experiment(rows=(ROWS[4], own("odd", **settings)))


# what a change leaves alone


def ids(made, stage):
    """The runs of a stage."""
    return {job.id for job in of_stage(made, stage)}


def test_distillation_weight_leaves_the_teachers_alone():
    """Another lambda is another source stage and another MPT; teachers, PT and SPoT stay."""
    before = planned()
    after = planned(source={"optim": BANK, "distill": {"weight": 0.5}})
    assert before.teachers == after.teachers
    assert before.source != after.source
    kept = {cell.trained for cell in before.cells} & {cell.trained for cell in after.cells}
    rows = {cell.row for cell in before.cells if cell.trained and cell.trained in kept}
    assert rows == {"PT", "SPoT"}


def test_without_distillation_the_source_names_no_teacher():
    """With weight 0 the source stage does not depend on what the teachers learnt."""
    made = planned(source={"optim": BANK, "distill": {"weight": 0}})
    (job,) = of_stage(made, "source")
    assert job.config.teachers == {}


def test_start_at_the_teachers_keeps_them_without_distillation():
    """P* that starts at the teachers' mean needs the teachers, distilled or not."""
    settings = {"optim": BANK, "distill": {"weight": 0}, "init": "teachers"}
    made = planned(source=settings)
    (job,) = of_stage(made, "source")
    assert job.config.prompt.init == "teachers"
    assert job.config.teachers == made.teachers


def test_change_of_one_source_task_changes_its_teacher_and_the_source():
    """Another template of one task: its teacher and all that rests on it, and no other teacher."""
    specs = {**SPECS, "s2": SPECS["s2"].model_copy(update={"source": "other {x}"})}
    before, after = planned(), planned(specs)
    assert {task for task in SOURCES if before.teachers[task] != after.teachers[task]} == {"s2"}
    assert before.source != after.source
    plain = {cell.trained for cell in before.cells if cell.row == "PT"}
    assert plain <= ids(after, "adapt")


def test_change_of_a_target_leaves_sources_and_other_targets_alone():
    """Another template of one target changes its own runs."""
    specs = {**SPECS, "t1": SPECS["t1"].model_copy(update={"source": "other {x}"})}
    before, after = planned(), planned(specs)
    assert (before.teachers, before.source) == (after.teachers, after.source)
    kept = {cell.target for cell in before.cells if cell.run in ids(after, "evaluate")}
    assert kept == {"t2"}


def test_cap_on_test_rows_changes_scores_alone():
    """Scoring fewer rows trains nothing anew."""
    before, after = planned(), planned(limits={"test_rows": 5})
    for stage in ("teachers", "source", "adapt"):
        assert ids(before, stage) == ids(after, stage)
    assert not ids(before, "evaluate") & ids(after, "evaluate")


def test_new_row_leaves_all_old_runs_alone():
    """A row more adds runs and changes none."""
    before = planned(rows=ROWS[:4])
    assert {job.id for job in before.jobs} < {job.id for job in planned().jobs}


# faults


def test_task_that_is_not_declared_is_refused():
    """A misspelt source or target: the nearest declared task."""
    for changes in ({"sources": ("s1", "s2x")}, {"targets": ("t1x",)}):
        with pytest.raises(ConfigError, match="there is no task") as caught:
            planned(**changes)
        assert "did you mean" in caught.value.fix


@pytest.mark.parametrize(
    "source",
    [
        {"optim": BANK, "sampling": {"kappa": 4, "replacement": False}},
        {"optim": BANK, "init": "text"},
    ],
    ids=["kappa above the number of sources", "text without a text"],
)
def test_settings_that_no_source_stage_takes_are_a_configuration_error(source):
    """What the source stage would refuse is a ConfigError, and none of pydantic's own."""
    with pytest.raises((WeftError, ValueError)) as caught:
        planned(source=source)
    # Experiment itself may refuse: model_validate then wraps the message, and load_config gives it its line
    assert isinstance(caught.value, ConfigError) or caught.value.title == "Experiment"


def test_tasks_are_found_beside_the_experiment(tmp_path):
    """Task files are named from the experiment's own folder."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.yaml").write_text('name: a\nsource: "{x}"\ntarget: "{y}"\n', encoding="utf-8")
    assert list(specs_of(experiment(folder=str(tmp_path)))) == ["a"]


# single stages from files

STAGE = "tasks: [a.yaml, more]\noptim: {lr: {prompt: 0.1}, steps: 2}\n"


@pytest.fixture
def stage_file(tmp_path):
    """A stage's own file, beside two task files."""
    (tmp_path / "more").mkdir()
    for path in (tmp_path / "a.yaml", tmp_path / "more" / "b.yaml"):
        path.write_text(f'name: {path.stem}\nsource: "{{x}}"\ntarget: "{{y}}"\n', encoding="utf-8")
    path = tmp_path / "stage.yml"
    path.write_text(STAGE, encoding="utf-8")
    return path


def test_file_of_several_teachers_gives_a_run_each(stage_file):
    """Teachers are trained alone, whatever the file names."""
    found = load_run(stage_file, TeacherRun, {"seed": 3})
    assert [[spec.name for spec in run.tasks] for run in found] == [["a"], ["b"]]
    assert {run.seed for run in found} == {3}
    assert [spec.folder for run in found for spec in run.tasks] == [
        str(stage_file.parent),
        str(stage_file.parent / "more"),
    ]


def test_file_of_a_source_stage_gives_one_run(stage_file):
    """The source stage has all its tasks in one run."""
    text = STAGE.replace("prompt: 0.1", "shared: 0.1, factors: 0.1")
    stage_file.write_text(f"{text}teachers: {{}}\n", encoding="utf-8")
    (run,) = load_run(stage_file, SourceRun, {})
    assert [spec.name for spec in run.tasks] == ["a", "b"]


def test_stage_file_with_tasks_written_out_gives_the_same(stage_file):
    """What `to_yaml` writes into a run folder can be run again."""
    text = STAGE.replace("[a.yaml, more]", '[{name: a, source: "{x}", target: "{y}"}]')
    stage_file.write_text(text, encoding="utf-8")
    (run,) = load_run(stage_file, TeacherRun, {})
    assert [spec.name for spec in run.tasks] == ["a"]


@pytest.mark.parametrize(
    "text", ["", "tasks: []\n", "tasks: a.yaml\n", "tasks: 3\n", "tasks: [3]\n", "tasks:\n"]
)
def test_stage_file_without_a_list_of_tasks_is_a_configuration_error(stage_file, text):
    """No tasks, or something else than a list of them, is a ConfigError about `tasks`."""
    stage_file.write_text(STAGE.replace("tasks: [a.yaml, more]\n", text), encoding="utf-8")
    with pytest.raises(WeftError) as caught:
        load_run(stage_file, TeacherRun, {})
    assert caught.value.exit_code == 2
    assert "tasks" in str(caught.value)


# running


class Stand(Run):
    """Stands for a run folder."""

    def __init__(self, done, result):
        super().__init__(Path("nowhere"))
        self._done, self._result = done, result

    done = property(lambda self: self._done)

    def result(self):
        return self._result

    def seconds(self):
        return 1.0


class Shelf(Workspace):
    """A workspace without folders: which runs are done, and how often each was tried."""

    def __init__(self, *, failing=(), error=None):
        super().__init__(Path("nowhere"), progress=Progress())
        self.done, self.tried, self.failing = set(), [], set(failing)
        self.error = error or NumericError("the loss is no number")
        self.checked = 0

    def run_id(self, config):
        return name_of(config)

    def run(self, config):
        result = {"steps": 4}
        if isinstance(config, EvaluateRun):
            scores = {"metrics": {"accuracy": 50.0}}
            result = {"scores": {spec.name: scores for spec in config.tasks}}
        return Stand(name_of(config) in self.done, result)

    def tasks(self, config):
        return [SimpleNamespace(name=spec.name, load=lambda split: [None] * 10) for spec in config.tasks]

    def check_frozen(self):
        self.checked += 1

    def position(self, config):
        return "suffix"

    def perform_together(self, configs):
        for config in configs:
            try:
                outcome = self.perform(config)
            except WeftError as error:
                outcome = runner.spared(error)
            yield name_of(config), outcome

    def perform(self, config):
        self.tried.append(name_of(config))
        if name_of(config) in self.failing:
            raise self.error
        self.done.add(name_of(config))
        return self.run(config)


@pytest.fixture
def made(monkeypatch):
    """The plan, with a stage that only asks the shelf."""
    together = "perform_together"
    monkeypatch.setattr(execution.stages, together, lambda configs, shelf: shelf.perform_together(configs))
    return planned()


def dependents(made, first):
    """All runs that rest on one."""
    lost = {first}
    for job in made.jobs:
        if lost & set(job.needs):
            lost.add(job.id)
    return lost - {first}


def test_launch_runs_every_job_once_in_order(made):
    """All that is missing is run, parents first, and the frozen model is checked at the end."""
    shelf = Shelf()
    execution.launch(made, shelf)
    assert shelf.tried == [job.id for job in made.jobs]
    assert shelf.checked == 1
    assert shelf.progress.done == pytest.approx(shelf.progress.total)


def test_launch_runs_nothing_twice(made):
    """A second launch has nothing to do; after a loss only what was lost is run."""
    shelf = Shelf()
    execution.launch(made, shelf)
    shelf.tried = []
    execution.launch(made, shelf)
    assert shelf.tried == []
    shelf.done.remove(made.jobs[-1].id)
    execution.launch(made, shelf)
    assert shelf.tried == [made.jobs[-1].id]


def test_failed_teacher_stops_its_dependents_and_no_others(made, capsys):
    """One teacher fails: other teachers, PT and the untrained rows run; source, MPT and SPoT do not."""
    bad = made.teachers["s2"]
    shelf = Shelf(failing=[bad])
    with pytest.raises(NumericError) as caught:
        execution.launch(made, shelf)
    assert caught.value is shelf.error
    lost = dependents(made, bad)
    assert {made.source, *(cell.run for cell in made.cells if cell.row in ("MPT", "SPoT"))} <= lost
    assert shelf.done == {job.id for job in made.jobs} - lost - {bad}
    assert shelf.tried.count(bad) == 1
    assert shelf.checked == 1
    shown = capsys.readouterr().err
    assert f"{bad} failed" in shown
    assert f"{len(lost)} runs wait" in shown


def test_a_full_disk_stops_everything_and_too_little_memory_one_run(made):
    """What would stop the other runs as well ends the launch; a run that is too large fails alone."""
    bad = made.teachers["s2"]
    full = Shelf(failing=[bad], error=ResourceError("no space", code="R06"))
    with pytest.raises(ResourceError):
        execution.launch(made, full)
    assert full.tried[-1] == bad
    large = Shelf(failing=[bad], error=ResourceError("not enough memory", code="R17"))
    with pytest.raises(ResourceError):
        execution.launch(made, large)
    assert large.done == {job.id for job in made.jobs} - dependents(made, bad) - {bad}


def test_next_launch_runs_only_what_is_missing(made):
    """Once the cause is mended, the failed run and those that waited for it are run, and no others."""
    bad = made.teachers["s2"]
    shelf = Shelf(failing=[bad])
    with pytest.raises(NumericError):
        execution.launch(made, shelf)
    shelf.failing, shelf.tried = set(), []
    execution.launch(made, shelf)
    lost = {bad, *dependents(made, bad)}
    assert shelf.tried == [job.id for job in made.jobs if job.id in lost]
    assert shelf.done == {job.id for job in made.jobs}


def test_several_failures_are_raised_together(made):
    """Two trainings fail: both are named, and everything else is run."""
    bad = [cell.trained for cell in made.cells if cell.row == "PT"][:2]
    shelf = Shelf(failing=bad, error=DataError("a row is broken"))
    with pytest.raises(Faults) as caught:
        execution.launch(made, shelf)
    assert caught.value.faults == [shelf.error] * 2
    assert caught.value.exit_code == 3
    assert len(shelf.done) == len(made.jobs) - 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault of weft")])
def test_what_is_no_fault_of_a_run_stops_everything(made, error):
    """A stop by the user, or a fault of weft itself, is passed on at once."""
    shelf = Shelf(failing=[made.teachers["s2"]], error=error)
    with pytest.raises(type(error)):
        execution.launch(made, shelf)
    assert shelf.tried == [made.teachers["s1"], made.teachers["s2"]]


def test_finished_dependents_of_a_failed_run_do_not_wait(made, capsys):
    """A score that is there already waits for nothing, even if its training must be done again and fails."""
    shelf = Shelf()
    execution.launch(made, shelf)
    bad = next(cell.trained for cell in made.cells if cell.row == "PT")
    shelf.done.remove(bad)
    shelf.failing = {bad}
    with pytest.raises(NumericError):
        execution.launch(made, shelf)
    assert "wait for those that failed" not in capsys.readouterr().err
