"""Tasks from YAML: templates, labels, references, and the faults of rows that do not fit them."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.config.task import TaskSpec
from weft.errors import ConfigError, DataError
from weft.tasks import Example, find_specs, from_spec, select

ROWS = [{"text": "sky", "label": 0}, {"text": "grass", "label": 1}]


def task_of(place, rows=ROWS, data_root=None, split="train", **settings):
    """A task whose rows lie in a JSONL file in a folder."""
    (Path(place) / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {
        "name": "colours",
        "files": {split: "rows.jsonl"},
        "source": "What colour is {text}?",
        "target": "{label}",
        "folder": str(place),
        **settings,
    }
    return from_spec(TaskSpec.model_validate(spec), data_root)


def refusal(task, split="train"):
    """The error with which a task's rows are refused."""
    with pytest.raises(DataError) as caught:
        task.load(split)
    return caught.value


# rows to examples


def test_template_is_filled_with_the_columns(tmp_path):
    """Every {field} stands for its column, several times if it is named several times."""
    rows = [{"a": "x", "b c": 2, "label": "yes"}]
    task = task_of(tmp_path, rows, source="{a} and {b c}, {a}", target="{label}!")
    assert task.load("train") == [Example("x and 2, x", "yes!")]


def test_labels_become_words(tmp_path):
    """The value of the target is a key of the labels, whatever its type in the file."""
    task = task_of(tmp_path, labels={"0": "blue", "1": "green"})
    assert [example.target for example in task.load("train")] == ["blue", "green"]
    assert task.choices == ("blue", "green")


def test_choices_stand_in_the_order_of_the_labels(tmp_path):
    """Neither the alphabet nor the rows decide the order of the answers."""
    labels = {"1": "zebra", "0": "ape", "2": "mole"}
    assert task_of(tmp_path, labels=labels).choices == ("zebra", "ape", "mole")


@settings(max_examples=100, deadline=None)
@given(
    text=st.one_of(
        st.sampled_from(["{label}", "{text}", "{{text}}", r"\1", r"\g<0>", "{", "}", "{}", "%s", "$text"]),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    )
)
def test_text_of_a_row_is_never_a_template(tmp_path_factory, text):
    """Whatever a cell holds stands in the source as it is; braces in it name nothing."""
    task = task_of(tmp_path_factory.getbasetemp(), [{"text": text, "label": "x"}], source="<{text}|{label}>")
    assert task.load("train")[0].source == f"<{text}|x>"
    assert task.source({"text": text, "label": "x"}) == f"<{text}|x>"


def test_column_of_answers_gives_the_references(tmp_path):
    """A list of accepted answers, or one answer, becomes the references; the target stays what is trained."""
    rows = [
        {"text": "a", "label": "one", "all": ["one", "1"]},
        {"text": "b", "label": "two", "all": "two"},
        {"text": "c", "label": "three", "all": [3, "three"]},
    ]
    examples = task_of(tmp_path, rows, references="all").load("train")
    assert [example.references for example in examples] == [("one", "1"), ("two",), ("3", "three")]
    assert [example.accepted for example in examples] == [("one", "1"), ("two",), ("3", "three")]
    assert [example.target for example in examples] == ["one", "two", "three"]


def test_references_are_found_in_another_spelling(tmp_path):
    """As the template's columns are."""
    rows = [{"text": "a", "label": "one", "re\u0301ponses ": ["one", "1"]}]
    assert task_of(tmp_path, rows, references="r\u00e9ponses").load("train")[0].references == ("one", "1")


def test_without_references_the_target_is_accepted(tmp_path):
    """An example without a list of answers accepts its own."""
    assert [example.accepted for example in task_of(tmp_path).load("train")] == [("0",), ("1",)]


def test_rows_are_read_when_they_are_asked_for(tmp_path):
    """Making a task reads no file."""
    spec = TaskSpec(name="a", files={"train": "none.csv"}, source="{x}", target="{y}", folder=str(tmp_path))
    assert from_spec(spec).splits == ("train",)


def test_first_metric_decides(tmp_path):
    """The metrics stand in the order of the file."""
    task = task_of(tmp_path, metrics=("f1_macro", "accuracy"))
    assert list(task.metrics) == ["f1_macro", "accuracy"]
    assert task.main_metric == "f1_macro"


# rows that do not fit


