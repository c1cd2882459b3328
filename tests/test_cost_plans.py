"""Plans: seconds from what was measured, orders on workers, and whole experiments."""

import itertools
import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import Future
from dataclasses import replace

import pytest
from conftest import build_backbone, build_reader
from test_chat import chat_tokenizer
from test_encoders import save_encoder
from tiny_job import EXPERIMENT, FULL, SHORT, command, write_job

from weft.data.batch import by_length
from weft.errors import ArtifactError
from weft.evaluation.view_heads import field_views
from weft.evaluation.views import Views
from weft.experiments import execution, jobs
from weft.experiments.costs import machine, measuring
from weft.experiments.costs.machine import Curve, Machine, Measured, Times
from weft.experiments.costs.plan import _works, costs
from weft.experiments.costs.schedule import Item, schedule
from weft.experiments.costs.texts import Texts, different, longest_shares
from weft.experiments.spreading import Spreading
from weft.methods.weft import Weft
from weft.runs.workspace import Workspace
from weft.tasks import Example

FEW = """
  - {{label: majority, method: {{name: majority}}}}
  - label: MPT
    method: {{name: mpt, start: nearest}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
  - label: SPoT
    method: {{name: prompt_tuning, start: nearest}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}"""
ROOM = 4096  # tokens of a step that fill the made-up device
METHODS = """
  - {{label: features, method: {{name: frozen_features}}}}
  - {{label: words, method: {{name: tfidf}}}}
  - label: ULPT
    method: {{name: ulpt, rank: 3}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
  - label: DePT
    method: {{name: dept, rank: 2, length: 3}}
    optim: {{lr: {{prompt: 0.1, offsets: 0.1}}, steps: 2, batch_size: 6}}
  - label: ATTEMPT
    method: {{name: attempt, bottleneck: 4}}
    optim: {{lr: {{prompt: 0.1, attention: 0.1}}, steps: 2, batch_size: 6}}
  - label: BitFit
    method: {{name: bitfit}}
    optim: {{lr: {{bias: 0.1}}, steps: 2, batch_size: 6}}
"""


def made_up(step=0.0, read=0.0, **changes):
    """A machine with a base model on which a pass takes 1 ms, and a second for 1e9 operations more.

    What the first one of a shape takes beyond that is given.
    """
    curve = Curve(points=((1e6, 2e-3), (1e9, 1.001)))
    fresh = {"fresh_step": step, "fresh_read": read}
    frozen = Times(step=curve, read=curve, write=curve, **fresh, train=0.5, evaluate=0.25)
    of_base = {"model": "base", "choices": {"dtype": "float32"}, "load": 2.0, "frozen": frozen}
    measured = Measured(**of_base, kept=1000.0, files=3000.0, line=200.0)
    facts = {"host": "there", "processor": "one", "device": "cpu", "threads": 1, "start": 8.0}
    return Machine(**{**facts, "part_tokens": 512, "read_tokens": 256, **changes}), measured


def test_seconds_lie_on_lines_between_measured_passes():
    """Before the first pass on the line to nothing; beyond the last one at its rate."""
    curve = Curve(points=((3e9, 0.7), (1e9, 0.3), (5e9, 1.5)))
    assert [curve.seconds(x * 1e9) for x in (0, 1, 2, 3, 4, 5, 10)] == pytest.approx(
        [0.1, 0.3, 0.5, 0.7, 1.1, 1.5, 3.0]
    )


def test_models_of_their_own_take_their_own_time():
    """As measured; what was not measured takes as long as the frozen model, and is loaded besides."""
    _, measured = made_up()
    slow = Times(
        **{name: Curve(points=((1e6, 1.0), (1e9, 4.0))) for name in ("step", "read", "write")},
        fresh_step=3,
        fresh_read=2,
        train=7,
        evaluate=6,
    )
    measured = measured.model_copy(update={"own": {"added": slow}})
    assert measured.times(None) is measured.frozen
    assert measured.times("added") is slow
    full = measured.times("full")
    assert (full.train, full.evaluate) == (2.5, 2.25)
    assert [full.seconds(kind, 1e9) for kind in ("step", "taught", "read")] == pytest.approx([1.001] * 3)
    assert [slow.fresh(kind) for kind in ("step", "taught", "read", "write")] == [3, 3, 2, 0]


