"""Methods as other packages bring them, that of docs/add-a-method.md among them; what is said of faults."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import build_lm, build_tokenizer
from reference import lm as reference
from test_artifacts import put, reseal
from test_methods_in_context import ROWS_OF_METHODS
from tiny_job import write_job

from weft import runs, stages
from weft.config.files import load_config
from weft.data.selection import few_shot
from weft.errors import ConfigError, WeftError
from weft.experiments.config import Experiment
from weft.methods.method import Saved, Setup
from weft.methods.tfidf import TfIdf
from weft.runs import parents
from weft.runs.config import AdaptRun
from weft.runs.workspace import Workspace
from weft.tasks import from_spec, named, select

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = Path(__file__).parent / "fixtures" / "outside"
PAGE = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")
RUN = "from weft import cli; cli.main()"


def block(language: str) -> str:
    """The one block of code of a language on the page."""
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def install(folder: Path, code: str | dict[str, str], entry: str) -> dict[str, str]:
    """Put a package with an entry point where Python finds it; returns the environment that does.

    Args:
        folder: where the package goes.
        code: of the module `word_overlap`, or of several by name.
        entry: the line of the entry point.
    """
    about = folder / "packages" / "word_overlap-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: word-overlap\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text(f"[weft.methods]\n{entry}\n", "utf-8")
    for name, text in ({"word_overlap": code} if isinstance(code, str) else code).items():
        (about.parent / f"{name}.py").write_text(text, "utf-8")
    places = [about.parent, ROOT / "src", os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(one) for one in places if one)}


def python(code: str, *words: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run some code in a process of its own."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=200)


def entry_on_the_page() -> str:
    """The line of the page's pyproject.toml that names the method."""
    [line] = re.findall(r'^word_overlap = ".*"$', block("toml"), re.MULTILINE)
    return line.replace('"', "")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with an experiment whose rows are those of the page, run with the page's package."""
    folder = tmp_path_factory.mktemp("overlap")
    env = install(folder, block("python"), entry_on_the_page())
    before = ROWS_OF_METHODS[: ROWS_OF_METHODS.index("rows:")]
    write_job(folder, "llama", "suffix", before + block("yaml").replace("{", "{{").replace("}", "}}"))
    done = python(RUN, "run", folder / "tiny.yaml", "--runs", folder / "runs", "--quiet", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "three neighbours" in done.stdout
    return folder, env


def test_the_page_answers_by_shared_words(job: tuple[Path, dict[str, str]]) -> None:
    """Every prediction is the answer of the training row, kept in the notes, that shares most words."""
    folder, env = job
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom weft import runs\n"
        "from weft.serving import predictor\n"
        "root = Path(sys.argv[1])\n"
        "asked = [run for run in runs.finished(root) if run.id.startswith('adapt-')]\n"
        "rows = [{'text': 'the good film is'}, {'text': 'a bad city'}]\n"
        "print(json.dumps([[run.config().method.neighbours, run.saved().notes['rows'][0],\n"
        "    [one.answer for one in predictor.load(run.id, root=root).predict(rows)]] for run in asked]))"
    )
    done = python(code, folder / "runs", env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 2 * 2 * 2
    for neighbours, rows, answers in found:
        assert len(rows) == 12
        for text, answer in zip(("the good film is", "a bad city"), answers, strict=True):
            shared = [len(set(text.split()) & set(source.split())) for source, _ in rows]
            voters = sorted(range(12), key=lambda i: -shared[i])[:neighbours]
            votes = [rows[i][1] for i in voters]
            assert votes.count(answer) == max(map(votes.count, votes))


def test_damaged_notes_are_refused(job: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Notes that are not what the method says it notes: a fault of the folder, and no traceback."""
    whole = next((job[0] / "runs").glob("adapt-word-overlap-*"))
    path = Path(shutil.copytree(whole, tmp_path / whole.name))
    put(path / "notes.json", b'{"rows": [["x"]]}')
    reseal(path)
    (tmp_path / "rows.jsonl").write_text('{"text": "the good film is"}\n', "utf-8")
    done = python(RUN, "predict", path, tmp_path / "rows.jsonl", "--runs", tmp_path, env=job[1])
    assert done.returncode == 4, done.stderr
    assert "rows.0.0" in done.stderr
    assert "notes.json" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_the_page_can_be_imported_first(job: tuple[Path, dict[str, str]]) -> None:
    """A package's own tests import its module before weft; so may other code."""
    done = python("import word_overlap; from weft.runs.config import AdaptRun; print('ok')", env=job[1])
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_without_the_package_its_runs_say_so(job: tuple[Path, dict[str, str]]) -> None:
    """A run of a method that is not installed is refused, not misread."""
    [run, *_] = (job[0] / "runs").glob("adapt-word-overlap-*")
    with pytest.raises(WeftError, match="not one that this version reads"):
        runs.Run(run).config()


def test_a_trained_method_of_a_package(tmp_path: Path) -> None:
    """Two steps move its vector from its rows' mean; its run is loaded and answers as that prompt does."""
    code = {path.stem: path.read_text("utf-8") for path in OUTSIDE.glob("*.py")}
    env = install(tmp_path, code, "shared_vector = shared_vector:SharedVector")
    row = (
        "  - {{label: vector, method: {{name: shared_vector}}, optim: {{lr: {{vector: 0.1}}, steps: %s}}}}\n"
    )
    before = ROWS_OF_METHODS[: ROWS_OF_METHODS.index("rows:")].replace("seeds: [0, 1]", "seeds: [0]")
    write_job(tmp_path, "t5", "prefix", f"{before}rows:\n{row % 2}")
    done = python(RUN, "run", tmp_path / "tiny.yaml", "--runs", tmp_path / "runs", "--quiet", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom weft import runs\n"
        "from weft.serving import predictor\n"
        "root = Path(sys.argv[1])\n"
        "[run] = [one for one in runs.finished(root) if one.id.startswith('adapt-shared-vector-gamma-')]\n"
        "[answer] = predictor.load(run.id, root=root).predict([{'text': 'the good film'}])\n"
        "result = run.result()\n"
        "print(json.dumps([run.tensors()['vector'].tolist(), result['steps'], result['trained_parameters'],\n"
        "    answer.probabilities]))"
    )
    done = python(code, tmp_path / "runs", env=env)
    assert done.returncode == 0, done.stderr
    vector, steps, parameters, found = json.loads(done.stdout)
    assert (steps, parameters) == (2, 32)
    lm, tokenizer = build_lm("t5"), build_tokenizer(ends_texts=True)
    ids = tokenizer("the good film")["input_ids"]
    words = [tokenizer.convert_tokens_to_ids(word) for word in ("positive", "negative")]
    with torch.no_grad():
        logits = reference.next_logits(lm, ids, torch.tensor(vector).expand(4, -1))[words]
    assert list(found.values()) == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)
    [spec] = select(named(["tasks"], tmp_path), ["gamma"])
    rows = few_shot(from_spec(spec, None).load("train"), 6, seed=0, task="gamma")
    read = [token for row in rows for token in tokenizer(row.source)["input_ids"]]
    moved = (torch.tensor(vector) - lm.get_input_embeddings().weight[read].mean(0).detach()).abs()
    assert 0.01 < float(moved.mean()) <= float(moved.max()) < 0.21  # by Adam, at most the rate a step


def prompt_of(name: str) -> torch.Tensor:
    """A prompt of four tokens."""
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(len(name) + ord(name[0])))


