"""ATTEMPT, DePT and ULPT: against NumPy in float64, their numbers, what moves, and whole runs."""

import copy
import shutil

import numpy as np
import pytest
import torch
from tiny_job import SHORT, command, write_job
from transformers import T5Config, T5ForConditionalGeneration

from weft import runs
from weft.config.training import OptimConfig, PromptConfig
from weft.data.batch import IGNORE, Encoded, collate
from weft.errors import ArtifactError, ConfigError, UnsupportedError
from weft.evaluation.answering import TunedAnswerer
from weft.interop.peft_adapter import to_peft
from weft.losses.objective import lm_loss
from weft.methods.attempt import ATTEMPT
from weft.methods.dept import DePT
from weft.methods.method import Saved, Setup
from weft.methods.ulpt import ULPT
from weft.models import Seq2SeqBackbone
from weft.models.text_cache import TextCache
from weft.prompts.ulpt import projection
from weft.runs import parents
from weft.runs.config import AdaptRun
from weft.runs.workspace import Workspace
from weft.serving import predictor
from weft.tasks import Task
from weft.training.course import Hooks
from weft.training.loop import fit

P, YES, NO = 3, 3, 4
NAMES = ("a", "b", "c")
SOURCES = [(11, 15, 19), (6, 65, 46, 4, 41, 36), (31,), (51, 56, 47), (8, 9, 10, 11)]
TARGETS = [(63, 1), (1,), (36, 44, 43, 1), (6, 18, 1), (5, 1)]
TASK_IDS = [2, 0, 1, 0, 2]
BATCH = collate([Encoded(*pair) for pair in zip(SOURCES, TARGETS, strict=True)], TASK_IDS)
METHODS = {
    "attempt": ATTEMPT(start="s1", bottleneck=5, temperature=2.0),
    "dept": DePT(length=2, rank=2),
    "dept from a teacher": DePT(start="s0", rank=2),
    "ulpt": ULPT(rank=4),
}
RATES = {"prompt": 0.05, "attention": 0.05, "offsets": 0.02}
every_method = pytest.mark.parametrize("method", METHODS)
READERS = ("attempt", "dept")
five = pytest.mark.parametrize("name", ["t5", "bert", "llama-prefix", "llama-suffix", "gpt2-suffix"])


def drawn(*shape, seed, scale=1.0):
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def setup_on(backbone, *, length=P, names=NAMES, sources=2, positions=5):
    """What a method is given, on a tiny model."""
    teachers = {
        f"s{k}": drawn(length, backbone.width, seed=20 + k, scale=backbone.scale) for k in range(sources)
    }
    return Setup(
        tasks=tuple(Task(name, list, list, str, {}, choices=("yes", "no")) for name in names),
        rows=[],
        seed=4,
        prompt=PromptConfig(length=length),
        source_tokens=(positions,) * len(names),
        load_backbone=lambda: backbone,
        load_teachers=lambda: teachers,
    )


def build(method, backbone, **kw):
    """A model of a method, as it starts."""
    return METHODS[method].build(setup_on(backbone, **kw))[0]


def moved(model, seed=30):
    """The same model with random numbers added to all that is trained, so that no part of it is at 0."""
    with torch.no_grad():
        for k, group in enumerate(model.trained.values()):
            for j, one in enumerate(group):
                one += drawn(*one.shape, seed=seed + 10 * k + j, scale=0.3)
    return model


def logits_of(model, batch=BATCH):
    """Logits of a batch without gradient, where there are targets."""
    with torch.no_grad():
        return model(batch).logits[batch.labels != IGNORE]


def optim(model, steps=4, **kw):
    """Settings with a batch a step and no warm-up."""
    lr = {name: RATES[name] for name in model.trained}
    return OptimConfig(lr=lr, steps=steps, **{"warmup": 0, "batch_size": len(SOURCES), **kw})


def always(step):
    """The same batch at every step."""
    return BATCH


# numbers of parameters


@pytest.fixture(scope="module")
def wide(make_backbone):
    """A backbone with T5-Base's width and little else."""
    config = T5Config(
        vocab_size=160, d_model=768, d_kv=2, d_ff=2, num_layers=1, num_heads=1, decoder_start_token_id=0
    )
    return Seq2SeqBackbone(T5ForConditionalGeneration(config), make_backbone("t5").tokenizer)


