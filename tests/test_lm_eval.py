"""lm-evaluation-harness with a task's prompt: the numbers of its own model where there is no prompt."""

import json
import sys
from functools import partial

import numpy as np
import pytest
import torch
from conftest import build_backbone, build_lm
from test_chat import chat_tokenizer, expected
from test_continuations import plain_judgement, prompted
from tiny_job import command, write_job
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.errors import DataError, UnsupportedError
from weft.interop.continuations import Prompted
from weft.methods.tfidf import TfIdf
from weft.models import CausalBackbone, Seq2SeqBackbone, load_tokenizer
from weft.models.base_folder import resolve
from weft.models.tuned import TunedModel, with_prompts
from weft.runs import Run
from weft.runs.config import AdaptRun

WITHOUT = "the package lm_eval is not installed: pip install 'weft[lm-eval]'"
FAMILIES = ["llama", "gpt2", "qwen3", "t5", "bart"]
TEXTS = [
    "the good film was on",
    "a river in the city and the dog",
    "what is this",
    "story " * 150 + "the end",
    "the book  ",
]
ENDS = [" not bad", " fine", " two words more", "s", " maybe"]


@pytest.fixture
def harness():
    """The package; tests of it are skipped without it."""
    return pytest.importorskip("lm_eval", reason=WITHOUT)


@pytest.fixture
def own_tasks(harness, monkeypatch):
    """Task files of one's own alone; to list the harness's takes seconds each time."""
    from lm_eval import tasks

    monkeypatch.setattr(tasks, "TaskManager", partial(tasks.TaskManager, include_defaults=False))


