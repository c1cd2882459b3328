"""Configuration files: what loads, what is refused, and that a refusal says what, where and what to do."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_job import command

from weft.config.base import Config
from weft.config.describe import to_yaml
from weft.config.files import load_config, parse_overrides, parse_value
from weft.config.task import TaskSpec
from weft.errors import ConfigError, Faults, WeftError
from weft.experiments.config import Experiment
from weft.experiments.jobs import specs_of
from weft.experiments.stage_files import load_run
from weft.methods import known
from weft.methods.mpt import MPT
from weft.runs.config import AdaptRun, EvaluateRun, SourceRun, TeacherRun
from weft.tasks import named, select

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted((ROOT / "configs" / "experiments").rglob("*.yaml"))
TASKS = sorted((ROOT / "demo" / "tasks").glob("*.yaml"))

EXPERIMENT = """\
name: small
tasks: [tasks]
sources: [a, b]
targets: [c]
seeds: [0, 1]
base:
  dtype: float32
prompt:
  length: 8
teachers:
  optim:
    lr: {prompt: 0.1}
    steps: 4
source:
  sampling:
    kappa: 2
  optim:
    lr: {shared: 0.1, factors: 0.1}
    steps: 4
rows:
  - label: plain
    method: {name: prompt_tuning}
    optim: {lr: {prompt: 0.1}, steps: 4}
  - label: multi
    method:
      name: mpt
      start: mean
    optim:
      lr: {shared: 0.1, factors: 1e-5}
      steps: 4
      batch_size: 16
"""

TASK = """\
name: colours
files:
  train: train.csv
source: "{text}"
target: "{label}"
labels:
  0: no
  1: yes
metrics: [accuracy]
"""

SOURCE = """\
stage: source
teachers: {}
tasks:
  - {name: a, source: "{text}", target: "{label}"}
  - {name: b, source: "{text}", target: "{label}"}
optim:
  lr: {shared: 0.1, factors: 0.1}
  steps: 4
"""


def written(folder, text):
    """A file with this text."""
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def changed(text, old, new):
    """A text with one place changed; the place must be there exactly once."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)


def refusal(path, kind=Experiment, overrides=None):
    """The error with which a file is refused."""
    with pytest.raises(WeftError) as caught:
        load_config(path, kind, overrides)
    return caught.value


def marked_line(text):
    """The number of the line that the test marked as the faulty one."""
    lines = [number for number, line in enumerate(text.split("\n"), start=1) if "#!" in line]
    assert len(lines) == 1
    return lines[0]


# what loads


def test_experiment_loads_with_its_values_and_the_defaults(tmp_path):
    """A sound file gives its own values, defaults elsewhere, and its folder."""
    config = load_config(written(tmp_path, EXPERIMENT), Experiment)
    assert (config.name, config.sources, config.targets, config.seeds) == (
        "small",
        ("a", "b"),
        ("c",),
        (0, 1),
    )
    assert (config.base.dtype, config.base.model) == ("float32", "smollm2")
    assert (config.prompt.length, config.prompt.init) == (8, "vocabulary")
    assert config.source.sampling.kappa == 2
    assert config.source.distill.weight == 0.9
    assert isinstance(config.rows[1].method, MPT)
    assert config.rows[1].optim.batch_size == 16
    assert config.rows[0].optim.batch_size == 32
    assert config.folder == str(tmp_path.resolve())


def test_task_loads_with_its_values_and_the_defaults(tmp_path):
    """A task file gives its own values; number keys of labels become the text that files hold."""
    spec = load_config(written(tmp_path, TASK), TaskSpec)
    assert (spec.name, spec.files, spec.source, spec.target) == (
        "colours",
        {"train": "train.csv"},
        "{text}",
        "{label}",
    )
    assert spec.labels == {"0": "no", "1": "yes"}
    assert (spec.metrics, spec.max_target_tokens, spec.in_data_root) == (("accuracy",), 8, False)
    assert spec.folder == str(tmp_path.resolve())