@pytest.fixture(scope="module")
def fitting(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdaptRun, Workspace]:
    """A run of a fitted method on two tasks, and where it works."""
    folder = tmp_path_factory.mktemp("fitting")
    write_job(folder, "t5", "prefix")
    specs = select(named(["tasks"], folder), ["gamma", "delta"])
    base = {"model": str(folder / "base"), "dtype": "float32", "attention": "eager", "products": "library"}
    config = AdaptRun(base=base, tasks=tuple(specs), shots=3, method={"name": "tfidf"}, prompt={"length": 4})
    return config, Workspace(folder / "runs")


def test_a_fitted_method_gets_tokens_and_the_nearest_prompt(
    fitting: tuple[AdaptRun, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each when it asks, of the rows of its task (losses of plain passes)."""

    def asks(method: TfIdf, setup: Setup) -> Saved:
        prompts = {name: prompt_of(name) for name in ("one", "two")}
        found = [setup.nearest(prompts, k) for k in range(len(setup.tasks))]
        sources = [[list(row.source) for row in task.rows] for task in setup.encoded]
        return Saved({"none": torch.zeros(1)}, {"sources": sources, "nearest": found})

    config, workspace = fitting
    monkeypatch.setattr(TfIdf, "fit", asks)
    notes = stages.perform(config, workspace).saved().notes
    lm, tokenizer = build_lm("t5"), build_tokenizer(ends_texts=True)
    for k, words in enumerate((("positive", "negative"), ("same", "other"))):
        rows = stages._training_rows(config, workspace.task(config.tasks[k]), workspace)
        texts = [tokenizer(row.source)["input_ids"] for row in rows]
        assert notes["sources"][k] == texts
        ids = [tokenizer.convert_tokens_to_ids(word) for word in words]
        right = torch.tensor([words.index(row.target) for row in rows])
        losses = {}
        for name in ("one", "two"):
            with torch.no_grad():
                logits = [reference.next_logits(lm, text, prompt_of(name))[ids] for text in texts]
            losses[name] = float(torch.nn.functional.cross_entropy(torch.stack(logits), right))
        assert notes["nearest"][k] == [min(losses, key=losses.get), pytest.approx(losses, rel=1e-4)]


@pytest.mark.parametrize("what", ["source", "teachers"])
def test_runs_that_a_method_does_not_name_are_not_given(
    fitting: tuple[AdaptRun, Workspace], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Not even where the configuration names such runs: the fault is the method's, and says its remedy."""
    config, workspace = fitting
    named = config.model_copy(update={"source": "source-x", "teachers": {"alpha": "teachers-x"}, "seed": 1})
    monkeypatch.setattr(TfIdf, "fit", lambda method, setup: getattr(setup, what))
    for one in (config.model_copy(update={"seed": 1}), named):
        with pytest.raises(ConfigError, match=f"asks for {what}, and its `needs` does not name it") as caught:
            stages.perform(one, workspace)
        assert "`needs`" in caught.value.fix
    monkeypatch.setattr(TfIdf, "needs", frozenset({what}))
    with pytest.raises(WeftError, match="-x"):
        stages.perform(named, workspace)


@pytest.mark.parametrize("what", ["encoded", "source", "teachers"])
def test_what_only_training_has_is_not_given_to_answer(
    fitting: tuple[AdaptRun, Workspace], what: str
) -> None:
    """A method that restores from a run has what the run kept, and no rows."""
    with pytest.raises(ConfigError, match="is there to learn from, and this is not training"):
        getattr(parents.setup_of(*fitting), what)


@pytest.mark.parametrize(
    ("code", "entry", "said"),
    [
        (
            "import nothing_of_that_name",
            "word_overlap = word_overlap:WordOverlap",
            "cannot be loaded (Module",
        ),
        ("1 / 0", "word_overlap = word_overlap:WordOverlap", "cannot be loaded (ZeroDivisionError"),
        ("", "word_overlap = word_overlap:WordOverlap", "cannot be loaded (AttributeError"),
        ("WordOverlap = 3", "word_overlap = word_overlap:WordOverlap", "is no weft.methods.Method"),
        (None, "overlap = word_overlap:WordOverlap", "has another name than 'overlap'"),
        (None, "mpt = word_overlap:WordOverlap", "two methods have the name 'mpt'"),
    ],
)
def test_a_broken_package_is_named(tmp_path: Path, code: str | None, entry: str, said: str) -> None:
    """Whatever is wrong with an entry point is a fault with the place and no traceback."""
    env = install(tmp_path, block("python") if code is None else code, entry)
    done = python(RUN, "config", "Experiment", env=env)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "word_overlap:WordOverlap" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ("{label: one, method: {name: in_context, start: mean}}", "start"),
        ("{label: one, method: {name: majority, examples: 3}}", "examples"),
        ("{label: one, method: {name: mpt, calibrate: true}}", "calibrate"),
    ],
)
def test_keys_of_another_method_are_refused(tmp_path: Path, row: str, key: str) -> None:
    """The fault names the key and the line of its row."""
    text = ROWS_OF_METHODS[: ROWS_OF_METHODS.index("rows:")].format(base="smollm2", position="suffix")
    path = tmp_path / "tiny.yaml"
    path.write_text(f"{text}rows:\n  - {row}\n", "utf-8")
    line = 1 + next(i for i, one in enumerate(path.read_text("utf-8").splitlines()) if "label: one" in one)
    with pytest.raises(WeftError, match=f"WEFT-C01: unknown key '{key}'") as caught:
        load_config(path, Experiment)
    assert f"tiny.yaml:{line} (rows.0.method.{key})" in str(caught.value)