def test_unseen_labels_are_listed_with_count_and_row(tmp_path):
    """A value without a word: which, how often, where first, and which words there are."""
    rows = [{"text": "a", "label": label} for label in (0, 7, 1, 8, 7)]
    error = refusal(task_of(tmp_path, rows, labels={"0": "blue", "1": "green"}))
    assert error.cause == "labels without a word: '7' (2 rows), '8' (1 rows)"
    assert error.where == f"{tmp_path / 'rows.jsonl'}, first in row 2"
    assert error.fix == "add them under 'labels' of task 'colours', which has 0, 1"
    assert (error.code, error.exit_code) == ("D06", 3)


def test_missing_column_says_which_one_is_near(tmp_path):
    """A field that is no column: the columns there are, and the nearest."""
    error = refusal(task_of(tmp_path, source="{txt}"))
    assert error.cause == "there is no column 'txt'; the file has label, text"
    assert error.where == f"{tmp_path / 'rows.jsonl'} (template of task colours)"
    assert (error.fix, error.code) == ("did you mean 'text'?", "D01")


@pytest.mark.parametrize("settings", [{"source": "{no}"}, {"target": "{no}"}, {"references": "no"}])
def test_every_part_of_a_template_needs_its_column(tmp_path, settings):
    """Source, target and references alike."""
    assert refusal(task_of(tmp_path, **settings)).code == "D01"


def test_rows_without_a_value_are_numbered(tmp_path):
    """Gaps, whether null or left out, are reported with the numbers of their rows."""
    rows = [{"text": "a", "label": 0}, {"label": 0}, {"text": None, "label": 0}, {"text": "", "label": 0}]
    error = refusal(task_of(tmp_path, rows))
    assert (error.cause, error.where) == ("2 rows have no 'text': row 2, 3", str(tmp_path / "rows.jsonl"))
    assert (error.fix, error.code) == ("complete the rows or remove them", "D02")


def test_many_gaps_are_counted_and_some_are_numbered(tmp_path):
    """A hundred gaps do not fill the screen."""
    rows = [{"text": "a", "label": 0}] + [{"label": 0}] * 100
    assert refusal(task_of(tmp_path, rows)).cause == "100 rows have no 'text': row 2, 3, 4, 5, 6"


@pytest.mark.parametrize("empty", ["", " ", "\n\t"])
def test_empty_target_is_refused(tmp_path, empty):
    """A row that teaches nothing is refused, with its number."""
    error = refusal(task_of(tmp_path, [*ROWS, {"text": "a", "label": empty}]))
    assert (error.cause, error.code) == ("1 rows have an empty target: row 3", "D03")


def test_text_without_its_field_is_refused(tmp_path):
    """A row given for prediction without the field: what is missing, and what it has."""
    task = task_of(tmp_path)
    with pytest.raises(DataError) as caught:
        task.source({"texte": "sky"})
    assert caught.value.cause == "the row has no 'text'; it has texte"
    assert caught.value.code == "D01"


def test_split_without_a_file_is_refused(tmp_path):
    """A task without dev rows says so, and says which splits it has."""
    error = refusal(task_of(tmp_path), "dev")
    assert (error.cause, error.code) == ("task 'colours' has no dev rows", "D13")
    assert "known: train" in error.fix


# settings that cannot work


def test_unknown_metric_is_refused(tmp_path):
    """A metric that is none is a ConfigError under the task's name."""
    with pytest.raises(ConfigError) as caught:
        task_of(tmp_path, metrics=("acuracy",))
    assert (caught.value.where, caught.value.code) == ("task colours (metrics)", "C18")
    assert "acuracy" in caught.value.cause


def test_f1_binary_needs_its_positive_label(tmp_path):
    """Which label counts must be said."""
    with pytest.raises(ConfigError) as caught:
        task_of(tmp_path, metrics=("f1_binary",))
    assert caught.value.code == "C18"


def test_positive_label_must_be_a_label_word(tmp_path):
    """A positive that no row can have would give a score of nothing."""
    labels = {"0": "no", "1": "yes"}
    task_of(tmp_path, metrics=("f1_binary",), positive="yes", labels=labels)
    with pytest.raises((ConfigError, ValueError), match="positive"):
        task_of(tmp_path, metrics=("f1_binary",), positive="1", labels=labels)


def test_data_root_is_asked_for_where_it_is_needed(tmp_path):
    """Files under the data root cannot be found without one; the message says how to give it."""
    task = task_of(tmp_path, in_data_root=True)
    with pytest.raises(ConfigError) as caught:
        task.load("train")
    assert caught.value.where == "task colours (in_data_root)"
    assert "--data" in caught.value.fix
    assert "WEFT_DATA" in caught.value.fix
    with pytest.raises(ConfigError):
        task.data_hash("train")