def pieces(*, begins=False):
    """A tokenizer of pieces of words, that join over the end of a text; texts may begin with a token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    tokenizer.train_from_iterator(
        [*TEXTS, *ENDS, "abcdefghijklmnopqrstuvwxyz"],
        trainers.BpeTrainer(vocab_size=72, special_tokens=special, show_progress=False),
    )
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    more = {"bos_token": "<s>"} if begins else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **more
    )


def backbone_of(family, tokenizer, place="suffix"):
    lm = build_lm(family)
    if lm.config.is_encoder_decoder:
        return Seq2SeqBackbone(lm, tokenizer, name=family)
    return CausalBackbone(lm, tokenizer, suffix=place == "suffix", name=f"{family}-{place}")


def both(family, tokenizer, batch_size=3):
    """weft's model without a prompt, and the harness's own, of the same weights."""
    from lm_eval.models.huggingface import HFLM

    from weft.interop.harness_model import TaskLM

    backbone = backbone_of(family, tokenizer)
    kind = "seq2seq" if backbone.lm.config.is_encoder_decoder else "causal"
    theirs = HFLM(
        pretrained=build_lm(family), tokenizer=tokenizer, backend=kind, batch_size=batch_size, device="cpu"
    )
    return TaskLM(Prompted(TunedModel(backbone, None, {}, ("task",)), "task", 3)), theirs


def requests_of(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the package's own
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_without_a_prompt_are_the_harness_s(harness, family, begins):
    """Tokens at the border of text and continuation, texts that are too long, and no text among them."""
    ours, theirs = both(family, pieces(begins=begins))
    pairs = [(text, end) for text in TEXTS for end in ENDS] + [("", end.strip()) for end in ENDS]
    pairs += [("<s>the good", " film")] if begins else []
    asked = requests_of("loglikelihood", pairs)
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    for (value, greedy), (wanted, was_greedy) in zip(ours.loglikelihood(asked), expected, strict=True):
        assert value == pytest.approx(wanted, abs=1e-4)
        assert greedy == was_greedy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_whole_texts_without_a_prompt_are_the_harness_s(harness, family):
    """In one window and in several."""
    ours, theirs = both(family, pieces())
    asked = requests_of("loglikelihood_rolling", [(text,) for text in TEXTS])
    expected = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    np.testing.assert_allclose(ours.loglikelihood_rolling(asked), expected, atol=1e-3, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_written_texts_without_a_prompt_are_the_harness_s(harness, family):
    """Free, and up to a stop; texts that are too long lose their beginning.

    Of encoder-decoders the harness pads texts on the left, which moves positions, and counts a text's tokens
    among those that are written: it is given one text at once, and told how long an answer is.
    """
    apart = family in ("t5", "bart")
    ours, theirs = both(family, pieces(), batch_size=1 if apart else 3)
    exact = {"max_length": 13} if apart else {}

    def expected_of(pairs):
        asked = requests_of("generate_until", [(text, {**how, **exact}) for text, how in pairs])
        return theirs.generate_until(asked, disable_tqdm=True)

    free = [(text, {"until": [], "max_gen_toks": 12}) for text in TEXTS]
    expected = expected_of(free)
    assert ours.generate_until(requests_of("generate_until", free)) == expected
    longest = max(expected, key=len)
    stops = [longest[3:5], longest[6:7]]
    stopped = [(text, {"until": stops, "max_gen_toks": 12, "do_sample": False}) for text in TEXTS]
    pairs = [pair for two in zip(free, stopped, strict=True) for pair in two]
    found = ours.generate_until(requests_of("generate_until", pairs))
    assert found == expected_of(pairs)
    assert found[::2] == expected
    assert found[1::2] != expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["llama-prefix", "llama-suffix", "t5"])
def test_under_a_prompt_a_text_is_cut_to_what_the_model_reads_beside_it(harness, place):
    """Prompt, text and continuation but its last token fill the positions, as in a plain call."""
    from weft.interop.harness_model import TaskLM

    family, _, where = place.partition("-")
    tokenizer = pieces()
    backbone = backbone_of(family, tokenizer, where)
    prompts = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(6))
    one = Prompted(with_prompts(backbone, prompts, ("first", "second")), "second", 3)
    ours = TaskLM(one)
    assert ours.max_length == (2048 if family == "t5" else 128) - 4
    asked = [(text, end) for text in TEXTS for end in ENDS]
    found = ours.loglikelihood(requests_of("loglikelihood", asked), disable_tqdm=True)
    for pair, (value, greedy) in zip(asked, found, strict=True):
        text, end = ours._encode_pair(*pair)
        room = ours.max_length - (0 if family == "t5" else len(end) - 1)
        wanted, was_greedy = plain_judgement(one, text[-room:], end)
        assert value == pytest.approx(wanted, abs=2e-2 if where == "suffix" else 1e-4)  # kept in 16 bits
        assert greedy == was_greedy
    with pytest.raises(DataError, match="a continuation has"):
        ours.loglikelihood(requests_of("loglikelihood", [("a", " b" * 3000)]), disable_tqdm=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_written_is_refused(harness):
    """Ways to write that weft does not have, answers that leave no room, prompts that leave none."""
    from weft.interop.harness_model import TaskLM

    ours = TaskLM(prompted("llama-suffix"))
    ask = lambda **how: ours.generate_until(requests_of("generate_until", [("a b", how)]))  # noqa: E731
    with pytest.raises(UnsupportedError, match="ask for repetition_penalty"):
        ask(max_gen_toks=3, repetition_penalty=1.2)
    with pytest.raises(UnsupportedError, match="answers of 256 tokens"):
        ask(until=["."])
    assert ask(max_gen_toks=5, do_sample=True, temperature=0.7, top_p=0.9)[0]
    with pytest.raises(UnsupportedError, match="the prompt has 128 tokens"):
        TaskLM(prompted("llama-suffix", tokens=128))


HARNESS_TASK = """
task: own_films
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: [good, bad]
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of a given prompt, and a task of the harness with rows beside it."""
    folder = tmp_path_factory.mktemp("place")
    write_job(folder, "llama", "suffix")
    np.save(folder / "prompt.npy", torch.randn(4, 32, generator=torch.Generator().manual_seed(1)).numpy())
    (folder / "adapt.yaml").write_text(
        f"tasks: [tasks/gamma.yaml]\nbase: {{model: {folder / 'base'}, dtype: float32, attention: eager}}\n"
        f"prompt: {{length: 4}}\nmethod: {{name: given, file: {folder / 'prompt.npy'}}}\n",
        "utf-8",
    )
    assert command("adapt", folder / "adapt.yaml", "--runs", folder / "runs", "--quiet") == 0
    rows = [
        {"text": f"the {word} film", "answer": i % 2} for i, word in enumerate(["one", "red", "up", "two"])
    ]
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (folder / "harness").mkdir()
    task = HARNESS_TASK.format(rows=folder / "rows.json")
    (folder / "harness" / "own_films.yaml").write_text(task, "utf-8")
    lost = task.replace("own_films", "lost").replace("rows.json", "none.json")
    (folder / "harness" / "lost.yaml").write_text(lost, "utf-8")
    return folder


def asked(place, *more, task="gamma", run=None):
    run = run or next((place / "runs").glob("adapt-given-*"))
    return command("lm-eval", run, task, "--runs", place / "runs", "--quiet", *more)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_task_of_the_harness_runs_whole(own_tasks, place, tmp_path, monkeypatch, capsys):
    """Its accuracy is that of plain calls; the file says what was done; a base without the prompt differs."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    own = ("--tasks", "own_films", "--include-path", place / "harness", "--out", tmp_path / "out")
    assert asked(place, *own) == 0
    table, path = capsys.readouterr().out.strip().rsplit("\n", 1)
    found = json.loads((tmp_path / "out" / path.rsplit("/", 1)[1]).read_text("utf-8"))
    backbone = build_backbone("llama-suffix")
    prompt = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))[None]
    one = Prompted(with_prompts(backbone, prompt.expand(2, -1, -1), ("other", "gamma")), "gamma")
    right = 0
    for line in (place / "rows.json").read_text("utf-8").splitlines():
        row = json.loads(line)
        text = backbone.tokenizer.encode(row["text"])
        values = [plain_judgement(one, text, backbone.tokenizer.encode(word))[0] for word in ("good", "bad")]
        right += int(values[1] > values[0]) == row["answer"]
    assert found["results"]["own_films"]["acc,none"] == right / 4
    assert f"{right / 4:.4f}" in table
    assert (found["task"], found["position"], found["prompt_tokens"]) == ("gamma", "suffix", 4)
    assert found["n-samples"]["own_films"]["effective"] == 4
    assert asked(place, *own, "--frozen", "--limit", "2") == 0
    bare = json.loads(next((tmp_path / "out").glob("*-frozen-*")).read_text("utf-8"))
    assert (bare["prompt_tokens"], bare["frozen"], bare["n-samples"]["own_films"]["effective"]) == (
        0,
        True,
        2,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_faults_are_told_before_weights_load(own_tasks, place, tmp_path, monkeypatch, capsys):
    """A task that the harness does not know, rows that are not there, a task that the run does not have."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("weft.runs.workspace.load_backbone", lambda *_, **__: pytest.fail("weights load"))
    own = ("--include-path", place / "harness")
    assert asked(place, "--tasks", "own_film", *own) == 2
    assert "did you mean 'own_films'?" in capsys.readouterr().err
    assert asked(place, "--tasks", "lost", *own) == 3
    assert "HF_HUB_OFFLINE=1" in capsys.readouterr().err
    assert asked(place, "--tasks", "own_films", *own, task="gama") == 4
    assert "did you mean 'gamma'?" in capsys.readouterr().err
    assert asked(place, "--tasks", "own_films", "--include-path", place / "none") == 2
    assert asked(place, "--tasks", "own_films", *own, "--limit", "0") == 2


def test_without_the_package_the_remedy_is_told(place, monkeypatch, capsys):
    """Before anything is looked for."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert asked(place, "--tasks", "hellaswag") == 2
    told = capsys.readouterr().err
    assert "pip install 'weft[lm-eval]'" in told
    assert "not installed" in told


def test_methods_without_prompts_or_weights_are_refused(tmp_path):
    """Before the harness's tasks are looked for; the base model alone may be asked for all the same."""
    from weft.interop.harness import _check_run

    task = TaskSpec(name="gamma", source="{x}", target="{y}", labels={"0": "no", "1": "yes"})
    config = AdaptRun(tasks=(task,), method=TfIdf())
    with pytest.raises(UnsupportedError, match="trains no prompt or weights"):
        _check_run(Run(tmp_path), config, "gamma", frozen=False)
    _check_run(Run(tmp_path), config, "gamma", frozen=True)


def test_scores_are_cells_of_a_table():
    """Filters are named where there are any; groups stand behind tasks."""
    from weft.interop.harness import lines

    scores = {
        "alias": "a",
        "acc,none": 0.5,
        "acc_stderr,none": 0.25,
        "em,strict": 1,
        "em_stderr,strict": "N/A",
    }
    found = lines({"results": {"a": scores}, "groups": {"all": {"acc,none": 0.125}}})
    assert found == [
        ["a", "acc", "0.5000", "0.2500"],
        ["a", "em (strict)", "1", ""],
        ["all", "acc", "0.1250", ""],
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_of_chats_reads_the_harness_s_turns(harness, tmp_path):
    """Its template's signs are tokens and there once; numbers are those of the harness's own model."""
    from lm_eval.models.huggingface import HFLM

    from weft.interop.harness_model import TaskLM

    build_lm("llama").save_pretrained(tmp_path)
    chat_tokenizer().save_pretrained(tmp_path)
    tokenizer = load_tokenizer(resolve(BaseConfig(model=str(tmp_path))), chat=True)
    backbone = CausalBackbone(build_lm("llama"), tokenizer, suffix=True)
    ours = TaskLM(Prompted(TunedModel(backbone, None, {}, ("task",)), "task"))
    turns = [{"role": "user", "content": "the good film"}]
    text = ours.apply_chat_template(turns)
    assert ours.tok_encode(text) == expected("the good film")
    theirs = HFLM(pretrained=build_lm("llama"), tokenizer=chat_tokenizer(), backend="causal", device="cpu")
    assert theirs.apply_chat_template(turns) == text
    asked = requests_of("loglikelihood", [(text, " bad"), (text, "not fine")])
    for (value, greedy), (wanted, was_greedy) in zip(
        ours.loglikelihood(asked), theirs.loglikelihood(asked), strict=True
    ):
        assert value == pytest.approx(wanted, abs=1e-4)
        assert greedy == was_greedy
