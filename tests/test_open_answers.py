"""A task with open answers through the command line: metrics of texts, beams and draws."""

import json
from pathlib import Path

import pytest
from conftest import build_lm, build_tokenizer
from tiny_job import command

import weft
from weft import runs
from weft.models import Backbone
from weft.tasks import generation_metrics

ROWS = [
    {"text": f"the {word} {noun} runs", "texts": [f"the {noun} is {word}", f"{word} {noun}"]}
    for word in ("good", "bad", "red")
    for noun in ("film", "book", "city", "dog")
]
TASK = """
name: told
files: {train: rows.jsonl, test: rows.jsonl}
source: "{text}"
target: "{first}"
references: texts
metrics: [bleu, meteor_stem, ter, rouge_l, nist, cider, squad_f1]
max_target_tokens: 5
"""
ADAPT = """
tasks: [told.yaml]
base: {{model: base, dtype: float32, attention: eager}}
prompt: {{length: 4, position: {place}}}
method: {{name: prompt_tuning}}
optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 4}}
"""


@pytest.fixture(scope="module", params=["t5-prefix", "llama-suffix"])
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model, a task, and one finished run."""
    family, _, place = request.param.partition("-")
    folder = tmp_path_factory.mktemp(request.param)
    build_lm(family).save_pretrained(folder / "base")
    build_tokenizer(ends_texts=family == "t5").save_pretrained(folder / "base")
    rows = [{**row, "first": row["texts"][0]} for row in ROWS]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (folder / "told.yaml").write_text(TASK, "utf-8")
    (folder / "adapt.yaml").write_text(ADAPT.format(place=place).replace("base,", f"{folder}/base,"), "utf-8")
    assert command("adapt", folder / "adapt.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


def trained(job: Path) -> str:
    """The run's id."""
    return next(run.id for run in runs.finished(job / "runs") if run.id.startswith("adapt-"))


def evaluated(job: Path, capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    """What `weft evaluate --json` says."""
    asked = ("evaluate", trained(job), *words, "--json", "--quiet", "--runs", job / "runs")
    assert command(*asked) == 0
    return json.loads(capsys.readouterr().out)


def test_texts_have_all_scores_with_intervals(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of answers that are better than nothing, so that the numbers are."""
    found = evaluated(job, capsys)["tasks"]["told"]
    names = ["bleu", "meteor_stem", "ter", "rouge_l", "nist", "cider", "squad_f1"]
    assert found["metric"] == "bleu"
    assert sorted(found["metrics"]) == sorted(names)
    assert all(found["metrics"][name] is not None for name in names)
    assert found["metrics"]["ter"] > 0
    assert found["intervals"]["ter"]["low"] <= found["metrics"]["ter"] <= found["intervals"]["ter"]["high"]


def test_a_screen_says_which_numbers_are_no_percent(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("evaluate", trained(job), "--quiet", "--runs", job / "runs") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ter: lower is better. nist: it is no percentage. cider: it has no end at 100." in said


def test_every_way_of_writing_is_a_run_of_its_own(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Batches change no answer; the same words give the same run, and a seed other answers."""
    ways = {
        "greedy": (),
        "beams": ("--beams", 3),
        "penalty": ("--beams", 3, "--set", "decoding.length_penalty=-4"),
        "drawn": ("--sample", 1.5, "--seed", 1),
        "drawn again": ("--sample", 1.5, "--seed", 2),
        "few": ("--sample", 1.5, "--top-p", 0.2, "--seed", 1),
    }
    said, folders = {}, {}
    for way, words in ways.items():
        folders[way] = evaluated(job, capsys, *words)["folder"]
        assert evaluated(job, capsys, *words)["folder"] == folders[way]
        said[way] = [line["answer"] for line in runs.Run(Path(folders[way])).lines("predictions.jsonl")]
        other = evaluated(job, capsys, *words, "--set", "batch_size=5")["folder"]
        assert [line["answer"] for line in runs.Run(Path(other)).lines("predictions.jsonl")] == said[way]
    assert len(set(folders.values())) == len(ways)
    assert said["drawn"] != said["drawn again"]
    assert said["drawn"] != said["few"]
    assert said["greedy"] != said["drawn"]


def test_predict_writes_as_evaluate_does(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By options and by Python, whole files and one row."""
    rows = [{"text": row["text"]} for row in ROWS]
    model = weft.load(trained(job), root=job / "runs")
    for words, decoding in (
        ((), weft.Decoding()),
        (("--beams", 3), weft.Decoding(num_beams=3)),
        (("--sample", 1.5, "--top-p", 0.9, "--seed", 1), weft.Decoding(temperature=1.5, top_p=0.9, seed=1)),
    ):
        scored = runs.Run(Path(evaluated(job, capsys, *words)["folder"])).lines("predictions.jsonl")
        expected = [line["answer"] for line in scored]
        assert [one.answer for one in model.predict(rows, decoding=decoding)] == expected
        assert [model.predict([row], decoding=decoding)[0].answer for row in rows] == expected
        assert command("predict", trained(job), job / "rows.jsonl", *words, "--runs", job / "runs") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["answer"] for line in lines] == expected


def test_options_that_do_not_go_together_are_refused(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, file in (("evaluate", []), ("predict", [job / "rows.jsonl"])):
        assert command(verb, trained(job), *file, "--beams", 2, "--sample", 1, "--runs", job / "runs") == 2
        assert "not both" in capsys.readouterr().err
        assert command(verb, trained(job), *file, "--seed", 2, "--runs", job / "runs") == 2
        assert "nothing is drawn without" in capsys.readouterr().err


def test_a_library_is_missed_before_weights_load_and_not_in_predict(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_metrics, "find_spec", lambda name: None)
    assert command("predict", trained(job), job / "rows.jsonl", "--runs", job / "runs") == 0
    capsys.readouterr()
    monkeypatch.setattr(Backbone, "__init__", lambda *a, **kw: pytest.fail("weights were loaded"))
    asked = ("evaluate", trained(job), "--rows", 7, "--runs", job / "runs", "--quiet")
    assert command(*asked) == 2
    said = capsys.readouterr().err
    assert "WEFT-C18: the metric 'bleu' needs the package sacrebleu" in said
    assert "pip install 'weft[nlg]'" in said
