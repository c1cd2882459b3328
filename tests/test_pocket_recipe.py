"""The recipe of the small base model: what may not be learned from, what is learned, and going on."""

import os
import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import build_lm, build_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy import stats
from tiny_job import write_job
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSeq2SeqLM, BertConfig, BertModel, PreTrainedTokenizerFast

from recipes.pocket import (
    alike,
    answers,
    examples,
    look,
    mood,
    opinions,
    parts,
    quality,
    release,
    shards,
    text,
    train,
    ways,
)
from recipes.pocket.batches import Batches
from recipes.pocket.overlap import RUN, SHORTEST, Overlap, benchmark_texts
from recipes.pocket.text import Document
from weft.models import Precision, load_backbone
from weft.models.base_folder import describe
from weft.models.bundled import TABLES, assemble
from weft.runs import Run
from weft.runs.workspace import Workspace
from weft.tasks import named

CPU = torch.device("cpu")
WORDS = st.lists(
    st.sampled_from(["one", "two", "three", "four", "five", "six", "seven", "8", "nine"]), max_size=40
)


def shares_slowly(text: str, benchmark: str) -> bool:
    """The definition, by comparing lists of words."""
    words, wanted = text.lower().split(), benchmark.lower().split()
    size = min(len(wanted), RUN)
    if size < SHORTEST:
        return False
    runs = {tuple(wanted[i : i + size]) for i in range(len(wanted) - size + 1)}
    return any(tuple(words[i : i + size]) in runs for i in range(len(words) - size + 1))


@given(WORDS, WORDS, WORDS)
def test_overlap_is_a_run_of_words(before, benchmark, after):
    """Against plain lists, with the benchmark's text in the middle, cut or whole."""
    told = Overlap([" ".join(benchmark)])
    for inner in (benchmark, benchmark[1:], benchmark[: RUN - 1], []):
        found = " ".join([*before, *inner, *after])
        assert told.shares(found) == shares_slowly(found, " ".join(benchmark))


def test_overlap_sees_through_case_and_punctuation():
    """As benchmarks and corpora write the same sentence in unlike ways."""
    told = Overlap(["One, two -- three four; five six seven (eight)."])
    assert told.shares("He said: ONE two three. Four five six 'seven' eight!")
    assert not told.shares("one two three four five six seven nine")


@pytest.mark.parametrize(
    ("licence", "may"),
    [
        ("MIT", True),
        ("CC BY-SA 4.0", True),
        ("Apache 2.0", True),
        ("CC BY-NC 4.0", False),
        ("CC BY-NC-SA 4.0", False),
        ("CC BY-NC", False),
        ("Unknown", False),
        ("© European Union, 1998-2021", False),
        ("", False),
    ],
)
def test_licences(licence, may):
    """Not stated, or not for every use: not learned from."""
    assert text.allowed(licence) == may


def some_documents() -> list[Document]:
    """Documents of every kind, long enough for every maker."""
    draw = random.Random(0)
    vocabulary = [
        f"{a}{b}" for a in ("river", "garden", "letter", "window", "glad", "sad") for b in ("", "s", "ing")
    ]

    def sentence() -> str:
        return " ".join(draw.choices(vocabulary, k=12)).capitalize() + "."

    def paragraph() -> str:
        return " ".join(sentence() for _ in range(5))

    found = [Document("encyclopedia", ["A Title", paragraph(), paragraph()]) for _ in range(5)]
    found += [Document("book", [paragraph(), paragraph()]) for _ in range(5)]
    found += [Document("dialogue", [f"User: {sentence()}", f"Assistant: {sentence()}"] * 3) for _ in range(5)]
    quiz = "Question: {}? Choices: one, two. Answer: two."
    found += [Document("quiz", [quiz.format(sentence()[:-1])] * 3) for _ in range(5)]
    for _ in range(2):
        found += [Document("entailment", [sentence(), sentence(), "follows"])]
        found += [Document("reading", ["What?", "river", f"A river here. {sentence()}", sentence()])]
        found += [Document("alike", [sentence(), sentence(), "same"])]
        found += [Document("review", ["positive", sentence()])]
    return [*found, Document("instruction", ["Say it.", "a text", "it"], "task1")]