def test_noise_makes_no_work_free():
    """A larger pass that was measured faster takes as long as the smaller one."""
    curve = Curve(points=((1e9, 0.4), (2e9, 0.3), (4e9, 0.9)))
    assert [curve.seconds(x * 1e9) for x in (0.5, 1.5, 2, 3)] == pytest.approx([0.4, 0.4, 0.4, 0.65])


def test_a_machine_is_kept_and_read_again(tmp_path):
    """As it was; what is no such file, and a base model that was not measured, are told."""
    one, measured = made_up()
    one, path = one.model_copy(update={"bases": {"abc-suffix": measured}}), tmp_path / "m" / "one.json"
    machine.write(one, path)
    assert machine.read(path) == one
    assert one.base("abc-suffix", "base", path) == measured
    with pytest.raises(ArtifactError, match="nothing was measured of the base model 'other'"):
        one.base("abc-prefix", "other", path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "threads": 0}))
    with pytest.raises(ArtifactError, match=r"\(threads: "):
        machine.read(path)
    with pytest.raises(ArtifactError, match="no such file"):
        machine.read(tmp_path / "none.json")


def test_items_wait_for_workers_and_for_each_other():
    """By hand: two workers that take a second to start."""
    items = [Item(4.0), Item(2.0), Item(3.0, (1,)), Item(1.0, (0, 2)), Item(2.0)]
    found = schedule(items, 2, 1.0)
    assert found.ends == (5.0, 3.0, 6.0, 7.0, 7.0)
    assert (found.makespan, found.work, found.workers) == (7.0, 14.0, 2)
    assert (found.path, found.path_seconds) == ((1, 2, 3), 7.0)
    assert schedule(items, 1, 1.0).makespan == 13.0
    assert schedule(items, 9, 1.0).workers == 3
    assert schedule([], 4, 1.0).makespan == 0.0


