"""Operations of a pass as they are counted from a model's sizes, against those that it does."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from weft.config.training import DistillConfig
from weft.data.batch import collate
from weft.experiments.costs.passes import scoring, taught, under_prompts
from weft.experiments.costs.sizes import Row, sizes_of
from weft.experiments.costs.texts import Texts
from weft.losses.targets import TeacherTargets
from weft.losses.terms import lm_loss_sum
from weft.models import packed_prompts
from weft.models.choice_tree import ChoiceTree
from weft.models.features import prompted_features
from weft.models.tuned import with_all_weights, with_prompts
from weft.storage.page_store import PageStore
from weft.tasks import Example

PROMPT, ROWS = 5.0, 4
TEXTS = ["the good film", "the bad book was not good", "a man sees a dog and a cat", "it was up or down"]


def counted(work) -> int:
    """What torch counts, in attention as products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.fixture
def case(backbone):
    """A model under plain attention, rows of one length, and such a row in tokens."""
    backbone.lm.set_attn_implementation("eager")
    rows = [backbone.encode(f"the good film {text}", "yes no") for text in TEXTS]
    least = min(len(row.source) for row in rows)
    rows = [replace(row, source=row.source[:least]) for row in rows]
    batch = collate(rows, [0] * ROWS)
    backbone.prepare(batch.sources)
    row = Row(PROMPT, float(least), float(batch.labels.shape[1]), kept=backbone.keeps_texts)
    return backbone, batch, row, sizes_of(backbone.lm)


def prompted(backbone):
    """A model that trains one prompt."""
    return with_prompts(backbone, torch.randn(1, int(PROMPT), backbone.width), ("task",))


def test_a_forward_pass(case):
    """Within 2 %: norms and positions of T5 are no products of weights."""
    backbone, batch, row, sizes = case
    model = prompted(backbone)
    with torch.no_grad():
        found = counted(lambda: model(batch))
    assert ROWS * row.operations(sizes).forward == pytest.approx(found, rel=0.02)


def test_a_step_of_a_prompt(case):
    """Backward through activations alone."""
    backbone, batch, row, sizes = case
    model = prompted(backbone)
    found = counted(lambda: lm_loss_sum(model(batch).logits, batch.labels).backward())
    assert ROWS * row.operations(sizes).step == pytest.approx(found, rel=0.05)


def test_one_more_token(case):
    """Of an answer that is written: what was read before is not read again."""
    backbone, batch, row, sizes = case
    model = prompted(backbone)
    context = model.begin(batch.sources, [0] * ROWS)
    context = backbone.step(context, [5] * ROWS)
    found = counted(lambda: backbone.step(context, [5] * ROWS))
    behind = Row(row.prompt, row.text, 2.0, kept=row.kept)
    assert ROWS * behind.next_token(sizes).forward == pytest.approx(found, rel=0.02)


def test_choices_behind_a_row(case):
    """What is read before each later parting; neither text nor prompt is read again."""
    backbone, batch, row, sizes = case
    choices = [(5, 6, 1), (5, 7, 8, 1), (5, 7, 9, 1), (4, 1)]
    paths = tuple(len(prefix) for prefix in ChoiceTree.of(choices).prefixes[1:])
    texts = Texts([], (int(row.text),), (4,), paths, 4.0, closed=True)
    context = prompted(backbone).begin(batch.sources, [0] * ROWS)
    found = counted(lambda: backbone.score(context, choices))
    _, *later = scoring(sizes, texts, row, float(ROWS), 1.0)
    assert sum(one.operations * one.times for one in later) == pytest.approx(found, rel=0.02)


def test_readings_under_prompts(case, monkeypatch):
    """Up to the deepest state before an answer, in batches; no output matrix is met.

    Behind kept texts two go side by side and one alone, before them each alone.
    """
    backbone, batch, row, sizes = case
    monkeypatch.setattr(packed_prompts, "ROW", 2 * int(PROMPT))
    prompts = {name: torch.randn(int(PROMPT), backbone.width) for name in ("one", "two", "three")}
    layers = [backbone.depths[-1]]
    found = counted(lambda: prompted_features(backbone, batch.sources, prompts, layers, batch_size=2))
    of_answer = replace(row, answer=1.0)
    passes = under_prompts(sizes, of_answer, float(ROWS), 2, len(prompts))
    assert sum(one.times for one in passes) == (4 if row.kept else 6)
    assert sum(one.operations * one.times for one in passes) == pytest.approx(found, rel=0.02)
    assert under_prompts(sizes, of_answer, 0.0, 2, 3) == []


def test_what_teachers_say_of_rows(case):
    """In passes of like lengths, filled up: as many as they are, at the lengths that they have."""
    backbone, *_, sizes = case
    words = " ".join(TEXTS).split()
    parts = [words[k : k + n] for k in range(3) for n in range(1, len(words) - 3)]
    rows = [backbone.encode(" ".join(part), "yes no"[: len(part) % 3 + 3]) for part in parts]
    rows = sorted(rows, key=lambda row: len(row.source))
    batch = collate(rows, [0] * len(rows))
    backbone.prepare(batch.sources)

    def tell():
        TeacherTargets(model, DistillConfig(), PageStore(None, 0, print)).prepare([batch])

    model = prompted(backbone)
    tell()  # of texts that are kept, those that fill up are read now
    lengths, answers = (
        [len(one) for one in some] for some in zip(*((r.source, r.target) for r in rows), strict=True)
    )
    texts = Texts([Example("", "")] * len(rows), tuple(lengths), tuple(answers), (), 4.0)
    found = taught(sizes, [(texts, float(len(rows)))], PROMPT, 1.0, kept=backbone.keeps_texts)
    assert len(found) > 1
    assert sum(one.operations * one.times for one in found) == pytest.approx(counted(tell), rel=0.02)


@pytest.mark.parametrize("name", ["t5", "bert", "llama-prefix", "gpt2-suffix"])
def test_a_step_of_all_weights(make_backbone, name):
    """Gradients of weights too; texts are read anew, since what reads them changes."""
    backbone = make_backbone(name)
    backbone.lm.set_attn_implementation("eager")
    rows = [backbone.encode("the good film was not bad", "yes no")] * ROWS
    batch = collate(rows, [0] * ROWS)
    sizes, row = sizes_of(backbone.lm), Row(0.0, float(len(batch.sources[0])), float(batch.labels.shape[1]))
    model = with_all_weights(backbone, ("task",))
    found = counted(lambda: lm_loss_sum(model(batch).logits, batch.labels).backward())
    assert ROWS * row.operations(sizes).full_step == pytest.approx(found, rel=0.05)


def test_every_weight_is_counted_once(backbone):
    """No map is counted twice or left out: with embeddings and vectors they are all weights."""
    sizes, lm = sizes_of(backbone.lm), backbone.lm
    maps = sizes.reader.maps + (sizes.writer.maps + sizes.writer.far if sizes.writer else 0)
    tables = {
        id(one.weight): one.weight.numel() for one in lm.modules() if isinstance(one, torch.nn.Embedding)
    }
    tables[id(lm.get_output_embeddings().weight)] = sizes.head
    vectors = sum(one.numel() for one in lm.parameters() if one.dim() == 1)
    unused = sum(one.numel() for name, one in lm.named_parameters() if "pooler.dense.weight" in name)
    assert maps + sum(tables.values()) + vectors + unused == sizes.weights