@pytest.mark.parametrize(
    ("method", "tasks", "numbers"),
    [
        (ATTEMPT(start="fresh"), 1, 231_936),
        (ATTEMPT(start="s0"), 8, 96_192),
        (DePT(length=40, rank=45), 1, 76_800),
        (DePT(length=60, rank=30), 3, 76_800),
        (ULPT(), 1, 7_936),
        (ULPT(rank=256), 4, 27_136),
        (ULPT(rank=2), 1, 1_736),
    ],
)
def test_each_trains_the_published_numbers(wide, method, tasks, numbers):
    """Of a task at T5-base with prompts of 100 tokens, six sources and texts of 256 tokens."""
    names = tuple(f"task{k}" for k in range(tasks))
    setup = setup_on(wide, length=100, names=names, sources=6, positions=256)
    model, start = method.build(setup)
    assert model.trained_parameters / tasks == numbers
    assert set(model.trained) == method.groups
    assert tuple(start) == names


# what they compute


def numpy_of(model):
    """All tensors of a model's prompts in float64."""
    return {name: value.double().numpy() for name, value in model.tensors().items()}


def attempt_row(kept, k, text):
    """ATTEMPT's prompt for one text, in plain NumPy."""
    hidden = kept["down"] @ text.max(0)
    query = kept["up"] @ (hidden / (1 + np.exp(-hidden)))
    query = (query - query.mean()) / np.sqrt(query.var() + 1e-5) * kept["gain"] + kept["bias"]
    every = [*kept["sources"], kept["target"][k]]
    scores = np.array([query @ prompt.max(0) for prompt in every]) / 2.0
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    return text, kept["target"][k] + sum(share * one for share, one in zip(shares, every, strict=True))


def dept_row(kept, k, text):
    """DePT's text and prompt, token by token; the sixth token has no row of A."""
    changed = text.copy()
    for place in range(min(len(text), 5)):
        for r in range(2):
            changed[place] += kept["a"][k, place, r] * kept["b"][k, r]
    return changed, kept["prompts"][k]


def ulpt_row(kept, k, text):
    """ULPT's prompt, token by token, with a projection drawn anew."""
    rank, width = kept["codes"].shape[-1], kept["scale"].shape[-1]
    numbers = np.random.default_rng(4).random((rank, width))
    frozen = ((numbers - 0.5) * 2 * (3 / rank) ** 0.5).astype(np.float32)
    rows = [sum(code[r] * frozen[r] for r in range(rank)) for code in kept["codes"][k]]
    return text, np.stack(rows) * kept["scale"][k] + kept["shift"][k]


ROW = {"attempt": attempt_row, "dept": dept_row, "dept from a teacher": dept_row, "ulpt": ulpt_row}


@five
@every_method
def test_texts_and_prompts_are_those_of_plain_numpy(backbones, name, method):
    """Each row alone in float64, though the batch is padded on either side."""
    backbone = backbones[name]
    model = moved(build(method, backbone))
    state, prompts = model.read(SOURCES, BATCH.task_ids)
    texts = backbone.embed(state.ids) if state.embeds is None else state.embeds
    kept = numpy_of(model)
    for i, (source, k) in enumerate(zip(SOURCES, TASK_IDS, strict=True)):
        text = backbone.embeddings[list(source)].detach().double().numpy()
        text, prompt = ROW[method](kept, k, text)
        own = texts[i][state.mask[i].bool()].detach().numpy()
        np.testing.assert_allclose(own, text, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(prompts[i].detach().numpy(), prompt, rtol=1e-5, atol=1e-5)


@five
@every_method
def test_logits_are_those_of_a_float64_model_without_batch_and_padding(backbones, name, method):
    """The model in float64 reads NumPy's vectors, a row at a time, the prompt before or after the text."""
    backbone = backbones[name]
    model, lm = moved(build(method, backbone)), copy.deepcopy(backbone.lm).double()
    kept, found = numpy_of(model), model(BATCH).logits.detach()
    for i, (source, target, k) in enumerate(zip(SOURCES, TARGETS, TASK_IDS, strict=True)):
        text = backbone.embeddings[list(source)].detach().double().numpy()
        parts = [torch.from_numpy(part) for part in ROW[method](kept, k, text)]  # text, prompt
        if not getattr(backbone, "suffix", False):
            parts.reverse()
        wanted = plain_logits(lm, torch.cat(parts)[None], target)
        own = found[i][BATCH.labels[i] != IGNORE]
        torch.testing.assert_close(own.double(), wanted, rtol=2e-4, atol=2e-4)


def plain_logits(lm, before, target):
    """Logits that predict each target token `[T, V]`, by one plain call of transformers."""
    fed = torch.tensor([list(target[:-1])], dtype=torch.long)
    if lm.config.is_encoder_decoder:
        start = torch.tensor([[lm.config.decoder_start_token_id]])
        return lm(inputs_embeds=before, decoder_input_ids=torch.cat([start, fed], 1)).logits[0].detach()
    whole = torch.cat([before, lm.get_input_embeddings()(fed)], 1)
    return lm(inputs_embeds=whole, use_cache=False).logits[0, -len(target) :].detach()


@five
@every_method
def test_no_row_sees_another(backbones, name, method):
    """Answers of a text alone are those in a batch with longer texts of other tasks."""
    model = moved(build(method, backbones[name]))
    choices = [(YES, 1), (NO, 1), (NO, YES, 1)]
    together = model.backbone.score(model.begin(SOURCES, TASK_IDS), choices)
    for i, (source, k) in enumerate(zip(SOURCES, TASK_IDS, strict=True)):
        alone = model.backbone.score(model.begin([source], [k]), choices)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)


