"""One training by several processes: as one process would do it, whole, and with the folder of one."""

import json
import os
import signal
import socket
import sys
import time
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from conftest import build_backbone
from several import alone, outcomes, start, together
from test_teaching import TASKS, drawn_rows, student_on, teacher_on
from test_together import course
from tiny_job import SHORT, write_job

from weft import stages
from weft.config.files import load_config
from weft.config.model import BaseConfig
from weft.config.training import DistillConfig, OptimConfig, SamplingConfig
from weft.data.batch import IGNORE, Batch, collate
from weft.data.encoding import EncodedTask
from weft.data.sampling import EpochBatches, ReadAhead, TaskBatches
from weft.errors import ConfigError, ResourceError, Stopped, UnsupportedError
from weft.experiments import jobs
from weft.experiments.config import Experiment
from weft.losses.distillation import distillation_loss
from weft.losses.objective import lm_loss
from weft.losses.targets import TeacherTargets
from weft.models import Choice, Precision
from weft.models.tuned import with_all_weights
from weft.parallel.launched import check_alone, started_together
from weft.runs.config import AdaptRun, SourceRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.storage.page_store import PageStore
from weft.training import checkpoints, loop
from weft.training.course import Course, Hooks
from weft.training.loop import fit, fit_together

ONE_STEP = {"steps": 1, "batch_size": 5, "warmup": 0, "clip": 1e9}


# what processes say to each other


def said(group):
    """What each of the group's calls gives."""
    mine = torch.full((2,), float(group.rank)), torch.ones(3, dtype=torch.float64)
    group.sum_(mine)
    first = torch.tensor([float(group.rank + 5)])
    group.copy_([first])
    return (
        group.led(lambda: ("of", group.rank, group.size)),
        group.agree(group.rank),
        group.most(10 * group.rank),
        [one.tolist() for one in mine],
        first.item(),
        group.every(lambda: group.rank),
    )


def test_what_processes_tell_each_other():
    """Rank 0's word for all, sums, the largest number; a process alone hears itself."""
    found = together(3, said)
    for rank, one in enumerate(found):
        assert one == (("of", 0, 1), 0, 20, [[3.0, 3.0], [3.0, 3.0, 3.0]], 5.0, rank)
    assert alone(said) == (("of", 0, 1), 0, 0, [[0.0, 0.0], [1.0, 1.0, 1.0]], 5.0, 0)


def faults(group):
    """Faults of the first, of another, and of what is not the same everywhere, each as it is met."""

    def fail(rank):
        if group.rank == rank:
            raise ConfigError(f"planted in {rank}", code="C99")

    found = []
    for call in (
        lambda: group.led(lambda: fail(0)),
        lambda: group.every(lambda: fail(1)),
        lambda: group.check_same("runs", group.rank),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        found.append((caught.value.cause, caught.value.code, caught.value.shared))
    group.check_same("runs", "alike")
    return found


def test_a_fault_of_one_is_met_by_all():
    """With its words and number, so that all can do the same about it."""
    one, other = together(2, faults)
    host = socket.gethostname()
    assert one == [
        ("planted in 0", "C99", True),
        ("planted in 1", "C99", True),
        (f"process 1 on {host} has other runs than process 0", "X04", True),
    ]
    assert one == other


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "8"}, 1),  # some clusters say so of themselves
        ({"RANK": "0", "WORLD_SIZE": "1"}, 1),
        ({"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, 4),
    ],
)
def test_how_many_were_started(environment, size):
    """By the variables that launchers set."""
    assert started_together(environment) == size


@pytest.mark.parametrize(
    "change", [{"MASTER_ADDR": ""}, {"RANK": "4"}, {"RANK": "x"}, {"WORLD_SIZE": "-2"}, {"MASTER_PORT": ""}]
)
def test_half_a_launch_is_refused(change):
    """Variables that do not fit together are told, not guessed at."""
    whole = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    with pytest.raises(ConfigError, match="do not say who works"):
        started_together(whole | change)


