"""Runs that lose nothing: checkpoints, signals, kills at any moment, disks that fail, double starts."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from kill_job import COMPARED, contents
from tiny_job import command, write_job

from weft import runs, stages, storage
from weft.config.files import load_config
from weft.errors import ArtifactError, NumericError, ResourceError, Stopped
from weft.evaluation import answering
from weft.experiments import execution, jobs
from weft.experiments.config import Experiment
from weft.methods import BUILT_IN, known
from weft.models import Precision
from weft.runs import Run, answer_blocks, folder
from weft.runs.config import EvaluateRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.stopping import Stop
from weft.storage import durable, locks, sealed
from weft.training import checkpoints, course, runner
from weft.training.checkpoints import Keeper, Pace
from weft.training.course import Checkpoint, Progress

TESTS = Path(__file__).parent
SMALL = """
name: small
base: {{model: {base}, dtype: float32, attention: eager, dropout: true}}
prompt: {{length: 4, position: {position}}}
tasks: [tasks]
sources: [alpha, beta]
targets: [gamma]
allow: [leaks, duplicates]
shots: 6
seeds: [0]
teachers:
  optim: {{lr: {{prompt: 0.1}}, steps: 40, batch_size: 6, eval_every: 8}}
source:
  optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 40, batch_size: 6, eval_every: 20}}
rows:
  - {{label: majority, method: {{name: majority}}}}
  - label: MPT mean
    method: {{name: mpt, start: mean}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 40, batch_size: 6, eval_every: 10, patience: 2}}
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
WEFT = [sys.executable, "-c", "from weft.cli import main; main()"]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A small experiment's file, with its base model and tasks beside it."""
    return write_job(tmp_path_factory.mktemp("small"), "llama", "suffix", SMALL)


@pytest.fixture(scope="module", params=[("llama", "suffix"), ("t5", "prefix")], ids=["llama", "t5"])
def each_job(request, tmp_path_factory):
    """The same for both families; the causal one without dropout, so that its runs share batches."""
    text = SMALL if request.param[0] == "t5" else SMALL.replace("dropout: true", "dropout: false")
    return write_job(tmp_path_factory.mktemp("small"), *request.param, text)


# checkpoints


@pytest.fixture
def run(tmp_path):
    """An open run folder with a log of three lines."""
    run = Run(tmp_path / "run")
    run.write("metrics.jsonl", "")
    for step in (1, 2, 3):
        storage.append_line(run.path / "metrics.jsonl", json.dumps({"step": step}))
    return run


def keeper_of(run, warnings=None):
    """The keeper of a run's checkpoints."""
    return Keeper(run, (lambda text: None) if warnings is None else warnings.append)


def state_at(step, seed=0):
    """A checkpoint with random tensors."""
    draw = torch.Generator().manual_seed(seed + step)
    state = {name: torch.randn(3, 2, generator=draw) for name in ("u", "v.w")}
    best = {name: value + 1 for name, value in state.items()}
    optimizer = {
        i: {"step": torch.tensor(float(step)), "exp_avg": torch.randn(4, generator=draw)} for i in (0, 1)
    }
    scores = [(1, 10.123456789012345), (2, 20.0)]
    progress = Progress(step, 12.5, 20.0, 2, 1, scores)
    return Checkpoint(progress, state, best, optimizer)


def names(run):
    """The checkpoints of a folder by step."""
    return [int(path.name[11:19]) for path in sorted(run.path.glob("checkpoint-*"))]


def equal(one, two):
    """Whether two checkpoints are the same to the last bit."""
    flat = [checkpoints._pack(x) for x in (one, two)]
    same = flat[0].keys() == flat[1].keys() and all(
        torch.equal(flat[0][key], flat[1][key]) for key in flat[0]
    )
    return same and one.progress == two.progress


def test_a_checkpoint_comes_back_as_it_was(run):
    """Parameters, best parameters, optimiser state and progress, bit by bit."""
    keeper_of(run).save(state_at(3))
    assert equal(keeper_of(run).latest(), state_at(3))