def test_examples_are_of_every_kind_and_the_same_again():
    """Shares are kept, and a seed makes the same examples."""
    made = list(examples.examples(some_documents(), 2000, seed=1))
    assert made == list(examples.examples(some_documents(), 2000, seed=1))
    assert {one.task.partition("/")[0] for one in made} == {*examples.TASKS, "task1"} - {"instruction"}
    assert all(one.source and one.target for one in made)
    told = examples.instructions(some_documents())
    assert all(told[one.task] == one.told for one in made)
    assert {one.task for one in made} <= set(told)
    assert {examples.kind_of(name) for name in told} == set(examples.TASKS)


def test_answers_are_called_by_the_words_that_the_prompt_tells():
    """Of every task with few answers: a word each, the same again, and told with the question."""
    for name, own in examples.ANSWERS.items():
        example = examples.Example(name, examples.TASKS[name][1], "text", own[1])
        assert examples.renamed(example, 0) == example
        called = answers.others(name, own, 3)
        assert len(set(called.values())) == len(own)
        found = examples.renamed(example, 3)
        assert (found.task, found.target) == (f"{name}/3", called[own[1]])
        assert f"{own[1]} is {called[own[1]]}" in found.told
        assert examples.kind_of(found.task) == name
    assert answers.others("same", ("same", "different"), 2) != answers.others(
        "same", ("same", "different"), 4
    )


def test_every_answer_is_known_to_be_one():
    """What the makers give is in the list of answers, so that it can be called otherwise."""
    for one in examples.examples(some_documents(), 3000, seed=2):
        name = one.task
        assert name not in examples.ANSWERS or one.target in examples.ANSWERS[name]


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("1066", "time"),
        ("March 3", "time"),
        ("36 miles", "number"),
        ("Mary Shelley", "name"),
        ("a cat", "thing"),
    ],
)
def test_a_question_asks_for_what_its_answer_looks_like(answer, wanted):
    """By digits, months and capitals."""
    passage = examples.Passage(Document("reading", ["What?", answer, "", ""]), [], "")
    assert examples.asks(random.Random(0), passage) == ("What?", wanted)


def test_opinions_are_of_both_kinds_and_every_turn_can_be_said():
    """Half of either label; words of the other side stand only where a turn turns them around."""
    made = list(opinions.opinions(2000, seed=0))
    assert made == list(opinions.opinions(2000, seed=0))
    assert Counter(label for label, _ in made) == {"positive": 1000, "negative": 1000}
    assert not any("{" in said for _, said in made)
    plain = [turn for turn in opinions.PARTS["turns"] if "not_" not in turn]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(opinions.PARTS, "turns", plain)
        for label, said in opinions.opinions(500, seed=1):
            other = opinions.PARTS[opinions.SIDES[label][1]]
            assert not any(f" {phrase} " in f" {said} " for phrase in other["do"])


def test_pairs_are_the_same_where_their_vectors_say_so(wheel, monkeypatch):
    """Against cosines by hand; as many of the one as of the other, and no text beside itself."""
    monkeypatch.setattr(alike, "minilm_folder", lambda: wheel)
    draw, words = random.Random(0), ["cat", "dog", "yes", "no", "one", "say"]
    texts = list(dict.fromkeys(" ".join(draw.choices(words, k=6)) for _ in range(60)))
    near = alike.embedded(texts) @ alike.embedded(texts).T
    monkeypatch.setattr(alike, "SAME", near.topk(5, dim=1).values.median().item())
    found = list(alike.pairs(texts, seed=0))
    labels = Counter(label for _, _, label in found)
    assert labels["same"] == labels["different"] > 0
    one, two = (alike.embedded([pair[side] for pair in found]).double().numpy() for side in (0, 1))
    cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    for (first, second, label), cosine in zip(found, cosines, strict=True):
        assert first != second
        assert abs(cosine - alike.SAME) < 1e-5 or (label == "same") == (cosine > alike.SAME)


def test_neighbours_are_the_nearest_others():
    """Against sorted products."""
    vectors = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    products = vectors.double().numpy() @ vectors.double().numpy().T
    np.fill_diagonal(products, -np.inf)
    assert np.array_equal(alike.neighbours(vectors).numpy(), np.argsort(-products, 1)[:, : alike.NEIGHBOURS])


