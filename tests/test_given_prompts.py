"""Prompts that other programs trained, as runs of weft: read, checked, answered with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import build_lm
from safetensors.torch import save_file
from tiny_job import command, write_job

from weft import runs
from weft.errors import ArtifactError, UnsupportedError
from weft.prompts.files import read_prompt
from weft.serving import predictor

PROMPT = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
TEXTS = ("the good film", "the bad dog river cat", "a story of the city")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base model and tasks."""
    folder = tmp_path_factory.mktemp("place")
    write_job(folder, "llama", "prefix")
    return folder


def adapter(folder, kind="plain"):
    """What PEFT leaves of a prompt that it holds, and the prompts that it puts before a text."""
    from peft import MultitaskPromptTuningConfig, PromptTuningConfig, get_peft_model

    said = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "token_dim": 32}
    multitask = {"num_tasks": 3, "num_ranks": 2, "num_transformer_submodules": 1}
    config = (
        PromptTuningConfig(**said) if kind == "plain" else MultitaskPromptTuningConfig(**said, **multitask)
    )
    torch.manual_seed(5)
    model = get_peft_model(build_lm("llama"), config)
    for parameter in model.prompt_encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    ids = torch.arange(3) if kind != "plain" else None
    return model.get_prompt(3, ids) if ids is not None else model.get_prompt(1)


def adapt(place, method, name="adapt.yaml", position="prefix", length=4):
    (place / name).write_text(
        f"tasks: [tasks/gamma.yaml]\nbase: {{model: {place / 'base'}, dtype: float32}}\n"
        f"prompt: {{length: {length}, position: {position}}}\nmethod: {method}\n",
        "utf-8",
    )
    return command("adapt", place / name, "--runs", place / "runs", "--quiet")


def newest(place):
    return max((place / "runs").glob("adapt-given-*"), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils")  # PEFT asks for an old name
@pytest.mark.parametrize(("kind", "number"), [("plain", 0), ("multitask", 0), ("multitask", 2)])
def test_adapters_of_peft_are_the_prompts_that_peft_puts_before_a_text(place, tmp_path, kind, number):
    """As read, so kept; and the run answers as the library does behind that prompt."""
    with torch.no_grad():
        theirs = adapter(tmp_path / "adapter", kind)[number]
    torch.testing.assert_close(read_prompt(tmp_path / "adapter", number), theirs, rtol=1e-5, atol=1e-7)
    assert adapt(place, f"{{name: given, file: {tmp_path / 'adapter'}, number: {number}}}") == 0
    path = newest(place)
    run = runs.Run(path)
    assert torch.equal(run.tensors()["prompts"][0], read_prompt(tmp_path / "adapter", number))
    assert run.result()["trained_parameters"] == 4 * 32
    ours = predictor.load(path)
    model = ours.answerers[0].model
    found = ours.predict([{"text": text} for text in TEXTS], generate=True)
    for text, one in zip(TEXTS, found, strict=True):
        tokens = torch.tensor([model.backbone.text_tokens(text)[0]])
        embeds = torch.cat([theirs[None], model.backbone.embed(tokens)], 1)
        with torch.no_grad():
            written = model.backbone.lm.generate(
                inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), max_new_tokens=3,
                do_sample=False, eos_token_id=model.backbone.tokenizer.eos_token_id, pad_token_id=0,
            )  # fmt: skip
        assert one.written == model.backbone.decode(written[0].tolist())


def test_files_of_every_form_hold_the_same_prompt(tmp_path):
    """NumPy, torch alone or under a name, safetensors; half precision becomes whole."""
    np.save(tmp_path / "a.npy", PROMPT.numpy())
    torch.save(PROMPT, tmp_path / "b.pt")
    torch.save({"prefix_embeddings": PROMPT.half(), "step": torch.tensor(3)}, tmp_path / "c.bin")
    save_file({"prompt": PROMPT}, tmp_path / "d.safetensors")
    for name in ("a.npy", "b.pt", "d.safetensors"):
        assert torch.equal(read_prompt(tmp_path / name), PROMPT)
    assert torch.equal(read_prompt(tmp_path / "c.bin"), PROMPT.half().float())


