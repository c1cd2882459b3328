"""The engine: what it answers, against transformers row by row; and that no answer depends on its company."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EVERY_BACKBONE, EVERY_SUFFIX, PAD, WORDS, build_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import lm as plain
from served_bank import CLOSED, drawn, mixed_bank, prompt_row
from tiny_bank import BASE
from tiny_job import READERS, command, write_job

import weft
from weft import bank
from weft.bank.snapshot import Snapshot
from weft.bank.writer import change
from weft.config.decoding import Decoding
from weft.config.model import BaseConfig
from weft.errors import ConfigError
from weft.models import CausalBackbone, base_folder, load_backbone
from weft.models.decoding import begun, row_seeds
from weft.models.text_cache import TextCache
from weft.serving.base import served_texts
from weft.serving.engine import Engine
from weft.serving.requests import Request
from weft.serving.rows import Row
from weft.serving.settings import EngineSettings

LENGTHS = (2, 3, 5)
TASKS = [f"{kind}{length}" for kind in ("open", "closed") for length in LENGTHS]
TEXTS = ["the film was good", "a dog", " ".join(WORDS[:25]), "one two three red"]
WAYS = [Decoding(), Decoding(num_beams=3), Decoding(temperature=0.9, top_p=0.9, seed=3)]
FAMILIES = ["llama-prefix", "llama-suffix", "gpt2-suffix", "t5"]
few = settings(max_examples=4, deadline=None)


@pytest.fixture(scope="module")
def engines(tmp_path_factory, backbones):
    """An engine for each backbone, on a bank of its own."""
    place = tmp_path_factory.mktemp("banks")
    return {
        name: Engine(one, mixed_bank(place / name, one, LENGTHS), EngineSettings(rows=16))
        for name, one in backbones.items()
    }


def with_settings(engine, **changed):
    """The same model and bank under other settings, with nothing kept."""
    return Engine(engine.backbone, engine.snapshot, EngineSettings(**{"rows": 16, **changed}))


def recorded(monkeypatch):
    """Logits of every token of every request, by its id and place."""
    found, grow = {}, Row.grow

    def told(self, logits, likeliest):
        place = sum(key[0] == self.request.id for key in found)
        found[self.request.id, place] = logits.clone()
        return grow(self, logits, likeliest)

    monkeypatch.setattr(Row, "grow", told)
    return found


def by_hand(engine, request):
    """What transformers writes and gives the choices for one request alone."""
    backbone, entry = engine.backbone, engine.snapshot.find(request.task)
    source = backbone.text_tokens(request.row["text"])[0]
    prompt = torch.tensor(engine.snapshot.prompt(entry))
    suffix = backbone.name.endswith("suffix")
    end = backbone.tokenizer.eos_token_id
    tokens = plain.generate(
        backbone.lm, source, prompt, entry.task.max_target_tokens, suffix=suffix, end=end, pad=PAD
    )
    log_probs = {}
    for word in entry.task.choices:
        answer = backbone.answer_tokens(word)
        logits = plain.target_logits(backbone.lm, source, prompt, answer, suffix=suffix)
        log_probs[word] = (answer, logits)
    return backbone.decode(tokens), constrained(log_probs)


def constrained(log_probs):
    """Probability of each choice, where at each token only those of choices that go on may be written."""
    answers = {word: answer for word, (answer, _) in log_probs.items()}
    total = {}
    for word, (answer, logits) in log_probs.items():
        total[word] = 0.0
        for place, token in enumerate(answer):
            near = sorted({one[place] for one in answers.values() if one[:place] == answer[:place]})
            total[word] += float(torch.log_softmax(logits[place, near], -1)[near.index(token)])
    whole = sum(map(math.exp, total.values()))
    return {word: math.exp(value) / whole for word, value in total.items()}


@pytest.mark.parametrize("name", EVERY_BACKBONE)
def test_a_mixed_batch_answers_as_transformers_does_row_by_row(engines, name):
    """Tasks, lengths of prompts and of texts all mixed; closed answers with their probabilities."""
    engine = engines[name]
    requests = [Request(task, row={"text": text}, write=True) for task in TASKS for text in TEXTS]
    for request, found in zip(requests, engine.generate(requests), strict=True):
        written, probabilities = by_hand(engine, request)
        assert found.error is None
        assert found.written == written
        assert found.completion_tokens > 0
        assert found.virtual_tokens == int(request.task[-1])
        assert (found.probabilities or {}) == pytest.approx(probabilities, abs=1e-5)
        if probabilities:
            assert found.answer == max(probabilities, key=probabilities.get)
            assert CLOSED[found.label] == found.answer
    assert len({one.answer for one in engine.generate(requests)}) > 4  # else this would say little


words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=20).map(" ".join)
asked = st.tuples(  # what `request` is made of: that checks types, at random
    st.sampled_from(TASKS), words, st.booleans(), st.integers(1, 6), st.sampled_from(WAYS)
)


def request_of(said):
    """The request that was drawn."""
    task, text, write, most, decoding = said
    return Request(task, text=text, write=write, max_tokens=most, decoding=decoding)


@pytest.mark.parametrize("name", FAMILIES)
@few
@given(said=st.lists(asked, min_size=2, max_size=9), rows=st.integers(3, 16))
def test_an_answer_depends_on_no_other_row(engines, name, said, rows):
    """Whatever company, order and room for rows: the same words, logits within 1e-4."""
    requests = [request_of(one) for one in said]
    with pytest.MonkeyPatch.context() as patch:
        logits = recorded(patch)
        engine = with_settings(engines[name], rows=rows, read_tokens=64, live_tokens=400)
        together = engine.generate(requests)
        whole = dict(logits)
        for i, request in enumerate(requests):
            logits.clear()
            [alone] = engine.generate([request])
            bare = replace(alone, probabilities=None)
            assert replace(together[i], probabilities=None) == bare
            assert (together[i].probabilities or {}) == pytest.approx(alone.probabilities or {}, abs=1e-5)
            for (_, place), own in logits.items():
                apart = (whole[str(i), place] - own).abs().max()
                assert apart <= 1e-4 * max(1.0, own.abs().max() / 5)  # a drawn T5's are above ten


@pytest.mark.parametrize("name", FAMILIES)
@few
@given(said=st.lists(asked, min_size=1, max_size=8), seed=st.integers(0, 99))
def test_in_fixed_shapes_no_bit_depends_on_other_rows(engines, name, said, seed):
    """Alone, with others, and with those in another order: the same numbers."""
    requests = [request_of(one) for one in said]
    engine = with_settings(engines[name], rows=5, fixed=True)
    order = np.random.default_rng(seed).permutation(len(requests))
    with pytest.MonkeyPatch.context() as patch:
        logits = recorded(patch)
        first = engine.generate(requests)
        whole = dict(logits)
        logits.clear()
        again = engine.generate([requests[i] for i in order])
        for place, i in enumerate(order):
            assert again[place] == first[i]
            for key in [key for key in logits if key[0] == str(place)]:
                assert torch.equal(logits[key], whole[str(i), key[1]])
        logits.clear()
        [alone] = engine.generate(requests[:1])
        assert alone == first[0]
        assert all(torch.equal(whole[key], own) for key, own in logits.items())


@pytest.mark.parametrize("name", ["llama-prefix", "gpt2-prefix", "qwen2-prefix"])
def test_prompts_that_are_kept_change_nothing(engines, name, monkeypatch):
    """Keys and values of a prompt: read once while there is room, else each time; logits within 1e-5."""
    logits = recorded(monkeypatch)
    requests = [Request(task, text=text, write=True) for task in TASKS for text in TEXTS]
    found = []
    for room in (1 << 24, 0):
        engine = with_settings(engines[name], prompt_bytes=room)
        logits.clear()
        found.append((engine.generate(requests), dict(logits)))
        engine.generate(requests)
        assert (engine.prompts.read.made == len(TASKS)) == bool(room)
        assert engine.prompts.read.used <= room
    (one, first), (other, second) = found
    assert [(a.answer, a.written) for a in one] == [(a.answer, a.written) for a in other]
    for key, own in first.items():
        torch.testing.assert_close(own, second[key], rtol=0, atol=1e-5)
        # and as prompt and text are read in one pass
    backbone = engines[name].backbone
    for request in requests[:4]:
        prompt = torch.tensor(engines[name].snapshot.prompt(engines[name].snapshot.find(request.task)))
        expected = plain.next_logits(backbone.lm, backbone.text_tokens(request.text)[0], prompt)
        place = str(requests.index(request))
        torch.testing.assert_close(first[place, 0][0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", EVERY_SUFFIX)
def test_one_text_under_many_tasks_is_read_once(name, tmp_path, monkeypatch):
    """Prompts of unlike length behind one copy of the text; each as it is alone, closed or written."""
    backbone = build_backbone(name)
    snapshot = mixed_bank(tmp_path / "bank", backbone, (1, 2, 3, 5, 8))
    engine = Engine(backbone, snapshot, EngineSettings(rows=40))
    tasks = snapshot.names() * 3
    packed = []
    whole = type(backbone).begin_together
    monkeypatch.setattr(
        type(backbone), "begin_together", lambda self, *a: packed.append(len(a[1])) or whole(self, *a)
    )
    logits = recorded(monkeypatch)
    requests = [Request(task, text=TEXTS[2], write=i % 2 == 0) for i, task in enumerate(tasks)]
    found = engine.generate(requests)
    assert (backbone.texts.misses, packed) == (1, [len(tasks)])
    together = dict(logits)
    for i, request in enumerate(requests):
        logits.clear()
        [alone] = engine.generate([request])
        assert replace(found[i], probabilities=None) == replace(alone, probabilities=None)
        assert (found[i].probabilities or {}) == pytest.approx(alone.probabilities or {}, abs=1e-5)
        for (_, place), own in logits.items():
            torch.testing.assert_close(together[str(i), place], own, rtol=0, atol=1e-5)
    assert backbone.texts.misses == 1


def test_of_a_bank_only_the_tasks_of_a_batch_are_there(engines, monkeypatch):
    """Numbers of no other task are read, and each once in a batch."""
    engine = engines["t5"]
    read, whole = [], Snapshot.factors
    monkeypatch.setattr(
        Snapshot, "factors", lambda self, some: read.extend(one.name for one in some) or whole(self, some)
    )
    texts = ["a dog", "the cat", "one film"]
    engine.generate([Request("open3", text=text) for text in texts] + [Request("open5", text="a dog")])
    assert sorted(read) == ["open3", "open5"]


def test_words_are_made_ready_once_for_all_tasks_of_a_format(engines, monkeypatch):
    """The tokenizer meets answer words once, however many tasks have them; others have their own."""
    engine = with_settings(engines["t5"])
    met, whole = [], type(engine.backbone).answer_tokens
    monkeypatch.setattr(
        type(engine.backbone), "answer_tokens", lambda self, word: met.append(word) or whole(self, word)
    )
    closed = [engine.row(Request(f"closed{length}", text="a dog")) for length in LENGTHS]
    assert Counter(met) == dict.fromkeys(CLOSED.values(), 2)  # as tokens, and as they are spelt
    assert len({id(row.ready.tree) for row in closed}) == 1
    assert [row.ready.task.name for row in closed] == [f"closed{length}" for length in LENGTHS]
    assert engine.row(Request("open3", text="a dog")).ready.tree is None


@pytest.mark.parametrize("name", ["t5", "llama-prefix", "llama-suffix"])
def test_draws_and_beams_are_those_of_the_backbone(engines, name):
    """As `Backbone.generate` writes them, which is tested against transformers."""
    engine = engines[name]
    backbone = engine.backbone
    for decoding in WAYS[1:]:
        requests = [Request("open3", text=text, decoding=decoding) for text in TEXTS]
        sources = [backbone.text_tokens(text)[0] for text in TEXTS]
        entry = engine.snapshot.find("open3")
        prompt = torch.tensor(engine.snapshot.prompt(entry)).expand(len(sources), -1, -1)
        context = backbone.begin(backbone.read(sources), prompt)
        tokens = backbone.generate(
            context, entry.task.max_target_tokens, decoding, row_seeds(decoding.seed, sources)
        )
        assert [one.written for one in engine.generate(requests)] == [backbone.decode(row) for row in tokens]


# what cannot be answered


def test_a_request_that_cannot_be_answered_says_why_and_the_others_are_answered(engines):
    """Unknown task, missing and blank fields, no token, nothing or two things asked."""
    engine = engines["t5"]
    bad = [
        (Request("opn3", text="a dog"), "'open3'"),
        (Request("open3", row={"body": "a dog"}), "text"),
        (Request("open3", row={"text": " \u200b"}), "blank"),
        (Request("open3", text="</s>"), "no token for any sign"),
        (Request("open3"), "either a row or a text"),
        (Request("open3", row={"text": "a"}, text="a"), "either a row or a text"),
        (Request("open3", text="a dog", max_tokens=0), "max_tokens"),
        (Request("open3", text="a dog", stop=("",)), "stop"),
    ]
    good = [Request("open3", text="a dog", id="a"), Request("closed2", text="the film", id="b")]
    found = engine.generate([good[0], *(one for one, _ in bad), good[1]])
    for one, (_, said) in zip(found[1:-1], bad, strict=True):
        assert one.answer is None
        assert said in one.error
    assert [found[0], found[-1]] == engine.generate(good)
    assert [found[0].id, found[-1].id] == ["a", "b"]


@pytest.mark.parametrize("name", ["t5", "llama-suffix", "llama-prefix"])
def test_numbers_that_are_none_fail_their_row_alone(name, tmp_path, monkeypatch):
    """A prompt without numbers: its row has an error, the others are as without it."""
    backbone = build_backbone(name)
    mixed_bank(tmp_path / "bank", backbone)
    wild = np.full((3, backbone.width), np.nan, np.float32)
    monkeypatch.setattr("weft.bank.draft.largest", lambda *a: 0.0)
    change(tmp_path / "bank", [prompt_row("wild", wild), prompt_row("shut", wild, closed=True)])
    engine = Engine(backbone, bank.open(tmp_path / "bank").snapshot())
    good = [Request(task, text=text) for task in TASKS for text in TEXTS[:2]]
    bad = [Request("wild", text="a dog"), Request("shut", text="a dog")]
    found = engine.generate([*bad, *good])
    assert ["no number" in (one.error or "") for one in found] == [True] * 2 + [False] * len(good)
    alone = engine.generate(good)
    assert [(one.answer, one.written) for one in found[2:]] == [(one.answer, one.written) for one in alone]


def test_a_row_that_is_not_as_it_was_written_fails_alone(tmp_path):
    """Damage in a shard after the bank was opened."""
    backbone = build_backbone("t5")
    snapshot = mixed_bank(tmp_path / "bank", backbone)
    shard = tmp_path / "bank" / snapshot.find("open3").line.shard
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    engine = Engine(backbone, bank.open(tmp_path / "bank").snapshot())
    found = engine.generate([Request("open3", text="a dog"), Request("open2", text="a dog")])
    assert ["quarantined" in (one.error or "") for one in found] == [True, False]


@pytest.mark.parametrize("name", ["gpt2-suffix", "gpt2-prefix", "t5"])
def test_a_long_text_is_cut_and_said_so(name, tmp_path):
    """To its task's limit, and to what the model has room for beside prompt and answer."""
    backbone = build_backbone(name)
    bank.create(tmp_path / "bank", BASE)
    numbers = drawn((6, backbone.width), 1, scale=backbone.scale)
    rows = [prompt_row("short", numbers, source_tokens=7), prompt_row("long", numbers, source_tokens=500)]
    change(tmp_path / "bank", rows)
    engine = Engine(backbone, bank.open(tmp_path / "bank").snapshot())
    engine.intake._begun = lambda request, limit, source: begun(limit, None, request.decoding, 0)
    text = " ".join(["dog"] * 300)
    short, long = engine.generate([Request(task, text=text, max_tokens=10) for task in ("short", "long")])
    assert (short.cut, short.prompt_tokens, short.finish) == (True, 7, "length")
    assert (long.cut, long.prompt_tokens) == ((False, 301) if name == "t5" else (True, 128 - 6 - 10))
    assert long.completion_tokens == 10
    [none] = engine.generate([Request("long", text=text, max_tokens=200)])
    assert (none.error is None) == (name == "t5")