@given(st.integers(0, 10_000))
def test_what_is_filled_in_was_there(seed):
    """A filled gap is the text again; a word said to be there is there, another is not."""
    draw = random.Random(seed)
    document, other = draw.sample([one for one in some_documents() if one.kind == "book"], 2)
    own, foreign = examples.sentences(draw, document), examples.sentences(draw, other)
    passage = examples.Passage(document, own, foreign[0])
    source, target = examples.fill(draw, passage)
    assert source.replace("[MASK]", target) in " ".join(own)
    source, target = examples.contains(draw, passage)
    word, _, said = source.partition(" : ")
    assert (target == "yes") == (word in [one.strip(".") for one in said.split()])
    source, target = examples.follows(draw, passage)
    second = source.partition(" second : ")[2]
    assert (target == "next") == any(one.startswith(second) for one in own)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A wonderful and moving story", [0, 1, 0, 0, 0]),
        ("It was not a good film.", [0, 0, 0, 0, -1, 0]),
        ("We didn't hate it at all!", [0, 0, 1, 0, 0, 0]),
        ("No plot, then five minutes on: dull", [0, 0, 0, 0, 0, 0, -1]),
    ],
)
def test_praise_and_blame_hear_negations(text, wanted):
    """Three words after a negation are turned around, those behind are not."""
    assert mood.signs(text.split()) == wanted
    assert not mood.PRAISE & mood.BLAME


def test_a_feeling_is_told_by_what_it_hides(monkeypatch):
    """Both answers are as frequent; hidden words are the telling ones, and what is shown decides."""
    monkeypatch.setattr(examples, "RENAMED", 0)
    made = [one for one in examples.examples(some_documents(), 2000, seed=1) if one.task == "feeling"]
    counts = Counter(one.target for one in made)
    assert counts.total() > 100
    assert abs(counts["positive"] - counts["negative"]) <= 1
    plain = [one for one in made if "[MASK]" not in one.source]
    for one in plain:
        assert sum(mood.signs(one.source.split())) * (1 if one.target == "positive" else -1) > 0
    assert 0 < len(plain) < len(made)


def test_a_question_stands_beside_the_sentence_that_holds_its_answer(tmp_path):
    """The sentence is found in its passage, at its borders; the other one does not hold the answer."""
    context = "First one here. The king, Olaf II, fell in 1030. He was young."
    answer = {"text": ["1030"], "answer_start": [context.index("1030")]}
    rows = [{"question": "When did he fall?", "context": context, "answers": answer}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    (found,) = text._reading(tmp_path)
    assert found.paragraphs[:3] == ["When did he fall?", "1030", "The king, Olaf II, fell in 1030."]
    assert found.paragraphs[3] in ("First one here.", "He was young.")


@pytest.fixture
def shard(tmp_path) -> shards.Shard:
    """Examples of two tasks in the tiny tokenizer's words."""
    made = [
        examples.Example(f"t{i % 2}", "say", "cat dog " * (1 + i % 5), "yes" if i % 2 else "no one")
        for i in range(40)
    ]
    shards.write(tmp_path / "train", made, {"t0": "say", "t1": "say"}, build_tokenizer())
    return shards.read(tmp_path / "train")


def test_a_shard_gives_back_what_was_written(shard):
    """Tokens of every example, and of the instructions."""
    tokenizer = build_tokenizer()
    for i in range(40):
        assert tokenizer.decode(shard.source(i)).split() == ["cat", "dog"] * (1 + i % 5)
        assert tokenizer.decode(shard.target(i)) == ("yes" if i % 2 else "no one")
        assert shard.names[shard.task[i]] == f"t{i % 2}"
    assert shard.lengths.tolist() == [2 * (1 + i % 5) for i in range(40)]


def test_an_epoch_holds_every_row_once(shard):
    """And the batch of a step does not depend on those before."""
    batches = Batches(shard, 8, seed=3, begin=5, end=1, pad=0)
    every = np.stack([batches.rows(step) for step in range(10)])
    first, second = every[:5], every[5:]
    assert sorted(first.flat) == sorted(second.flat) == list(range(40))
    assert (first != second).any()
    assert Batches(shard, 8, seed=3, begin=5, end=1, pad=0).rows(7).tolist() == every[7].tolist()


def test_kinds_and_lengths_choose_examples(shard):
    """By the name of a task and the length of an answer; batches hold no others."""
    long = shard.of((), 1)  # `yes`, of t1; `no one`, of t0, has two tokens
    assert long.tolist() == [i for i in range(40) if i % 2]
    assert shard.of(("instruction",), 9).tolist() == list(range(40))  # neither is a task of the recipe's own
    assert shard.of(("copy",), 9).size == 0
    batches = Batches(shard, 5, seed=0, begin=5, end=1, pad=0, chosen=long)
    assert sorted(np.concatenate([batches.rows(step) for step in range(4)])) == long.tolist()


def test_a_batch_has_its_special_tokens(shard):
    """Begin, instruction, text, end; padding beyond; the target with its end."""
    rows = Batches(shard, 8, seed=0, begin=5, end=1, pad=0).at(0, told=True)
    for ids, mask, labels in zip(rows.ids, rows.mask, rows.labels, strict=True):
        held = ids[mask.bool()].tolist()
        assert (held[0], held[-1]) == (5, 1)
        assert (ids[~mask.bool()] == 0).all()
        assert labels[labels != -100][-1] == 1


@pytest.fixture
def tiny(monkeypatch, shard, tmp_path) -> Path:
    """The recipe with a tiny model in the place of the borrowed one."""

    def way() -> ways.Way:
        return ways.Way(build_lm("t5").requires_grad_(True), build_tokenizer(), None, 5, 1)

    monkeypatch.setattr(train, "WAYS", {"tiny": way})
    monkeypatch.setattr(train, "probe", lambda device: Precision("float32", {"float32": 1.0}))
    return tmp_path


def settings(**changes: object) -> train.Settings:
    """A short run."""
    return train.Settings(**{"way": "tiny", "steps": 6, "batch": 8, "rate": 1e-2, "warmup": 2, **changes})


def test_a_stopped_run_ends_with_the_same_numbers(tiny, monkeypatch):
    """Six steps at once, or two and four in another process, give equal bytes."""
    whole = train.train(settings(), tiny, tiny / "whole", minutes=1)
    clock = iter([0.0, 0.0, 0.0, 0.0, *[1e9] * 99])
    chosen = settings(kinds=("instruction",))  # all there are
    with monkeypatch.context() as patch:
        patch.setattr(train, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        part = train.train(chosen, tiny, tiny / "parts", minutes=1)
    assert 0 < part.step < 6
    ended = train.train(chosen, tiny, tiny / "parts", minutes=1)
    assert ended.step == whole.step == 6
    assert torch.equal(ended.soft, whole.soft)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ended.way.model.parameters(), whole.way.model.parameters(), strict=True)
    )