def test_yes_and_no_stay_words(tmp_path):
    """YAML 1.2: yes, no, on and off are text; true and false alone are truth values."""
    text = changed(TASK, "  0: no\n  1: yes\n", "  yes: yes\n  no: no\n  on: on\n  off: off\n  true: t\n")
    labels = load_config(written(tmp_path, text), TaskSpec).labels
    assert labels == {"yes": "yes", "no": "no", "on": "on", "off": "off", "True": "t"}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-5", 1e-5), ("1E-5", 1e-5), ("3", 3.0), (".5", 0.5), ("2.", 2.0)]
)
def test_numbers_are_numbers(tmp_path, text, value):
    """A rate without a point is a number, as YAML 1.2 says and YAML 1.1 denies."""
    config = load_config(written(tmp_path, changed(EXPERIMENT, "1e-5", text)), Experiment)
    assert config.rows[1].optim.lr["factors"] == value


def test_bom_and_windows_line_ends_do_no_harm(tmp_path):
    """A file saved by an editor for Windows gives the same configuration."""
    plain = load_config(written(tmp_path, EXPERIMENT), Experiment)
    other = b"\xef\xbb\xbf" + EXPERIMENT.replace("\n", "\r\n").encode()
    assert load_config(written(tmp_path, other), Experiment) == plain


def test_configuration_never_changes(tmp_path):
    """A loaded configuration is frozen."""
    config = load_config(written(tmp_path, EXPERIMENT), Experiment)
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"


# what is refused: the text to replace, the faulty text with its line marked, cause, key, part of the fix