def test_two_checkpoints_are_kept_and_all_go_at_the_end(run):
    """The newest two stay; once the run is finished, and not before, `tidy` removes them and nothing else."""
    keeper = keeper_of(run)
    for step in (1, 2, 3, 4):
        keeper.save(state_at(step))
    run.tidy()
    assert names(run) == [3, 4]
    storage.seal(run.path, run.files)
    run.tidy()
    assert sorted(path.name for path in run.path.iterdir()) == ["manifest.json", "metrics.jsonl"]


def test_the_log_is_cut_to_the_checkpoint(run):
    """Lines written after the checkpoint, whole or torn, are dropped."""
    keeper_of(run).save(state_at(3))
    kept = (run.path / "metrics.jsonl").read_bytes()
    storage.append_line(run.path / "metrics.jsonl", json.dumps({"step": 4}))
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": ')
    keeper_of(run).latest()
    assert (run.path / "metrics.jsonl").read_bytes() == kept


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other run", "log"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(run, damage):
    """Each single fault of the newest checkpoint leads to the older one, with a warning."""
    keeper, log = keeper_of(run), run.path / "metrics.jsonl"
    keeper.save(state_at(2))
    length = log.stat().st_size
    storage.append_line(log, "x" * 9)
    if damage == "other run":
        keeper = keeper_of(Run(run.path.parent / "another"))
        keeper.run.path.mkdir()
        (keeper.run.path / "metrics.jsonl").write_bytes(log.read_bytes())
    keeper.save(state_at(3))
    newest = sorted(keeper.run.path.glob("checkpoint-*"))[-1]
    data = newest.read_bytes()
    if damage == "other run":
        (run.path / newest.name).write_bytes(data)
    elif damage == "log":
        os.truncate(log, length)
    else:
        spoiled = {"flip": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-1], "empty": b""}[damage]
        newest.write_bytes(spoiled)
    warnings = []
    assert equal(keeper_of(run, warnings).latest(), state_at(2))
    assert len(warnings) == 1
    assert "checkpoint-00000003" in warnings[0]
    assert log.stat().st_size == length
    assert names(run) == [2]


def test_without_a_whole_checkpoint_the_run_starts_anew(run):
    """Two damaged checkpoints: both are named, and there is nothing to go on from."""
    for step in (1, 2):
        keeper_of(run).save(state_at(step))
    for path in run.path.glob("checkpoint-*"):
        path.write_bytes(b"no")
    warnings = []
    assert keeper_of(run, warnings).latest() is None
    assert (len(warnings), names(run)) == (2, [])


def test_a_run_goes_on_from_a_step_that_others_have_too(run):
    """Of the steps that count the newest is taken; a newer checkpoint is removed."""
    for step in (2, 3):
        keeper_of(run).save(state_at(step))
    keeper = keeper_of(run)
    assert keeper.steps() == {2, 3}
    assert equal(keeper.latest({1, 2}), state_at(2))
    assert names(run) == [2]
    assert keeper_of(run).latest({1}) is None


def test_checkpoints_keep_their_distance(monkeypatch):
    """One is due after the set time, and after twenty times what the last one cost, whichever is later."""
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    pace, made = Pace(10.0, Stop()), []

    def save():
        made.append(now[0])
        now[0] += 1.5  # a slow disk

    for second in range(0, 100, 2):
        now[0] = max(now[0], float(second))
        pace(save)
    assert made == [10.0, 42.0, 74.0]


def test_a_run_that_leaves_makes_the_others_save(monkeypatch):
    """Though none is due, a save that must be is made, and the next one waits again."""
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: 0.0)
    pace, made = Pace(10.0, Stop()), []
    for must in (False, True, False):
        pace(lambda: made.append(1), must=must)
    assert len(made) == 1


# signals


def test_the_first_signal_waits_for_the_end_of_the_step():
    """In training the signal is kept, and `check` ends the process; a second one ends it at once."""
    stop = Stop()
    with pytest.raises(Stopped) as caught, stop.watched(), stop.after_step():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second signal was ignored")
    assert caught.value.exit_code == 130


