"""Folders of base models that are not whole, or not of one model: refused by files' headers, before a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import END, PAD, build_encoder, build_lm, build_tokenizer
from safetensors.torch import load_file, save_file
from test_bad_inputs import base, world
from tiny_job import command
from tokenizers import Tokenizer

from weft.config.model import BaseConfig
from weft.errors import ArtifactError
from weft.models import base_folder, load_backbone, load_tokenizer, outline_backbone

__all__ = ["base", "world"]  # fixtures
Capture = pytest.CaptureFixture[str]
Spoil = Callable[[Path], object]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 269060552\n"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
STAGE = """\
base: {model: base, dtype: float32}
tasks: [tasks/gamma.yaml]
prompt: {length: 4}
limits: {source_tokens: 12}
shots: 4
optim: {lr: {prompt: 0.1}, steps: 2, batch_size: 4}
method: {name: prompt_tuning}
"""


def own(world: Path) -> Path:
    """A copy of the base model's folder in the place of the shared one."""
    folder = (world / "base").resolve()
    (world / "base").unlink()
    return Path(shutil.copytree(folder, world / "base"))


def put(name: str, data: str | bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def cut(size: int) -> Spoil:
    """Weights of which a part is there."""
    return lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:size])


def says(name: str = "config.json", **changes: object) -> Spoil:
    """Settings of the model changed; those of no value are taken out."""

    def edit(folder: Path) -> None:
        found = json.loads((folder / name).read_text("utf-8")) | changes
        kept = {key: value for key, value in found.items() if value is not None}
        (folder / name).write_text(json.dumps(kept), "utf-8")

    return edit


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Spoil:
    """Other tensors in the weights."""
    return lambda folder: save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def without(part: str) -> Spoil:
    return tensors(lambda found: {name: one for name, one in found.items() if part not in name})


def shards(there: int) -> Spoil:
    """Two files of weights with an index, of which some are there."""

    def split(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
        where = {name: names[i % 2] for i, name in enumerate(sorted(found))}
        for file in names[:there]:
            part = {name: one for name, one in found.items() if where[name] == file}
            save_file(part, folder / file, {"format": "pt"})
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), "utf-8")

    return split


def renamed(name: str, data: str | None = None) -> Spoil:
    """Weights under another name, or other bytes there."""

    def move(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / name)
        if data is not None:
            (folder / name).write_text(data, "utf-8")

    return move


def tokens(count: int) -> Spoil:
    """Words added to the tokenizer, up to an id."""

    def add(folder: Path) -> None:
        tokenizer = build_tokenizer()
        tokenizer.add_tokens([f"word{i}" for i in range(count - len(tokenizer))])
        tokenizer.save_pretrained(folder)

    return add


def dangling(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / "nowhere")