FAULTS = {
    "unknown key at the top": (
        "sources: [a, b]",
        "sources: [a, b]\nsorces: [a, b]  #!",
        "unknown key 'sorces'",
        "sorces",
        "did you mean 'sources'?",
    ),
    "unknown nested key": (
        "  length: 8",
        "  lenght: 8  #!",
        "unknown key 'lenght'",
        "prompt.lenght",
        "did you mean 'length'?",
    ),
    "unknown key in a list entry": (
        "      batch_size: 16",
        "      batchsize: 16  #!",
        "unknown key 'batchsize'",
        "rows.1.optim.batchsize",
        "did you mean 'batch_size'?",
    ),
    "unknown key that is near to none": (
        "      batch_size: 16",
        "      lerning_rate: 16  #!",
        "unknown key 'lerning_rate'",
        "rows.1.optim.lerning_rate",
        "known: batch_size, clip, eval_every, keep, length_pool, lr, micro_batch, patience, steps, warmup, "
        "weight_decay",
    ),
    "unknown key of a method": (
        "      start: mean",
        "      strat: mean  #!",
        "unknown key 'strat'",
        "rows.1.method.strat",
        "did you mean 'start'?",
    ),
    "key of another method": (
        "method: {name: prompt_tuning}",
        "method: {name: prompt_tuning, train: all}  #!",
        "unknown key 'train'",
        "rows.0.method.train",
        "known: name, start",
    ),
    "unknown value of a method": (
        "      start: mean",
        "      train: factor  #!",
        "Input should be 'all', 'factors' or 'shared' (got 'factor')",
        "rows.1.method.train",
        "weft config Experiment",
    ),
    "unknown method": (
        "method: {name: prompt_tuning}",
        "method: {name: tuning}  #!",
        "Input tag 'tuning' found using 'name' does not match any of the expected tags: "
        + ", ".join(map(repr, known())),
        "rows.0.method",
        "weft config Experiment",
    ),
    "wrong type": (
        "  dtype: float32",
        "  text_cache_mb: plenty  #!",
        "Input should be a valid integer, unable to parse string as an integer (got 'plenty')",
        "base.text_cache_mb",
        "weft config Experiment",
    ),
    "text where a list belongs": (
        "targets: [c]",
        "targets: c  #!",
        "Input should be a valid tuple (got 'c')",
        "targets",
        "weft config Experiment",
    ),
    "not a number": (
        "factors: 1e-5}",
        "factors: .nan}  #!",
        "Input should be a finite number (got nan)",
        "rows.1.optim.lr.factors",
        "weft config Experiment",
    ),
    "infinite": (
        "  optim:\n    lr: {shared: 0.1, factors: 0.1}",
        "  distill: {weight: .inf}  #!\n  optim:\n    lr: {shared: 0.1, factors: 0.1}",
        "Input should be a finite number (got inf)",
        "source.distill.weight",
        "weft config Experiment",
    ),
    "negative rate": (
        "factors: 1e-5}",
        "factors: -1e-5}  #!",
        "the rate of 'factors' must be a positive number, not -1e-05",
        "rows.1.optim.lr",
        "weft config Experiment",
    ),
    "rate of zero": (
        "factors: 1e-5}",
        "factors: 0}  #!",
        "the rate of 'factors' must be a positive number, not 0.0",
        "rows.1.optim.lr",
        "weft config Experiment",
    ),
    "no step": (
        "    steps: 4\nsource:",
        "    steps: 0  #!\nsource:",
        "Input should be greater than 0 (got 0)",
        "teachers.optim.steps",
        "weft config Experiment",
    ),
    "dev scores later than the end": (
        "teachers:\n  optim:",
        "teachers:\n  optim:  #!\n    eval_every: 5",
        "eval_every (5) must not exceed steps (4)",
        "teachers.optim",
        "weft config Experiment",
    ),
    "patience without dev scores": (
        "teachers:\n  optim:",
        "teachers:\n  optim:  #!\n    patience: 2",
        "patience counts scores on dev rows, so it needs eval_every",
        "teachers.optim",
        "weft config Experiment",
    ),
    "micro batch above the batch": (
        "teachers:\n  optim:",
        "teachers:\n  optim:  #!\n    micro_batch: 33",
        "micro_batch (33) must not exceed batch_size (32)",
        "teachers.optim",
        "weft config Experiment",
    ),
    "init text without a text": (
        "prompt:\n",
        "prompt:  #!\n  init: text\n",
        "init_text goes with init: text, and only with it",
        "prompt",
        "weft config Experiment",
    ),
    "a text without init text": (
        "prompt:\n",
        "prompt:  #!\n  init_text: Answer.\n",
        "init_text goes with init: text, and only with it",
        "prompt",
        "weft config Experiment",
    ),
    "training without settings": (
        "  - label: plain\n    method: {name: prompt_tuning}\n    optim: {lr: {prompt: 0.1}, steps: 4}",
        "  - label: plain  #!\n    method: {name: prompt_tuning}",
        "'prompt_tuning' needs 'optim' if, and only if, it trains something",
        "rows.0",
        "weft config Experiment",
    ),
    "settings without training": (
        "  - label: plain\n    method: {name: prompt_tuning}",
        "  - label: plain  #!\n    method: {name: majority}",
        "'majority' needs 'optim' if, and only if, it trains something",
        "rows.0",
        "weft config Experiment",
    ),
    "missing nested key": (
        "teachers:\n  optim:\n    lr: {prompt: 0.1}\n    steps: 4",
        "teachers:\n  optim:  #!\n    lr: {prompt: 0.1}",
        "Field required",
        "teachers.optim.steps",
        "weft config Experiment",
    ),
    "one source alone": (
        "sources: [a, b]",
        "sources: [a]  #!",
        "a shared prompt needs two or more sources, or none",
        "sources",
        "weft config Experiment",
    ),
    "a name that is no folder name": (
        "name: small",
        "name: Small one  #!",
        "String should match pattern",
        "name",
        "weft config Experiment",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_names_cause_line_key_and_remedy(tmp_path, fault):
    """One fault in a file gives one error, with its cause, `file:line (key)` and what to do."""
    old, new, cause, key, fix = FAULTS[fault]
    text = changed(EXPERIMENT, old, new)
    path = written(tmp_path, text)
    error = refusal(path)
    assert type(error) is ConfigError
    assert error.cause.startswith(cause)
    assert error.where == f"{path}:{marked_line(text)} ({key})"
    assert fix in error.fix
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("sources: [a, b]", "sources: [a, a]", "source"),
        ("targets: [c]", "targets: [c, d, c]", "target"),
        ("label: multi", "label: plain", "row"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "seed"),
    ],
)
def test_names_that_stand_twice_are_refused(tmp_path, old, new, what):
    """Two sources, targets, rows or seeds of one name would be one run under two names."""
    path = written(tmp_path, changed(EXPERIMENT, old, new))
    error = refusal(path)
    assert error.cause.startswith(f"a {what} is named twice: ")
    assert error.where.startswith(str(path))