def test_what_is_for_one_process_says_so(monkeypatch):
    """Commands that no group can share refuse to run once a process."""
    check_alone("this command")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnsupportedError, match="for one process, and 2 were started"):
        check_alone("this command")


# shares


@pytest.mark.parametrize("rows", [1, 5, 6])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_the_batch(rows, size):
    """Every row is in one share, with its target and task; shares differ by one row at most."""
    batch = collate(drawn_rows(rows, seed=rows), list(range(rows)))
    shares = [batch.share(rank, size) for rank in range(size)]
    assert max(len(one.sources) for one in shares) - min(len(one.sources) for one in shares) <= 1
    found = {}
    for share in shares:
        for source, labels, task in zip(share.sources, share.labels, share.task_ids.tolist(), strict=True):
            found[task] = (source, labels[labels != IGNORE].tolist())
    wanted = {
        task: (source, labels[labels != IGNORE].tolist())
        for source, labels, task in zip(batch.sources, batch.labels, batch.task_ids.tolist(), strict=True)
    }
    assert found == wanted


def test_a_process_is_told_of_its_own_rows():
    """Texts are read, and targets made, by the process that will use them; the batch stays whole."""
    rows = drawn_rows(12)
    plain = EpochBatches((EncodedTask("a", rows),), 5, seed=0)
    texts, taught = [], []
    ahead = ReadAhead(plain, texts.extend, 4, window=2, teach=taught.extend, rank=1, size=2)
    whole = [ahead(step) for step in range(4)]
    assert [one.sources for one in whole] == [plain(step).sources for step in range(4)]
    assert texts == [source for one in whole for source in one.sources[1::2]]
    assert [one.sources for one in taught] == [one.sources[1::2] for one in whole]


def batches_of(kind):
    """The batches of a run over two tasks: pooled, by length, or by task."""
    tasks = tuple(EncodedTask(name, drawn_rows(count, seed=count)) for name, count in (("a", 17), ("b", 9)))
    if kind == "tasks":
        return TaskBatches(tasks, 5, 3, SamplingConfig())
    return EpochBatches(tasks, 5, seed=3, pool=2 if kind == "pooled" else 0)


def order(group, kind):
    """The rows that each step of a training gives to the model in this process."""
    backbone, seen = build_backbone("llama-suffix"), []

    def loss(model, batch, totals):
        seen.append([(list(one), int(task)) for one, task in zip(batch.sources, batch.task_ids, strict=True)])
        return lm_loss(model, batch, totals)

    model = student_on(backbone)
    optim = OptimConfig(lr={"shared": 0.1, "factors": 0.1}, steps=8, batch_size=5)
    fit(model, batches_of(kind), loss, optim, group=group)
    return seen


