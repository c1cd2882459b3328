"""Frozen weights of 8 and 4 bits: gradients to the prompt are those of the model with the rounded weights."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import build_lm, build_tokenizer
from tiny_job import command, write_job

from weft import runs
from weft.config.files import changed
from weft.config.model import BaseConfig
from weft.errors import ConfigError, UnsupportedError
from weft.experiments.stage_files import load_run
from weft.models import check_weights, load_backbone
from weft.models.base_folder import resolve
from weft.models.quantised import WAYS, numbers_of
from weft.runs.config import AdaptRun
from weft.runs.workspace import Workspace
from weft.serving import predictor
from weft.serving.engine import Engine
from weft.serving.requests import Request

APART = 1e-4  # of logits and gradients, as a share of the largest; products are in another order


def needs(way):
    """Skip a test without the package of a way."""
    package = WAYS[way].package
    if find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed: pip install 'weft[quantised]'")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Base models on disk."""
    made = {}
    for name in ("llama", "qwen2", "gpt2", "t5"):
        made[name] = tmp_path_factory.mktemp(name)
        build_lm(name).save_pretrained(made[name])
        build_tokenizer(ends_texts=name == "t5").save_pretrained(made[name])
    return {name: resolve(BaseConfig(model=str(path))) for name, path in made.items()}


def widened(value):
    """A rounded weight as the numbers that it stands for, by the package's own means."""
    if hasattr(value, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(value.data, value.quant_state)
    return value.dequantize() if hasattr(value, "dequantize") and len(numbers_of(value)) > 1 else value


def with_rounded_numbers(name, lm):
    """The plain model with the numbers of a rounded one; how many layers those are."""
    plain, count = build_lm(name), 0
    theirs = dict(lm.named_parameters())
    for key, value in plain.named_parameters():
        found = widened(theirs[key]).detach().float()
        if name == "gpt2" and hasattr(theirs[key], "quant_state"):  # whose layers lie the other way
            found = found.T
        count += not torch.equal(found, value)
        value.data = found.reshape(value.shape).clone()
    return plain, count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the packages' own
@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize(
    "place", ["llama-prefix", "llama-suffix", "qwen2-suffix", "gpt2-suffix", "t5-prefix"]
)
def test_gradients_are_those_of_the_rounded_weights(folders, place, way, rows):
    """Logits and gradients, against the plain model with the numbers that the rounded ones stand for."""
    needs(way)
    name, _, position = place.partition("-")
    if (name, way) == ("gpt2", "int8"):
        pytest.skip("refused, which is tested")
    labels = torch.tensor([[5, 6, 1], [7, 1, -100]])
    prompts = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(2))
    rounded = load_backbone(folders[name], dtype="float32", position=position, weights=way)
    plain = load_backbone(folders[name], dtype="float32", position=position)
    plain.lm, count = with_rounded_numbers(name, rounded.lm)
    assert count >= 8
    found = []
    for backbone in (rounded, plain):
        if position == "suffix":
            backbone.texts.lm = backbone.lm
        own = prompts.clone().requires_grad_()
        logits = backbone.forward(backbone.read(rows.sources[:2]), own, labels).logits
        logits.logsumexp(-1).sum().backward()
        found.append((logits.detach(), own.grad))
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < APART
    assert float(found[0][1].abs().max()) > 1e-3
    own = build_lm(name).state_dict()
    numbers = sum(own[key].numel() for key, _ in plain.lm.named_parameters())
    held = sum(
        part.numel() * part.element_size() for one in rounded.lm.parameters() for part in numbers_of(one)
    )
    assert held < 4 * numbers
    assert rounded.weights_hash() == rounded.weights_hash() != plain.weights_hash()