def test_missing_top_key_names_the_file(tmp_path):
    """What is not in the file has no line; the message names the file and the key."""
    path = written(tmp_path, changed(EXPERIMENT, "name: small\n", ""))
    error = refusal(path)
    assert (error.cause, error.where) == ("Field required", f"{path} (name)")


def test_wrong_choice_of_several_types_is_one_fault(tmp_path):
    """A value that fits none of a setting's types is one fault, under the key that the file has."""
    text = changed(EXPERIMENT, "  sampling:", "  distill: {layers: first}  #!\n  sampling:")
    path = written(tmp_path, text)
    error = refusal(path)
    assert type(error) is ConfigError
    assert error.where == f"{path}:{marked_line(text)} (source.distill.layers)"


def test_truth_value_is_no_number(tmp_path):
    """`steps: true` is a slip, not one step."""
    error = refusal(
        written(tmp_path, changed(EXPERIMENT, "    steps: 4\nsource:", "    steps: true\nsource:"))
    )
    assert "steps" in str(error)
    assert "(teachers.optim" in error.where


def test_every_fault_of_a_file_is_reported_with_its_line(tmp_path):
    """Four faults are found in one pass, each with its own line."""
    text = changed(EXPERIMENT, "targets: [c]", "targets: []")
    text = changed(text, "  dtype: float32", "  dtype: float16")
    text = changed(text, "    steps: 4\nsource:", "    steps: four\nsource:")
    text = changed(text, "      start: mean", "      strat: mean")
    path = written(tmp_path, text)
    error = refusal(path)
    assert isinstance(error, Faults)
    assert error.exit_code == 2
    assert sorted((fault.where.removeprefix(f"{path}:"), fault.code) for fault in error.faults) == [
        ("13 (teachers.optim.steps)", "C02"),
        ("27 (rows.1.method.strat)", "C01"),
        ("4 (targets)", "C10"),
        ("7 (base.dtype)", "C02"),
    ]
    assert str(error).startswith("4 problems\n")
    assert all(str(fault) in str(error) for fault in error.faults)
    assert len(error.as_dict()["faults"]) == 4


def test_key_that_stands_twice_is_refused(tmp_path):
    """The second of two equal keys is an error, not a silent winner."""
    path = written(tmp_path, EXPERIMENT + "name: other\n")
    error = refusal(path)
    assert error.cause.startswith('not valid YAML: found duplicate key "name"')
    assert error.where == f"{path}:{EXPERIMENT.count(chr(10)) + 1}"


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "# nothing\n", "just text\n", "3\n"])
def test_what_is_not_a_mapping_is_refused(tmp_path, text):
    """A configuration is key: value lines."""
    path = written(tmp_path, text)
    error = refusal(path)
    assert (error.cause, error.where) == ("the file must hold 'key: value' lines", str(path))


def test_missing_file_is_named(tmp_path):
    """A file that is not there is a ConfigError that names it."""
    error = refusal(tmp_path / "none.yaml")
    assert (error.cause, error.where, error.code) == (
        "cannot read the file: No such file or directory",
        str(tmp_path / "none.yaml"),
        "D23",
    )