def test_outside_of_training_a_signal_ends_at_once():
    """There is no step to finish."""
    stop = Stop()
    with pytest.raises(Stopped) as caught, stop.watched():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the signal was ignored")
    assert caught.value.exit_code == 143


def test_a_signal_in_the_last_step_is_not_forgotten():
    """A signal that no step saw ends the process at the next check, when the run is kept."""
    stop = Stop()
    with stop.watched(), stop.after_step():
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        stop.check()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_asked_to_end_the_run_is_saved_first(run):
    """Though no checkpoint is due, one is written, and then the process ends."""
    pace, keeper = Pace(1000.0, Stop(asked=int(signal.SIGTERM))), keeper_of(run)
    with pytest.raises(Stopped):
        pace(lambda: keeper.save(state_at(3)))
    assert names(run) == [3]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_command_exits_as_asked_and_goes_on_bit_equal(job, tmp_path, number, code):
    """Stopped in the middle of a run, the command says so, and the same command ends as if it never was."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    steps = ["--set", "teachers.optim.steps=300", "--set", "teachers.optim.eval_every=300"]
    command = [*WEFT, "run", str(job), *steps, "--runs"]
    assert subprocess.run([*command, str(whole)], env=ENVIRONMENT, capture_output=True).returncode == 0
    child = subprocess.Popen([*command, str(stopped)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(log.read_bytes().count(b"\n") > 20 for log in stopped.glob("*/metrics.jsonl")))
    child.send_signal(number)
    _, shown = child.communicate(timeout=10)
    assert child.returncode == code
    assert "goes on" in shown
    assert "Traceback" not in shown
    assert len(list(stopped.glob("teachers-*/checkpoint-*"))) == 1
    assert not list(stopped.glob("*/manifest.json"))
    again = subprocess.run([*command, str(stopped)], env=ENVIRONMENT, capture_output=True)
    assert again.returncode == 0
    assert contents(stopped) == contents(whole)


def wait_for(condition, seconds=60.0):
    """Until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# kills


def kill_often(job, folder, kills):
    """What `kill_job` found: that many kills at random moments, each job then run to its end."""
    command = [sys.executable, TESTS / "kill_job.py", job, folder, str(kills), "7"]
    out = subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, timeout=800
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


def test_killed_at_any_moment_nothing_finished_is_lost(each_job, tmp_path):
    """30 kills at random moments per family: no finished run is redone, and all files end bit-equal."""
    found = kill_often(each_job, tmp_path, 30)
    assert (found["kills"], found["runs"]) == (30, 6)
    assert (found["redone"], found["unlike"]) == (0, [])
    assert len(found["middle"]) >= 5  # so many kills hit a run between two checkpoints
    assert all(logged - kept <= 1 for kept, logged in found["middle"])  # at most one interval was lost


def every_method():
    """A row of a small experiment for each method of weft; rates for all that it trains."""
    rows = []
    for name in (name for name in BUILT_IN if name != "given"):  # which asks for a file
        made = known()[name](name=name)
        optim = {"lr": dict.fromkeys(sorted(made.groups), 0.01), "steps": 12, "batch_size": 6}
        one = {"label": name, "method": {"name": name}}
        rows.append({**one, "optim": optim} if made.groups else one)
    return rows


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_method_may_be_killed(tmp_path):
    """One experiment with all methods: the same, wherever its runs are hit."""
    head = SMALL[: SMALL.index("rows:")].replace("dropout: true", "dropout: false")
    text = f"{head}rows: {json.dumps(every_method()).replace('{', '{{').replace('}', '}}')}\n"
    found = kill_often(write_job(tmp_path / "job", "llama", "suffix", text), tmp_path, 60)
    trained = sum("optim" in row for row in every_method())
    assert (found["kills"], found["redone"], found["unlike"]) == (60, 0, [])
    # two teachers, the source, and for each method a run and its scores
    assert found["runs"] >= 3 + 2 * trained
    assert len(found["middle"]) >= 10
    assert all(logged - kept <= 1 for kept, logged in found["middle"])