FOLDERS: dict[str, tuple[Spoil, int, str, str, str]] = {  # spoilt, exit code, cause, where, remedy
    "weights are a pointer": (put(WEIGHTS, POINTER), 4, "model.safetensors is a pointer of Git LFS", WEIGHTS, "git lfs pull"),
    "tokenizer is a pointer": (put("tokenizer.json", POINTER), 4, "tokenizer.json is a pointer", "tokenizer.json", "git lfs pull"),
    "settings are a pointer": (put("config.json", POINTER), 4, "config.json is a pointer", "config.json", "git lfs pull"),
    "weights are empty": (put(WEIGHTS, ""), 4, "model.safetensors is empty", WEIGHTS, "download the model again"),
    "weights of a few bytes": (cut(5), 4, "no whole safetensors file: its header says", WEIGHTS, "download"),
    "header is cut": (cut(200), 4, "no whole safetensors file: its header says", WEIGHTS, "download"),
    "numbers are cut": (cut(-1), 4, "no whole safetensors file: its header promises", WEIGHTS, "download"),
    "numbers are more": (lambda folder: put(WEIGHTS, (folder / WEIGHTS).read_bytes() + b"x")(folder), 4, "its header promises", WEIGHTS, "download"),
    "weights are a page": (put(WEIGHTS, "<html><body>404: not found</body></html>"), 4, "no whole safetensors", WEIGHTS, "download"),
    "header is no object": (put(WEIGHTS, (2).to_bytes(8, "little") + b"[]"), 4, "its header is not a JSON object", WEIGHTS, "download"),
    "link to nothing": (dangling, 4, "the file is missing", WEIGHTS, "download"),
    "pickle alone": (renamed("pytorch_model.bin"), 4, "no model.safetensors; it has pytorch_model.bin", "base", "save_pretrained"),
    "GGUF alone": (renamed("model.gguf", "GGUF and more"), 4, "no model.safetensors; it has model.gguf", "base", "save_pretrained"),
    "GGUF is a pointer": (renamed("model.gguf", POINTER), 4, "model.gguf is a pointer", "model.gguf", "git lfs pull"),
    "shard is missing": (shards(1), 4, "lists 2 files of weights, and 1 are missing: model-00002-of", INDEX, "download the missing"),
    "shard is a pointer": (lambda folder: [shards(2)(folder), put("model-00002-of-00002.safetensors", POINTER)(folder)], 4, "model-00002-of-00002.safetensors is a pointer", "model-00002", "git lfs pull"),
    "index is no JSON": (lambda folder: [shards(2)(folder), put(INDEX, "{")(folder)], 4, "not valid JSON", INDEX, "download"),
    "index lists nothing": (lambda folder: [shards(2)(folder), put(INDEX, "{}")(folder)], 4, "lists 0 files", INDEX, "download"),
    "adapter alone": (lambda folder: [renamed("adapter_model.safetensors")(folder), put("adapter_config.json", "{}")(folder)], 2, "holds an adapter of PEFT", "adapter_config.json", "merge it"),
    "layer is missing": (without("layers.1.mlp"), 4, "the model has 3 tensors that the weights lack: model.layers.1.mlp", "base", "of one model"),
    "more layers than weights": (says(num_hidden_layers=3), 4, "tensors that the weights lack: model.layers.2", "base", "of one model"),
    "fewer layers than weights": (says(num_hidden_layers=1), 4, "of layers that config.json leaves out: model.layers.1", "base", "of one model"),
    "no output layer": (without("lm_head"), 4, "the model has 1 tensors that the weights lack: lm_head.weight", "base", "of one model"),
    "another vocabulary": (says(vocab_size=80), 4, "another shape than config.json says: lm_head.weight is [72, 32], not [80, 32]", "base", "of one model"),
    "eight-bit embeddings": (tensors(lambda found: found | {"model.embed_tokens.weight": found["model.embed_tokens.weight"].to(torch.int8)}), 4, "its numbers are 'I8'", WEIGHTS, "download"),
    "no embeddings": (without("embed_tokens"), 4, "the weights lack: model.embed_tokens.weight", "base", "of one model"),
    "more tokens than rows": (tokens(73), 4, "the tokenizer has tokens up to 72 ('word", "base", "the model was trained with"),
    "no model type": (says(model_type=None), 4, "does not say what kind of model it is of", "config.json", "saved with"),
    "settings are a list": (put("config.json", "[]"), 4, "config.json holds no JSON object", "config.json", "download"),
    "encoder is no object": (says(model_type="encoder-decoder", encoder=3), 4, "does not say what kind", "config.json", "saved with"),
    "no width": (says(hidden_size=None), 4, "config.json says nothing of hidden_size", "config.json", "saved with"),
    "width in words": (says(hidden_size="32"), 4, "config.json says '32' of hidden_size", "config.json", "saved with"),
    "no positions": (says(model_type="gpt2", n_embd=32), 4, "config.json says nothing of n_positions", "config.json", "saved with"),
    "quantised": (says(quantization_config={"quant_method": "gptq", "bits": 4}), 2, "weights are quantised (gptq)", "quantization_config", "own weights"),
    "quantised somehow": (says(quantization_config=True), 2, "weights are quantised, which", "quantization_config", "own weights"),
    "rope in words": (says(rope_parameters="linear"), 4, "config.json says 'linear' of rope_parameters", "config.json", "saved with"),
    "unknown rope": (says(rope_parameters={"rope_type": "spiral", "rope_theta": 10000.0}), 4, "transformers cannot make the model of its config.json (KeyError: 'spiral')", "config.json", "mend the setting"),
    "heads that do not divide": (says(num_attention_heads=5), 4, "not a multiple of the number of attention heads", "config.json", "mend the setting"),
    "unknown activation": (says(hidden_act="strange"), 4, "(KeyError: 'strange')", "config.json", "mend the setting"),
    "vocabulary is gone": (lambda folder: (folder / "tokenizer.json").unlink(), 4, "no file holds its vocabulary", "base", "needs tokenizer.json"),
    "tokenizer is cut": (put("tokenizer.json", '{"version": "1.0", "mo'), 4, "no tokenizer that can be read", "base", "needs tokenizer.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_no_whole_model_is_refused(world: Path, capsys: Capture, name: str) -> None:
    """By the pass over a stage, when dry too: exit code, cause, place and remedy; no weights, no run."""
    spoil, code, cause, where, fix = FOLDERS[name]
    spoil(own(world))
    (world / "adapt.yaml").write_text(STAGE, "utf-8")
    for dry in (["--dry-run"], []):
        assert command("adapt", "adapt.yaml", *dry) == code
        said = " ".join(capsys.readouterr().err.split())
        head, _, place = said.partition(" where: ")
        assert cause in head
        assert where in place
        assert fix in place
        assert "fault of weft itself" not in said
    assert not list((world / "runs").glob("adapt-*"))


@pytest.mark.parametrize("name", ["weights are a pointer", "layer is missing", "more tokens than rows"])
def test_an_encoder_beside_the_base_model_is_looked_at_as_well(
    world: Path, capsys: Capture, name: str
) -> None:
    """One that a method reads with: the same faults, found by the same pass."""
    spoil = FOLDERS[name][0] if name != "layer is missing" else without("layer.1.output")
    build_encoder("bert-reader").save_pretrained(world / "encoder")
    build_tokenizer(ends_texts=True).save_pretrained(world / "encoder")
    method = "method: {name: sentence_embeddings, encoder: encoder}"
    text = STAGE.replace("method: {name: prompt_tuning}", method)
    (world / "adapt.yaml").write_text("".join(line for line in text.splitlines(True) if "optim" not in line))
    assert command("adapt", "adapt.yaml", "--dry-run") == 0
    spoil(world / "encoder")
    capsys.readouterr()
    assert command("adapt", "adapt.yaml", "--dry-run") == 4
    assert "encoder" in capsys.readouterr().err


def test_shards_that_are_all_there_are_a_model(world: Path) -> None:
    """As one file is; a pooler that nothing reads may be missing."""
    shards(2)(own(world))
    (world / "adapt.yaml").write_text(STAGE, "utf-8")
    assert command("adapt", "adapt.yaml", "--dry-run") == 0
    build_encoder("bert-reader").save_pretrained(world / "encoder")
    build_tokenizer(ends_texts=True).save_pretrained(world / "encoder")
    without("pooler")(world / "encoder")
    folder = base_folder.resolve(BaseConfig(model=str(world / "encoder")))
    assert outline_backbone(folder, load_tokenizer(folder)).width == 24


def test_an_outline_has_no_numbers(world: Path) -> None:
    """Layers, sizes and tokens are those of the loaded model; random numbers are left as they were."""
    folder = base_folder.resolve(BaseConfig(model=str(world / "base")))
    before = torch.get_rng_state()
    made = outline_backbone(folder, load_tokenizer(folder), "suffix")
    assert torch.equal(torch.get_rng_state(), before)
    model = load_backbone(folder, dtype="float32", position="suffix")
    assert {one.device.type for one in made.lm.parameters()} == {"meta"}
    shapes = [{name: one.shape for name, one in each.lm.state_dict().items()} for each in (made, model)]
    assert shapes[0] == shapes[1]
    assert (made.depths, made.positions, made.keeps_texts) == (model.depths, model.positions, True)
    assert made.answer_tokens("yes") == model.answer_tokens("yes")


def test_an_encoder_decoder_says_with_which_token_answers_begin(world: Path, capsys: Capture) -> None:
    """Without decoder_start_token_id nothing is trained."""
    (world / "base").unlink()
    build_lm("t5").save_pretrained(world / "base")
    build_tokenizer(ends_texts=True).save_pretrained(world / "base")
    (world / "adapt.yaml").write_text(STAGE, "utf-8")
    assert command("adapt", "adapt.yaml", "--dry-run") == 0
    for start in (None, 72):
        says(decoder_start_token_id=start)(world / "base")
        capsys.readouterr()
        assert command("adapt", "adapt.yaml", "--dry-run") == 4
        assert f"(decoder_start_token_id: {start})" in " ".join(capsys.readouterr().err.split())


# tokens that a tokenizer does not name


def bare(folder: Path, **config: object) -> base_folder.BaseFolder:
    """A model whose tokenizer names no token for any end."""
    Tokenizer.from_str(build_tokenizer().backend_tokenizer.to_str()).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    says(**{"eos_token_id": None, "pad_token_id": None, **config})(folder)
    return base_folder.resolve(BaseConfig(model=str(folder)))


@pytest.mark.parametrize("given", [END, [END, PAD]])
def test_an_end_that_the_settings_name_is_taken(world: Path, given: object) -> None:
    """One number, or the first of several; padding is done with it."""
    tokenizer = load_tokenizer(bare(own(world), eos_token_id=given))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (END, END)
    assert tokenizer.decode([3, END], skip_special_tokens=True) == "yes"


@pytest.mark.parametrize("given", [None, 3, 50256, -1, []])
def test_no_end_is_made_up(world: Path, capsys: Capture, given: object) -> None:
    """A number of an ordinary word, or of no token, is none: refused with what to add, and where."""
    folder = bare(own(world), eos_token_id=given)
    with pytest.raises(ArtifactError, match="which token ends an answer") as caught:
        load_tokenizer(folder)
    assert caught.value.where.endswith("tokenizer_config.json")
    assert 'add "eos_token": "..."' in caught.value.fix
    (world / "adapt.yaml").write_text(STAGE, "utf-8")
    assert command("adapt", "adapt.yaml", "--dry-run") == 4
    assert "WEFT-A09" in capsys.readouterr().err
    says("tokenizer_config.json", eos_token="</s>")(folder.path)
    assert load_tokenizer(folder).eos_token_id == END


def test_an_encoder_needs_padding_and_no_end(world: Path) -> None:
    """The token for padding may be one that config.json names."""
    build_encoder("bert-reader").save_pretrained(world / "encoder")
    build_tokenizer(ends_texts=True).save_pretrained(world / "encoder")
    tokenizer = load_tokenizer(bare(world / "encoder", pad_token_id=PAD))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (None, PAD)
    with pytest.raises(ArtifactError, match="which token fills a batch"):
        load_tokenizer(bare(world / "encoder", pad_token_id=None))
