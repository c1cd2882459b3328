"""Published numbers beside ours: the file, its faults, and the rows of a table."""

from pathlib import Path

import pytest
from test_reporting import check, fill, make_plan, quick_disk  # noqa: F401 - a fixture of that file
from tiny_job import command, write_job

from weft.config.files import load_config
from weft.errors import ConfigError, WeftError
from weft.experiments import tables
from weft.experiments.config import Experiment
from weft.experiments.published import PublishedFile, published
from weft.experiments.report.html_page import page

ROOT = Path(__file__).parents[1]
NUMBERS = ROOT / "docs" / "paper_numbers.yaml"
SMALL = """
tables:
  ours:
    source: Table 1 of a paper
    provenance: seen
    base: t5-base
    columns: [parameters, urgency, banking, average]
    rows:
      MPT: [77600, 85.9, 90.3, 88.1]
  more:
    source: its appendix
    provenance: memory
    base: t5-base
    columns: [formality]
    rows:
      MPT: [50]
      PT: [null]
"""


def made(folder, text=SMALL, **settings):
    """A plan that shows the numbers of a file."""
    (folder / "numbers.yaml").write_text(text, "utf-8")
    shown = {"paper": {"file": "numbers.yaml"}, "folder": str(folder), **settings}
    return make_plan(**shown)


def test_published_rows_stand_in_every_table_and_say_what_they_are(tmp_path):
    """Label, numbers, dashes, parameters; the note has source and provenance; nothing is bold."""
    plan = made(tmp_path, averages={"two": ("banking", "urgency")})
    fill(plan, tmp_path)
    entries = tables.collect(plan, tmp_path)
    markdown = tables.table_markdown(entries, plan)
    dots = "85.9 | · | 90.3 | · | — | · | 88.1 | — | 77,600 | — |"
    assert f"| paper: MPT | {dots}" in markdown
    assert "| paper: MPT (from memory) | — | · | — | · | 50.0 | · | — | — | — | — |" in markdown
    assert "paper: PT" not in markdown
    note = (
        "Rows 'paper: ...' were not measured here: ours (t5-base) read in Table 1 of a paper; more (t5-base) "
        "remembered, and not confirmed, from its appendix."
    )
    assert note in markdown
    text = tables.table_text(entries, plan)
    assert max(map(len, text.split("\n"))) <= 80
    assert text.count("paper: MPT") == 2 * 2
    html = page(plan, tmp_path, None)
    assert "<em>paper: MPT</em>" in html
    assert "<strong>90.3" not in html
    check(html)
    assert "paper" not in tables.table_csv(entries)


def test_tables_can_be_named(tmp_path):
    """Others of the file are left out."""
    plan = made(tmp_path, paper={"file": "numbers.yaml", "tables": ["ours"]})
    assert [row.label for row in published(plan.experiment)] == ["paper: MPT"]
    assert published(make_plan().experiment) == []


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("[77600, 85.9, 90.3, 88.1]", "[85.9, 90.3, 88.1]", "row 'MPT' has 3 numbers for 4 columns"),
        ("provenance: seen", "provenance: read", "Input should be 'seen' or 'memory'"),
        ("[formality]", "[formality, formality]", "a column is named twice"),
        ("85.9", "85,9", "row 'MPT' has 5 numbers"),
        ("85.9", "high", "Input should be a valid number"),
        ("source: its appendix", "sources: its appendix", "unknown key 'sources'"),
    ],
)
def test_faults_of_the_file_are_named_with_their_place(tmp_path, old, new, cause):
    """A short row, another word, a column twice, text for a number, an unknown key."""
    plan = made(tmp_path, SMALL.replace(old, new))
    with pytest.raises(WeftError) as caught:
        published(plan.experiment)
    assert cause in str(caught.value)
    assert "numbers.yaml" in str(caught.value)


def test_a_file_or_table_that_is_not_there_is_named(tmp_path):
    """With the nearest name."""
    with pytest.raises(ConfigError, match="cannot read the file"):
        published(made(tmp_path, paper={"file": "other.yaml"}).experiment)
    with pytest.raises(ConfigError, match="there is no table 'our'") as caught:
        published(made(tmp_path, paper={"file": "numbers.yaml", "tables": ["our"]}).experiment)
    assert "ours" in caught.value.fix


def test_a_missing_file_stops_a_run_before_anything_is_trained(tmp_path, capsys):
    """The pass names it, and there is no folder of runs."""
    path = write_job(tmp_path, "llama", "suffix")
    path.write_text(path.read_text("utf-8") + "paper: {file: numbers.yaml}\n", "utf-8")
    assert command("run", path, "--runs", tmp_path / "runs", "--quiet") == 2
    assert "numbers.yaml" in capsys.readouterr().err
    assert not [one for one in (tmp_path / "runs").glob("*") if one.is_dir() and one.name[0] != "."]


# the file that comes with the project


def test_averages_as_printed_are_those_of_their_numbers():
    """A slip of the pen would show: each average lies within rounding of its row, where the row is whole.

    Averages that the sources print otherwise stand as printed: they are named here with their distance.
    """
    odd = {}
    for name, table in load_config(NUMBERS, PublishedFile).tables.items():
        for label, values in table.rows.items():
            row = dict(zip(table.columns, values, strict=True))
            own = [value for key, value in row.items() if key not in ("parameters", "average")]
            if own and "average" in row:
                gap = sum(own) / len(own) - row["average"]
                if abs(gap) > 0.11:
                    odd[name, label] = round(gap, 1)
    assert odd == {
        ("mrqa", "ATTEMPT"): 0.3,
        ("mrqa", "DePT"): -0.2,
        ("superglue", "FT-multi"): 0.4,
        ("superglue", "MPT-multi"): 0.1,
    }


@pytest.mark.parametrize("name", ["glue", "superglue", "mrqa", "others", "fewshot", "nlg", "ablations"])
def test_files_of_the_paper_show_the_paper_s_numbers(name):
    """Each names tables that are there and have its targets."""
    experiment = load_config(ROOT / "configs" / "experiments" / "paper" / f"{name}.yaml", Experiment)
    assert any(row.label.startswith("paper: MPT") for row in published(experiment))