def test_bounds_that_are_none_are_refused():
    """Fixed shapes need a row that fills up."""
    with pytest.raises(ConfigError, match="rows is 1"):
        EngineSettings(rows=1, fixed=True)
    with pytest.raises(ConfigError, match="live_tokens is 0"):
        EngineSettings(live_tokens=0)


# real runs


RUNS = Path(__file__).parent / "fixtures" / "format-1"


def test_a_bank_of_runs_answers_as_the_runs_do(tmp_path):
    """A source stage and a teacher through bank and engine, against `weft.load`."""
    names = ["source-alpha+beta-s0-4d4fda07", "adapt-mpt-gamma-s0-32afba04"]
    root, base = RUNS / "finished", RUNS / "base"
    assert command("bank", "add", tmp_path / "bank", *names, "--runs", root) == 0
    engine = Engine.open(tmp_path / "bank", base=base)
    model = weft.load(*names, root=root, base=base)
    rows = [{"text": text} for text in TEXTS]
    expected = model.predict(rows, generate=True)
    asked = [Request(one.task, row=rows[one.row], write=True) for one in expected]
    assert len({one.task for one in asked}) == 3
    for one, found in zip(expected, engine.generate(asked), strict=True):
        assert (found.answer, found.written, found.label) == (one.answer, one.written, one.label)
        assert found.probabilities == pytest.approx(one.probabilities, abs=1e-5)