@five
def test_without_offsets_dept_is_a_plain_prompt(backbones, name):
    """B = 0 at the start: the logits are those of the short prompt alone."""
    model = build("dept", backbones[name])
    state = model.backbone.read(SOURCES)
    with torch.no_grad():
        bare = model.backbone(state, model.prompts(BATCH.task_ids), BATCH.labels).logits
    torch.testing.assert_close(logits_of(model), bare[BATCH.labels != IGNORE], rtol=1e-5, atol=1e-5)


def test_shares_depend_on_the_text_and_not_on_its_padding(backbones):
    """They add up to 1, differ between texts, and padded zeros are not among the largest entries."""
    model = moved(build("attempt", backbones["t5"]))
    texts = -model.backbone.embeddings[3:11].abs().view(2, 4, -1)  # padding of 0 would be the maximum
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    own = model.prompts(torch.tensor([0, 0]))
    shares = model.prompts.shares(own, texts, mask)
    torch.testing.assert_close(shares.sum(1), torch.ones(2))
    assert (shares[0] - shares[1]).abs().max() > 1e-3
    alone = model.prompts.shares(own[:1], texts[1:, :2], mask[1:, :2])
    torch.testing.assert_close(alone[0], shares[1])


def test_the_temperature_is_that_of_the_paper_unless_set(wide):
    """e D, of which the released configurations keep the whole part."""
    model, _ = ATTEMPT(start="s0").build(setup_on(wide))
    assert int(model.prompts.temperature) == 2087
    assert build("attempt", wide).prompts.temperature == 2.0


def test_what_starts_where(backbones):
    """Targets at the named teacher, or fresh; DePT at the first tokens of the prompt."""
    setup = setup_on(backbones["t5"])
    own = ATTEMPT(start="s1").build(setup)[0].prompts
    assert all(torch.equal(one, setup.teachers["s1"]) for one in own.target)
    assert torch.equal(own.sources, torch.stack([setup.teachers["s0"], setup.teachers["s1"]]))
    fresh = ATTEMPT(start="fresh").build(setup)[0].prompts
    short = DePT(length=2).build(setup)[0].prompts
    assert torch.equal(fresh.target[:, :2], short.prompts)
    assert torch.equal(DePT(start="s0").build(setup)[0].prompts.prompts[2], setup.teachers["s0"])


def test_ulpt_starts_with_prompts_of_the_size_of_embeddings(wide):
    """Whatever the rank."""
    for rank in (4, 64, 256):
        model, _ = ULPT(rank=rank).build(setup_on(wide, length=100))
        size = model.prompts.vectors().pow(2).mean().sqrt().item()
        assert size == pytest.approx(wide.scale, rel=0.1)


def test_a_projection_has_unit_rows_in_variance():
    """Mean 0, variance 1 / R, and another for another draw."""
    matrix = projection(7, 16, 4000)
    assert matrix.mean().item() == pytest.approx(0, abs=0.01)
    assert matrix.var().item() == pytest.approx(1 / 16, rel=0.02)
    assert not torch.equal(matrix, projection(8, 16, 4000))


# what moves


