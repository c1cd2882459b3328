"""Several trainings in one batch: each as it would be alone, and gone when it is over."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from test_interruptions import SMALL
from tiny_job import command, write_job

from weft import runs, stages
from weft.config.files import load_config
from weft.config.training import OptimConfig
from weft.data.batch import IGNORE, Encoded, collate, join
from weft.data.encoding import EncodedTask
from weft.data.sampling import EpochBatches
from weft.errors import NumericError, ResourceError
from weft.experiments import execution, jobs
from weft.experiments.config import Experiment
from weft.losses.objective import lm_loss
from weft.losses.terms import lm_loss_rows, lm_loss_sum
from weft.models.tuned import with_bank, with_prompts
from weft.prompts.bank import PromptBank
from weft.runs.config import AdaptRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.training import runner
from weft.training.course import Course, Hooks
from weft.training.loop import fit_together

TASKS = ("a", "b")
SOURCES = [(11, 15, 19), (6, 65, 46, 4, 41, 36), (31,), (51, 56, 47), (8, 9, 10, 11), (7, 7)]
TARGETS = [(63, 1), (1,), (36, 44, 43, 1), (6, 18, 1), (5, 1), (9, 1)]
ROWS = tuple(Encoded(*pair) for pair in zip(SOURCES, TARGETS, strict=True))


def drawn(*shape, seed):
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def course(backbone, seed, lines=None, **kw):
    """A course of its own: prompt tuning or MPT on two tasks, with its own rows, rates and length."""
    scale = float(backbone.embeddings.pow(2).mean().sqrt())
    if seed % 2:
        model = with_prompts(backbone, drawn(2, 3, backbone.width, seed=seed) * scale, TASKS)
        rates = {"prompt": 0.02 * seed}
    else:
        shared = drawn(3, backbone.width, seed=seed) * scale
        u, v = drawn(2, 3, 1, seed=seed + 50), drawn(2, 1, backbone.width, seed=seed + 60)
        model = with_bank(backbone, PromptBank(shared, u, v, TASKS))
        rates = {"shared": 0.03, "factors": 0.05}
    model.prompts.to(backbone.embeddings.dtype)
    settings = {"steps": 4, "batch_size": 2 + seed % 3, "warmup": 0.3, "clip": 0.5, **kw}
    tasks = tuple(EncodedTask(name, ROWS[i::2]) for i, name in enumerate(TASKS))
    optim = OptimConfig(lr=rates, **settings)
    batches = EpochBatches(tasks, optim.batch_size, seed)
    hooks = Hooks(log=lambda line: None if lines is None else lines.append(line))
    made = Course(model, batches, lm_loss, optim, hooks=hooks)
    if optim.eval_every:
        made.validate = lambda: (5.0, 4.0, 6.0, 1.0, 2.0, 3.0)[made.progress.step % 7 - 1]
    return made


def trained(courses):
    """Train courses together, or one after the other."""
    return [one for group in courses for one in fit_together(group)]


@pytest.mark.parametrize("name", ["t5", "llama-prefix", "llama-suffix", "gpt2-suffix"])
def test_the_gradients_are_those_of_each_course_alone(make_backbone, name):
    """One step of four courses: prompts' gradients, losses and norms within 1e-5 of separate steps.

    In float64, because in float32 the kernels of some processors round batches of unlike size by more.
    """
    backbone = make_backbone(name)
    backbone.lm.double()
    found = {}
    for how in ("together", "alone"):
        lines = [[] for _ in range(4)]
        courses = [course(backbone, k, lines[k], steps=1, clip=1e9) for k in range(4)]
        trained([courses] if how == "together" else [[one] for one in courses])
        gradients = [
            [p.grad.clone() for group in one.model.trained.values() for p in group] for one in courses
        ]
        found[how] = (gradients, lines)
    for one, other in zip(found["together"][0], found["alone"][0], strict=True):
        for ours, theirs in zip(one, other, strict=True):
            scale = float(theirs.abs().max())
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-5)
    for one, other in zip(found["together"][1], found["alone"][1], strict=True):
        assert one[0].keys() == other[0].keys()
        assert one[0] == pytest.approx(other[0], rel=1e-5)


@pytest.mark.parametrize("name", ["gpt2-prefix", "gpt2-suffix"])  # the others' norms are in float32 always
def test_twenty_steps_in_double_precision_end_alike(make_backbone, name):
    """Own optimiser, clipping, rates and end: after twenty steps the prompts agree within 1e-9."""
    backbone = make_backbone(name)
    backbone.lm.double()
    settings = [{"steps": 20}, {"steps": 13}, {"steps": 20, "clip": 0.01}, {"steps": 20, "eval_every": 3}]
    made = [[course(backbone, k, **one) for k, one in enumerate(settings)] for _ in range(2)]
    trained([made[0]])
    trained([[one] for one in made[1]])
    for together, alone in zip(*made, strict=True):
        assert together.progress == alone.progress
        for key, value in alone.model.state().items():
            torch.testing.assert_close(together.model.state()[key], value, rtol=0, atol=1e-9)


def test_each_has_its_own_end(backbones):
    """Patience and step counts end courses one by one; each is given back when it is over, and not before."""
    settings = [{"steps": 6}, {"steps": 2}, {"steps": 6, "eval_every": 1, "patience": 2}]
    courses = [course(backbones["llama-suffix"], k, **one) for k, one in enumerate(settings)]
    ended = [
        (courses.index(one), one.progress.step, courses[0].progress.step) for one in fit_together(courses)
    ]
    assert ended == [(1, 2, 2), (2, 5, 5), (0, 6, 6)]


@pytest.mark.parametrize("broken", ["gradient", "exploded"])
def test_one_that_breaks_leaves_and_harms_no_other(backbones, broken):
    """A prompt that is no number, or has exploded, ends its own course; the other ends as it would alone."""
    backbone = backbones["llama-suffix"]
    rates = {"steps": 4} if broken == "gradient" else {"steps": 4, "warmup": 0}
    bad, good, friend = course(backbone, 1, **rates), course(backbone, 2), course(backbone, 2)
    if broken == "gradient":
        with torch.no_grad():
            bad.model.prompts.prompts[0, 0, 0] = math.nan
    else:
        for group in bad.optim.lr:
            bad.optim.lr[group] = 1e9
    assert set(map(id, fit_together([bad, good]))) == {id(bad), id(good)}
    trained([[friend]])
    assert isinstance(bad.error, NumericError)
    with pytest.raises(NumericError):
        bad.finish()
    assert good.error is None
    for key, value in friend.model.state().items():
        torch.testing.assert_close(good.model.state()[key], value, rtol=1e-3, atol=1e-5)


def test_all_are_saved_when_one_leaves(backbones):
    """So that those which stay go on with the company that they had: bit-equal from any such step."""
    settings = [{"steps": 6}, {"steps": 2}, {"steps": 6, "eval_every": 1, "patience": 2}]

    def together(kept=None):
        courses = [course(backbones["llama-suffix"], k, **one) for k, one in enumerate(settings)]
        saved = [[] for _ in courses]
        for one, own in zip(courses, saved, strict=True):
            one.hooks = Hooks(save=lambda state, own=own: own.append(copy.deepcopy(state)))
        for i, states in enumerate(kept or []):
            courses[i].resume(states[-1])
        live = courses if kept is None else [courses[0], courses[2]]
        left = list(fit_together(live, lambda save, must=False: save() if must else None))
        assert len(left) == len(live)
        return courses, saved

    whole, saved = together()
    assert [[one.progress.step for one in own] for own in saved] == [[2, 5], [2], [2, 5]]
    again, _ = together([one[:1] for one in saved])
    for key, value in whole[0].model.state().items():
        assert torch.equal(again[0].model.state()[key], value)


def test_time_is_shared(backbones):
    """The seconds of courses in one batch add up to the time that passed, and do not count it twice."""
    courses = [course(backbones["llama-suffix"], k, steps=3) for k in range(3)]
    trained([courses])
    assert courses[0].progress.seconds > 0
    assert {one.progress.seconds for one in courses} == {courses[0].progress.seconds}


def test_the_loss_of_rows_adds_up():
    """Row by row the language-model loss is that of the whole batch; rows keep their order in a join."""
    batches = [collate(ROWS[:2], [0, 1]), collate(ROWS[2:], [1, 0, 1, 0])]
    both = join(batches)
    logits = drawn(*both.labels.shape, 70, seed=1)
    each = lm_loss_rows(logits, both.labels)
    assert float(each.sum()) == pytest.approx(float(lm_loss_sum(logits, both.labels)), rel=1e-6)
    for i, row in enumerate(ROWS):
        one = lm_loss_sum(logits[i : i + 1], both.labels[i : i + 1])
        assert float(each[i]) == pytest.approx(float(one), rel=1e-6)
        assert tuple(both.labels[i][both.labels[i] != IGNORE].tolist()) == row.target
    assert both.sources == tuple(SOURCES)
    assert both.task_ids.tolist() == [0, 1, 1, 0, 1, 0]
    few = both.pick([4, 1])
    assert (few.sources, few.labels.tolist(), few.task_ids.tolist()) == (
        (SOURCES[4], SOURCES[1]), [[5, 1], [1, IGNORE]], [1, 1],
    )  # fmt: skip


# runs


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A small experiment without dropout, whose teachers, and whose targets' seeds, share a batch."""
    text = SMALL.replace("dropout: true", "dropout: false").replace("seeds: [0]", "seeds: [0, 1, 2]")
    return write_job(tmp_path_factory.mktemp("together"), "llama", "suffix", text)