def test_files_under_the_data_root_are_read_from_there(tmp_path):
    """With `in_data_root` the folder of the YAML file does not matter."""
    task = task_of(tmp_path, in_data_root=True, folder="/nowhere", data_root=tmp_path)
    assert len(task.load("train")) == 2


def test_without_in_data_root_the_data_root_does_not_matter(tmp_path):
    """Files beside the YAML file stay where they are."""
    assert len(task_of(tmp_path, data_root=Path("/nowhere")).load("train")) == 2


# data hashes


def test_data_hash_is_that_of_the_file(tmp_path):
    """The run's name rests on the bytes of the file."""
    task = task_of(tmp_path)
    expected = hashlib.sha256((tmp_path / "rows.jsonl").read_bytes()).hexdigest()
    assert task.data_hash("train") == expected


def test_data_hash_of_a_missing_file_is_a_data_error(tmp_path):
    """Runs are named before rows are read, so here too a missing file must be named, with exit code 3."""
    task = task_of(tmp_path)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(DataError) as caught:
        task.data_hash("train")
    assert caught.value.where.startswith(str(tmp_path / "rows.jsonl"))


def test_data_hash_of_a_split_without_a_file_is_a_data_error(tmp_path):
    """A run that scores dev rows of a task without them says so when it is named."""
    task = task_of(tmp_path)
    with pytest.raises(DataError, match="no dev rows"):
        task.data_hash("dev")


@pytest.mark.timeout(3)
def test_data_hash_of_a_pipe_does_not_hang(tmp_path):
    """A named pipe is refused at once."""
    task = task_of(tmp_path)
    (tmp_path / "rows.jsonl").unlink()
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(DataError):
        task.data_hash("train")


# task files


def declared(folder, name, file=None):
    """A task file."""
    path = Path(folder) / (file or f"{name}.yaml")
    path.write_text(f'name: {name}\nsource: "{{x}}"\ntarget: "{{y}}"\n', encoding="utf-8")
    return path


def test_folders_and_files_give_their_tasks(tmp_path):
    """A folder gives all its YAML files, a file gives itself."""
    (tmp_path / "some").mkdir()
    declared(tmp_path / "some", "a")
    declared(tmp_path / "some", "b")
    (tmp_path / "some" / "notes.txt").write_text("no task", encoding="utf-8")
    alone = declared(tmp_path, "c")
    assert list(find_specs([tmp_path / "some", alone])) == ["a", "b", "c"]


def test_task_declared_twice_is_refused(tmp_path):
    """Two files with one name: the second is named."""
    paths = [declared(tmp_path, "a", "one.yaml"), declared(tmp_path, "a", "two.yaml")]
    with pytest.raises(ConfigError) as caught:
        find_specs(paths)
    assert (caught.value.cause, caught.value.where) == ("task 'a' is declared twice", str(paths[1]))


def test_folder_without_tasks_is_refused(tmp_path):
    """A folder that declares nothing is a slip."""
    with pytest.raises(ConfigError) as caught:
        find_specs([tmp_path])
    assert (caught.value.cause, caught.value.where) == (
        "the folder has no task files (*.yaml)",
        str(tmp_path),
    )


def test_missing_task_file_is_refused(tmp_path):
    """A path that is not there is named."""
    with pytest.raises(ConfigError) as caught:
        find_specs([tmp_path / "none"])
    assert caught.value.where == str(tmp_path / "none")


def test_faults_of_several_task_files_are_reported_together(tmp_path):
    """Two broken files are two faults, found in one go."""
    paths = [declared(tmp_path, "a"), declared(tmp_path, "b")]
    for path in paths:
        path.write_text(path.read_text("utf-8") + "colour: red\n", encoding="utf-8")
    with pytest.raises(Exception, match="unknown key") as caught:
        find_specs([tmp_path])
    assert all(str(path) in str(caught.value) for path in paths)


def test_selected_tasks_stand_in_the_order_of_the_names(tmp_path):
    """The order of sources is the order of the bank's rows."""
    for name in "abc":
        declared(tmp_path, name)
    specs = find_specs([tmp_path])
    assert [spec.name for spec in select(specs, ["c", "a"])] == ["c", "a"]
    assert [spec.name for spec in select(specs, iter(["c", "a"]))] == ["c", "a"]


def test_unknown_task_says_which_one_is_near(tmp_path):
    """A misspelt task names the nearest declared one."""
    specs = find_specs([declared(tmp_path, "sentiment"), declared(tmp_path, "topic")])
    with pytest.raises(ConfigError) as caught:
        select(specs, ["topic", "sentimant"])
    assert (caught.value.cause, caught.value.fix) == (
        "there is no task 'sentimant'",
        "did you mean 'sentiment'?",
    )