def test_training_learns_and_other_settings_are_refused(tiny):
    """The loss falls; a folder stays with the settings it was begun with."""
    trainer = train.begin(settings(steps=60), [[3], [4]], CPU)
    rows = Batches(shards.read(tiny / "train"), 8, 0, 5, 1, 0).at(0, told=False)
    losses = [trainer.update(rows)[0] for _ in range(30)]
    assert losses[-1] < losses[0] / 2
    train.train(settings(steps=1), tiny, tiny / "out", minutes=1)
    with pytest.raises(ValueError, match="other settings"):
        train.train(settings(steps=2), tiny, tiny / "out", minutes=1)


def test_soft_prompts_begin_as_instructions(tiny):
    """The embeddings of a task's instruction, again and again."""
    trainer = train.begin(settings(), [[3], [4, 7, 5]], CPU)
    table = trainer.way.model.get_input_embeddings().weight
    assert torch.equal(trainer.soft[0], table[[3] * train.SOFT])
    assert torch.equal(trainer.soft[1, :5], table[[4, 7, 5, 4, 7]])


def test_a_run_can_begin_with_the_model_of_another(tiny):
    """With its weights, and with nothing else of it."""
    before = train.train(settings(), tiny, tiny / "before", minutes=1)
    after = settings(start="before", steps=1, rate=1e-9, soft_rate=1e-9)
    found = train.train(after, tiny, tiny / "after", minutes=1)
    assert found.step == 1
    for one, other in zip(found.way.model.parameters(), before.way.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert not torch.allclose(found.soft, before.soft, atol=1e-3)


def test_what_is_learned_is_seen(tiny):
    """Rows right to the last token, and losses as training counts them."""
    trainer = train.begin(settings(steps=200, rate=3e-3), [[3], [4]], CPU)
    shard = shards.read(tiny / "train")
    before = look.look(trainer, shard, 1)
    batches = Batches(shard, 8, 0, 5, 1, 0)
    for step in range(200):
        trainer.update(batches.at(step, told=False))
    after = look.look(trainer, shard, 1)
    (name,) = after  # neither task is the recipe's own, so they count as one
    assert (name, after[name].rows) == ("instruction", 32)
    assert after[name].right == 100 > before[name].right
    assert after[name].loss < before[name].loss / 5


def test_principal_directions_keep_distances():
    """With all of them, distances between words are those of the table, up to one factor."""
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    found = ways.principal(table, 8)
    ratio = torch.pdist(found) / torch.pdist(table)
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4)


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A tiny BERT and its tokenizer in the place of the installed one."""
    folder = tmp_path / "wheel"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "yes", "no", "one", "say"]
    special = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), words, strict=False)
    )
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder)
    monkeypatch.setattr(ways, "minilm_folder", lambda: folder)
    return folder


def logits(folder: Path) -> torch.Tensor:
    """Of stock transformers, for one text and what it may answer."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=torch.tensor([[2, 7]])).logits


