"""A hundred and more bad inputs through the command line: each is refused with its code, its place and a remedy.

Every case spoils one thing of a small sound experiment. No case may load weights, or take five seconds.
"""

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import WORDS, build_lm, build_tokenizer
from tiny_job import command

from weft.runs import workspace

EXPERIMENT = """\
name: small
base: {model: BASE, dtype: float32}
prompt: {length: 4}
limits: {source_tokens: 12}
tasks: [tasks]
sources: [alpha, beta]
targets: [gamma]
shots: 4
seeds: [0, 1]
teachers:
  optim: {lr: {prompt: 0.1}, steps: 6, batch_size: 6, eval_every: 3}
source:
  factors: {rank: 1}
  distill: {weight: 0.9}
  sampling: {kappa: 2}
  optim: {lr: {shared: 0.1, factors: 0.1}, steps: 6, batch_size: 6}
rows:
  - {label: majority, method: {name: majority}}
  - label: plain
    method: {name: prompt_tuning}
    optim: {lr: {prompt: 0.1}, steps: 4, batch_size: 6}
  - label: multi
    method: {name: mpt, start: mean}
    optim: {lr: {shared: 0.1, factors: 0.1}, steps: 4, batch_size: 6}
"""
TASK = """\
name: NAME
files: {train: NAME-train.csv, dev: NAME-dev.csv, test: NAME-test.csv}
source: "{text}"
target: "{label}"
labels: {"y": "yes", "n": "no"}
metrics: [accuracy, f1_macro]
max_target_tokens: 3
"""
SIZES = {"train": 24, "dev": 8, "test": 10}
Edit = Callable[[Path], object]