def test_folder_instead_of_a_file_is_named(tmp_path):
    """A folder is no configuration."""
    error = refusal(tmp_path)
    assert error.cause == "cannot read the file: Is a directory"


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2\nb: 3\n",
        "a: 1\n b: 2\n",
        "a: \tb\n\t- c\n",
        "a: *unknown\n",
        "a: 1\n---\nb: 2\n",
        "a: 'open\n",
        b"a: \xe9\n",
        b"a: b\0c\n",
        "a: 2020-99-01\n",
        "a: !!int five\n",
        "a: " + "[" * 500 + "\n",
    ],
    ids=[
        "open bracket",
        "indent",
        "tab",
        "alias",
        "two documents",
        "open quote",
        "latin-1",
        "NUL",
        "impossible date",
        "wrong tag",
        "too deep",
    ],
)
def test_what_is_not_yaml_is_a_configuration_error(tmp_path, text):
    """Whatever the bytes are, the answer is a ConfigError that names the file, never a traceback."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, TaskSpec)
    assert str(path) in caught.value.where


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.binary(max_size=40), st.text("ab:-[]{}&*!|>%@'\"#, \n\t0.1?", max_size=40).map(str.encode))
)
def test_any_bytes_give_a_configuration_or_a_configuration_error(tmp_path_factory, data):
    """No bytes at all can get past the reader's own error."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with pytest.raises(WeftError):
        load_config(path, TaskSpec)


def test_fault_in_a_merged_mapping_is_reported(tmp_path):
    """A key that came through `<<` has no line of its own; the fault is reported all the same."""
    text = changed(EXPERIMENT, "base:\n  dtype: float32", "base:\n  <<: {modell: x}\n  dtype: float32")
    error = refusal(written(tmp_path, text))
    assert "unknown key 'modell'" in error.cause


# runs


def test_source_run_needs_two_tasks(tmp_path):
    """A prompt is shared between tasks: one task is refused."""
    line = '  - {name: b, source: "{text}", target: "{label}"}\n'
    error = refusal(written(tmp_path, changed(SOURCE, line, "")), SourceRun)
    assert error.cause.startswith("source training shares a prompt between tasks: name two or more sources")


def test_run_needs_a_task_and_different_names(tmp_path):
    """No task, or two of one name, are refused."""
    twice = refusal(written(tmp_path, changed(SOURCE, "name: b", "name: a")), SourceRun)
    assert twice.cause.startswith("a task is named twice: a")
    none = re.sub(r"tasks:\n(  - .*\n)+", "tasks: []\n", SOURCE)
    assert refusal(written(tmp_path, none), SourceRun).cause.startswith("a run needs a task")


def test_kappa_above_the_number_of_tasks_is_refused(tmp_path):
    """Three different tasks cannot be drawn from two; with replacement they can."""
    path = written(tmp_path, SOURCE + "sampling: {kappa: 3, replacement: false}\n")
    assert refusal(path, SourceRun).cause.startswith(
        "sampling.kappa (3) exceeds the number of source tasks (2)"
    )
    path = written(tmp_path, SOURCE + "sampling: {kappa: 3}\n")
    assert load_config(path, SourceRun).sampling.kappa == 3
    path = written(tmp_path, SOURCE + "sampling: {kappa: 2}\n")
    assert load_config(path, SourceRun).sampling.kappa == 2


def test_kappa_above_the_number_of_an_experiments_sources_is_refused(tmp_path):
    """What the source stage would refuse is refused when the experiment is read, not when it is planned."""
    path = written(tmp_path, changed(EXPERIMENT, "    kappa: 2", "    kappa: 3\n    replacement: false"))
    error = refusal(path)
    assert "kappa (3)" in error.cause
    assert str(path) in error.where


def test_source_start_from_a_text_needs_the_text(tmp_path):
    """`source.init: text` without `prompt.init_text` is refused when the experiment is read."""
    path = written(tmp_path, changed(EXPERIMENT, "source:\n  sampling", "source:\n  init: text\n  sampling"))
    error = refusal(path)
    assert "init_text" in error.cause
    assert str(path) in error.where


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("  1: yes", "  1: no", "all labels are written with the same word: no"),
        ("  1: yes", '  1: " "', "a label word is empty"),
        ("  1: yes", '  1: " yes"', "a label word has a blank at an end"),
        ("  1: yes", '  1: "yes\\n"', "a label word has a blank at an end"),
        ("metrics: [accuracy]", "metrics: []", "a task needs at least one metric"),
    ],
)
def test_faults_of_a_task(tmp_path, old, new, cause):
    """Labels that cannot be told apart, an empty word and a task without metric are refused."""
    assert refusal(written(tmp_path, changed(TASK, old, new)), TaskSpec).cause.startswith(cause)