@pytest.mark.parametrize("name", ["t5", "llama-prefix", "llama-suffix", "gpt2-suffix"])
@every_method
def test_training_moves_what_is_declared_and_nothing_else(make_backbone, name, method):
    """Every declared tensor has moved after some steps; source prompts, projection and model have not."""
    model = build(method, make_backbone(name))
    weights, before = model.backbone.weights_hash(), model.tensors()
    trained = set(model.state())
    loss = float(lm_loss_of(model))
    fit(model, always, lm_loss, optim(model, 3))
    after = model.tensors()
    assert {key for key in after if not torch.equal(before[key], after[key])} == trained
    assert model.backbone.weights_hash() == weights
    assert set(model.trained) == METHODS[method].groups
    assert float(lm_loss_of(model)) < loss


def lm_loss_of(model):
    """The loss of the batch."""
    with torch.no_grad():
        logits = model(BATCH).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), BATCH.labels.flatten(), ignore_index=IGNORE
    )


@every_method
def test_a_task_moves_only_its_own(backbones, method):
    """Rows of tasks 0 and 2 leave task 1 as it was; what all tasks share is ATTEMPT's attention."""
    model = moved(build(method, backbones["t5"]))
    batch = collate([Encoded(SOURCES[0], TARGETS[0]), Encoded(SOURCES[1], TARGETS[1])], [2, 0])
    torch.autograd.backward(model(batch).logits.pow(2).sum())
    for name, group in model.trained.items():
        for one in group:
            if name != "attention":
                assert not one.grad[1].any()
                assert all(one.grad[k].any() for k in (0, 2))


@pytest.mark.parametrize("name", ["t5", "llama-suffix"])
@every_method
def test_a_resumed_run_equals_one_that_never_stopped(make_backbone, name, method):
    """Bit for bit, from the checkpoint of any step, with what was frozen made again by the method."""

    def run(resume=None):
        model, saved = build(method, make_backbone(name)), []
        hooks = Hooks(save=lambda one: saved.append(copy.deepcopy(one)))
        fit(
            model,
            always,
            lm_loss,
            optim(model, micro_batch=2),
            hooks=hooks,
            resume=resume,
            pace=lambda save, *, must=False: save(),
        )
        return model.tensors(), saved

    whole, saved = run()
    for checkpoint in saved:
        again, _ = run(checkpoint)
        assert whole.keys() == again.keys()
        assert all(torch.equal(whole[key], again[key]) for key in whole)


# keeping


@five
@every_method
def test_what_is_kept_answers_without_anything_else(backbones, name, method):
    """Restored from its tensors alone, with no teachers at hand, a method has the same logits."""
    backbone = backbones[name]
    model = moved(build(method, backbone))
    setup = setup_on(backbone)
    given = Setup(setup.tasks, [], 99, setup.prompt, (5,) * len(setup.tasks), load_backbone=lambda: backbone)
    answerer = METHODS[method].restore(given, Saved(model.tensors()))
    assert isinstance(answerer, TunedAnswerer)
    assert torch.equal(logits_of(answerer.model), logits_of(model))


def test_ulpt_keeps_no_projection(wide):
    """What is kept is what is trained, the draw's number, and a row to know it by."""
    tensors = ULPT(rank=64).build(setup_on(wide, length=100, names=("a",)))[0].tensors()
    assert {key: tuple(value.shape) for key, value in tensors.items()} == {
        "codes": (1, 100, 64),
        "scale": (1, 768),
        "shift": (1, 768),
        "draw": (1,),
        "witness": (768,),
    }


def test_another_projection_is_refused(backbones):
    """A machine that draws other numbers says so instead of answering wrongly."""
    tensors = build("ulpt", backbones["t5"]).tensors()
    setup = setup_on(backbones["t5"])
    for draw in (5.0, 0.0):
        with pytest.raises(ArtifactError, match="cannot be drawn again") as caught:
            ULPT().restore(setup, Saved({**tensors, "draw": torch.tensor([draw])}))
        assert caught.value.code == "A07"