@pytest.fixture(scope="module")
def whole(job):
    """The experiment, run."""
    root = job.parent / "whole"
    assert command("run", job, "--runs", root, "--quiet") == 0
    return root


def plan_of(job, workspace, overrides=None):
    """The plan of an experiment in a workspace."""
    config = load_config(job, Experiment, overrides or {})
    return jobs.plan(config, jobs.specs_of(config), workspace.run_id)


def test_runs_of_one_tier_meet_and_keep_their_own_folders(job, whole):
    """Teachers in one group and the seeds of the targets in another; every run says with whom it was."""
    groups = execution.groups(plan_of(job, Workspace(job.parent / "new")).jobs, Workspace(job.parent / "new"))
    assert [len(group) for group in groups if stages.can_share(group[0].config)] == [2, 3]
    for group in groups:
        for one in group:
            env = json.loads((whole / one.id / "env.json").read_text())
            assert env.get("together", [one.id]) == [member.id for member in group]
            assert runs.Run(whole / one.id).done


def test_a_run_in_company_equals_one_alone(job, whole, tmp_path):
    """The same teacher trained by itself has the same prompt within 1e-4, and the same number of steps."""
    workspace = Workspace(tmp_path)
    one = next(job for job in plan_of(job, workspace).jobs if isinstance(job.config, TeacherRun))
    alone, company = stages.perform(one.config, workspace), runs.Run(whole / one.id)
    assert alone.id == company.id
    assert "together" not in alone.env()
    torch.testing.assert_close(alone.tensors()["prompts"], company.tensors()["prompts"], rtol=1e-3, atol=1e-4)
    assert alone.result()["steps"] == company.result()["steps"]