@pytest.mark.parametrize("kind", ["epochs", "pooled", "tasks"])
def test_rows_come_in_one_order_at_any_number_of_processes(kind):
    """Steps of 1, 2 and 3 processes hold the same rows; the shares of each put together are the batch."""
    whole = alone(order, kind)
    assert len(whole) == 8
    for size in (2, 3):
        shares = together(size, order, kind)
        for step, batch in enumerate(whole):
            assert [shares[i % size][step][i // size] for i in range(len(batch))] == batch


# gradients


def parts_of(model):
    """Gradients of what is trained, by group."""
    return {name: [one.grad for one in group] for name, group in model.trained.items()}


def close(ours, theirs, tolerance):
    """Whether tensors differ by at most so much of the largest number."""
    scale = float(theirs.abs().max())
    assert scale > 0
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=tolerance)


def student(name, *, double):
    """A bank on a backbone of its own; in float64, rounding does not hide what differs."""
    backbone = build_backbone(name)
    model = student_on(backbone.double() if double else backbone)
    return model.double() if double else model


def gradients(group, name, sizes, double):
    """Gradients, log lines and norms of one step with batches of unlike sizes."""
    found = []
    for size in sizes:
        model, lines = student(name, double=double), []
        batch = collate(drawn_rows(size, seed=size), [i % 2 for i in range(size)])
        optim = OptimConfig(lr={"shared": 0.1, "factors": 0.1}, **ONE_STEP | {"micro_batch": 2})
        fit(model, lambda step, batch=batch: batch, lm_loss, optim, hooks=Hooks(lines.append), group=group)
        found.append((parts_of(model), lines[0]))
    return found


@pytest.mark.parametrize(
    ("name", "double", "tolerance"),
    [("llama-prefix", True, 1e-12), ("llama-suffix", True, 1e-12), ("t5", False, 2e-4)],
)
def test_the_gradient_is_that_of_the_whole_batch(name, double, tolerance):
    """Of 5 rows, of 1 (some process has none) and of 4, on two and three processes: as of the mean over all
    target tokens, written out, in one pass. Within so much of the largest number; a T5 norms in float32.
    """
    sizes = (5, 1, 4)
    found = {size: together(size, gradients, name, sizes, double) for size in (2, 3)}
    for case, rows in enumerate(sizes):
        model = student(name, double=double)
        batch = collate(drawn_rows(rows, seed=rows), [i % 2 for i in range(rows)])
        keep = batch.labels != IGNORE
        loss = F.cross_entropy(model(batch).logits[keep], batch.labels[keep])
        loss.backward()
        for ranks in found.values():
            for rank in ranks:
                gradient, line = rank[case]
                for group, wanted in parts_of(model).items():
                    for ours, theirs in zip(gradient[group], wanted, strict=True):
                        close(ours, theirs, tolerance)
                assert line["loss"] == pytest.approx(loss.item(), rel=1e-6)
                assert line["lm"] == line["loss"]
                assert line["padding"] == pytest.approx(batch.padding)


def distilled(group, folder):
    """Gradients and terms of a step of distillation, targets made ahead by whoever needs them."""
    backbone, distill = build_backbone("llama-prefix").double(), DistillConfig()
    store = PageStore(folder, 1 << 24, pytest.fail)
    targets = TeacherTargets(teacher_on(backbone), distill, store)
    model, lines = student_on(backbone).double(), []
    loss = distillation_loss(teacher_on(backbone), distill, targets)
    batches = TaskBatches(
        (EncodedTask("a", drawn_rows(9)), EncodedTask("b", drawn_rows(8, 5))), 5, 0, SamplingConfig()
    )
    ahead = ReadAhead(batches, model.prepare, 3, teach=targets.prepare, rank=group.rank, size=group.size)
    optim = OptimConfig(lr={"shared": 0.01, "factors": 0.01}, steps=3, batch_size=5, warmup=0)
    fit(model, ahead, loss, optim, hooks=Hooks(lines.append), group=group)
    return parts_of(model), lines


def test_distillation_adds_up(tmp_path):
    """Terms and the last gradient of three steps are those of one process; kept targets are shared."""
    wanted, lines = alone(distilled, None)
    for folder in (None, tmp_path / "pages"):
        for gradient, found in together(2, distilled, folder):
            assert list(found[0]) == list(lines[0])
            for ours, theirs in zip(found, lines, strict=True):
                assert ours == {name: pytest.approx(value, rel=1e-5) for name, value in theirs.items()}
            for name, group in wanted.items():
                for ours, theirs in zip(gradient[name], group, strict=True):
                    close(ours, theirs, 1e-9)
    assert list((tmp_path / "pages").glob("page-*"))


def weights(group):
    """Gradients of all weights; one of them is used by no row."""
    backbone = build_backbone("llama-prefix")
    backbone.lm.unused = torch.nn.Parameter(torch.ones(2))
    model = with_all_weights(backbone, TASKS)
    batch = collate(drawn_rows(3), [0, 1, 0])
    optim = OptimConfig(lr={"model": 1e-3}, **ONE_STEP)
    fit(model, lambda step: batch, lm_loss, optim, group=group)
    return {name: value.grad for name, value in backbone.lm.named_parameters()}, backbone.lm.unused.tolist()


def test_weights_travel_likewise_and_what_is_unused_stays():
    """Full fine-tuning: gradients within 1e-5; a weight without a gradient is not decayed."""
    wanted, _ = alone(weights)
    for found, unused in together(2, weights):
        assert unused == [1.0, 1.0]
        for name, theirs in wanted.items():
            if name == "unused":
                assert found[name] is None
                assert theirs is None
            else:
                close(found[name], theirs, 1e-5)


def joint(group):
    """Several courses in one batch, one of a single row, for a few steps in double precision."""
    backbone = build_backbone("gpt2-suffix")
    backbone.lm.double()
    settings = [{"steps": 6}, {"steps": 3, "batch_size": 1}, {"steps": 6, "eval_every": 2}]
    lines = [[] for _ in settings]
    courses = [course(backbone, k, lines[k], **one) for k, one in enumerate(settings)]
    list(fit_together(courses, group=group))
    return [one.model.state() for one in courses], lines


def test_several_runs_in_one_batch_share_processes_too():
    """Each course's prompts within 1e-9 of one process, in float64, and their losses within 1e-6."""
    wanted, lines = alone(joint)
    for size in (2, 3):
        for states, found in together(size, joint):
            for ours, theirs in zip(states, wanted, strict=True):
                for name, value in theirs.items():
                    torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-9)
            for ours, theirs in zip(found, lines, strict=True):
                assert [one["loss"] for one in ours] == pytest.approx(
                    [one["loss"] for one in theirs], rel=1e-6
                )