def test_a_borrowed_model_goes_out_in_parts_and_comes_back(wheel, tmp_path):
    """Trained, exported, cut into parts, put together: stock transformers gives the logits of the run."""
    made = [examples.Example("t", "say", "cat dog", "yes") for _ in range(16)]
    shards.write(tmp_path / "train", made, {"t": "say"}, ways.borrowed().tokenizer)
    changes = {"way": "borrowed", "encoder_rate": 1e-3, "steps": 3}
    done = train.train(settings(**changes), tmp_path, tmp_path / "run", minutes=1)
    folder = release.export(tmp_path / "run")
    table = done.way.model.get_input_embeddings().weight
    assert torch.equal(table, ways.borrowed().model.get_input_embeddings().weight)
    with torch.no_grad():
        expected = done.way.model(
            input_ids=torch.tensor([[2, 5, 6, 3]]), decoder_input_ids=torch.tensor([[2, 7]])
        ).logits
    torch.testing.assert_close(logits(folder), expected, rtol=1e-5, atol=1e-5)
    sizes = release.release(tmp_path / "run", tmp_path / "parts")
    shipped = [load_file(tmp_path / "parts" / name) for name in parts.PARTS]
    assert list(sizes) == list(parts.PARTS)
    assert {value.dtype for part in shipped for value in part.values()} == {np.dtype(np.float16)}
    assert not {*TABLES, parts.OUTPUT} & {name for part in shipped for name in part}
    assemble(tmp_path / "parts", wheel, tmp_path / "again")
    torch.testing.assert_close(logits(tmp_path / "again"), expected, rtol=0, atol=5e-3)
    found = describe("again", tmp_path / "again", "here")
    assert (found.family, found.width, found.positions) == ("seq2seq", 16, 64)
    assert found.seen == set(release.SEEN)
    again = load_backbone(found, dtype="float32")
    assert again.text_tokens("cat dog")[0] == (5, 6)