def drawn(seed):
    """Items with needs among those before them."""
    draw = random.Random(seed)
    return [
        Item(
            draw.choice([0.5, 1.0, 3.0, 8.0]), tuple(sorted(draw.sample(range(i), min(i, draw.randrange(3)))))
        )
        for i in range(14)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_is_better_than_its_bounds(seed):
    """Not below the longest chain nor the work, and within Graham's bound of them; needs are kept."""
    items = drawn(seed)
    for workers in (1, 2, 3, 5):
        found = schedule(items, workers)
        least = max(found.path_seconds, found.work / workers)
        assert least - 1e-9 <= found.makespan <= found.work / workers + found.path_seconds + 1e-9
        begins = [end - item.seconds for end, item in zip(found.ends, items, strict=True)]
        for begin, item in zip(begins, items, strict=True):
            assert all(found.ends[need] <= begin + 1e-9 for need in item.needs)
        for moment in begins:
            spans = zip(begins, found.ends, strict=True)
            assert sum(begin <= moment < end - 1e-9 for begin, end in spans) <= workers
    assert schedule(items, len(items)).makespan == pytest.approx(found.path_seconds)


class Clocked:
    """An executor in a time of its own: futures end in the order in which a clock says."""

    def __init__(self, seconds, slots):
        self.seconds, self.slots, self.now, self.going, self.ends = seconds, slots, 0.0, [], {}

    def submit(self, order):
        name = order.configs[0].seed
        self.going.append((self.now + self.seconds[name], name, found := Future()))
        return found

    def wait(self, futures, timeout, return_when):
        """Let the next one end."""
        self.going.sort(key=lambda one: one[:2])
        self.now, name, future = self.going.pop(0)
        self.ends[name] = self.now
        future.set_result({str(name): None})
        return {future}, set()


@pytest.mark.parametrize("seed", range(8))
def test_the_plan_is_what_spreading_does(seed, tmp_path, monkeypatch):
    """Orders end at the same times as under the code that gives them to real workers."""
    from test_executors import config_of

    items = drawn(seed)
    clocked = Clocked([item.seconds + 1e-6 * i for i, item in enumerate(items)], 3)
    monkeypatch.setattr("weft.experiments.spreading.wait", clocked.wait)
    groups = [
        [jobs.Job(str(i), config_of(chr(i)), tuple(map(str, item.needs)), str(i))]
        for i, item in enumerate(items)
    ]
    Spreading(groups, Workspace(tmp_path), clocked, lambda job, fault: None).run()
    ends = [clocked.ends[i] for i in range(len(items))]
    exact = [Item(clocked.seconds[i], item.needs) for i, item in enumerate(items)]
    assert schedule(exact, 3).ends == pytest.approx(ends)


def test_the_longest_of_some_drawn_texts():
    """Its mean over all ways to draw, counted one by one."""
    lengths = (2, 3, 7)
    texts = Texts([Example("", "")] * 3, lengths, (1, 1, 1), (), 1.0)
    ways = [max(some) for some in itertools.product(lengths, repeat=4)]
    assert texts.longest_of(4.0) == pytest.approx(sum(ways) / len(ways))


def test_batches_of_different_lengths():
    """How many there are among some, in the mean over all ways to draw them; counted one by one."""
    lengths = (2, 3, 3, 7)
    batches = [max(some) for some in itertools.product(lengths, repeat=2)]
    counts = [len(set(some)) for some in itertools.product(batches, repeat=3)]
    shares = longest_shares(lengths, 2.0)
    assert shares == pytest.approx({length: batches.count(length) / len(batches) for length in (2, 3, 7)})
    assert different(shares.values(), 3.0) == pytest.approx(sum(counts) / len(counts))
    assert different(shares.values(), 0.0) == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_texts_are_padded_as_batches_of_like_length_are(size):
    """Against the batches themselves."""
    lengths = (2, 3, 3, 5, 8, 9, 20)
    texts = Texts([Example("", "")] * 7, lengths, (1,) * 7, (), 1.0)
    padded = [
        len(batch) * max(lengths[i] for i in batch) for batch in by_length([[0] * n for n in lengths], size)
    ]
    assert texts.padded(size) == pytest.approx(sum(padded) / 7)


def test_rows_of_few_shots_are_counted():
    """As many of each answer as there are, or so many in all."""
    rows = [Example("", answer) for answer in "aaaab"]
    texts = Texts(rows, (1,), (1,), (), 1.0)
    assert texts.few(3, None, closed=True) == 4
    assert texts.few(3, None, closed=False) == 3
    assert texts.few(None, 2, closed=True) == 2
    assert texts.few(None, None, closed=True) == 5


@pytest.fixture(scope="module", params=["llama-suffix", pytest.param("t5-prefix", marks=pytest.mark.slow)])
def ran(request, tmp_path_factory):
    """An experiment with every kind of method, its trainings as they were run, and a plan of before."""
    family, position = request.param.split("-")
    text = SHORT + FEW + "\n" + FULL + METHODS
    path = write_job(tmp_path_factory.mktemp("plan"), family, position, text)
    workspace = Workspace(path.parent / "runs")
    experiment = jobs.load_experiment(path, {})
    plan = jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
    found = costs(plan, workspace, *made_up(part_tokens=ROOM), workers=2)
    plan = replace(plan, jobs=tuple(job for job in plan.jobs if job.config.stage != "evaluate"))
    execution.launch(plan, workspace)
    return plan, workspace, found


def test_trained_numbers_are_those_that_are_trained(ran):
    """Of every method, without any of its numbers being there."""
    plan, workspace, found = ran
    by_id = {one.id: one for one in found.runs}
    for job in plan.jobs:
        result = workspace.run(job.config).result()
        if result["steps"]:
            assert by_id[job.id].checkpoints == 2 * 4 * 4 * result["trained_parameters"]


def test_disk_is_what_runs_keep(ran):
    """Tensors and their headers, what the made-up machine says of small files, and texts that are kept."""
    plan, workspace, found = ran
    texts = sum(file.stat().st_size for file in workspace.root.rglob(".texts/**/*") if file.is_file())
    tensors = {"prompts.safetensors", "weights.safetensors"}
    by_id = {one.id: one for one in found.runs}
    for job in plan.jobs:
        one = by_id[job.id]
        files = {file.name: file.stat().st_size for file in workspace.run(job.config).path.iterdir()}
        kept = sum(size for name, size in files.items() if name in tensors)
        if job.config.stage == "adapt" and job.config.optim is not None:
            assert kept - 3000 <= one.disk <= kept + 4000 + texts


def test_runs_that_share_a_batch_are_shown(ran):
    """Those that `groups` puts together; their operations are the same as alone, in fewer passes."""
    plan, workspace, found = ran
    new = Workspace(workspace.root / "new")
    groups = [[job.id for job in group] for group in execution.groups(plan.jobs, new, ROOM)]
    batches = [[one.id for one in found.runs if one.batch == number] for number in range(len(groups))]
    assert batches == groups
    assert max(one.together for one in found.runs) > 1
    alone = costs(plan, new, *made_up(part_tokens=1), workers=1)
    assert {one.together for one in alone.runs} == {1}
    beside = [one for one in found.runs if one.stage != "evaluate"]
    for one, other in zip(beside, alone.runs, strict=True):
        assert one.operations == pytest.approx(other.operations)
    assert sum(one.seconds for one in beside) < sum(one.seconds for one in alone.runs)


def test_who_meets_a_shape_first_pays_for_it(ran):
    """Runs of like steps together as many as they have batches of different lengths, in the mean."""
    plan, workspace, _ = ran
    new = Workspace(workspace.root / "new")
    none, steps = (
        [one.seconds for one in costs(plan, new, *made_up(fresh, part_tokens=1), workers=1).runs]
        for fresh in (0.0, 1.0)
    )
    more = {job.id: two - one for job, one, two in zip(plan.jobs, none, steps, strict=True)}
    reader = _works(plan, new, made_up()[0]).reader
    alike = defaultdict(list)
    for job in plan.jobs:
        if job.config.stage == "adapt" and job.config.method.name in ("prompt_tuning", "mpt"):
            alike[*(spec.name for spec in job.config.tasks), job.config.optim.batch_size].append(job)
    assert max(map(len, alike.values())) > 1
    for (*_, size), group in alike.items():
        texts, _ = reader.training(group[0].config, *group[0].config.tasks)
        draws = sum(job.config.optim.steps for job in group)
        expected = different(longest_shares(texts.lengths, float(size)).values(), float(draws))
        assert sum(more[job.id] for job in group) == pytest.approx(expected)
        assert more[group[0].id] > more[group[-1].id]


def test_a_split_that_was_answered_has_no_new_shapes(tmp_path):
    """Each target is answered under no prompt and under ones of four tokens: two batches are new."""
    path = write_job(tmp_path, "llama", "suffix", EXPERIMENT)
    workspace, experiment = Workspace(tmp_path / "runs"), jobs.load_experiment(path, {})
    plan = jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
    none, reads = (
        {one.id: one.seconds for one in costs(plan, workspace, *made_up(read=read), workers=1).runs}
        for read in (0.0, 1.0)
    )
    new = Counter()
    for job in plan.jobs:
        if job.config.stage == "evaluate":
            new[job.config.tasks[0].name] += round(reads[job.id] - none[job.id], 6)
    assert new == dict.fromkeys(experiment.targets, 2)


def test_what_frozen_readers_read(tmp_path):
    """Texts bare, under prompts and by an encoder; each once, by whoever comes first."""
    rows = """
  - {{label: "weft", method: {{name: weft, encoders: [ENCODER]}}}}
  - {{label: "bare", method: {{name: weft, sources: false, encoders: [ENCODER]}}}}
  - {{label: "sentences", method: {{name: sentence_embeddings, encoder: ENCODER}}}}
  - {{label: "features", method: {{name: frozen_features}}}}
""".replace("ENCODER", str(save_encoder(tmp_path / "encoder")))
    path = write_job(tmp_path, "llama", "suffix", EXPERIMENT.partition("rows:")[0] + "rows:" + rows)
    workspace, experiment = Workspace(tmp_path / "runs"), jobs.load_experiment(path, {})
    plan = jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
    found = {one.id: one for one in costs(plan, workspace, *made_up(), workers=1).runs}
    done = {
        (job.config.stage, job.label.split(" · ")[1], job.config.seed): found[job.id]
        for job in plan.jobs
        if job.config.stage in ("adapt", "evaluate") and job.config.tasks[0].name == "gamma"
    }
    for stage in ("adapt", "evaluate"):
        assert done[stage, "weft", 0].operations > 0
        assert {done[stage, row, 0].operations for row in ("bare", "sentences", "features")} == {0}
        assert done[stage, "weft", 0].fits
    assert done["evaluate", "weft", 1].operations == 0
    assert 0 <= done["adapt", "weft", 1].operations < done["adapt", "weft", 0].operations


@pytest.mark.parametrize("opens", [True, False])
def test_fields_are_read_once_more(tmp_path, opens):
    """Where whole texts were read before, a text of one field costs the encoder what the whole text did."""
    rows = f"""
  - {{{{label: "features", method: {{{{name: frozen_features}}}}}}}}
  - {{{{label: "sentences", method: {{{{name: sentence_embeddings, encoder: ENCODER}}}}}}}}
  - {{{{label: "weft", method: {{{{name: weft, sources: false, encoders: [ENCODER], opens: {opens}}}}}}}}}
""".replace("ENCODER", str(save_encoder(tmp_path / "encoder")))
    path = write_job(tmp_path, "llama", "suffix", EXPERIMENT.partition("rows:")[0] + "rows:" + rows)
    workspace, experiment = Workspace(tmp_path / "runs"), jobs.load_experiment(path, {})
    plan = jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
    found = {one.id: one.operations for one in costs(plan, workspace, *made_up(), workers=1).runs}
    first = {
        job.label.split(" · ")[1]: found[job.id]
        for job in plan.jobs
        if job.config.stage == "adapt" and job.config.seed == 0 and job.config.tasks[0].name == "gamma"
    }
    assert first["sentences"] > 0
    assert first["weft"] == (first["sentences"] if opens else 0)


@pytest.mark.parametrize(
    ("method", "fields", "readers"),
    [
        (Weft(), 1, ("minilm",)),
        (Weft(), 2, ("minilm",)),
        (Weft(), 4, ()),
        (Weft(encoders=()), 1, ()),
        (Weft(encoders=()), 3, ("",)),
        (Weft(encoders=(), compare=False), 3, ()),
    ],
)
def test_which_models_read_fields(method, fields, readers):
    """Those that have views of them."""
    assert method.field_readers(fields) == readers
    form = " ".join(f"{{f{i}}}" for i in range(fields))
    models = {name: build_reader("mpnet") for name in method.encoders}
    views = Views(build_backbone("llama-suffix"), {}, models)
    names = field_views(views, form, opens=method.opens, compares=method.compare).names
    assert tuple(dict.fromkeys(view.encoder for view in names)) == readers


def test_what_is_done_costs_nothing(ran):
    """A plan of finished runs is empty."""
    plan, workspace, _ = ran
    found = costs(plan, workspace, *made_up(), workers=3)
    assert (found.runs, found.done, found.schedule.makespan) == ((), len(plan.jobs), 0.0)


def test_the_command_tells_people_and_programs(tmp_path, capsys, monkeypatch):
    """On a machine that a file tells of; the base model is read in outline alone."""
    monkeypatch.setattr("weft.models.load_language_model", lambda *a, **kw: pytest.fail("weights were read"))
    path = write_job(tmp_path, "llama", "suffix", EXPERIMENT)
    there = file_of_a_machine(path, tmp_path)
    on = ("plan", path, "--runs", tmp_path / "runs", "--machine", there, "--workers", 3)
    assert command(*on) == 0
    shown = capsys.readouterr().out
    assert "teachers > teacher alpha" in shown
    assert "2 together" in shown
    assert "workers   3:" in shown
    assert "there, one, cpu" in shown
    assert command(*on, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["makespan"] >= told["path_seconds"] > 10.0
    assert told["work"] >= sum(run["seconds"] for run in told["runs"])
    assert command(*on[:-1], 0) == 2
    assert "give 1 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_this_machine_is_measured_once(tmp_path, monkeypatch, capsys):
    """With models that rows have for themselves, one kind after the other; then the file is read.

    A file of another version is no hindrance: it is made anew.
    """
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))

    path = write_job(tmp_path, "llama", "suffix", EXPERIMENT)
    plain = path.read_text()

    def plan(rows):
        path.write_text(plain + rows.format())
        assert command("plan", path, "--runs", tmp_path / "runs", "--json") == 0
        return json.loads(capsys.readouterr().out)

    plan("")
    [file] = (tmp_path / "cache" / "machines").glob("*.json")
    file.write_text(file.read_text().replace('"format": 3', '"format": 1'))
    plan(FULL)
    plan(LORA)
    known = machine.read(file)
    [base] = known.bases.values()
    assert known.start > 0
    assert min(base.load, base.kept, base.files, base.line) > 0
    assert base.own.keys() == {"full", "added"}
    assert all(
        len(curve.points) >= 3 for one in (base.frozen, *base.own.values()) for curve in (one.step, one.read)
    )
    assert base.frozen.taught is not None
    monkeypatch.setattr(measuring, "base", lambda *a, **kw: pytest.fail("measured again"))
    assert plan(FULL + LORA) == plan(FULL + LORA)
    assert list((tmp_path / "runs").glob(".measure*")) == []


