"""Before prompts are trained that PEFT cannot hold, one line says so, and what to do for others."""

import json
import sys
from pathlib import Path

import pytest
from tiny_job import NOUNS, command, write_job

Capture = pytest.CaptureFixture[str]
NOTE = "note: prompts will stand after the text, where PEFT cannot hold any: "
TRAIN = NOTE + "train with prompt.position: prefix, or weft export --to numpy"
EXPERIMENT = """
name: tiny
base: {{model: {base}, dtype: float32, attention: eager}}
prompt: {{length: 4, position: {position}}}
tasks: [tasks]
targets: [gamma, delta]
shots: 6
seeds: [0, 1]
rows:
  - {{label: majority, method: {{name: majority}}}}
  - label: prompt tuning
    method: {{name: prompt_tuning, start: fresh}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
"""
ADAPT = """
base: {{model: base, dtype: float32, attention: eager}}
prompt: {{length: 4, position: {position}}}
tasks: [tasks/gamma.yaml]
shots: 6
{method}
"""
PROMPT = "method: {name: prompt_tuning, start: fresh}\noptim: {lr: {prompt: 0.1}, steps: 2, batch_size: 6}"
IA3 = "method: {name: ia3}\noptim: {lr: {ia3: 0.1}, steps: 2, batch_size: 6}"
WEFT = "method: {name: weft, sources: false, encoders: []}"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A causal base model and tasks; the folder of an experiment."""
    write_job(tmp_path, "llama", "suffix", EXPERIMENT)
    return tmp_path


def notes(capsys: Capture, *words: object, code: int = 0) -> list[str]:
    """The notes that a command shows a person."""
    capsys.readouterr()
    assert command(*words) == code, capsys.readouterr()
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]


def test_an_experiment_says_it_once(job: Path, capsys: Capture) -> None:
    """Of four runs in one line; not where it trains nothing any more."""
    words = ("run", job / "tiny.yaml", "--runs", job / "runs")
    assert notes(capsys, *words, "--dry-run") == []
    assert notes(capsys, *words) == [TRAIN]
    assert notes(capsys, *words) == []
    assert notes(capsys, *words, "--set", "prompt.position=prefix") == []


@pytest.mark.parametrize(
    ("position", "method", "said"),
    [
        ("auto", PROMPT, [TRAIN]),
        ("suffix", PROMPT, [TRAIN]),
        ("prefix", PROMPT, []),
        ("suffix", WEFT, []),  # a head: PEFT holds nothing of it
        ("suffix", IA3, []),  # no prompt
    ],
)
def test_an_adaptation_says_it_of_prompts_alone(
    job: Path, capsys: Capture, position: str, method: str, said: list[str]
) -> None:
    """Wherever they stand after the text; --quiet shows results only."""
    (job / "adapt.yaml").write_text(ADAPT.format(position=position, method=method), "utf-8")
    assert notes(capsys, "adapt", job / "adapt.yaml", "--runs", job / "quiet", "--quiet") == []
    assert notes(capsys, "adapt", job / "adapt.yaml", "--runs", job / "runs", "--dry-run") == []
    assert notes(capsys, "adapt", job / "adapt.yaml", "--runs", job / "runs") == said


@pytest.mark.parametrize("for_", ["weft", "peft"])
def test_learning_names_its_own_option(
    job: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, for_: str
) -> None:
    """A prompt is trained for open answers."""
    rows = [{"text": f"the {noun}", "answer": f"{noun} it is"} for noun in NOUNS]
    (job / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    monkeypatch.setattr("weft.learning.learn.perform", lambda *_: sys.exit(99))
    places = ("--runs", job / "runs", "--tasks", job / "made", "--base", job / "base")
    found = notes(capsys, "learn", job / "notes.jsonl", *places, "--for", for_, code=99)
    assert found == ([] if for_ == "peft" else [f"{NOTE}learn with --for peft, or weft export --to numpy"])