def test_training_goes_on_from_what_is_shipped(wheel, tmp_path, monkeypatch):
    """A start that is a known base model has its weights, where no run's folder is left."""
    made = [examples.Example("t", "say", "cat dog", "yes") for _ in range(16)]
    shards.write(tmp_path / "train", made, {"t": "say"}, ways.borrowed().tokenizer)
    changes = {"way": "borrowed", "encoder_rate": 1e-2, "steps": 3}
    before = train.train(settings(**changes), tmp_path, tmp_path / "run", minutes=1)
    shipped = SimpleNamespace(path=release.export(tmp_path / "run"))
    monkeypatch.setattr(train, "resolve", lambda base: {"pocket": shipped}[base.model])
    on = settings(way="borrowed", start="pocket", steps=1, encoder_rate=1e-9, rate=1e-9, soft_rate=1e-9)
    found = train.train(on, tmp_path, tmp_path / "on", minutes=1)
    assert not torch.equal(key_of(found.way.model), key_of(ways.borrowed().model))
    for one, other in zip(found.way.model.parameters(), before.way.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_what_is_borrowed_begins_the_decoder(wheel):
    """Its layers are the encoder's last; one table serves encoder, decoder and output, and is not trained."""
    model = ways.borrowed().model
    last = model.encoder.encoder.layer[-1].attention.self.query.weight
    assert torch.equal(model.decoder.bert.encoder.layer[-1].attention.self.query.weight, last)
    assert torch.equal(model.decoder.bert.encoder.layer[-1].crossattention.self.key.weight, key_of(model))
    table = model.encoder.embeddings.word_embeddings.weight
    assert model.decoder.cls.predictions.decoder.weight is table
    assert not table.requires_grad


def key_of(model: torch.nn.Module) -> torch.Tensor:
    """Of the encoder's last layer."""
    return model.encoder.encoder.layer[-1].attention.self.key.weight


def test_the_decoder_begins_as_a_reader_of_the_mean(wheel):
    """It hears the encoder's states in any order, each of them alike; queries have gradients to grow from."""
    model = ways.borrowed().model.eval()
    read, states = torch.tensor([[2]]), torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0))

    def logits_of(heard: torch.Tensor) -> torch.Tensor:
        return model.decoder(input_ids=read, encoder_hidden_states=heard).logits

    torch.testing.assert_close(logits_of(states[:, [3, 1, 5, 0, 2, 4]]), logits_of(states))
    heard = states.clone().requires_grad_()
    logits_of(heard)[0, -1, 7].backward()
    assert (heard.grad.abs().sum(-1) > 1e-3).all()
    torch.testing.assert_close(heard.grad[0], heard.grad[0, :1].expand(6, -1))
    query = model.decoder.bert.encoder.layer[0].crossattention.self.query.weight
    assert not query.any()
    assert query.grad.abs().max() > 0


@pytest.mark.parametrize(("method", "rates"), [("prompt", (0.1, 0.3)), ("full", (1e-3,))])
def test_quality_searches_a_rate_and_scores_three_seeds(method, rates, tmp_path, monkeypatch):
    """The best rate on dev rows is trained with every seed; the table says mean and interval."""
    write_job(tmp_path, "t5", "prefix")
    monkeypatch.setattr(quality, "LENGTH", 3)
    monkeypatch.setattr(quality, "find_specs", lambda paths: named(["tasks"], tmp_path))
    workspace, out = Workspace(tmp_path / "runs"), tmp_path / "quality.jsonl"
    settings = {"tasks": ("alpha",), "steps": 3, "search": 2, "rates": rates}
    (found,) = quality.measure(str(tmp_path / "base"), method, workspace, out, **settings)
    assert set(found.dev) == ({"0.1", "0.3"} if len(rates) > 1 else set())
    assert found.rate in rates
    assert all(found.dev[f"{found.rate:g}"] >= score for score in found.dev.values())
    runs = [Run(workspace.root / name) for name in found.runs]
    assert [run.config().seed for run in runs] == [0, 1, 2]
    assert found.test == tuple(run.result()["scores"]["alpha"]["metrics"]["accuracy"] for run in runs)
    half = stats.t.ppf(0.975, 2) * np.std(found.test, ddof=1) / 3**0.5
    cells = quality.table(quality.read(out)).splitlines()[-1].split(" | ")
    assert cells[1:] == [f"{found.majority:.1f}", f"{np.mean(found.test):.1f} ± {half:.1f} |"]


@pytest.mark.data
@pytest.mark.slow
def test_no_held_out_text_is_learned_from(tmp_path):
    """On a sample of what may be learned from, against plain sets of the runs of words of four benchmarks."""
    if not os.environ.get("WEFT_DATA"):
        pytest.skip("needs the real task data, given by WEFT_DATA, and corpus/ beside it")
    tasks, counts = Path(os.environ["WEFT_DATA"]), Counter()
    for name in ("snli", "squad", "qnli", "sst2"):
        (tmp_path / name).symlink_to((tasks / name).resolve())
    told, held = Overlap(benchmark_texts(tasks)), set()
    for one in benchmark_texts(tmp_path):
        held |= runs_of(one, RUN)
    pages = islice(text.documents(tasks.parent / "corpus"), 400)
    kept = [*text._clean(pages, told, counts), *text._unshared(text._supervised(tasks), told, counts)]
    assert counts["reading: shared with a benchmark"] > 100  # what is to be dropped is there
    assert len(kept) > 80_000
    assert not [one for one in kept for part in one.paragraphs if runs_of(part, RUN) & held]


def runs_of(some: str, size: int) -> set[tuple[str, ...]]:
    """Every run of so many words, by a plain list."""
    words = re.findall(r"[a-z0-9]+", some.lower())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}