def after_steps(group, name, double):
    """A prompt after twenty steps with warm-up, clipping and decay."""
    model = student(name, double=double)
    batches = EpochBatches(
        tuple(EncodedTask(one, drawn_rows(9, k)) for k, one in enumerate(TASKS)), 5, seed=1
    )
    optim = OptimConfig(lr={"shared": 0.05, "factors": 0.05}, steps=20, batch_size=5)
    progress = fit(model, batches, lm_loss, optim, group=group)
    return model.state(), progress.step


@pytest.mark.parametrize(
    ("name", "double", "tolerance"), [("llama-prefix", True, 1e-12), ("gpt2-suffix", False, 1e-6)]
)
def test_what_is_trained_is_what_one_process_trains(name, double, tolerance):
    """After twenty steps within the tolerance, and bit-equal in all processes of a training."""
    wanted, steps = alone(after_steps, name, double)
    for size in (2, 3):
        found = together(size, after_steps, name, double)
        for state, step in found:
            assert step == steps
            for key, value in wanted.items():
                torch.testing.assert_close(state[key], value, rtol=0, atol=tolerance)
                assert torch.equal(state[key], found[0][0][key])


# runs


RUNS = SHORT.replace("steps: 2", "steps: 12").replace("batch_size: 6}}\nrows", "batch_size: 5}}\nrows") + (
    "  - {{label: MPT, method: {{name: mpt, start: mean}}, "
    "optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 12, batch_size: 5, eval_every: 4}}}}\n"
    "  - {{label: majority, method: {{name: majority}}}}\n"
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A small experiment: teachers, a source, MPT and majority on two targets."""
    return write_job(tmp_path_factory.mktemp("parallel"), "llama", "suffix", RUNS)


def plan_of(job):
    """The runs of the experiment, in order."""
    config = load_config(job, Experiment, {})
    return jobs.plan(config, jobs.specs_of(config), Workspace(job.parent / "none").run_id).jobs


def perform(group, root, configs, stops=None):
    """Runs in a folder; the last process may be asked to stop after some step."""
    writes = []
    sys.addaudithook(lambda event, given: writes.append(given) if event == "open" else None)
    workspace = Workspace(root, group=group, save_seconds=0.0 if stops else 1000.0)
    real = Course._end

    def ends(self, terms, padding):
        real(self, terms, padding)
        if self.progress.step == stops and group.rank == group.size - 1:
            workspace.stop.asked = int(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Course, "_end", ends)
        with pytest.raises(Stopped) if stops else nullcontext():
            for config in configs:
                stages.perform(config, workspace)
    own = [
        path
        for path, mode, flags in writes
        if isinstance(path, str) and str(root) in path and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ]
    return sorted({path for path in own if not path.removeprefix(f"{root}/").startswith(".")})


def prompts(root, config):
    """What a finished run keeps."""
    run = Workspace(root).run(config)
    return run.tensors(), (run.path / "metrics.jsonl").read_bytes(), run


@pytest.mark.slow
def test_a_whole_experiment_by_two_processes(job, tmp_path):
    """Teachers, source, MPT and majority: prompts within 1e-5 of one process; one process alone writes."""
    configs = [one.config for one in plan_of(job)]
    alone(perform, tmp_path / "one", configs)
    leader, other = together(2, perform, tmp_path / "two", configs)
    assert other == []
    assert leader
    for config in configs:
        ours, theirs = (Workspace(tmp_path / name).run(config) for name in ("two", "one"))
        assert ours.done
        assert theirs.done
        assert ours.id == theirs.id  # the number of processes is no part of a run's identity
        if isinstance(config, TeacherRun | SourceRun | AdaptRun) and config.optim is not None:
            assert ours.env()["processes"] == 2
            for name, value in theirs.tensors().items():
                torch.testing.assert_close(ours.tensors()[name], value, rtol=0, atol=1e-5)
            lines = [json.loads(line) for line in (ours.path / "metrics.jsonl").read_text().splitlines()]
            assert [line["step"] for line in lines] == list(range(1, config.optim.steps + 1))


def settled(group, root, config):
    """The choices of a machine that measures otherwise than the first."""
    workspace = Workspace(root, group=group)
    faster, way = ("bfloat16", "sdpa") if group.rank else ("float32", "eager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weft.models.machine.probe", lambda device: Precision(faster, {}))
        patch.setattr("weft.models.machine.probe_attention", lambda *given, **kw: Choice(way, {}))
        patch.setattr("weft.models.machine.probe_products", lambda *given: Choice("library", {}))
        workspace.settle(config)
        return workspace.choices(config)


def test_what_the_first_machine_measures_holds_for_all(teacher, tmp_path):
    """Number format, attention and products, which machines would choose apart."""
    config = teacher.model_copy(update={"base": BaseConfig(model=teacher.base.model)})
    one, other = together(2, settled, tmp_path, config)
    assert one == other == {"dtype": "float32", "attention": "eager", "products": "library"}


@pytest.fixture(scope="module")
def teacher(job):
    """One of its runs."""
    return next(one.config for one in plan_of(job) if isinstance(one.config, TeacherRun))


@pytest.fixture(scope="module")
def whole(job, teacher):
    """That run by two processes, never stopped."""
    together(2, perform, job.parent / "whole", [teacher])
    return job.parent / "whole"


def test_a_stop_of_one_stops_all_and_the_run_goes_on_bit_equal(whole, teacher, tmp_path):
    """One process is asked to end: both do, after the same step; two go on to the very same files."""
    together(2, perform, tmp_path, [teacher], 5)
    run = Workspace(tmp_path).run(teacher)
    assert not run.done
    assert max(path.name[11:19] for path in run.path.glob("checkpoint-*")) == "00000005"
    together(2, perform, tmp_path, [teacher])
    tensors, lines, run = prompts(tmp_path, teacher)
    wanted, log, _ = prompts(whole, teacher)
    assert lines == log
    assert all(torch.equal(tensors[name], value) for name, value in wanted.items())
    assert not list(run.path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("first", "then"), [(2, 1), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 2), (2, 3)))]
)
def test_another_number_of_processes_goes_on(whole, teacher, tmp_path, first, then):
    """Stopped in the middle, taken up by fewer or more: within 1e-6."""
    steps = [perform, tmp_path, [teacher], 5]
    alone(*steps) if first == 1 else together(first, *steps)
    alone(*steps[:-1]) if then == 1 else together(then, *steps[:-1])
    tensors, _, _ = prompts(tmp_path, teacher)
    for name, value in prompts(whole, teacher)[0].items():
        torch.testing.assert_close(tensors[name], value, rtol=0, atol=1e-6)


def slowly(group, root, config):
    """A run that takes its time, and keeps every step."""
    checkpoints.SHARE = 0
    real = loop._step

    def step(*given):
        time.sleep(0.2)
        real(*given)

    loop._step = step
    stages.perform(config, Workspace(root, group=group, save_seconds=0.0))


@pytest.mark.parametrize(
    ("victim", "how"),
    [(1, signal.SIGKILL), (0, signal.SIGKILL), pytest.param(1, signal.SIGSTOP, marks=pytest.mark.slow)],
    ids=["other", "first", "silent"],
)
def test_a_lost_process_is_named_and_the_run_goes_on(whole, teacher, tmp_path, victim, how):
    """Killed, or silent as a machine whose network is gone: named with its host within 30 s; then resumed."""
    started = start(2, slowly, tmp_path, teacher)
    run = Workspace(tmp_path).run(teacher)
    until = time.monotonic() + 60
    while not list(run.path.glob("checkpoint-*")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(started[victim][0].pid, how)
    lost = time.monotonic()
    [error] = outcomes([started[1 - victim]])
    assert time.monotonic() - lost < 30
    started[victim][0].kill()
    assert isinstance(error, ResourceError)
    assert error.code == "X01"
    assert f"process {victim} of 2, on {socket.gethostname()}," in str(error)
    assert not run.done
    together(2, perform, tmp_path, [teacher])
    for name, value in prompts(whole, teacher)[0].items():
        assert torch.equal(prompts(tmp_path, teacher)[0][name], value)


def elsewhere(group):
    """The first is at something that no collective waits for."""
    if group.rank == 0:
        time.sleep(60)
    group.agree(0)


@pytest.mark.slow
def test_who_is_at_something_else_ends_too():
    """One process is killed while the other does not wait for it: that ends within 30 s, and names it."""
    started = start(2, elsewhere)
    time.sleep(5)
    started[1][0].kill()
    lost = time.monotonic()
    assert outcomes([started[0]]) == [None]
    assert time.monotonic() - lost < 30
    assert started[0][0].exitcode == ResourceError.exit_code


def fails(group, root, config):
    """A run that one process cannot do; the others train."""
    if group.rank == 1:
        real = Course.begin

        def begin(self):
            if self.progress.step == 3:
                raise MemoryError
            return real(self)

        Course.begin = begin
    stages.perform(config, Workspace(root, group=group))


def test_a_fault_of_one_is_told_by_the_others(teacher, tmp_path):
    """Too little memory in one process: the other ends too, and says which it was and why."""
    first, other = outcomes(start(2, fails, tmp_path, teacher))
    assert "there is not enough memory for a step" in str(other)
    assert isinstance(first, ResourceError)
    assert first.cause == (
        f"process 1 of 2, on {socket.gethostname()}, ended: there is not enough memory for a step"
    )


def dropped(group):
    """Losses of steps with dropout, every row the same: unlike numbers are unlike draws."""
    model = student_on(build_backbone("t5"))
    model.dropout, losses = True, []

    def loss(model, batch, totals):
        value, terms = lm_loss(model, batch, totals)
        losses.append(float(value))
        return value, terms

    batch = collate(drawn_rows(1) * 4, [0] * 4)
    optim = OptimConfig(lr={"shared": 1e-9, "factors": 1e-9}, steps=3, batch_size=4)
    fit(model, lambda step: batch, loss, optim, seed=2, group=group)
    return losses


def test_dropout_draws_apart():
    """Processes drop other parts in the same step, and each the same ones when it is done again."""
    first, again = together(2, dropped), together(2, dropped)
    assert first == again
    assert len({*first[0], *first[1]}) == 6


def test_an_empty_share_has_no_part():
    """A process without rows runs nothing."""
    batch = Batch(((5,),), torch.tensor([[7, 1]]), torch.tensor([0])).share(1, 2)
    assert batch.sources == ()
    assert batch.split(4) == []