def test_where_a_prompt_lies_names_no_run_and_what_it_holds_does(place, tmp_path, capsys):
    """The same numbers elsewhere are the same run, which is done; others make another."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "p.npy", PROMPT.numpy())
    names = []
    for name in ("one", "two"):
        assert adapt(place, f"{{name: given, file: {tmp_path / name / 'p.npy'}}}") == 0
        names.append(capsys.readouterr().out.splitlines()[-1])
    assert names[0] == names[1]
    np.save(tmp_path / "one" / "p.npy", 2 * PROMPT.numpy())
    assert adapt(place, f"{{name: given, file: {tmp_path / 'one' / 'p.npy'}}}") == 0
    assert capsys.readouterr().out.splitlines()[-1] not in names
    (tmp_path / "one" / "p.npy").unlink()
    (tmp_path / "two" / "p.npy").unlink()
    assert predictor.load(names[0]).predict([{"text": TEXTS[0]}])[0].error is None  # the run holds it


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (torch.randn(4, 31), "31 wide, and the embeddings of the model 32"),
        (torch.randn(5, 32), "set prompt.length: 5"),
        (torch.full((4, 32), float("nan")), "finite numbers"),
        (torch.randn(4), "0 arrays of two axes"),
        (None, "there is no file"),
    ],
)
def test_prompts_that_do_not_fit_are_refused_before_weights_load(
    place, tmp_path, capsys, monkeypatch, values, said
):
    monkeypatch.setattr(
        "weft.runs.workspace.load_backbone", lambda *a, **k: pytest.fail("weights were loaded")
    )
    if values is not None:
        np.save(tmp_path / "p.npy", values.numpy())
    assert adapt(place, f"{{name: given, file: {tmp_path / 'p.npy'}}}") in (2, 4)
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_holds_no_prompt_says_so(tmp_path):
    """Other kinds of adapters, several arrays, code, torn files."""
    save_file({"a": PROMPT, "b": PROMPT.clone()}, tmp_path / "two.safetensors")
    with pytest.raises(ArtifactError, match="2 arrays"):
        read_prompt(tmp_path / "two.safetensors")
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ArtifactError, match="no arrays that weft reads"):
        read_prompt(tmp_path / "torn.npy")
    torch.save({"x": tmp_path}, tmp_path / "code.pt")
    with pytest.raises(ArtifactError, match="holds more than arrays"):
        read_prompt(tmp_path / "code.pt")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="no arrays that weft reads"):
        read_prompt(tmp_path / "adapter")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"a": PROMPT}, tmp_path / "lora" / "adapter_model.safetensors")
    with pytest.raises(UnsupportedError, match="type LORA"):
        read_prompt(tmp_path / "lora")
    with pytest.raises(UnsupportedError, match="no form"):
        read_prompt(tmp_path / "p.txt")


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils")
def test_adapters_stand_before_the_text_alone(place, tmp_path, capsys):
    """PEFT has no others, so a suffix is refused."""
    adapter(tmp_path / "adapter")
    assert adapt(place, f"{{name: given, file: {tmp_path / 'adapter'}}}", position="suffix") == 2
    assert "set prompt.position: prefix" in " ".join(capsys.readouterr().err.split())


def test_given_prompts_teach_and_are_starts(place, tmp_path, capsys):
    """A source stage distils them, and SPoT starts from them, as from teachers that weft trained."""
    names = {}
    for number, task in enumerate(("alpha", "beta")):
        np.save(tmp_path / f"{task}.npy", (number + 1) * PROMPT.numpy())
        head = f"tasks: [tasks/{task}.yaml]\nbase: {{model: {place / 'base'}, dtype: float32}}\n"
        rest = (
            f"prompt: {{length: 4, position: prefix}}\nmethod: {{name: given, file: {tmp_path / task}.npy}}\n"
        )
        (place / "given.yaml").write_text(head + rest, "utf-8")
        assert command("adapt", place / "given.yaml", "--runs", place / "runs", "--quiet") == 0
        names[task] = runs.Run(Path(capsys.readouterr().out.splitlines()[-1])).id
    head = f"base: {{model: {place / 'base'}, dtype: float32}}\nprompt: {{length: 4, position: prefix}}\n"
    teachers = f"teachers: {{alpha: {names['alpha']}, beta: {names['beta']}}}\n"
    optim = "optim: {lr: {shared: 0.1, factors: 0.1}, steps: 2, batch_size: 4}\n"
    tasks = "tasks: [tasks/alpha.yaml, tasks/beta.yaml]\n"
    (place / "source.yaml").write_text(head + teachers + tasks + optim, "utf-8")
    assert command("source", place / "source.yaml", "--runs", place / "runs", "--quiet") == 0
    method = (
        "method: {name: prompt_tuning, start: alpha}\noptim: {lr: {prompt: 1e-9}, steps: 1, batch_size: 4}\n"
    )
    (place / "spot.yaml").write_text(head + teachers + "tasks: [tasks/gamma.yaml]\n" + method, "utf-8")
    assert command("adapt", place / "spot.yaml", "--runs", place / "runs", "--quiet") == 0
    spot = runs.Run(Path(capsys.readouterr().out.splitlines()[-1])).tensors()["prompts"][0]
    torch.testing.assert_close(spot, PROMPT, rtol=0, atol=1e-6)
