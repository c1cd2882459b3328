"""Continuous batching: rows that join, leave, wait, are dropped and are told while they are written."""

from dataclasses import replace

import pytest
import torch
from conftest import WORDS, build_backbone
from hypothesis import given
from hypothesis import strategies as st
from served_bank import drawn, mixed_bank, prompt_row

from weft import bank
from weft.bank.writer import change
from weft.config.decoding import Decoding
from weft.errors import ConfigError
from weft.models.decoding import begun, row_seeds
from weft.serving.engine import Engine
from weft.serving.kept import Kept
from weft.serving.requests import Piece, Request, Response
from weft.serving.settings import EngineSettings
from weft.serving.text import fast, stopped

NAMES = ["llama-prefix", "llama-suffix", "gpt2-suffix", "t5", "bert"]
TEXTS = ["the film was good", "a dog", " ".join(WORDS[:25]), "one two three red"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Engines whose models end no answer early, so that lengths are known."""
    place, found = tmp_path_factory.mktemp("banks"), {}
    for name in NAMES:
        backbone = build_backbone(name)
        found[name] = endless(Engine(backbone, mixed_bank(place / name, backbone), EngineSettings(rows=16)))
    return found


def endless(engine):
    """No token ends an answer."""

    def begin(request, limit, source):
        [seed] = row_seeds(request.decoding.seed, [source])
        return begun(limit, None, request.decoding, seed)

    engine.intake._begun = begin
    return engine


def run(loop, wanted=None):
    """Everything that a loop says until it is idle, step by step."""
    steps = []
    while not loop.idle:
        steps.append(loop.step())
        assert len(steps) < 500, "it does not end"
    return steps


def responses(steps):
    return {one.id: one for step in steps for one in step if isinstance(one, Response)}


def pieces(steps, id):
    return "".join(one.text for step in steps for one in step if isinstance(one, Piece) and one.id == id)


def requests(count, **how):
    kinds = ("open2", "open3", "open5", "closed3")
    return [
        Request(kinds[i % 4], text=TEXTS[i % len(TEXTS)], id=f"r{i}", write=True, **how) for i in range(count)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_join_late_are_answered_as_if_alone(engines, name):
    """At every step another one comes; each has its own limit."""
    engine = engines[name]
    asked = [replace(one, max_tokens=3 + i % 4) for i, one in enumerate(requests(8))]
    loop, said = engine.loop(), []
    for request in asked:
        loop.add([request])
        said.append(loop.step())
    found = responses([*said, *run(loop)])
    for request in asked:
        [alone] = engine.generate([request])
        assert replace(found[request.id], probabilities=None) == replace(alone, probabilities=None)


@pytest.mark.parametrize("name", ["llama-suffix", "t5"])
def test_rows_share_steps_and_leave_when_they_end(engines, name, monkeypatch):
    """Four answers of 2 to 5 tokens, one of which comes later: no step has a row that has ended."""
    engine = engines[name]
    sizes, step = [], type(engine.backbone).step
    monkeypatch.setattr(
        type(engine.backbone),
        "step",
        lambda self, context, tokens: sizes.append(len(tokens)) or step(self, context, tokens),
    )
    asked = [Request("open3", text="a dog", id=str(n), max_tokens=n) for n in (2, 3, 5)]
    loop = engine.loop()
    loop.add(asked)
    loop.step()
    loop.add([Request("open5", text="the cat", id="late", max_tokens=4)])
    run(loop)
    # after the first tokens 3 are read; then 2 and the new one's, then 1 and 1, then 1 and 1
    assert sizes == [3, 3, 2, 2]


def test_what_is_dropped_is_never_heard_of_again(engines):
    """While it waits, while it is written, when it is refused; others are as without it."""
    engine = engines["llama-suffix"]
    asked = [*requests(6, max_tokens=6), Request("nothing", text="a", id="bad")]
    loop = engine.loop()
    loop.add(asked)
    loop.drop("bad")
    loop.drop("unknown")
    steps = [loop.step()]
    loop.drop("r1")
    loop.add([Request("open3", text="a dog", id="late")])
    loop.drop("late")
    steps += run(loop)
    assert sorted(responses(steps)) == ["r0", "r2", "r3", "r4", "r5"]
    assert not any(one.id == "r1" for step in steps[1:] for one in step)
    expected = engine.generate(asked[:6])
    assert all(responses(steps)[one.id].written == one.written for one in expected if one.id != "r1")
    loop.add([asked[1]])  # its id is free again
    assert list(responses(run(loop))) == ["r1"]


def test_an_id_is_there_once(engines):
    """Else an answer could be handed to another."""
    loop = engines["t5"].loop()
    loop.add([Request("open3", text="a dog", id="x")])
    with pytest.raises(ConfigError, match="'x'"):
        loop.add([Request("open3", text="a cat", id="x")])
    assert list(responses(run(loop))) == ["x"]


@pytest.mark.parametrize("name", ["llama-prefix", "t5"])
def test_rows_and_positions_stay_within_their_bounds(engines, name, monkeypatch):
    """Beams count; a request that is larger than the bounds is answered alone."""
    bounds = EngineSettings(rows=6, read_tokens=40, live_tokens=150)
    engine = endless(Engine(engines[name].backbone, engines[name].snapshot, bounds))
    seen, step = [], type(engine.backbone).step

    def counted(self, context, tokens):
        seen.append((len(tokens), context.mask.numel()))
        return step(self, context, tokens)

    monkeypatch.setattr(type(engine.backbone), "step", counted)
    beams = [
        Request("open3", text="a dog", id=f"b{i}", decoding=Decoding(num_beams=4), max_tokens=4)
        for i in range(3)
    ]
    asked = [*requests(7, max_tokens=5), *beams]
    assert len(responses(run(_filled(engine, asked)))) == 10
    assert max(rows for rows, _ in seen) <= 6
    assert max(positions for _, positions in seen) <= 150
    small = Engine(engine.backbone, engine.snapshot, EngineSettings(rows=2, read_tokens=5, live_tokens=9))
    assert [one.error for one in small.generate(asked)] == [None] * 10


def _filled(engine, asked):
    loop = engine.loop()
    loop.add(asked)
    return loop


def test_nobody_waits_for_ever(engines):
    """A long text that needs all the room is answered although short ones keep coming."""
    engine = engines["llama-suffix"]
    engine = endless(Engine(engine.backbone, engine.snapshot, EngineSettings(rows=4, live_tokens=64)))
    loop = engine.loop()
    shorts = [Request("open2", text="a dog", id=str(n), max_tokens=4 + n % 5) for n in range(60)]
    loop.add(shorts[:4])
    loop.step()
    loop.add([Request("open5", text=" ".join(WORDS[:39]), id="long", max_tokens=8)])
    for short in shorts[4:]:
        loop.add([short])
        found = [one for one in loop.step() if isinstance(one, Response)]
        assert all(one.error is None for one in found)
        if any(one.id == "long" for one in found):
            return
    pytest.fail("it starved")


@pytest.mark.parametrize("name", ["llama-suffix", "t5"])
def test_pieces_together_are_what_is_written(engines, name):
    """As they come, token by token; of beams at the end."""
    engine = engines[name]
    asked = [*requests(4, max_tokens=6)]
    asked += [Request("open3", text="a dog", id="beams", decoding=Decoding(num_beams=3))]
    steps = run(_filled(engine, asked))
    for request in asked:
        assert pieces(steps, request.id) == responses(steps)[request.id].written
    assert sum(isinstance(one, Piece) for step in steps for one in step) > 2 * len(asked)
    quiet = engine.loop(pieces=False)
    quiet.add(asked)
    assert all(isinstance(one, Response) for step in run(quiet) for one in step)


@pytest.mark.parametrize("name", ["llama-suffix", "t5"])
def test_a_stop_text_ends_an_answer_before_it(engines, name):
    """It stands in no piece, and what would have come is not written."""
    engine = engines[name]
    [whole] = engine.generate([Request("open5", text=TEXTS[3], max_tokens=6)])
    words = whole.written.split()
    stop = next(word for word in words[1:] if word != words[0])
    before = words[: words.index(stop)]
    request = Request("open5", text=TEXTS[3], max_tokens=6, stop=("never", stop), id="x")
    steps = run(_filled(engine, [request]))
    found = responses(steps)["x"]
    assert (found.written, pieces(steps, "x")) == (" ".join(before), " ".join(before))
    assert (found.finish, whole.finish) == ("stop", "length")
    assert found.completion_tokens < whole.completion_tokens
    [beams] = engine.generate([replace(request, decoding=Decoding(num_beams=2))])
    assert stop not in beams.written.split()


def test_requests_are_answered_by_the_generation_under_which_they_came(tmp_path):
    """A task that is replaced while another request of it is on its way."""
    backbone = build_backbone("t5")
    first = Engine(backbone, mixed_bank(tmp_path / "bank", backbone))
    loop = first.loop()
    loop.add([Request("open3", text="a dog", id="old")])
    row = prompt_row("open3", drawn((4, backbone.width), 99, scale=backbone.scale))
    change(tmp_path / "bank", [row], replace=True)
    second = first.under(bank.open(tmp_path / "bank").snapshot())
    loop.under(second)
    loop.add([Request("open3", text="a dog", id="new")])
    found = responses(run(loop))
    for id, engine in (("old", first), ("new", second)):
        [expected] = engine.generate([Request("open3", text="a dog", id=id)])
        assert found[id] == expected
    assert found["old"].generation < found["new"].generation
    assert found["old"].sha256 != found["new"].sha256
    assert (found["old"].virtual_tokens, found["new"].virtual_tokens) == (3, 4)


def test_a_text_that_breaks_the_model_fails_alone(engines, monkeypatch):
    """Found by answering each of its batch by itself; the others are as without it."""
    engine = engines["t5"]
    begin = type(engine.backbone).begin
    poison = engine.backbone.text_tokens("who why")[0]

    def choosy(self, state, prompts):
        if poison in state.sources:
            raise torch.OutOfMemoryError("no room\nfor this")
        return begin(self, state, prompts)

    monkeypatch.setattr(type(engine.backbone), "begin", choosy)
    good = requests(4)
    found = engine.generate([*good[:2], Request("open3", text="who why"), *good[2:]])
    assert "no room for this" in found.pop(2).error
    assert [one.written for one in found] == [one.written for one in engine.generate(good)]


def test_a_step_that_breaks_fails_its_rows_and_the_loop_goes_on(engines, monkeypatch):
    """What they had read is used up; who waits is answered."""
    engine = engines["llama-prefix"]
    loop, step = engine.loop(), type(engine.backbone).step
    loop.add(requests(3))
    loop.step()

    def breaks(self, context, tokens):
        raise RuntimeError("broken")

    monkeypatch.setattr(type(engine.backbone), "step", breaks)
    assert ["broken" in one.error for one in loop.step()] == [True] * 3
    monkeypatch.setattr(type(engine.backbone), "step", step)
    assert loop.idle
    loop.add(requests(3))
    assert [one.error for one in responses(run(loop)).values()] == [None] * 3


# texts, and what is kept

texts = st.text(alphabet="ab \ufffd", max_size=12)
stops = st.lists(st.text(alphabet="ab ", min_size=1, max_size=3), max_size=3)


@given(texts, stops)
def test_what_stands_fast_is_never_taken_back(text, stop):
    """Of every beginning, nothing that the whole, cut at its stop, has not."""
    whole = stopped(text, stop)
    whole = (text if whole is None else whole).strip()
    for end in range(len(text) + 1):
        part = text[:end]
        if stopped(part, stop) is None and not part.endswith("\ufffd"):
            assert whole.startswith(fast(part, stop))
    assert all(one not in whole for one in stop if one == one.strip())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=30), st.integers(1, 8))
def test_what_was_used_longest_ago_is_forgotten(asked, room):
    """Against a list; sizes count."""
    kept, model = Kept(room, size=lambda value: value[1]), {}
    for key, size in asked:
        value = kept.get(key, lambda key=key, size=size: (key, size))
        assert value[0] == key
        if value[1] <= room:
            model[key] = model.pop(key, value)
        while sum(one[1] for one in model.values()) > room:
            model.pop(next(iter(model)))
        assert kept.used == sum(one[1] for one in model.values()) <= room
        assert len(kept) == len(model)