def test_unknown_split_is_refused(tmp_path):
    """Files are for train, dev and test; `validation` is a slip with a line."""
    text = changed(TASK, "  train: train.csv", "  validation: train.csv  #!")
    path = written(tmp_path, text)
    error = refusal(path, TaskSpec)
    assert error.where.startswith(f"{path}:{marked_line(text)} (files.validation")
    assert "'train', 'dev' or 'test'" in error.cause


# --set


def test_values_of_overrides_are_yaml():
    """Numbers, lists, words and null come out as YAML 1.2 reads them; only the first `=` divides."""
    items = ["a=1", "b.c=1e-5", "d=[1, x]", "e=yes", "f=null", "g=x=y", "h={i: true}", "j='1'"]
    assert parse_overrides(items) == {
        "a": 1,
        "b.c": 1e-5,
        "d": (1, "x"),
        "e": "yes",
        "f": None,
        "g": "x=y",
        "h": {"i": True},
        "j": "1",
    }


@pytest.mark.parametrize("item", ["a", "=3", "", "a.b"])
def test_override_without_a_value_is_refused(item):
    """`--set` wants key=value."""
    with pytest.raises(ConfigError, match=r"--set needs key=value, not ") as caught:
        parse_overrides([item])
    assert repr(item) in caught.value.cause


@pytest.mark.parametrize("value", ["[1", "{a: 1", "a: b: c", "*x", "!!int five", "'open"])
def test_override_whose_value_is_not_yaml_is_refused(value):
    """A value that is not YAML is a slip on the command line, with exit code 2."""
    with pytest.raises(ConfigError):
        parse_overrides([f"a={value}"])


@pytest.mark.parametrize("text", ["3", "1e-5", "yes", "true", "null", "[1, 2]", "{a: 1}", "text"])
def test_parse_value_gives_plain_types(text):
    """A value holds Python's own types, none of the reader's."""

    def plain(value):
        if isinstance(value, tuple):
            return all(map(plain, value))
        if isinstance(value, dict):
            return type(value) is dict and all(map(plain, value.values()))
        return type(value) in (int, float, str, bool, type(None))

    assert plain(parse_value(text))


def test_overrides_reach_keys_list_entries_and_absent_parts(tmp_path):
    """A dotted key sets what is there, an entry of a list by its number, and what the file leaves out."""
    overrides = {
        "prompt.length": 9,
        "rows.1.optim.steps": 7,
        "rows.0.method.start": "nearest",
        "seeds.1": 5,
        "limits.train_rows": 20,
        "targets": ("d",),
        "title": "x",
    }
    config = load_config(written(tmp_path, EXPERIMENT), Experiment, overrides)
    assert config.prompt.length == 9
    assert [entry.optim.steps for entry in config.rows] == [4, 7]
    assert config.rows[0].method.start == "nearest"
    assert config.seeds == (0, 5)
    assert config.limits.train_rows == 20
    assert (config.targets, config.title) == (("d",), "x")


@pytest.mark.parametrize(
    ("key", "part"),
    [("rows.7.label", "7"), ("rows.x", "x"), ("name.x", "x"), ("seeds.2", "2"), ("rows.-1.label", "-1")],
)
def test_override_of_a_place_that_is_not_there_is_refused(tmp_path, key, part):
    """There is no eighth row to set; the message names the part of the key."""
    error = refusal(written(tmp_path, EXPERIMENT), overrides={key: 1})
    assert (error.cause, error.where) == (f"there is nothing at {part!r} to set", f"--set {key}")