@pytest.mark.slow
def test_a_thousand_tasks_on_a_hundred_nodes(tmp_path):
    """A generated experiment, planned by the program in a process of its own; no schedule does better."""
    path, many = write_job(tmp_path, "llama", "suffix", EXPERIMENT), [f"task-{i}" for i in range(1000)]
    text = (tmp_path / "tasks" / "gamma.yaml").read_text()
    for name in many:
        (tmp_path / "tasks" / f"{name}.yaml").write_text(text.replace("name: gamma", f"name: {name}"))
    head = path.read_text().partition("rows:")[0].replace("[gamma, delta]", f"[{', '.join(many)}]")
    path.write_text(head.replace("seeds: [0, 1]", "seeds: [0]") + MPT)
    there = file_of_a_machine(path, tmp_path)
    program = [sys.executable, "-m", "weft", "plan", str(path), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(
        [*program, "--machine", str(there), "--workers", "100", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert Counter(run["stage"] for run in told["runs"]) == {
        "teachers": 2, "source": 1, "adapt": 1000, "evaluate": 1000,
    }  # fmt: skip
    seconds = sum(run["seconds"] for run in told["runs"])
    assert told["work"] == pytest.approx(seconds + 100 * START)
    least = max(told["work"] / 100, told["path_seconds"])
    assert least <= told["makespan"] <= told["work"] / 100 + told["path_seconds"]
    assert told["busy"] == 100


LORA = """  - label: LoRA
    method: {{name: lora}}
    optim: {{lr: {{lora: 0.001}}, steps: 2, batch_size: 6}}
"""
START = 10.0  # seconds of a worker of `made_up`
MPT = """rows:
  - label: MPT
    method: {name: mpt, start: mean}
    optim: {lr: {shared: 0.1, factors: 0.1}, steps: 40, batch_size: 16}
"""


def test_a_chats_template_is_read_too(tmp_path, capsys):
    """Whatever reads texts has more to read where they are turns of a chat."""
    trains = "optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}"
    text = f"{SHORT}  - {{{{label: PT, method: {{{{name: prompt_tuning}}}}, {trains}}}}}\n"
    path = write_job(tmp_path, "llama", "suffix", text)
    chat_tokenizer().save_pretrained(tmp_path / "base")
    file, found = file_of_a_machine(path, tmp_path), {}
    for chat in ("false", "true"):
        asked = ("plan", path, "--runs", tmp_path / "runs", "--machine", file, "--json")
        assert command(*asked, "--set", f"base.chat={chat}") == 0
        runs = json.loads(capsys.readouterr().out)["runs"]
        found[chat] = {run["label"]: run["operations"] for run in runs}
    assert list(found["true"]) == list(found["false"])
    assert all(found["true"][label] > found["false"][label] for label in found["true"])


def file_of_a_machine(path, folder):
    """One that knows the base model of an experiment."""
    workspace, (one, measured) = Workspace(folder / "runs"), made_up()
    experiment = jobs.load_experiment(path, {})
    key = machine.key_of(workspace.folder(experiment.base).hash, "suffix")
    machine.write(one.model_copy(update={"bases": {key: measured}}), folder / "there.json")
    return folder / "there.json"