def test_a_kill_right_after_the_seal_leaves_nothing_behind(job, tmp_path):
    """Checkpoints and blocks that a killed process left in finished runs are gone after the same command."""
    root = tmp_path / "runs"
    assert command("run", job, "--runs", root, "--quiet") == 0
    wanted = contents(root)
    for path in list(root.glob("*/manifest.json")):
        for name in (
            f"checkpoint-00000040-{64 * 'a'}.safetensors",
            f"answers-00000000-gamma-{64 * 'b'}.json",
        ):
            (path.parent / name).write_bytes(b"left")
    assert command("run", job, "--runs", root, "--quiet") == 0
    assert contents(root) == wanted


# disks that fail


class Killed(BaseException):
    """Stands for the end of the process: nothing may touch the disk after it."""


class Disk:
    """The system calls of `weft.storage`, one of which fails.

    Args:
        place: number of the call that fails; none fails where it is not reached.
        fault: an error number, `kill` before or after the call, or `short` for half a write and a full disk.
    """

    CALLS = ("makedirs", "open", "write", "fsync", "close", "replace", "unlink", "truncate")

    def __init__(self, place=-1, fault=None):
        self.place, self.fault, self.count, self.dead = place, fault, 0, False

    def install(self, patch):
        """Stand between storage and the system."""
        stand = type("os", (), {**vars(os)})
        for name in self.CALLS:
            setattr(stand, name, staticmethod(self.around(name, getattr(os, name))))
        for module in (durable, locks, sealed):
            patch.setattr(module, "os", stand)

    def around(self, name, call):
        """A call that may fail."""

        def wrapped(*arguments, **keywords):
            if self.dead:
                raise Killed
            mine, self.count = self.count == self.place, self.count + 1
            if not mine:
                return call(*arguments, **keywords)
            if self.fault == "short" and name == "write":
                call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise OSError(errno.ENOSPC, "no space")
            if isinstance(self.fault, int) or self.fault == "short":
                number = self.fault if isinstance(self.fault, int) else errno.ENOSPC
                if name == "close":
                    call(*arguments)
                raise OSError(number, os.strerror(number))
            if self.fault == "killed after":
                call(*arguments, **keywords)
            self.dead = True
            raise Killed

        return wrapped