def test_what_was_begun_together_goes_on_together(job, tmp_path, monkeypatch):
    """Runs in the middle meet those they began with again, also where others are new or finished."""
    workspace = Workspace(tmp_path)
    jobs = [one for one in plan_of(job, workspace).jobs if isinstance(one.config, AdaptRun)]
    names = [one.id for one in jobs]
    company = {names[0]: {names[0], names[2]}, names[1]: set(), names[2]: set()}
    monkeypatch.setattr(workspace, "company", lambda config: company[workspace.run_id(config)])
    found = [[one.id for one in group] for group in execution.groups(jobs, workspace)]
    assert found == [[names[0], names[2]], [names[1]]]


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ({"base.dropout": True}, [1, 1, 1]),
        ({"prompt.length": 90}, [1, 1, 1]),  # 6 rows of 92 tokens: one step is 552 of 512
        ({"prompt.length": 30}, [2, 1]),
        ({"seeds": list(range(20)), "prompt.length": 1}, [16, 4]),
    ],
)
def test_what_may_not_or_need_not_meet_stays_alone(job, tmp_path, overrides, sizes):
    """Dropout, steps that fill the device by themselves, and more folders than are held open."""
    workspace = Workspace(tmp_path)
    jobs = plan_of(job, workspace, overrides).jobs
    groups = execution.groups([one for one in jobs if isinstance(one.config, AdaptRun)], workspace)
    assert [len(group) for group in groups] == sizes


def test_a_failure_in_company_is_one_runs_own(job, tmp_path, monkeypatch):
    """One of three breaks in training: the others are sealed, and the next start does the one alone."""
    workspace = Workspace(tmp_path)
    plan = plan_of(job, workspace)
    bad = next(one.id for one in plan.jobs if isinstance(one.config, AdaptRun))
    real = Course._end

    def breaks(self, terms, padding):
        if self.seed == 0 and set(self.optim.lr) == {"shared", "factors"} and self.optim.patience:
            raise NumericError("planted", where="step 1")
        real(self, terms, padding)

    with monkeypatch.context() as patch:
        patch.setattr(Course, "_end", breaks)
        with pytest.raises(NumericError, match="planted"):
            execution.launch(plan, workspace)
    adapted = [one for one in plan.jobs if isinstance(one.config, AdaptRun)]
    assert [workspace.run(one.config).done for one in adapted] == [one.id != bad for one in adapted]
    execution.launch(plan, workspace)
    assert all(workspace.run(one.config).done for one in plan.jobs)


def test_files_of_the_whole_job_are_named(whole: Path):
    """Nothing of the way is left in any folder."""
    assert not [path for path in whole.glob("*/*") if path.name.startswith(runs.PASSING)]


@pytest.mark.parametrize("error", [NumericError("planted"), MemoryError()], ids=["fault", "memory"])
def test_what_fails_before_its_first_step_is_not_sealed(job, tmp_path, monkeypatch, error):
    """A fault once the folder is open: the run stays unfinished, says why, and its company is trained."""
    workspace = Workspace(tmp_path)
    configs = [one.config for one in plan_of(job, workspace).jobs if isinstance(one.config, TeacherRun)]
    real = runner.rows_in_memory

    def fails(prepared, *rest):
        if prepared.config is configs[0]:
            raise error
        return real(prepared, *rest)

    monkeypatch.setattr(runner, "rows_in_memory", fails)
    found = dict(stages.perform_together(configs, workspace))
    first, second = (workspace.run(config) for config in configs)
    assert (first.done, second.done) == (False, True)
    assert isinstance(found[first.id], NumericError if isinstance(error, NumericError) else ResourceError)
    monkeypatch.undo()
    assert stages.perform(configs[0], workspace).tensors()