@pytest.mark.parametrize(
    ("key", "cause"),
    [
        ("nosuch", "unknown key 'nosuch'"),
        ("nosuch.a", "unknown key 'nosuch'"),
        ("prompt.lenght", "unknown key 'lenght'"),
        ("limits.rows", "unknown key 'rows'"),
        ("rows.1.optim.stps", "unknown key 'stps'"),
        ("rows.1.method.strat", "unknown key 'strat'"),
    ],
)
def test_override_of_an_unknown_key_is_refused(tmp_path, key, cause):
    """A misspelt key on the command line is as much an error as one in the file."""
    error = refusal(written(tmp_path, EXPERIMENT), overrides={key: 1})
    assert error.cause == cause
    assert f"({key.removesuffix('.a')})" in error.where


def test_override_with_a_wrong_value_is_refused(tmp_path):
    """A wrong value of a key that the file leaves out is a ConfigError under its key."""
    error = refusal(written(tmp_path, EXPERIMENT), overrides={"limits.train_rows": "many"})
    assert "(limits.train_rows)" in error.where


def test_fault_inside_an_override_is_named_as_the_file_would_be(tmp_path):
    """A whole method given by --set has the same keys in its faults as one in the file."""
    error = refusal(written(tmp_path, EXPERIMENT), overrides={"rows.1.method": {"name": "mpt", "strat": 1}})
    assert error.cause == "unknown key 'strat'"
    assert error.where.endswith("(rows.1.method.strat)")


# the repository's own files


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_of_the_repository_load_and_name_declared_tasks(path):
    """Every experiment loads, and every task it names is declared."""
    config = load_config(path, Experiment)
    specs = specs_of(config)
    assert len(select(specs, config.sources + config.targets)) == len(config.sources) + len(config.targets)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_table_shows_what_a_user_would_compare_with(path):
    """The majority, both classifiers on the same rows, and with sources the prompt methods beside MPT.

    Classifiers cannot write: they stand where a target's answers are closed. On dev rows settings are chosen.
    """
    config = load_config(path, Experiment)
    titles = {row.method.title for row in config.rows}
    closed = any(spec.labels for spec in select(specs_of(config), config.targets))
    if closed and config.split == "test":
        assert {"majority", "TF-IDF + LR", "frozen features + LR"} <= titles
    assert not config.sources or {"prompt tuning from scratch", "SPoT", "MPT"} <= titles


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_few_shot_targets_train_as_long_in_a_group_as_alone(path):
    """A group's steps are those of a target alone, times the targets (the paper's counts are its own)."""
    config = load_config(path, Experiment)
    for row in config.rows:
        if row.group and row.optim and config.shots:
            alone = next(one.optim for one in config.rows if one.method == row.method and not one.group)
            sizes = {len(names) for names in config.groups.values()} or {len(config.targets)}
            assert {row.optim.steps} == {alone.steps * size for size in sizes}


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_tasks_of_the_repository_load_under_their_file_names(path):
    """Every demo task loads and is named as its file."""
    assert load_config(path, TaskSpec).name == path.stem


def test_stage_files_of_the_repository_load():
    """Every file under configs/adapt is a run of one stage, with the task that it names."""
    paths = sorted((ROOT / "configs" / "adapt").iterdir())
    found = {path.stem: load_run(path, AdaptRun, {}) for path in paths}
    assert [[task.name for task in run.tasks] for run in found["squad"]] == [["squad"]]
    assert all(len(runs) == 1 for runs in found.values())


def test_an_unknown_built_in_task_has_a_near_name():
    """`builtin/NAME` names one built-in task; another name gets the nearest."""
    with pytest.raises(ConfigError) as caught:
        named(["builtin/sqad"], ROOT)
    assert caught.value.fix == "did you mean 'squad'?"
    assert list(named(["builtin/squad", "builtin/cb"], ROOT)) == ["squad", "cb"]