@every_method
def test_tensors_of_another_shape_are_refused(backbones, method):
    """A missing one, another width, another number of tasks, one axis too many."""
    backbone = backbones["t5"]
    tensors, setup = build(method, backbone).tensors(), setup_on(backbone)
    first = next(iter(METHODS_FIRST[method]))
    faults = [
        {key: value for key, value in tensors.items() if key != first},
        {**tensors, first: tensors[first][..., :-1]},
        {**tensors, first: tensors[first][:2]},
        {**tensors, first: tensors[first][None]},
        {**tensors, "other": torch.ones(2)},
        {},
    ]
    for fault in faults:
        if method == "ulpt" and first in fault and fault[first].shape[0] == 3 and fault[first].ndim == 3:
            continue  # a shorter code is another rank; the projection's witness finds it
        with pytest.raises(ArtifactError) as caught:
            METHODS[method].restore(setup, Saved(fault))
        assert caught.value.code == "A07"


METHODS_FIRST = {
    "attempt": ["target"],
    "dept": ["prompts"],
    "dept from a teacher": ["prompts"],
    "ulpt": ["codes"],
}


def test_a_code_of_another_rank_is_refused(backbones):
    """Fewer numbers draw another projection, which its last row shows."""
    tensors, setup = build("ulpt", backbones["t5"]).tensors(), setup_on(backbones["t5"])
    with pytest.raises(ArtifactError, match="drawn again"):
        ULPT().restore(setup, Saved({**tensors, "codes": tensors["codes"][..., :-1]}))


# refusals


def test_attempt_needs_teachers(backbones):
    """Without them there is nothing to mix."""
    with pytest.raises(ConfigError, match="there are none") as caught:
        ATTEMPT(start="fresh").build(setup_on(backbones["t5"], sources=0))
    assert caught.value.code == "C12"


def test_depts_prompt_is_no_longer_than_prompts_are(backbones):
    """It is the first part of a prompt, fresh or a teacher's."""
    with pytest.raises(ConfigError, match=r"method.length \(4\) exceeds prompt.length \(3\)"):
        DePT(length=4).build(setup_on(backbones["t5"]))


def test_who_shares_batches():
    """ULPT's prompt is the same for every text; those of the others are not."""
    assert [METHODS[name].shares_batches for name in METHODS] == [False, False, False, True]


# whole runs

LIMITED = SHORT.replace("tasks: [tasks]", "limits: {{source_tokens: 16}}\ntasks: [tasks]")
ROWS = (
    LIMITED.replace("steps: 2", "steps: 3")
    + """  - label: ATTEMPT
    method: {{name: attempt, bottleneck: 5}}
    optim: {{lr: {{prompt: 0.1, attention: 0.1}}, steps: 4, batch_size: 6, eval_every: 2}}
  - label: ATTEMPT group
    method: {{name: attempt, start: beta, bottleneck: 5}}
    group: true
    optim: {{lr: {{prompt: 0.1, attention: 0.1}}, steps: 4, batch_size: 6}}
  - label: DePT
    method: {{name: dept, length: 2, rank: 3}}
    optim: {{lr: {{prompt: 0.1, offsets: 0.05}}, steps: 4, batch_size: 6, micro_batch: 4}}
  - label: DePT from a teacher
    method: {{name: dept, start: nearest, rank: 3}}
    optim: {{lr: {{prompt: 0.1, offsets: 0.05}}, steps: 4, batch_size: 6}}
  - label: ULPT
    method: {{name: ulpt, rank: 3}}
    optim: {{lr: {{prompt: 0.1}}, steps: 4, batch_size: 6}}
  - label: prompt tuning
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 4, batch_size: 6}}
"""
)


