"""docs/first-task.md does what it says: its commands and its Python are run, on the smallest model."""

import re
import shlex
from pathlib import Path

import pytest
from tiny_job import command

pytestmark = pytest.mark.pocket
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "first-task.md").read_text("utf-8")
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_can_be_followed(tmp_path, monkeypatch, capsys):
    """From top to bottom; each command ends well and prints what the page says; RUN is what was printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "data").symlink_to(ROOT / "demo" / "data")
    run, said = "", []
    for kind, block in BLOCKS:
        if kind == "python":
            exec(
                compile(block.replace("Classifier()", 'Classifier(base="pocket")'), "first-task.md", "exec"),
                {},
            )
            said.append(capsys.readouterr().out)
            continue
        for line in block.splitlines():
            words = [run if word == "RUN" else word for word in shlex.split(line)[1:]]
            base = ["--base", "pocket"] if words[0] == "learn" else []
            assert command(*words, *base) == 0, capsys.readouterr()
            said.append(capsys.readouterr().out)
            found = re.search(r"^run: +(\S+)", said[-1], re.MULTILINE)
            run = found[1] if found and not run else run
    learnt, answers, scores, more, python = said
    assert "answer: label (found)" in learnt
    assert all(f"{row} " in learnt for row in ("weft", "TF-IDF + LR", "frozen features + LR", "majority"))
    assert len(answers.splitlines()) == len((ROOT / "demo/data/urgency/test.jsonl").read_text().splitlines())
    assert "recall" in scores
    assert "rows of the earlier run" in more
    assert re.match(r"\['(urgent|normal|low)'\]\n[01]\.\d+\n", python)
    assert (tmp_path / "urgency-classifier" / "classifier.json").is_file()
