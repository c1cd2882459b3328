"""An instruction and examples in the context: against plain passes of transformers, and through real runs."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EVERY_BACKBONE, VOCABULARY, build_backbone, build_tokenizer
from pydantic import ValidationError
from reference import lm as reference
from tiny_job import command, write_job
from transformers import LlamaConfig, LlamaForCausalLM

from weft import runs
from weft.config.training import PromptConfig
from weft.data.context import ContextLayout
from weft.errors import ConfigError
from weft.evaluation.answers import TextError
from weft.methods.in_context import InContext
from weft.methods.method import Saved, Setup
from weft.models import CausalBackbone
from weft.serving import predictor
from weft.tasks import Example, Task
from weft.tasks.metrics import metric

WORDS = "what is the text good or bad {answers}"
TEXTS = [
    "the good film",
    "a bad dog runs and eats the meal of a man",
    "was it",
    "the dog",
    "a city likes this",
]
ROWS = [
    *(Example(f"the good {noun} is fine", "yes") for noun in ("film", "book", "meal", "song", "city")),
    *(Example(f"a bad {noun} hates", "no") for noun in ("film", "book", "meal", "song", "city")),
    *(Example(f"this {noun}", "maybe true") for noun in ("film", "book", "meal", "song", "city")),
]
OPEN = [Example("the dog runs", "good dog"), Example("a cat sits", "bad cat"), Example("the man", "good dog")]


def a_task(name="closed", choices=("yes", "no", "maybe true", "maybe false"), **kw):
    """A task without files."""
    return Task(
        name, lambda split: [], lambda row: [], str, {"accuracy": metric("accuracy")}, choices=choices, **kw
    )


def a_setup(backbone, tasks=None, rows=None, seed=0, source_tokens=12):
    """What a run would give the method."""
    tasks = tasks or (a_task(),)
    return Setup(
        tasks=tasks,
        rows=rows or [ROWS],
        seed=seed,
        prompt=PromptConfig(length=4),
        source_tokens=(source_tokens,) * len(tasks),
        load_backbone=lambda: backbone,
    )


def pieces(backbone, words, examples, text, limit=12):
    """The whole input as token ids, put together from words; the tiny tokenizer knows no line break."""
    ids = backbone.tokenizer.get_vocab()
    parts = [words, *(f"{' '.join(one.source.split()[:limit])} {one.target}" for one in examples), text]
    end = [1] if backbone.lm.config.is_encoder_decoder else []
    return [ids.get(word, 2) for part in parts for word in part.split()] + end


def restricted(backbone, whole, choices):
    """Log-probability of each choice, by one plain pass for every token that parts choices."""
    found = []
    for choice in choices:
        total = 0.0
        for place, token in enumerate(choice):
            open_ones = sorted({one[place] for one in choices if one[:place] == choice[:place]})
            if len(open_ones) > 1:
                logits = reference.next_logits(backbone.lm, whole, None, choice[:place])[open_ones]
                total += float(torch.log_softmax(logits.double(), -1)[open_ones.index(token)])
        found.append(total)
    return np.array(found)


def expected(backbone, words, examples, text, task, calibrate):
    """Probabilities of the choices in NumPy, from plain passes."""
    tokens = [backbone.answer_tokens(word) for word in task.choices]
    with torch.no_grad():
        shares = np.exp(restricted(backbone, pieces(backbone, words, examples, text), tokens))
        if calibrate:
            empty = [pieces(backbone, words, examples, one) for one in ("N/A", "", "[MASK]")]
            free = np.mean([np.exp(restricted(backbone, one, tokens)) for one in empty], 0)
            shares = shares / free
    return shares / shares.sum()


@pytest.fixture(params=EVERY_BACKBONE, scope="module")
def model(request):
    """Each backbone in turn, with weights of its own."""
    return build_backbone(request.param)


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("examples", [0, 4, "fit"])
@torch.no_grad()
def test_choices_equal_plain_passes(model, calibrate, examples):
    """Probabilities are those of the whole input read at once, row by row, with and without calibration."""
    method = InContext(instruction=WORDS, examples=examples, calibrate=calibrate, context_tokens=60)
    setup = a_setup(model)
    saved = method.fit(setup) if method.learns else Saved()
    answers = method.restore(setup, saved).answer(TEXTS, [0] * len(TEXTS), batch_size=2, generate=False)
    shown = [Example(*pair) for pair in saved.notes.get("examples", {}).get("closed", [])]
    assert len(shown) >= 4 or examples == 0
    words = WORDS.replace("{answers}", "yes, no, maybe true, maybe false")
    for text, answer in zip(TEXTS, answers, strict=True):
        right = expected(model, words, shown, text, setup.tasks[0], calibrate)
        np.testing.assert_allclose(list(answer.probabilities.values()), right, rtol=2e-4, atol=1e-6)
        assert answer.chosen == setup.tasks[0].choices[int(right.argmax())]
        assert answer.written is None


def test_calibration_divides():
    """On numbers made by hand: p / p_free, to one."""
    model = build_backbone("llama-prefix")
    plain, calibrated = (
        InContext(instruction=WORDS, examples=0, calibrate=one).restore(a_setup(model), Saved())
        for one in (False, True)
    )

    def shares(answerer):
        """Probabilities of three texts."""
        found = answerer.answer(["the dog", "a cat", "was it"], [0] * 3, generate=False)
        return np.array([list(one.probabilities.values()) for one in found])

    free = np.exp(calibrated._leaning(0).numpy())
    assert free.sum() == pytest.approx(1)
    quotient = shares(plain) / free
    np.testing.assert_allclose(shares(calibrated), quotient / quotient.sum(1, keepdims=True), rtol=1e-5)


@torch.no_grad()
def test_written_answers_equal_those_of_transformers(model):
    """What is written freely, for open answers and closed ones, is what transformers writes of the whole."""
    tasks = (a_task(max_target_tokens=3), a_task("open", (), max_target_tokens=4))
    method = InContext(instruction=WORDS, examples=3, context_tokens=60)
    setup = a_setup(model, tasks, [ROWS, OPEN])
    saved = method.fit(setup)
    ids = [0, 1, 1, 0, 1]
    answers = method.restore(setup, saved).answer(TEXTS, ids, batch_size=2)
    for text, k, answer in zip(TEXTS, ids, answers, strict=True):
        shown = [Example(*pair) for pair in saved.notes["examples"][tasks[k].name]]
        words = WORDS.replace("{answers}", ", ".join(tasks[k].choices))
        whole = pieces(model, words, shown, text)
        tokens = reference.generate(model.lm, whole, None, tasks[k].max_target_tokens, end=1, pad=0)
        assert answer.written == model.decode(tokens)
        assert (answer.probabilities is None) == (k == 1)


def test_the_batch_changes_no_answer(model):
    """Rows alone, together and in another order get the same answers."""
    method = InContext(instruction=WORDS, context_tokens=60)
    setup = a_setup(model)
    answerer = method.restore(setup, method.fit(setup))
    alone = [answerer.answer([text], [0], batch_size=1)[0] for text in TEXTS]
    together = answerer.answer(TEXTS[::-1], [0] * len(TEXTS), batch_size=64)[::-1]
    for one, other in zip(alone, together, strict=True):
        assert one.written == other.written
        assert one.probabilities == pytest.approx(other.probabilities, rel=1e-4)


def test_the_context_is_read_once():
    """A causal model reads what all rows share once for each task, and then the rows alone."""
    model = build_backbone("llama-suffix")
    widths = []
    model.lm.base_model.register_forward_pre_hook(
        lambda module, args, kw: widths.append(tuple(kw["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    method = InContext(instruction=WORDS, context_tokens=60, calibrate=False)
    rows = [row for row in ROWS if row.target in ("yes", "no")]
    setup = a_setup(model, (a_task(choices=("yes", "no")),), [rows])
    answerer = method.restore(setup, method.fit(setup))
    shared = len(answerer.contexts[0]) - 1
    assert shared > 40
    for _ in range(2):
        answerer.answer(TEXTS, [0] * len(TEXTS), batch_size=2, generate=False)
    assert [shape for shape in widths if shape[1] >= shared] == [(1, shared)]
    assert max(width for rows, width in widths[1:]) == 1 + 11


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("room", [30, 37, 52, 71])
def test_examples_are_balanced_and_fit_exactly(seed, room):
    """No answer has two more than another; all fit, and the next in turn would not."""
    model = build_backbone("gpt2-prefix")
    setup = a_setup(model, seed=seed)
    method = InContext(instruction=WORDS, context_tokens=room)
    saved = method.fit(setup)
    shown = [Example(*pair) for pair in saved.notes["examples"]["closed"]]
    words = len(WORDS.split()) - 1 + 6
    size = sum(len(f"{one.source} {one.target}".split()) for one in shown)
    assert words + size <= room
    counts = Counter(one.target for one in shown)
    assert len(set(shown)) == len(shown)
    assert max(counts.values()) - min(counts.get(answer, 0) for answer in ("yes", "no", "maybe true")) <= 1
    left = [one for one in ROWS if one not in shown]
    assert not left or words + size + max(len(f"{one.source} {one.target}".split()) for one in left) > room
    assert saved.notes["counts"] == {"closed": len(shown)}
    assert not saved.tensors
    assert len(method.restore(setup, saved).contexts[0]) == words + size


def test_the_seed_draws_rows_and_order():
    """The same seed the same examples in the same order; another seed others."""
    model = build_backbone("gpt2-prefix")
    notes = [InContext(examples=6).fit(a_setup(model, seed=seed)).notes["examples"] for seed in (0, 0, 1)]
    assert notes[0] == notes[1] != notes[2]
    assert Counter(answer for _, answer in notes[0]["closed"]) == {"yes": 2, "no": 2, "maybe true": 2}


def test_texts_are_cut_before_examples_fit():
    """A long example is cut to the limit of texts, and its answer stays; so it is under another limit."""
    model = build_backbone("llama-prefix")
    rows = [Example("the good film " * 30, "yes"), Example("a bad film " * 30, "no")]
    setup = a_setup(model, (a_task(choices=("yes", "no")),), [rows], source_tokens=6)
    method = InContext(instruction="answer", context_tokens=1 + 2 * 7)
    saved = method.fit(setup)
    assert saved.notes["counts"] == {"closed": 2}
    wider = a_setup(model, setup.tasks, [rows], source_tokens=9)
    assert method.restore(wider, saved).contexts == method.restore(setup, saved).contexts


def test_the_models_positions_bound_the_context():
    """Instruction, examples, the longest text and the answer have positions, to the last one."""
    model = build_backbone("gpt2-prefix")
    rows = [Example("the good film", "yes") for _ in range(40)] + [Example("a bad film", "no")] * 40
    setup = a_setup(model, (a_task(choices=("yes", "no"), max_target_tokens=5),), [rows])
    saved = InContext(instruction="answer").fit(setup)
    assert model.positions == 128
    assert saved.notes["counts"]["closed"] == (128 - 12 - 5 - 1) // 4
    answerer = InContext(instruction="answer").restore(setup, saved)
    answerer.answer(["the good " * 20], [0])
    assert build_backbone("t5").positions is None
    assert build_backbone("bert").positions == 128


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_rotary_positions_that_grow_bound_the_context(kind):
    """Context, text and answer stay where positions do not depend on the longest input of a batch."""
    rope = {"rope_type": kind, "factor": 2.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 60}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    sizes |= {"max_position_embeddings": 128 if kind == "longrope" else 60, "vocab_size": VOCABULARY}
    model = CausalBackbone(
        LlamaForCausalLM(LlamaConfig(**sizes, rope_scaling=rope)), build_tokenizer(), suffix=False
    )
    rows = [Example("the good film", "yes") for _ in range(40)] + [Example("a bad film", "no")] * 40
    setup = a_setup(model, (a_task(choices=("yes", "no"), max_target_tokens=5),), [rows])
    saved = InContext(instruction="answer").fit(setup)
    assert saved.notes["counts"]["closed"] == (60 - 12 - 5 - 1) // 4


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        (InContext(instruction="a " * 30, context_tokens=29), "has 30 tokens, and there is room for 29"),
        (InContext(instruction="answer", context_tokens=4), "has room for 3 tokens of examples"),
        (InContext(instruction="a " * 120), "has 120 tokens, and there is room for 108"),
    ],
)
def test_a_context_without_room_is_refused(method, fault):
    """Too long an instruction, or no room for one example."""
    with pytest.raises(ConfigError, match=fault) as caught:
        method.fit(a_setup(build_backbone("gpt2-prefix")))
    assert caught.value.code == "C07"


def test_an_empty_text_is_named():
    """A text without a token is refused with its place, as for other methods."""
    answerer = InContext(examples=0).restore(a_setup(build_backbone("llama-prefix")), Saved())
    with pytest.raises(TextError) as caught:
        answerer.answer(["the dog", " "], [0, 0])
    assert caught.value.number == 1


def test_settings():
    """What learns, what it is called, and what is refused."""
    assert (InContext().learns, InContext().title) == (True, "examples in context")
    assert (InContext(examples=0).learns, InContext(examples=0).title) == (False, "instruction")
    assert InContext().words(a_task(choices=("a", "b"))) == "Answer with one of: a, b."
    assert InContext(instruction=" ").words(a_task(choices=())) == "Write the answer to each text."
    for wrong in (-1, True, "all", 1.5):
        with pytest.raises(ValidationError):
            InContext(examples=wrong)


class Ends:
    """A reader whose inputs have special tokens on both sides, as those of BERT."""

    base_hash, keeps_texts = "", False

    def tokenizer(self, text, add_special_tokens=True):
        """Letters, between 1 and 2."""
        inner = [100 + ord(letter) for letter in text]
        return {"input_ids": [1, *inner, 2] if add_special_tokens else inner}

    def text_tokens(self, text, limit=None):
        """Cut between its ends."""
        return (1, *self.tokenizer(text, add_special_tokens=False)["input_ids"][: limit - 2], 2), False

    def answer_tokens(self, answer):
        """With an end."""
        return (*self.tokenizer(answer, add_special_tokens=False)["input_ids"], 2)


def test_special_tokens_stand_around_the_whole_input():
    """One start and one end for all parts; the parts have a gap between them."""
    layout = ContextLayout(Ends(), 5)
    assert layout.edges == ((1,), (2,))
    letters = "".join(chr(one - 100) for one in layout.context("Do!", [Example("texts", "yes")])[1:])
    assert letters == "Do!\n\ntexyes\n\n"
    assert layout.body("texts") == layout.bare("tex")


ROWS_OF_METHODS = """
name: tiny
base: {{model: {base}, dtype: float32, attention: eager}}
prompt: {{length: 4, position: {position}}}
limits: {{source_tokens: 12}}
tasks: [tasks]
sources: [alpha, beta]
targets: [gamma, delta]
allow: [leaks, duplicates]
shots: 6
seeds: [0, 1]
teachers:
  optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 4, eval_every: 2}}