def test_readers_and_prompts_answer_side_by_side(tmp_path, monkeypatch):
    """Tasks of `method: weft` of a bank as their run has them; a text under two of them is read once."""
    job, root, place = write_job(tmp_path, "llama", "suffix", READERS), tmp_path / "runs", tmp_path / "bank"
    assert command("run", job, "--runs", root, "--quiet") == 0
    names = sorted(path.name for path in root.iterdir() if path.name.startswith(("adapt", "source")))
    assert command("bank", "add", place, *names, "--runs", root) == 0
    rows = [{"text": text} for text in TEXTS]
    expected = weft.load(*names, root=root).predict(rows)
    assert {one.task for one in expected} == {"alpha", "beta", "gamma", "delta"}
    engine = Engine.open(place)
    read, compute = [], TextCache._compute
    monkeypatch.setattr(TextCache, "_compute", lambda self, *a: read.extend(a[0]) or compute(self, *a))
    found = engine.generate([Request(one.task, row=rows[one.row]) for one in expected])
    for one, other in zip(expected, found, strict=True):
        assert (other.answer, other.finish) == (one.answer, "choice")
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-4)
    assert len(read) <= 2 * len(rows)  # bare by the readers, and with keys and values for prompts
    [refused, cut] = engine.generate(
        [Request("gamma", text="a dog", write=True), Request("gamma", text="dog " * 5000)]
    )
    assert "chosen by readers" in refused.error
    assert cut.cut
    assert json.dumps(cut.probabilities)


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.parametrize("position", ["suffix", "prefix"])
def test_on_smollm2_no_row_depends_on_others(tmp_path, position, monkeypatch):
    """Texts rounded to 16 bits as they are kept: the same words, logits within 1e-4; fixed, all bits."""
    folder = base_folder.resolve(BaseConfig())
    backbone = load_backbone(folder, dtype="float32", position=position, attention="grouped")
    snapshot = mixed_bank(tmp_path / "bank", backbone, (4, 9, 16))
    texts = ["The river rose all night.", "Who?", "An old man came home and fed his cat, as on every day."]
    requests = [Request(f"open{length}", text=text) for length in (4, 9, 16) for text in texts]
    logits = recorded(monkeypatch)
    for fixed in (False, True):
        bounds = EngineSettings(rows=10, fixed=fixed)

        def fresh(bounds=bounds):
            if isinstance(backbone, CausalBackbone):
                backbone.texts = served_texts(backbone, 1 << 28)
            return Engine(backbone, snapshot, bounds)

        logits.clear()
        together = fresh().generate(requests)
        whole = dict(logits)
        for i, request in list(enumerate(requests))[::4]:
            logits.clear()
            assert fresh().generate([request])[0] == together[i]
            for (_, place), own in logits.items():
                apart = float((whole[str(i), place] - own).abs().max())
                assert apart <= (0 if fixed else 1e-4)