@pytest.fixture(scope="module")
def teacher(job):
    """A teacher's configuration, of three steps."""
    steps = {"teachers.optim.steps": 3, "teachers.optim.eval_every": 3, "teachers.optim.micro_batch": 6}
    config = load_config(job, Experiment, steps)
    plan = jobs.plan(config, jobs.specs_of(config), lambda run: f"{run.stage}-{id(run)}")
    return next(one.config for one in plan.jobs if isinstance(one.config, TeacherRun))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace whose model is loaded once; its root is set by each test."""
    return Workspace(tmp_path_factory.mktemp("runs"), save_seconds=0.0, keep_texts=False)


SLOW_FAULTS = [pytest.param(number, marks=pytest.mark.slow) for number in (errno.EIO, errno.EACCES)]


@pytest.mark.timeout(900)  # some hundred runs
@pytest.mark.parametrize("fault", ["killed", "killed after", errno.ENOSPC, "short", *SLOW_FAULTS])
def test_every_disk_operation_may_fail(fault, teacher, workspace, tmp_path, monkeypatch):
    """Each system call of a run, one after the other, fails.

    A fault is a ResourceError with exit code 5; nothing that was finished before changes; the same run goes
    on and ends with the files of one that never failed.
    """
    monkeypatch.setattr(checkpoints, "SHARE", 0)
    workspace.root = tmp_path / "whole"
    disk = Disk()
    with monkeypatch.context() as patch:
        disk.install(patch)
        stages.perform(teacher, workspace)
    wanted, calls = contents(workspace.root), disk.count
    assert len(wanted) == 4  # config, log, prompts, result
    assert calls > 100
    for place in range(calls):
        workspace.root = tmp_path / str(place)
        fail_once(teacher, workspace, Disk(place, fault), monkeypatch)
        assert contents(workspace.root) == wanted, place


def fail_once(config, workspace, disk, monkeypatch):
    """A run on a disk that fails, and the same run again on a good one."""
    sealed = None
    with monkeypatch.context() as patch:
        disk.install(patch)
        error = error_of(config, workspace)
    if isinstance(error, ResourceError):
        assert (error.exit_code, bool(error.where), bool(error.fix)) == (5, True, True)
    else:
        assert error is None or isinstance(error, Killed)
    run = workspace.run(config)
    if run.done:
        assert storage.verify(run.path) == []
        sealed = (run.path / "manifest.json").read_bytes()
    stages.perform(config, workspace)
    assert storage.verify(run.path) == []
    if sealed is not None:
        assert (run.path / "manifest.json").read_bytes() == sealed


def error_of(config, workspace):
    """What a run ended with; none if it is whole."""
    try:
        stages.perform(config, workspace)
    except (Killed, ResourceError) as error:
        return error
    return None


def test_a_read_only_folder_is_said_with_exit_code_5(teacher, job, tmp_path, capsys):
    """A file stands where the folder of runs should be: exit code 5 and what to do."""
    (tmp_path / "runs").write_bytes(b"")
    assert command("run", job, "--runs", tmp_path / "runs") == 5
    shown = capsys.readouterr().err
    assert "cannot write" in shown
    assert "fix:" in shown


def test_only_storage_opens_files_of_runs_for_writing(teacher, tmp_path):
    """In a process that trains, every file under the runs is opened by storage or by its lock."""
    code = f"""
import sys, traceback
from pathlib import Path
from weft import stages
from weft.runs.config import TeacherRun
from weft.runs.workspace import Workspace
root, strangers = {str(tmp_path / "runs")!r}, []
def look(event, arguments):
    if event == "open" and str(arguments[0]).startswith(root) and arguments[2] & 3:
        frames = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(sys._getframe(1))]
        if not "weft/storage/" in frames[0] and "filelock" not in frames[0]:
            strangers.append((str(arguments[0]), frames[0]))
sys.addaudithook(look)
config = TeacherRun.model_validate_json({teacher.model_dump_json()!r})
run = stages.perform(config, Workspace(Path(root)))
assert run.done
print(strangers)
"""
    out = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1:] == ["[]"], out.stdout + out.stderr


# what a machine chose


def test_the_number_format_is_chosen_once(teacher, tmp_path, monkeypatch):
    """A run goes on in the number format it was begun in, though the machine now would choose another."""
    config = teacher.model_copy(update={"base": teacher.base.model_copy(update={"dtype": "auto"})})
    asked = []

    def choose(dtype):
        def probe(device):
            asked.append(dtype)
            return Precision(dtype, {dtype: 1.0})

        return probe

    monkeypatch.setattr("weft.models.machine.probe", choose("bfloat16"))
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:  # noqa: PT012
        patch.setattr(course.Course, "_judge", interrupt)
        stages.perform(config, Workspace(tmp_path))
    monkeypatch.setattr("weft.models.machine.probe", choose("float32"))
    run = stages.perform(config, Workspace(tmp_path))
    assert asked == ["bfloat16"]
    assert json.loads((run.path / "env.json").read_text("utf-8"))["dtype"] == "bfloat16"


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_folder_of_another_run_is_refused(teacher, tmp_path):
    """An unfinished folder under the run's name that belongs to another configuration is not touched."""
    workspace = Workspace(tmp_path)
    run = workspace.run(teacher)
    storage.write_json(run.path / "env.json", {"identity": "0" * 64, "dtype": "float32"})
    with pytest.raises(ArtifactError) as caught:
        stages.perform(teacher, workspace)
    assert (caught.value.code, caught.value.where) == ("C23", str(run.path))
    assert "000000000000" in caught.value.cause


# several at once