@pytest.fixture(scope="module", params=["t5-prefix", "llama-prefix", "llama-suffix"])
def job(request, tmp_path_factory):
    """An experiment over these methods, with its finished runs."""
    family, _, position = request.param.partition("-")
    folder = tmp_path_factory.mktemp(request.param)
    write_job(folder, family, position, ROWS)
    assert command("run", folder / "tiny.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


def of(job, start):
    """The finished runs whose name starts so."""
    return [run for run in runs.finished(job / "runs") if run.id.startswith(start)]


def test_runs_are_whole_and_scored(job, capsys):
    """Every run is sealed and sound, and its table has a row for each method."""
    assert [len(of(job, f"adapt-{name}")) for name in ("attempt", "dept", "ulpt")] == [3, 4, 2]
    for run in runs.finished(job / "runs"):
        assert command("doctor", run.path) == 0, capsys.readouterr()
    capsys.readouterr()
    assert command("run", job / "tiny.yaml", "--runs", job / "runs", "--quiet") == 0
    shown = capsys.readouterr().out
    assert all(label in shown for label in ("ATTEMPT group", "DePT from a teacher", "ULPT"))


def test_a_run_answers_without_its_parents(job, tmp_path):
    """Copied alone to another place, it gives the same answers, free writing too."""
    rows = [{"text": text} for text in ("the good film", "the bad dog river a is", "fine")]
    for run in of(job, "adapt-"):
        shutil.copytree(run.path, tmp_path / run.id)
        here, there = (
            predictor.load(run.id, root=root).predict(rows, generate=True)
            for root in (job / "runs", tmp_path)
        )
        assert here == there
        assert len(here) == 3 * len(run.config().tasks)


def test_prompts_that_read_texts_answer_by_themselves(job):
    """In one predictor beside plain ones, each run gives what it gives alone."""
    ids = [of(job, "adapt-attempt-gamma-s0")[0].id, of(job, "adapt-dept-delta-s0")[0].id]
    rows = [{"text": text} for text in ("the good film", "the bad dog river a is", "fine")]
    both = predictor.load(*ids, root=job / "runs")
    assert len(both.answerers) == 2
    mixed = both.predict(rows)
    for name, task_name in zip(ids, ("gamma", "delta"), strict=True):
        alone = predictor.load(name, root=job / "runs").predict(rows)
        assert [one for one in mixed if one.task == task_name] == alone
    plain = [of(job, "adapt-ulpt-gamma-s0")[0].id, of(job, "adapt-dept-delta-s0")[0].id]
    assert len(predictor.load(*plain, root=job / "runs").answerers) == 2


def test_ulpt_merges_with_plain_prompts_of_its_length(job):
    """Its prompts are composed, and share batches with those of prompt tuning."""
    ids = [of(job, "adapt-ulpt-gamma-s0")[0].id, of(job, "adapt-prompt-tuning-delta")[0].id]
    merged = predictor.load(*ids, root=job / "runs")
    assert len(merged.answerers) == 1
    rows = [{"text": "the good film", "task": "gamma"}]
    alone = predictor.load(ids[0], root=job / "runs").predict(rows)
    assert merged.predict(rows)[0].probabilities == pytest.approx(alone[0].probabilities, abs=1e-5)


def test_a_prompt_that_reads_texts_is_no_teacher_and_no_peft_adapter(job, tmp_path):
    """Neither another run nor PEFT could use the part that is the same for every text."""
    run = of(job, "adapt-attempt-gamma-s0")[0]
    known = run.config().model_dump()
    method = {"name": "prompt_tuning", "start": "gamma"}
    changed = {"method": method, "teachers": {"gamma": run.id}, "optim": {"lr": {"prompt": 0.1}, "steps": 1}}
    config = AdaptRun.model_validate(known | changed)
    workspace = Workspace(job / "runs", keep_texts=False)
    with pytest.raises(ArtifactError, match="cannot teach or start another") as caught:
        parents._prompt_of(run.id, "gamma", config, workspace)
    assert caught.value.code == "C12"
    if "suffix" not in job.name:
        with pytest.raises(UnsupportedError, match="before every text"):
            to_peft(run.id, "gamma", tmp_path / "peft", workspace)
        to_peft(of(job, "adapt-ulpt-gamma-s0")[0].id, "gamma", tmp_path / "peft", workspace)


@pytest.mark.parametrize("method", READERS)
def test_no_text_is_kept_under_prompts_that_read_texts(backbones, monkeypatch, method):
    """With a prompt after the text too, its keys and values are computed anew."""
    model = moved(build(method, backbones["llama-suffix"]))
    assert not model.keeps_texts
    monkeypatch.setattr(TextCache, "gather", lambda *a: pytest.fail("texts came from the cache"))
    monkeypatch.setattr(TextCache, "prepare", lambda *a: pytest.fail("texts were put into the cache"))
    model.prepare(SOURCES)
    model.begin(SOURCES, TASK_IDS)
    model(BATCH)


def test_offsets_that_run_away_are_seen(backbones):
    """The sizes that stop training are those of prompt and offsets together."""
    model = build("dept", backbones["t5"])
    small = model.prompts.vectors().abs().max()
    with torch.no_grad():
        model.prompts.b += 1e6
    assert model.prompts.vectors().abs().max() > 1e4 * small
    assert model.prompts.vectors().shape == (3, 2 + 5, model.prompts.width)