source:
  optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 4, eval_every: 2}}
rows:
  - {{label: instruction, method: {{name: in_context, examples: 0}}}}
  - {{label: four, method: {{name: in_context, examples: 4, context_tokens: 60}}}}
  - {{label: group, group: true, method: {{name: in_context, context_tokens: 60}}}}
"""


@pytest.fixture(scope="module", params=["t5-prefix", "llama-suffix"])
def job(request, tmp_path_factory) -> Path:
    """A finished experiment of this method."""
    folder = tmp_path_factory.mktemp(request.param)
    family, _, position = request.param.partition("-")
    write_job(folder, family, position, ROWS_OF_METHODS)
    assert command("run", folder / "tiny.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


def test_runs_keep_examples_and_no_tensors(job, capsys):
    """One run for each task and seed, one for the group; the instruction alone is only scored."""
    found = runs.finished(job / "runs")
    adapted = [run for run in found if run.id.startswith("adapt-in-context")]
    assert len(adapted) == 2 * 2 + 2
    assert len([run for run in found if run.id.startswith("evaluate-")]) == 2 + 2 * 2 + 2 * 2
    for run in adapted:
        assert not list(run.path.glob("*.safetensors"))
        notes = run.saved().notes
        assert run.result()["trained_parameters"] == 0
        assert set(notes["counts"]) == {task.name for task in run.config().tasks}
        assert all(notes["counts"][name] == len(rows) >= 4 for name, rows in notes["examples"].items())
    for run in found:
        assert command("doctor", run.path) == 0, capsys.readouterr()


def test_a_restored_run_answers_as_it_was_scored(job):
    """Predictions of the run folder alone are those of the evaluation, probability by probability."""
    [run] = [one for one in runs.finished(job / "runs") if one.id.startswith("adapt-in-context-gamma-s1")]
    [scored] = [one for one in runs.finished(job / "runs") if getattr(one.config(), "run", None) == run.id]
    lines = scored.lines("predictions.jsonl")
    again = predictor.load(run.id, root=job / "runs").predict([{"text": one["text"]} for one in lines])
    assert [one.answer for one in again] == [one["answer"] for one in lines]
    for one, line in zip(again, lines, strict=True):
        assert one.probabilities == pytest.approx(line["probabilities"], rel=1e-6)


def test_a_finished_experiment_names_both(job, capsys):
    """The table has a line for each row, and says what it is."""
    assert command("run", job / "tiny.yaml", "--runs", job / "runs", "--quiet") == 0
    out = capsys.readouterr().out
    assert all(label in out for label in ("instruction", "four", "group"))


def test_a_method_that_says_the_wrong_thing_of_its_tensors_is_told(job, tmp_path):
    """Tensors are never dropped in silence."""
    [path] = (job / "runs").glob("adapt-in-context-gamma-s1-*")
    run = runs.Run(tmp_path / path.name)
    run.path.mkdir()
    (run.path / "config.yaml").write_bytes((path / "config.yaml").read_bytes())
    with pytest.raises(ConfigError, match="left 1") as caught:
        run.save(Saved({"numbers": torch.ones(2)}))
    assert "keeps" in caught.value.fix


def test_notes_are_json(job):
    """The notes file holds texts and answers, as they are."""
    [path] = (job / "runs").glob("adapt-in-context-gamma-s0-*")
    notes = json.loads((path / "notes.json").read_text("utf-8"))
    assert {answer for _, answer in notes["examples"]["gamma"]} == {"positive", "negative"}
    assert notes["source_tokens"] == {"gamma": 12}