@pytest.mark.parametrize("number", range(20))
def test_a_second_start_stops_and_names_the_first(job, tmp_path, number):
    """The second process on one experiment ends within two seconds, and says who holds it."""
    with storage.locked(tmp_path / "runs" / ".experiments" / "small"):
        start = time.monotonic()
        command = [*WEFT, "run", str(job), "--runs", str(tmp_path / "runs")]
        out = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
        seconds = time.monotonic() - start
    assert out.returncode == 5, out.stderr
    assert f"process {os.getpid()} on" in out.stderr
    assert seconds < 10  # at once, not when the first has ended; the machine may be busy
    assert not list((tmp_path / "runs").glob("*/config.yaml"))


def test_a_second_start_of_one_run_stops_the_whole_launch(job, tmp_path):
    """Another experiment that needs a run which is being made: the launch ends there, with who makes it."""
    workspace = Workspace(tmp_path)
    config = load_config(job, Experiment, {})
    plan = jobs.plan(config, jobs.specs_of(config), workspace.run_id)
    with storage.locked(workspace.run(plan.jobs[0].config).path), pytest.raises(ResourceError) as caught:
        execution.launch(plan, workspace)
    assert f"process {os.getpid()} on" in caught.value.cause
    assert runs.finished(tmp_path) == []


def test_a_failed_teacher_is_named_and_alone_done_again(job, tmp_path, monkeypatch):
    """One teacher meets a loss that is no number: the rest is finished, and the next start does it alone."""
    workspace = Workspace(tmp_path)
    config = load_config(job, Experiment, {})
    plan = jobs.plan(config, jobs.specs_of(config), workspace.run_id)
    bad, whole = plan.teachers["alpha"], stages.teachers

    def fails(one, space):
        if space.run_id(one) == bad:
            raise NumericError("the loss is nan", where="step 3")
        return whole(one, space)

    with pytest.raises(NumericError), monkeypatch.context() as patch:  # noqa: PT012
        patch.setattr(stages, "teachers", fails)
        execution.launch(plan, workspace)
    before = {run.id: (run.path / "manifest.json").read_bytes() for run in runs.finished(tmp_path)}
    assert plan.teachers["beta"] in before
    assert bad not in before
    execution.launch(plan, workspace)
    after = {run.id: (run.path / "manifest.json").read_bytes() for run in runs.finished(tmp_path)}
    assert {job.id for job in plan.jobs} == set(after)
    assert before.items() <= after.items()


def test_compared_files_are_those_of_a_run():
    """The kill test compares every kind of file that a run has, but for times and the machine."""
    kinds = {line.split()[0] for line in (folder.__doc__ or "").splitlines() if line.startswith("      ")}
    assert kinds - set(COMPARED) == {"env.json", "timing.json", "manifest.json"}


def test_a_run_finished_meanwhile_is_not_done_again(teacher, tmp_path, monkeypatch):
    """Another process seals the run after this one has looked, and before it holds the folder."""
    whole, workspace = stages.teachers, Workspace(tmp_path)

    def late(config, space):
        monkeypatch.setattr(stages, "teachers", whole)
        stages.perform(config, space)  # the other process
        return whole(config, space)

    monkeypatch.setattr(stages, "teachers", late)
    with pytest.raises(ResourceError, match="finished this run meanwhile"):
        stages.perform(teacher, workspace)
    run = workspace.run(teacher)
    assert storage.verify(run.path) == []


