"""The method of docs/add-a-method.md as a package brings it; what is said of packages and keys at fault."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_artifacts import put, reseal
from test_methods_in_context import ROWS_OF_METHODS
from tiny_job import write_job

from weft import runs
from weft.config.files import load_config
from weft.errors import WeftError
from weft.experiments.config import Experiment

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")
RUN = "from weft import cli; cli.main()"


def block(language: str) -> str:
    """The one block of code of a language on the page."""
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def install(folder: Path, code: str, entry: str) -> dict[str, str]:
    """Put a package with an entry point where Python finds it; returns the environment that does."""
    about = folder / "packages" / "word_overlap-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: word-overlap\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text(f"[weft.methods]\n{entry}\n", "utf-8")
    (about.parent / "word_overlap.py").write_text(code, "utf-8")
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