ADAPT = """
tasks: [tasks/gamma.yaml]
base: {{model: {base}, dtype: float32, attention: eager, weights: {weights}}}
prompt: {{length: 4}}
shots: 6
method: {{name: {method}}}
optim: {{lr: {{{group}: 0.1}}, steps: 3, batch_size: 6}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base model and tasks."""
    folder = tmp_path_factory.mktemp("place")
    write_job(folder, "llama", "suffix")
    return folder


def adapt(place, weights, method="prompt_tuning, start: fresh", group="prompt"):
    text = ADAPT.format(base=place / "base", weights=weights, method=method, group=group)
    (place / "adapt.yaml").write_text(text, "utf-8")
    return command("adapt", place / "adapt.yaml", "--runs", place / "runs", "--quiet")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_run_on_rounded_weights_is_one_of_its_own(place, way, tmp_path, capsys):
    """It notes them, answers with them, and so does a bank of it; weights stay what they were."""
    needs(way)
    folders = {}
    for weights in ("own", way):
        capsys.readouterr()
        assert adapt(place, weights) == 0
        folders[weights] = Path(capsys.readouterr().out.split()[-1])
    assert folders["own"] != folders[way]
    run = runs.Run(folders[way])
    assert (run.env()["weights"], "weights" in runs.Run(folders["own"]).env()) == (way, False)
    model = predictor.load(run.path)
    weights = model.answerers[0].model.backbone.lm.model.layers[0].mlp.up_proj.weight
    assert len(numbers_of(weights)) > 1 or weights.dtype == torch.uint8
    found = model.predict([{"text": "the good film"}, {"text": "a bad dog"}])
    assert command("bank", "add", tmp_path / "bank", run.path, "--runs", place / "runs") == 0
    engine = Engine.open(tmp_path / "bank")
    answers = engine.generate(
        [Request("gamma", row={"text": text}) for text in ("the good film", "a bad dog")]
    )
    for one, other in zip(answers, found, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=2e-3)


def test_without_the_package_the_remedy_is_told(place, monkeypatch, capsys):
    """Before weights load."""
    monkeypatch.setattr("weft.models.quantised.find_spec", lambda name: None)
    monkeypatch.setattr("weft.models.load_language_model", lambda *_, **__: pytest.fail("weights load"))
    for way in WAYS:
        assert adapt(place, way) == 2
        told = capsys.readouterr().err
        assert f"the package {WAYS[way].package}, which is not installed" in told
        assert "pip install 'weft[quantised]'" in told


def test_what_rounded_weights_cannot_do_is_refused(place, folders, monkeypatch, capsys):
    """Weights that are trained or added to; packed products; layers that a package does not know."""
    monkeypatch.setattr("weft.models.quantised.find_spec", lambda name: sys)
    monkeypatch.setattr("weft.models.load_language_model", lambda *_, **__: pytest.fail("weights load"))
    for method, group in (("full", "model"), ("lora", "lora"), ("ia3", "ia3")):
        assert adapt(place, "nf4", method, group) == 2
        assert "changes or adds weights, which are rounded here (nf4)" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="leave products out"):
        changed(BaseConfig(), {"weights": "int8", "products": "packed"})
    with pytest.raises(ConfigError, match="leave sharded out"):
        changed(BaseConfig(), {"weights": "nf4", "sharded": True})
    with pytest.raises(UnsupportedError, match="GPT-2"):
        check_weights("int8", folders["gpt2"])
    check_weights("nf4", folders["gpt2"])


def test_own_weights_name_no_run(place, tmp_path):
    """Identities of before there was a choice hold."""
    ids = []
    for weights in ("own", "int8", "nf4"):
        text = ADAPT.format(
            base=place / "base", weights=weights, method="prompt_tuning, start: fresh", group="prompt"
        )
        for given in {text, text.replace(", weights: own", "")}:
            (place / "named.yaml").write_text(given, "utf-8")
            [config] = load_run(place / "named.yaml", AdaptRun, {})
            ids.append(Workspace(tmp_path).identity(config))
    assert len(ids) == 4
    assert len(set(ids)) == 3