@pytest.mark.parametrize("damage", [False, True], ids=["whole", "damaged"])
def test_an_evaluation_goes_on_from_its_blocks(teacher, tmp_path, monkeypatch, damage):
    """Stopped after two of four blocks, an evaluation answers the other two, and ends bit-equal; a damaged
    block is answered again."""
    monkeypatch.setattr(answer_blocks, "BLOCK", 3)
    roots, asked, stop_at = (tmp_path / "whole", tmp_path / "stopped"), [], -1
    whole = answering.answer

    def count(*given, **named):
        asked.append(len(given[2]))
        if len(asked) == stop_at:
            raise KeyboardInterrupt
        return whole(*given, **named)

    monkeypatch.setattr(answering, "answer", count)
    configs = []
    for root in roots:
        parent = stages.perform(teacher, Workspace(root))
        fields = teacher.model_dump(include={"base", "prompt", "limits", "tasks", "seed"})
        configs.append(EvaluateRun(run=parent.id, **fields))
    asked.clear()
    run = stages.perform(configs[0], Workspace(roots[0]))
    assert asked == [3, 3, 3, 3]
    asked.clear()
    stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        stages.perform(configs[1], Workspace(roots[1]))
    blocks = sorted(roots[1].glob("*/answers-*.json"))
    assert len(blocks) == 2
    if damage:
        blocks[0].write_bytes(b"[]")
    asked.clear()
    stop_at = -1
    again = stages.perform(configs[1], Workspace(roots[1]))
    assert asked == [3] * (3 if damage else 2)
    assert again.lines("predictions.jsonl") == run.lines("predictions.jsonl")
    assert contents(roots[1]) == contents(roots[0])
    assert not list(roots[1].glob("*/answers-*"))


def test_the_last_step_is_kept_though_the_end_was_asked_for(teacher, tmp_path, monkeypatch):
    """A signal after the last step waits until the run is sealed."""
    workspace = Workspace(tmp_path)
    whole = runner._summary

    def ask(*given):
        workspace.stop._answer(signal.SIGTERM, None)
        return whole(*given)

    monkeypatch.setattr(runner, "_summary", ask)
    with pytest.raises(Stopped):
        stages.perform(teacher, workspace)
    assert workspace.run(teacher).done


SHORT = RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [MemoryError(), SHORT, torch.OutOfMemoryError()])
def test_too_little_memory_is_a_resource_error(tmp_path, error):
    """Whatever says that memory is short becomes R17 with its remedy; other faults stay what they are."""

    def short(error):
        with runner.enough_memory(Run(tmp_path)):
            raise error

    with pytest.raises(ResourceError, match="not enough memory") as caught:
        short(error)
    assert (caught.value.code, caught.value.exit_code) == ("R17", 5)
    with pytest.raises(RuntimeError, match="shapes"):
        short(RuntimeError("shapes do not fit"))


def test_the_rates_of_a_machine_are_measured_once_for_a_folder_of_runs(teacher, tmp_path, monkeypatch):
    """Runs that begin in another process have the number format of those before them."""
    config = teacher.model_copy(update={"base": teacher.base.model_copy(update={"dtype": "auto"})})
    monkeypatch.setattr("weft.models.machine.probe", lambda device: Precision("bfloat16", {"bfloat16": 1.0}))
    stages.perform(config, Workspace(tmp_path))
    monkeypatch.setattr("weft.models.machine.probe", lambda device: pytest.fail("measured again"))
    other = config.model_copy(update={"seed": 1})
    assert Workspace(tmp_path).dtype(other) == "bfloat16"


GRADIENT = """
import sys, torch
from weft.prompts.bank import PromptBank, SoftPrompts
torch.set_num_threads(2)
draw = torch.Generator().manual_seed(0)
names = ("a", "b")
parts = [torch.randn(shape, generator=draw) for shape in ((8, 4096), (2, 8, 1), (2, 1, 4096))]
bank = PromptBank(*parts, names)
for module in (SoftPrompts(torch.randn(2, 8, 4096, generator=draw), names), bank):
    weight, seen = torch.randn(24, 8, 4096, generator=draw), set()
    for _ in range(30):
        module.zero_grad()
        (module(torch.arange(24) % 2) * weight).sum().backward()
        seen.add(b"".join(one.grad.numpy().tobytes() for one in module.parameters()))
    assert len(seen) == 1, (type(module).__name__, len(seen))
"""


def test_gradients_of_prompts_are_the_same_on_two_threads():
    """Rows of one task add up in one order, whatever the threads do, so that a run comes again bit by bit."""
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "2"}
    out = subprocess.run([sys.executable, "-c", GRADIENT], env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