def texts() -> dict[str, list[str]]:
    """Rows of all files, no two of them alike."""
    words = itertools.permutations(WORDS[8:20], 3)
    files = itertools.product(("alpha", "beta", "gamma"), SIZES)
    return {
        f"{task}-{split}.csv": [" ".join(next(words)) for _ in range(SIZES[split])] for task, split in files
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model folder: tiny weights, and the tokenizer of the tests."""
    folder = tmp_path_factory.mktemp("base")
    build_lm("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def world(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sound experiment, where loading weights is a failure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WEFT_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(workspace, "load_backbone", no_weights)
    (tmp_path / "base").symlink_to(base)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "small.yaml").write_text(EXPERIMENT.replace("BASE", "base"), "utf-8")
    for name in ("alpha", "beta", "gamma"):
        (tmp_path / "tasks" / f"{name}.yaml").write_text(TASK.replace("NAME", name), "utf-8")
    for name, rows in texts().items():
        lines = [f"{text},{'yn'[i % 2]}" for i, text in enumerate(rows)]
        (tmp_path / "tasks" / name).write_text("\n".join(["text,label", *lines]) + "\n", "utf-8")
    return tmp_path


def no_weights(*_: object, **__: object) -> None:
    """Stands where weights are loaded."""
    pytest.fail("weights were loaded")


# ways to spoil something


def swap(file: str, old: str, new: str) -> Edit:
    """A file of the world with one place changed; the place is there exactly once."""

    def edit(world: Path) -> None:
        path = world / file
        text = path.read_text("utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
        path.write_text(text.replace(old, new), "utf-8")

    return edit


def setting(old: str, new: str) -> Edit:
    """The experiment file with one place changed."""
    return swap("small.yaml", old, new)


def task(old: str, new: str) -> Edit:
    """The task file of gamma with one place changed."""
    return swap("tasks/gamma.yaml", old, new)


def put(file: str, data: str | bytes) -> Edit:
    """A file of the world with other content."""
    return lambda world: (world / file).write_bytes(data if isinstance(data, bytes) else data.encode())


def rows(file: str, change: Callable[[list[str]], list[str]]) -> Edit:
    """The lines of a file of rows, changed; line 0 is the header."""

    def edit(world: Path) -> None:
        path = world / "tasks" / file
        path.write_text("\n".join(change(path.read_text("utf-8").splitlines())) + "\n", "utf-8")

    return edit


def cell(file: str, line: int, text: str) -> Edit:
    """One line of a file of rows, counted from 1 as in an editor, changed."""
    return rows(file, lambda lines: [text if n == line else old for n, old in enumerate(lines, 1)])


def both(*edits: Edit) -> Edit:
    """Several changes."""
    return lambda world: [edit(world) for edit in edits]


def remove(file: str) -> Edit:
    """A file taken away."""
    return lambda world: (world / file).unlink()


def instead(file: str, make: Callable[[Path], object]) -> Edit:
    """Something else in a file's place."""
    return lambda world: [(world / file).unlink(), make(world / file)]


def parquet(columns: dict[str, list[object]]) -> Edit:
    """The test rows of gamma from a Parquet file."""

    def edit(world: Path) -> None:
        task("gamma-test.csv", "gamma-test.parquet")(world)
        pq.write_table(pa.table(columns), world / "tasks" / "gamma-test.parquet")

    return edit


def jsonl(*lines: str) -> Edit:
    """The test rows of gamma from a JSON-lines file."""
    text = "\n".join(lines) + "\n"
    return both(task("gamma-test.csv", "gamma-test.jsonl"), put("tasks/gamma-test.jsonl", text))


def seen(source: str, target: str, change: Callable[[str], str] = str) -> Edit:
    """The first text of one file as the first text of another."""

    def edit(world: Path) -> None:
        text = texts()[source][0]
        cell(target, 2, f"{change(text)},y")(world)

    return edit


def model(**values: object) -> Edit:
    """The base model's config.json with other values."""

    def edit(world: Path) -> None:
        folder = (world / "base").resolve()
        (world / "base").unlink()
        (world / "base").mkdir()
        for file in folder.iterdir():
            (world / "base" / file.name).write_bytes(file.read_bytes())
        config = json.loads((world / "base" / "config.json").read_text("utf-8")) | values
        (world / "base" / "config.json").write_text(json.dumps(config), "utf-8")

    return edit


open_answers = both(
    *(
        swap(f"tasks/{name}.yaml", 'labels: {"y": "yes", "n": "no"}\nmetrics: [accuracy, f1_macro]\n', "")
        for name in ("alpha", "beta", "gamma")
    )
)
TSV = both(task("gamma-test.csv", "gamma-test.tsv"), put("tasks/gamma-test.tsv", "text\tlabel\na\tb\tc\n"))
TEST, TRAIN = "gamma-test.csv", "gamma-train.csv"
OPTIM = "optim: {lr: {prompt: 0.1}, steps: 6, batch_size: 6, eval_every: 3}"

# name: (what is spoilt, code, exit code, cause, where, fix)
Case = tuple[Edit, str, int, str, str, str]
CONFIG: dict[str, Case] = {
    "no such file": (remove("small.yaml"), "D23", 2, "cannot read the file", "small.yaml", ""),
    "a list": (put("small.yaml", "- a\n"), "C02", 2, "must hold 'key: value' lines", "small.yaml", ""),
    "tabs": (put("small.yaml", "name:\n\t- a\n"), "C03", 2, "not valid YAML", "small.yaml:2", ""),
    "open bracket": (setting("[gamma]", "[gamma"), "C03", 2, "not valid YAML", "small.yaml", ""),
    "key twice": (setting("shots: 4", "shots: 4\nshots: 5"), "C03", 2, "duplicate key", "small.yaml:9", ""),
    "key misspelt": (setting("shots: 4", "shosts: 4"), "C01", 2, "unknown key 'shosts'", "small.yaml:8 (shosts)", "did you mean 'shots'?"),
    "nested key misspelt": (setting("kappa", "kapa"), "C01", 2, "unknown key 'kapa'", "(source.sampling.kapa)", "did you mean 'kappa'?"),
    "key of another method": (setting("{name: prompt_tuning}", "{name: prompt_tuning, train: all}"), "C01", 2, "unknown key 'train'", "(rows.1.method.train)", "known: name, start"),
    "key missing": (setting("targets: [gamma]\n", ""), "C02", 2, "Field required", "(targets)", "weft config Experiment"),
    "text for a number": (setting("shots: 4", "shots: four"), "C02", 2, "valid integer", "small.yaml:8 (shots)", "weft config Experiment"),
    "true for a number": (setting("shots: 4", "shots: true"), "C02", 2, "shots is a number, not true or false", "small.yaml", "weft config Experiment"),
    "fraction for a count": (setting("shots: 4", "shots: 4.5"), "C02", 2, "valid integer", "(shots)", ""),
    "one name for a list": (setting("[gamma]", "gamma"), "C02", 2, "valid tuple", "(targets)", ""),
    "unknown choice": (setting("start: mean", "start: mean, train: some"), "C02", 2, "Input should be 'all', 'factors' or 'shared'", "(rows.2.method.train)", ""),
    "unknown method": (setting("{name: majority}", "{name: majorty}"), "C02", 2, "does not match any of the expected tags", "(rows.0.method)", ""),
    "unknown dtype": (setting("float32", "float16"), "C02", 2, "'auto', 'float32' or 'bfloat16'", "(base.dtype)", ""),
    "unknown allowance": (setting("shots: 4", "shots: 4\nallow: [everything]"), "C02", 2, "'leaks', 'duplicates', 'cuts'", "(allow.0)", ""),
    "infinite weight": (setting("weight: 0.9", "weight: .inf"), "C04", 2, "finite number", "(source.distill.weight)", ""),
    "weight is NaN": (setting("weight: 0.9", "weight: .nan"), "C04", 2, "finite number", "(source.distill.weight)", ""),
    "negative weight": (setting("weight: 0.9", "weight: -1"), "C05", 2, "greater than or equal to 0", "small.yaml:14 (source.distill.weight)", ""),
    "temperature 0": (setting("weight: 0.9", "temperature: 0"), "C05", 2, "greater than 0", "(source.distill.temperature)", ""),
    "rank 0": (setting("rank: 1", "rank: 0"), "C06", 2, "greater than 0", "(source.factors.rank)", ""),
    "rank over length": (setting("rank: 1", "rank: 5"), "C06", 2, "source.factors.rank (5) exceeds prompt.length (4)", "small.yaml", ""),
    "rank over width": (both(setting("rank: 1", "rank: 33"), setting("length: 4", "length: 40")), "C06", 2, "factors.rank (33) exceeds the width of 'base' (32)", "source.factors.rank", "set it to 32 or less"),
    "layer that is not there": (setting("weight: 0.9", "weight: 0.9, layers: [0, 2]"), "C06", 2, "layer 2 does not exist", "source.distill.layers", "layers 0 to 1"),
    "length 0": (setting("length: 4", "length: 0"), "C07", 2, "greater than 0", "(prompt.length)", ""),
    "too long for positions": (both(model(model_type="gpt2", n_positions=16, n_embd=32, n_layer=2), setting("length: 4", "length: 4")), "C07", 2, "prompt 4, text 12 and answer 3 are 19 tokens, and 'base' has 16 positions", "prompt.length, limits.source_tokens", "set limits.source_tokens to 9 or less"),
    "too long for a BERT's positions": (both(model(model_type="encoder-decoder", encoder={"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 16}, decoder={"num_hidden_layers": 2}), setting("length: 4", "length: 4")), "C07", 2, "'base' has 16 positions", "prompt.length, limits.source_tokens", ""),
    "suffix on an encoder-decoder": (both(model(model_type="t5", d_model=32, num_layers=2), setting("length: 4", "length: 4, position: suffix")), "C08", 2, "a model with an encoder reads its prompt before the text", "prompt.position", "set prompt.position: prefix"),
    "sliding window": (model(sliding_window=8), "C08", 2, "'base''s attention sees a window of 8, beyond which", "prompt.length, limits.source_tokens", "set limits.source_tokens to 1 or less"),
    "kappa 1": (setting("kappa: 2", "kappa: 1"), "C09", 2, "greater than or equal to 2", "(source.sampling.kappa)", ""),
    "kappa over sources": (setting("kappa: 2", "kappa: 3, replacement: false"), "C09", 2, "source.sampling.kappa (3) exceeds the number of sources (2)", "small.yaml", ""),
    "one source": (setting("[alpha, beta]", "[alpha]"), "C10", 2, "two or more sources, or none", "small.yaml:6 (sources)", ""),
    "no target": (setting("[gamma]", "[]"), "C10", 2, "at least 1 item", "(targets)", ""),
    "source twice": (setting("[alpha, beta]", "[alpha, beta, alpha]"), "C10", 2, "a source is named twice: alpha", "small.yaml", ""),
    "target twice": (setting("[gamma]", "[gamma, gamma]"), "C10", 2, "a target is named twice: gamma", "small.yaml", ""),
    "label twice": (setting("label: multi", "label: plain"), "C10", 2, "a row is named twice: plain", "small.yaml", ""),
    "unknown source, and kappa that fits all": (both(setting("[alpha, beta]", "[alpha, beta, delta]"), setting("kappa: 2", "kappa: 3, replacement: false")), "C12", 2, "there is no task 'delta'", "sources, targets", "did you mean 'beta'?"),
    "teachers start from teachers": (setting("prompt: {", "prompt: {init: teachers, "), "C12", 2, "only P* can start from the mean of teachers", "prompt.init", "set source.init: teachers"),
    "unknown source": (setting("[alpha, beta]", "[alpha, beta, delta]"), "C12", 2, "there is no task 'delta'", "sources, targets", "did you mean 'beta'?"),
    "unknown target": (setting("[gamma]", "[gama]"), "C12", 2, "there is no task 'gama'", "sources, targets", "did you mean 'gamma'?"),
    "unknown start": (setting("start: mean", "start: middle"), "C12", 2, "row 'multi' starts from 'middle'", "small.yaml", ""),
    "steps 0": (setting("steps: 6, batch_size: 6, eval_every: 3", "steps: 0"), "C17", 2, "greater than 0", "(teachers.optim.steps)", ""),
    "batch 0": (setting(OPTIM, OPTIM.replace("batch_size: 6", "batch_size: 0")), "C17", 2, "greater than 0", "(teachers.optim.batch_size)", ""),
    "eval after the end": (setting("eval_every: 3", "eval_every: 7"), "C17", 2, "eval_every (7) must not exceed steps (6)", "(teachers.optim)", ""),
    "warm-up to the end": (setting("eval_every: 3", "warmup: 1"), "C17", 2, "less than 1", "(teachers.optim.warmup)", ""),
    "patience without scores": (setting("eval_every: 3", "patience: 3"), "C17", 2, "patience counts scores on dev rows", "(teachers.optim)", ""),
    "micro-batch over batch": (setting("eval_every: 3", "micro_batch: 7"), "C17", 2, "micro_batch (7) must not exceed batch_size (6)", "(teachers.optim)", ""),
    "clip 0": (setting("eval_every: 3", "clip: 0"), "C17", 2, "greater than 0", "(teachers.optim.clip)", ""),
    "rate 0": (setting("optim: {lr: {prompt: 0.1}, steps: 6", "optim: {lr: {prompt: 0}, steps: 6"), "C02", 2, "the rate of 'prompt' must be a positive number", "(teachers.optim.lr)", ""),
    "rate of another group": (setting("optim: {lr: {prompt: 0.1}, steps: 6", "optim: {lr: {shared: 0.1}, steps: 6"), "C02", 2, "optim.lr must name what is trained (prompt)", "small.yaml", ""),
    "optim where nothing trains": (setting("{name: majority}", "{name: majority}, optim: {lr: {prompt: 0.1}, steps: 4}"), "C02", 2, "needs 'optim' if, and only if", "(rows.0)", ""),
    "text start without text": (setting("length: 4", "length: 4, init: text"), "C02", 2, "init_text goes with init: text", "(prompt)", ""),
    "negative seed": (setting("[0, 1]", "[0, -1]"), "C20", 2, "greater than or equal to 0", "(seeds.1)", ""),
    "seed too big": (setting("[0, 1]", "[0, 2147483648]"), "C20", 2, "less than 2147483648", "(seeds.1)", ""),
    "no seed": (setting("[0, 1]", "[]"), "C20", 2, "at least 1 item", "(seeds)", ""),
    "seed twice": (setting("[0, 1]", "[1, 1]"), "C10", 2, "a seed is named twice: 1", "small.yaml", ""),
    "shots 0": (setting("shots: 4", "shots: 0"), "D13", 2, "greater than 0", "(shots)", ""),
    "shots in all 0": (setting("shots: 4", "shots_total: 0"), "D13", 2, "greater than 0", "(shots_total)", ""),
    "shots per answer and in all": (setting("shots: 4", "shots: 4\nshots_total: 8"), "C02", 2, "shots (4) counts rows per answer and shots_total (8) rows in all: give one", "small.yaml", ""),
    "shots per answer and in all in a row": (setting("label: plain", "label: plain\n    shots: 2\n    shots_total: 2"), "C02", 2, "shots (2) counts rows per answer and shots_total (2)", "(rows.1)", ""),
    "group of something else": (setting("shots: 4", "groups: {one: [gamma, delta]}"), "C12", 2, "'delta' in group 'one' is no target", "small.yaml", ""),
    "group of nothing": (setting("shots: 4", "groups: {one: []}"), "C10", 2, "group 'one' has no target", "small.yaml", ""),
    "target in two groups": (setting("shots: 4", "groups: {one: [gamma], two: [gamma]}"), "C10", 2, "a target is in two groups: gamma", "small.yaml", ""),
    "target twice in a group": (setting("shots: 4", "groups: {one: [gamma, gamma]}"), "C10", 2, "group 'one' names a target twice", "small.yaml", ""),
    "capital in a group's name": (setting("shots: 4", "groups: {One: [gamma]}"), "C02", 2, "String should match pattern", "(groups.One)", ""),
    "group that is a number": (setting("label: multi", "label: multi\n    group: 1.5"), "C02", 2, "valid boolean", "(rows.2.group)", ""),
    "runs in a file": (put("runs", "x"), "C23", 2, "the folder of runs is a file", "runs", "name another with --runs"),
    "base misspelt": (setting("model: base", "model: smollm"), "C24", 4, "there is no base model 'smollm'", "base.model", "did you mean 'smollm2'?"),
    "base without weights": (both(model(), remove("base/model.safetensors")), "C24", 4, "no model.safetensors", "base", ""),
    "base without config": (both(model(), remove("base/config.json")), "", 4, "", "config.json", ""),
    "base of a strange family": (model(model_type="mamba"), "C08", 2, "does not know models of type 'mamba'", "config.json", "use one of bart, bert, distilbert, encoder-decoder, gemma3_text, gpt2"),
    "base with an encoder that is no BERT": (model(model_type="encoder-decoder", encoder={"model_type": "vit"}), "C08", 2, "does not know models of type 'encoder-decoder of vit'", "config.json", ""),
    "base with code of its own": (model(auto_map={"AutoModel": "x.Y"}), "A10", 2, "the model brings its own code", "base", ""),
    "base without tokenizer": (both(model(), remove("base/tokenizer.json"), remove("base/tokenizer_config.json")), "A09", 4, "no tokenizer that can be read", "base", "needs tokenizer.json"),
}  # fmt: skip
TASKS: dict[str, Case] = {
    "no task file": (setting("[tasks]", "[tusks]"), "D23", 2, "cannot read the file", "tusks", ""),
    "empty folder": (both(setting("[tasks]", "[empty]"), lambda world: (world / "empty").mkdir()), "D23", 2, "the folder has no task files", "empty", ""),
    "task key misspelt": (task("metrics", "metric"), "C01", 2, "unknown key 'metric'", "gamma.yaml:6 (metric)", "did you mean 'metrics'?"),
    "task without source": (task('source: "{text}"\n', ""), "C02", 2, "Field required", "gamma.yaml (source)", "weft config TaskSpec"),
    "capital in a name": (task("name: gamma", "name: Gamma"), "D24", 2, "String should match pattern", "gamma.yaml:1 (name)", ""),
    "path as a name": (task("name: gamma", "name: ../gamma"), "D24", 2, "String should match pattern", "gamma.yaml:1 (name)", ""),
    "name declared twice": (task("name: gamma", "name: beta"), "D24", 2, "task 'beta' is declared twice", "gamma.yaml", ""),
    "unknown metric": (task("[accuracy, f1_macro]", "[acuracy]"), "C18", 2, "unknown metric 'acuracy'", "task gamma (metrics)", ""),
    "no positive label": (task("[accuracy, f1_macro]", "[f1_binary]"), "C18", 2, "f1_binary needs the label that counts as positive", "task gamma (metrics)", ""),
    "positive is no label": (task("max_target", "positive: maybe\nmax_target"), "C02", 2, "positive is 'maybe', which is no label word", "gamma.yaml", ""),
    "correlation of words": (task("[accuracy, f1_macro]", "[pearson]"), "C18", 2, "pearson compares numbers, and the answer 'no' is none", "(metrics)", "name a metric that the answers suit"),
    "two labels with one word": (task('"n": "no"', '"n": "yes"'), "C02", 2, "all labels are written with the same word: yes", "gamma.yaml", ""),
    "empty label word": (task('"n": "no"', '"n": " "'), "C02", 2, "a label word is empty", "gamma.yaml", ""),
    "label words that the model cannot tell apart": (task('"y": "yes", "n": "no"', '"y": "zebra", "n": "koala"'), "D18", 2, "the label words 'zebra', 'koala' are the same tokens", "task gamma (labels)", "choose words that the tokenizer tells apart"),
    "label word too long": (task('"n": "no"', '"n": "no no no no"'), "D16", 2, "the label word 'no no no no' has 4 tokens, and max_target_tokens is 3", "task gamma (labels)", "set max_target_tokens to 4 or more"),
    "special token as a label": (task('"n": "no"', '"n": "</s>"'), "D19", 2, "the label word '</s>' holds a special token", "task gamma (labels)", "choose another"),
    "no data folder": (task("name: gamma", "name: gamma\nin_data_root: true"), "D23", 2, "reads its files from the data folder, and none is given", "task gamma (in_data_root)", "--data FOLDER or the variable WEFT_DATA"),
    "no dev rows": (swap("tasks/alpha.yaml", ", dev: alpha-dev.csv", ""), "D13", 3, "task 'alpha' has no dev rows", "task alpha", "name a file for 'dev'"),
    "no test rows": (task(", test: gamma-test.csv", ""), "D13", 3, "task 'gamma' has no test rows", "task gamma", "name a file for 'test'"),
}  # fmt: skip
ROWS: dict[str, Case] = {
    "file missing": (remove(f"tasks/{TEST}"), "D23", 3, "cannot open the file: No such file", TEST, ""),
    "a folder": (instead(f"tasks/{TEST}", Path.mkdir), "D23", 3, "not an ordinary file", TEST, ""),
    "a pipe": (instead(f"tasks/{TEST}", os.mkfifo), "D23", 3, "not an ordinary file", TEST, ""),
    "a link to itself": (instead(f"tasks/{TEST}", lambda path: path.symlink_to(path)), "D23", 3, "cannot open the file", TEST, ""),
    "unknown suffix": (task("gamma-test.csv", "gamma-test.xlsx"), "D23", 3, "not a format that weft reads", "gamma-test.xlsx", "use one of .csv"),
    "column renamed": (cell(TEST, 1, "txet,label"), "D01", 3, "there is no column 'text'; the file has label, txet", TEST, "did you mean 'txet'?"),
    "label column missing": (cell(TEST, 1, "text,answer"), "D01", 3, "there is no column 'label'", TEST, "known: answer, text"),
    "field missing in a row": (jsonl('{"text": "a", "label": "y"}', '{"text": "b", "label": "n"}', '{"label": "n"}'), "D02", 3, "1 rows have no 'text': row 3", "gamma-test.jsonl", "complete the rows or remove them"),
    "null in a row": (jsonl('{"text": "a", "label": "y"}', '{"text": null, "label": "n"}'), "D02", 3, "1 rows have no 'text': row 2", "gamma-test.jsonl", ""),
    "NaN in Parquet": (parquet({"text": ["a", "b"], "label": [1.0, float("nan")]}), "D02", 3, "1 rows have no 'label': row 2", "gamma-test.parquet", ""),
    "null in Parquet": (parquet({"text": ["a", None], "label": ["y", "n"]}), "D02", 3, "1 rows have no 'text': row 2", "gamma-test.parquet", ""),
    "white space as a text": (cell(TEST, 3, "  ,n"), "D02", 3, "1 texts are nothing but white space", "task gamma, test (gamma-test.csv), row 2", "complete the rows"),
    "no-break space as a text": (cell(TEST, 3, "\u00a0,n"), "D02", 3, "1 texts are nothing but white space", "row 2", "complete the rows"),
    "empty target": (cell(TEST, 3, "a book,"), "D03", 3, "1 rows have an empty target: row 2", TEST, "complete the rows"),
    "blank target": (cell(TEST, 3, "a book,  "), "D03", 3, "1 rows have an empty target: row 2", TEST, ""),
    "None is a label": (cell(TEST, 3, "a book,None"), "D06", 3, "labels without a word: 'None' (1 rows)", f"{TEST}, first in row 2", "add them under 'labels' of task 'gamma', which has y, n"),
    "NA is a label": (cell(TEST, 3, "a book,NA"), "D06", 3, "labels without a word: 'NA' (1 rows)", "first in row 2", "add them"),
    "label with a leading zero": (both(task('"y": "yes"', '"1": "yes"'), rows(TEST, lambda lines: [line.replace(",y", ",01") for line in lines]), rows(TRAIN, lambda lines: [line.replace(",y", ",1") for line in lines])), "D06", 3, "labels without a word: '01' (5 rows)", "first in row 1", "which has 1, n"),
    "label as a fraction": (parquet({"text": ["a book", "a meal"], "label": [1.0, 0.0]}), "D06", 3, "labels without a word: '1.0' (1 rows), '0.0' (1 rows)", "gamma-test.parquet, first in row 1", "add them"),
    "label as a truth value": (jsonl('{"text": "a book", "label": true}', '{"text": "a meal", "label": "n"}'), "D06", 3, "labels without a word: 'True' (1 rows)", "first in row 1", "add them"),
    "label with a point": (cell(TEST, 3, "a book,n."), "D06", 3, "labels without a word: 'n.' (1 rows)", "first in row 2", ""),
    "label in capitals": (cell(TRAIN, 3, "a book,N"), "D06", 3, "labels without a word: 'N' (1 rows)", f"{TRAIN}, first in row 2", "'N' and 'n' differ in capitals"),
    "value without a column name": (rows(TEST, lambda lines: [f"{line},{'x' * (n == 2)}" for n, line in enumerate(lines)]), "D07", 3, "1 column without a name hold values", f"{TEST}:3, column 3", "name them in the first line"),
    "cell too many": (cell(TEST, 4, "a book,a meal,y"), "D07", 3, "3 cells under 2 columns", f"{TEST}:4", "quote cells that hold the separator"),
    "cell too few": (cell(TEST, 4, "a book"), "D07", 3, "1 cells under 2 columns", f"{TEST}:4", "quote cells"),
    "open quote": (cell(TEST, 4, '"a book,y'), "D07", 3, "broken line", f"{TEST}:4", "close every quote"),
    "bars": (rows(TEST, lambda lines: [line.replace(",", "|") for line in lines]), "D07", 3, "the header has one column and '|' in it", f"{TEST}:1", "separate the columns by ','"),
    "commas or semicolons": (rows(TEST, lambda lines: [f"{line};x" for line in lines]), "D07", 3, "columns may be separated by commas or by semicolons", f"{TEST}:1", "quote names and cells"),
    "cell too many in a TSV": (TSV, "D07", 3, "3 cells under 2 columns", "gamma-test.tsv:2", "write one row a line"),
    "column twice": (cell(TEST, 1, "text,text"), "D07", 3, "column named twice: text", f"{TEST}:1", ""),
    "broken JSON": (jsonl('{"text": "a", "label": "y"}', '{"text": "b",'), "D07", 3, "not a JSON object", "gamma-test.jsonl:2", ""),
    "JSON list": (jsonl('["a", "y"]'), "D07", 3, "a row must be a JSON object, not list", "gamma-test.jsonl:1", ""),
    "JSON key twice": (jsonl('{"text": "a", "text": "b", "label": "y"}'), "D07", 3, "a key stands twice", "gamma-test.jsonl:1", ""),
    "JSON NaN": (jsonl('{"text": NaN, "label": "y"}'), "D07", 3, "NaN is not a JSON number", "gamma-test.jsonl:1", ""),
    "no Parquet": (both(task("gamma-test.csv", "gamma-test.parquet"), put("tasks/gamma-test.parquet", "PAR1")), "D07", 3, "not a readable Parquet file", "gamma-test.parquet", ""),
    "latin-1": (put(f"tasks/{TEST}", "text,label\ncaf\xe9,y\n".encode("latin-1")), "D08", 3, "not UTF-8: byte 14 is 0xe9", f"{TEST}:2", "save the file as UTF-8"),
    "UTF-16 without a mark": (put(f"tasks/{TEST}", "text,label\na,y\n".encode("utf-16-le")), "D08", 3, "a NUL character", f"{TEST}:1", "save the file as UTF-8"),
    "label word with a blank": (task('"n": "no"', '"n": " no"'), "C02", 2, "a label word has a blank at an end", "gamma.yaml", ""),
    "NUL": (put(f"tasks/{TEST}", "text,label\na\0,y\n"), "D08", 3, "a NUL character", f"{TEST}:2", "save the file as UTF-8"),
    "half a character": (jsonl('{"text": "\\ud800", "label": "y"}'), "D07", 3, "surrogates not allowed", "gamma-test.jsonl:1", ""),
    "id twice": (rows(TEST, lambda lines: [f"{line},{'id' if n == 0 else n}" for n, line in enumerate(lines[:-1])] + [f"{lines[-2]},9"]), "D09", 3, "1 rows have an 'id' and a text that stand before: '9'", "task gamma, test (gamma-test.csv), rows 10", "allow: [duplicates]"),
    "half of the training rows are copies": (rows("alpha-train.csv", lambda lines: lines[:13] + lines[1:13]), "D10", 3, "12 of 24 (50.0 %) training rows are copies of others", "task alpha, train (alpha-train.csv), rows 13, 14, 15, …", "remove the copies; or allow: [duplicates]"),
    "test row in training": (seen("alpha-train.csv", TEST), "D11", 3, "1 of 10 (10.0 %) test rows stand in the training rows of alpha, 1 of them letter for letter", "row 1 = training row 1", "allow: [leaks] in the experiment"),
    "test row in capitals in a source's training": (seen("beta-train.csv", TEST, str.upper), "D11", 3, "1 of 10 (10.0 %) test rows stand in the training rows of beta, 0 of them letter for letter", "task beta, train (beta-train.csv): row 1 = training row 1", "allow: [leaks]"),
    "test row with other signs in a source's training": (seen("alpha-train.csv", TEST, lambda text: f"{text.replace(' ', ' - ')}!"), "D11", 3, "rows stand in the training rows of alpha, 0 of them letter for letter", "row 1 = training row 1", "allow: [leaks]"),
    "one class in training": (rows("beta-train.csv", lambda lines: [line.replace(",n", ",y") for line in lines]), "D12", 3, "all 24 rows have the answer 'yes'", "task beta, train (beta-train.csv)", "give rows of every answer"),
    "one class in the test": (rows(TEST, lambda lines: [line.replace(",y", ",n") for line in lines]), "D12", 3, "all 10 rows have the answer 'no'", "task gamma, test", "f1_macro would mean nothing here"),
    "no rows": (put(f"tasks/{TEST}", "text,label\n"), "D13", 3, "the file has no rows", TEST, ""),
    "empty file": (put(f"tasks/{TEST}", ""), "D13", 3, "the file has no rows", TEST, ""),
    "texts too long": (setting("source_tokens: 12", "source_tokens: 2"), "D14", 3, "24 of 24 (100.0 %) texts are cut to 2 tokens; the longest has 3", "task alpha, train", "raise limits.source_tokens, or limits.tasks.alpha.source_tokens alone (weft learn: --tokens); or allow: [cuts]"),
    "answers cut out of their texts": (both(open_answers, *(rows(name, lambda lines: [lines[0], *(f"{line.split(',')[0]} {'is ' * 4}cat{n},cat{n}" for n, line in enumerate(lines[1:]))]) for name in texts()), setting("source_tokens: 12", "source_tokens: 6")), "D15", 3, "24 of 24 (100.0 %) answers stand in the part of the text that is cut off", "task alpha, train", "raise limits.source_tokens"),
    "answers too long to write": (both(open_answers, *(rows(name, lambda lines: [lines[0], *(f"{line.split(',')[0]},one two three four" for line in lines[1:])]) for name in texts())), "D16", 3, "24 of 24 (100.0 %) answers have more than max_target_tokens (3); the longest has 4", "task alpha, train", "raise max_target_tokens of task alpha"),
    "special token in a text": (cell(TEST, 3, "the book </s> yes,n"), "D19", 3, "1 texts hold a special token of the model: '</s>'", "task gamma, test (gamma-test.csv), row 2", "allow: [special_tokens]"),
    "padding in a training text": (cell("alpha-train.csv", 5, "the <pad> dog,y"), "D19", 3, "1 texts hold a special token of the model: '<pad>'", "task alpha, train (alpha-train.csv), row 4", "remove it from the texts"),
    "line of more than a mebibyte": (cell(TEST, 3, "x" * (1 << 20) + ",n"), "D22", 3, "a line or cell of more than 1,048,576 bytes", f"{TEST}:3", "cut the text into rows"),
    "line of more than a mebibyte in JSON": (jsonl(json.dumps({"text": "x" * (1 << 20), "label": "y"})), "D22", 3, "a line or cell of more than 1,048,576 bytes", "gamma-test.jsonl:1", ""),
    "cell of more than a mebibyte in Parquet": (parquet({"text": ["a", "x" * (1 << 21)], "label": ["y", "n"]}), "D22", 3, "a line or cell of more than 1,048,576 bytes", "row 2 (text)", ""),
}  # fmt: skip
CASES = CONFIG | TASKS | ROWS


def test_there_are_a_hundred() -> None:
    """The table holds at least a hundred bad inputs, none of them hidden by another of its name."""
    assert len(CASES) == len(CONFIG) + len(TASKS) + len(ROWS) >= 100


def test_sound_experiment_has_nothing_wrong(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a change there is no error and no warning, so each case fails for what it spoils."""
    assert command("validate", "small.yaml") == 0
    assert capsys.readouterr().out.endswith("0 errors, 0 warnings\n")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused(world: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Code, exit code, cause, place and remedy; no traceback, no weights, and quickly."""
    edit, code, leaves, cause, where, fix = CASES[name]
    edit(world)
    start = time.monotonic()
    assert command("validate", "small.yaml") == leaves
    seconds = time.monotonic() - start
    said = capsys.readouterr()
    first = next(block for block in blocks(said.out) if block.startswith("error: "))
    head, _, rest = first.partition(" where: ")
    place, _, remedy = rest.partition(" fix: ")
    assert head.startswith(f"error: WEFT-{code}: " if code else "error: ")
    assert cause in head
    assert where in place
    assert fix in remedy
    assert "Traceback" not in said.out + said.err
    assert "fault of weft itself" not in said.err
    assert seconds < 5


def blocks(out: str) -> list[str]:
    """The findings of an output, each in one line."""
    lines = [f"\n{line}" if line.startswith(("error: ", "warning: ")) else line for line in out.splitlines()]
    return [" ".join(block.split()) for block in "\n".join(lines).split("\n\n")]


@pytest.mark.parametrize("verb", [["run"], ["run", "--dry-run"]])
@pytest.mark.parametrize("name", ["key misspelt", "base misspelt", "cell too many", "texts too long"])
def test_run_refuses_the_same(
    world: Path, capsys: pytest.CaptureFixture[str], verb: list[str], name: str
) -> None:
    """`weft run` checks first, also when dry: same code and exit code, and no run folder."""
    edit, code, leaves, cause, *_ = CASES[name]
    edit(world)
    assert command(*verb, "small.yaml") == leaves
    err = " ".join(capsys.readouterr().err.split())
    assert f"WEFT-{code}: " in err
    assert cause in err
    assert not [path for path in (world / "runs").glob("*") if not path.name.startswith(".")]


def test_all_faults_are_found_at_once(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Faults of settings, tasks, base model and rows come in one pass, the first deciding the exit code."""
    names = ["base misspelt", "unknown metric", "label in capitals"]
    both(*(CASES[name][0] for name in names), cell("alpha-dev.csv", 3, "a,b,c"))(world)
    assert command("validate", "small.yaml") == 4
    out = capsys.readouterr().out
    assert all(f"WEFT-{code}:" in out for code in ("C24", "C18", "D07"))
    assert "3 errors" in out


def test_faulty_experiment_still_has_its_tasks_read(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt key of the experiment does not hide one of a task."""
    names = ["key misspelt", "negative weight", "task key misspelt"]
    both(*(CASES[name][0] for name in names))(world)
    assert command("validate", "small.yaml") == 2
    out = capsys.readouterr().out
    assert "'shosts'" in out
    assert "WEFT-C05" in out
    assert "'metric'" in out


ALLOWED = {
    "half of the training rows are copies": "duplicates",
    "id twice": "duplicates",
    "test row in training": "leaks",
    "test row in capitals in a source's training": "leaks",
    "texts too long": "cuts",
    "answers too long to write": "cuts",
    "answers cut out of their texts": "cuts",
    "special token in a text": "special_tokens",
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_experiment_allows_is_a_warning(
    world: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The same finding, as a warning and with exit code 0; another allowance does not help."""
    edit, code, leaves, cause, *_ = CASES[name]
    edit(world)
    others = ", ".join(
        one for one in ("leaks", "duplicates", "cuts", "special_tokens") if one != ALLOWED[name]
    )
    setting("shots: 4", f"shots: 4\nallow: [{others}]")(world)
    assert command("validate", "small.yaml") == leaves
    capsys.readouterr()
    setting(f"[{others}]", f"[{ALLOWED[name]}]")(world)
    assert command("validate", "small.yaml") == 0
    first = next(block for block in blocks(capsys.readouterr().out) if f"WEFT-{code}" in block)
    assert first.startswith("warning: ")
    assert cause in first


def test_lines_fit_80_columns(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings are folded between words; only a long path may stand out."""
    CASES["texts too long"][0](world)
    command("validate", "small.yaml")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