def test_repository_has_experiments_and_tasks():
    """The two tests above are not empty, and no file of another suffix goes unread."""
    for paths, folder, least in ((EXPERIMENTS, "configs/experiments", 7), (TASKS, "demo/tasks", 8)):
        assert len(paths) >= least
        assert len(paths) == len([path for path in (ROOT / folder).rglob("*") if path.is_file()])


# writing


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_written_experiment_reads_back_equal(tmp_path, path):
    """`to_yaml` loses nothing of an experiment."""
    config = load_config(path, Experiment)
    assert load_config(written(tmp_path, to_yaml(config)), Experiment) == config


RUNS: list[Config] = [
    TeacherRun(
        tasks=({"name": "a", "source": "x", "target": "y"},), optim={"lr": {"prompt": 1e-5}, "steps": 1}
    ),
    SourceRun(
        tasks=tuple({"name": name, "source": "x", "target": "y"} for name in "ab"),
        teachers={"a": "run-1", "b": "run-2"},
        optim={"lr": {"shared": 0.3, "factors": 0.1}, "steps": 1},
        distill={"layers": (0, 3)},
    ),
    AdaptRun(
        tasks=({"name": "a", "source": "x", "target": "y", "labels": {"1": "yes", "0": "no"}},),
        method={"name": "mpt", "train": "factors"},
        optim={"lr": {"factors": 123456.789e-12}, "steps": 1},
    ),
    EvaluateRun(tasks=({"name": "a", "source": "x", "target": "y"},), method={"name": "majority"}),
]


@pytest.mark.parametrize("config", RUNS, ids=lambda config: config.stage)
def test_written_run_reads_back_equal(tmp_path, config):
    """`to_yaml` loses nothing of a run, whatever its stage."""
    assert load_config(written(tmp_path, to_yaml(config)), type(config)) == config


def test_written_labels_keep_their_order(tmp_path):
    """The order of labels is the order of the choices; it survives the file."""
    spec = TaskSpec(name="a", source="x", target="y", labels={"z": "one", "a": "two", "m": "three"})
    assert list(load_config(written(tmp_path, to_yaml(spec)), TaskSpec).labels) == ["z", "a", "m"]


awkward = st.one_of(
    st.sampled_from(
        [
            "yes",
            "null",
            "~",
            "1e-5",
            "0x1F",
            "01",
            "2020-01-01",
            "12:30:00",
            ".nan",
            "true",
            "- a",
            "a: b",
            "#",
            "&a",
        ]
    ),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=60),
    st.text(" \n\t'\"\\:#-ab", max_size=200),
)


@settings(max_examples=150, deadline=None)
@given(source=awkward, title=awkward.filter(bool), words=st.lists(awkward, max_size=3, unique=True))
@example(source="a\u0085b", title="\u0085", words=["\u2028", "\ufeff"])
@example(source="\u0085", title="\x1f" + 9 * "\U00010000" + "0 0", words=[])
def test_any_text_survives_writing(tmp_path_factory, source, title, words):
    """Any text in a template or a label reads back, character for character."""
    kept = {word.strip() for word in words} - {""}
    spec = TaskSpec(name="a", source=source, target=title, labels={word: word for word in kept} or None)
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(to_yaml(spec), encoding="utf-8")
    assert load_config(path, TaskSpec) == spec


@settings(max_examples=100, deadline=None)
@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False), st.integers(1, 10**12))
def test_any_number_survives_writing(tmp_path_factory, rate, steps):
    """Rates read back bit for bit, numbers of steps digit for digit."""
    config = TeacherRun(
        tasks=({"name": "a", "source": "x", "target": "y"},),
        optim={"lr": {"prompt": rate}, "steps": steps},
    )
    path = tmp_path_factory.getbasetemp() / "number.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path, TeacherRun) == config


@pytest.mark.parametrize("kind", ["Experiment", "AdaptRun", "EvaluateRun", "TaskSpec", "OptimConfig", "MPT"])
def test_every_kind_of_configuration_is_described(kind, capsys):
    """`weft config` knows runs, experiments, tasks, parts of them, and methods."""
    assert command("config", kind) == 0
    assert ": " in capsys.readouterr().out
