"""Limits of single tasks in configurations and plans: on texts, on rows, on steps."""

import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_experiments import SOURCES, SPECS, TARGETS, experiment, planned

from weft.checks.used_rows import drawn
from weft.config.files import load_config
from weft.config.task import TaskSpec
from weft.config.training import LimitsConfig, OptimConfig, PromptConfig, TaskLimits
from weft.data.selection import few_shot, subset
from weft.errors import ConfigError
from weft.methods.no_prompt import NoPrompt
from weft.models.base_folder import BaseFolder
from weft.runs.config import AdaptRun, EvaluateRun, SourceRun, TeacherRun
from weft.runs.identity import identity
from weft.runs.lengths import check_lengths
from weft.tasks import Example, Task

NAMES = ("a", "b", "c")
CAPS = ("train_rows", "dev_rows", "test_rows", "source_tokens")
some = st.none() | st.integers(1, 9)
own_limits = st.builds(TaskLimits, **dict.fromkeys(CAPS, some))
all_limits = st.builds(
    LimitsConfig,
    **dict.fromkeys(("train_rows", "target_rows", "dev_rows", "test_rows"), some),
    source_tokens=st.integers(1, 9),
    tasks=st.dictionaries(st.sampled_from(NAMES), own_limits),
)


def expected_rows(limits, name, cap):
    """A task's own cap where it has one, written out."""
    own = limits.tasks[name].model_dump() if name in limits.tasks else {}
    return own.get({"target_rows": "train_rows"}.get(cap, cap)) or limits.model_dump()[cap]


# limits


@given(all_limits, st.sets(st.sampled_from(NAMES), min_size=1))
def test_limits_of_some_tasks_say_the_same_of_these(limits, names):
    """And nothing of others, or of rows that are not read; a second time changes nothing."""
    found = limits.of(sorted(names), "test_rows")
    for name in names:
        own = limits.tasks.get(name)
        assert found.tokens(name) == ((own and own.source_tokens) or limits.source_tokens)
        for cap in ("train_rows", "target_rows", "dev_rows"):
            assert found.rows(name, cap) == expected_rows(limits, name, cap)
        assert found.rows(name, "test_rows") is None
    assert set(found.tasks) <= names
    assert found.of(sorted(names), "test_rows") == found


@given(all_limits, st.sampled_from(NAMES))
def test_a_run_of_one_task_has_one_name_for_its_limit(limits, name):
    """Whether all tasks of its experiment had the limit, or this one alone."""
    plain = LimitsConfig(source_tokens=limits.tokens(name))
    assert limits.of([name]).source_tokens == plain.source_tokens
    alone = LimitsConfig(tasks={name: TaskLimits(source_tokens=7)}).of([name])
    assert alone == LimitsConfig(source_tokens=7)


def a_run(**limits):
    spec = TaskSpec(name="a", source="{x}", target="{y}")
    optim = {"lr": {"prompt": 0.1}, "steps": 4}
    return TeacherRun.model_validate({"tasks": [spec], "limits": limits, "optim": optim})


def test_runs_from_before_there_were_such_limits_keep_their_names(monkeypatch):
    """The hash that the same configuration had then; each new limit makes another."""
    monkeypatch.setattr(sys.modules["weft.runs.identity"], "NUMERICS", 5)
    name = partial(identity, base_hash="b", data_hashes={})
    then = "5bab86e4160f9b9b1c9a6bc2395f3189f4dd576acb62698dd8b1acdac1dd9da3"
    given = {"train_rows": 10, "source_tokens": 300}
    others = [{"target_rows": 5}, *({"tasks": {"a": {cap: 5}}} for cap in CAPS)]
    found = [name(a_run(**given, **other)) for other in [{}, {"tasks": {"a": {}}}, *others]]
    assert found[:2] == [then, then]
    assert len(set(found)) == 1 + len(others)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limits": {"tasks": {"s9": {"source_tokens": 9}}}}, "'s9' in limits.tasks is none of s1"),
        ({"steps": {"s1": 4}}, "'s1' in steps is no target"),
        ({"steps": {"t1": 0}}, "greater than 0"),
        ({"limits": {"tasks": {"t1": {"tokens": 9}}}}, "Extra inputs"),
        (
            {"steps": {"t1": 4}, "rows": ({"label": "MPT", "method": {"name": "mpt"}, "group": True,
             "optim": {"lr": {"shared": 1, "factors": 1}, "steps": 4}},)},
            "'t2' trains in a group whose other targets have steps",
        ),
    ],
)  # fmt: skip
def test_limits_and_steps_that_cannot_be_meant(changes, said):
    """What is named must be there, and a group is counted whole."""
    with pytest.raises(ValueError, match=said):
        experiment(**changes)


def test_a_run_refuses_limits_of_another_task():
    with pytest.raises(ValueError, match=r"'b' in limits\.tasks is none of a"):
        a_run(tasks={"b": {"dev_rows": 1}})


def test_a_set_key_names_its_fault(tmp_path):
    """From the command line: the key, and the number of the fault."""
    path = tmp_path / "x.yaml"
    path.write_text("tasks: [{name: a, source: '{x}', target: '{y}'}]\nmethod: {name: majority}\n")
    for key, code in (("source_tokens", "C07"), ("train_rows", "D13")):
        with pytest.raises(ConfigError) as caught:
            load_config(path, EvaluateRun, {f"limits.tasks.a.{key}": 0})
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "fits"), [({}, True), ({"b": 11}, False), ({"a": 10, "b": 10}, True), ({"a": 11}, False)]
)
def test_the_longest_text_and_answer_of_a_batch_have_positions(tmp_path, text, fits):
    """GPT-2 with 20 positions, 6 of prompt, 4 of the longer answer: 10 of any task's text."""
    folder = BaseFolder("gpt2", tmp_path, "causal", "0", "test", {"model_type": "gpt2", "n_positions": 20})
    specs = [
        TaskSpec(name=name, source="{x}", target="{y}", max_target_tokens=n)
        for name, n in (("a", 4), ("b", 2))
    ]
    limits = {"source_tokens": 5, "tasks": {name: {"source_tokens": most} for name, most in text.items()}}
    config = EvaluateRun(
        tasks=specs,
        prompt=PromptConfig(length=6),
        limits=LimitsConfig.model_validate(limits),
        method=NoPrompt(),
    )
    if fits:
        check_lengths(config, folder)
        return
    with pytest.raises(ConfigError, match="prompt 6, text 11 and answer 4 are 21 tokens") as fault:
        check_lengths(config, folder)
    [name] = text
    assert fault.value.fix == f"set limits.tasks.{name}.source_tokens to 10 or less"


DECODER = {"model_type": "bert", "max_position_embeddings": 6}
BERTS = {"model_type": "encoder-decoder", "decoder": DECODER}
BERTS["encoder"] = {"model_type": "bert", "max_position_embeddings": 40}


@pytest.mark.parametrize(
    ("settings", "answer", "text", "told"),
    [
        (BERTS, 6, 28, ""),
        (BERTS, 7, 27, "answers have up to 7 tokens, and the decoder of 'model' has 6 positions"),
        (BERTS, 6, 29, "are 41 tokens, and 'model' has 40 positions"),
        ({"model_type": "bart", "max_position_embeddings": 40}, 7, 27, ""),
        ({"model_type": "bart", "max_position_embeddings": 40}, 7, 28, "'model' has 40 positions"),
    ],
)
def test_encoder_decoders_have_positions_for_texts_and_answers(tmp_path, settings, answer, text, told):
    """A decoder of its own settings has positions of its own."""
    folder = BaseFolder("model", tmp_path, "seq2seq", "0", "test", settings)
    config = EvaluateRun(
        tasks=[TaskSpec(name="a", source="{x}", target="{y}", max_target_tokens=answer)],
        prompt=PromptConfig(length=6),
        limits=LimitsConfig(source_tokens=text),
        method=NoPrompt(),
    )
    if not told:
        check_lengths(config, folder)
        return
    with pytest.raises(ConfigError, match=told) as fault:
        check_lengths(config, folder)
    assert fault.value.code == "C07"


# plans


LIMITS = {
    "train_rows": 50,
    "target_rows": 40,
    "test_rows": 30,
    "source_tokens": 256,
    "tasks": {
        "s2": {"source_tokens": 512, "train_rows": 20},
        "t1": {"source_tokens": 348, "train_rows": 10, "test_rows": 5},
    },
}
BANK = {"lr": {"shared": 0.3, "factors": 0.3}, "steps": 40, "eval_every": 20}
METHODS = (
    {"label": "frozen", "method": {"name": "no_prompt"}},
    {"label": "MPT", "method": {"name": "mpt"}, "optim": BANK},
    {"label": "MPT, group", "method": {"name": "mpt"}, "group": True, "optim": BANK},
)


def limits_of(jobs):
    """Limits of the runs of a plan by stage and tasks, without what is not set."""
    return {
        (job.config.stage, *(spec.name for spec in job.config.tasks)): job.config.limits.model_dump(
            exclude_none=True
        )
        for job in jobs.jobs
    }


def test_plan_gives_every_run_the_limits_of_its_tasks():
    """A task's own stand in its runs alone; caps on rows that a stage does not read stand in none."""
    found = limits_of(planned(limits=LIMITS, rows=METHODS, seeds=(0,), shots=None))
    plain = {"train_rows": 50, "source_tokens": 256, "tasks": {}}
    long = {"source_tokens": 512, "tasks": {"s2": {"train_rows": 20}}}
    own = {"source_tokens": 348}
    assert found == {
        ("teachers", "s1"): plain,
        ("teachers", "s2"): {**plain, **long},
        ("teachers", "s3"): plain,
        ("source", *SOURCES): {**plain, "tasks": {"s2": {"train_rows": 20, "source_tokens": 512}}},
        ("adapt", "t1"): {**plain, **own, "target_rows": 40, "tasks": {"t1": {"train_rows": 10}}},
        ("adapt", "t2"): {**plain, "target_rows": 40},
        ("adapt", *TARGETS): {
            **plain, "target_rows": 40, "tasks": {"t1": {"train_rows": 10, "source_tokens": 348}},
        },
        ("evaluate", "t1"): {
            **plain, **own, "test_rows": 30, "tasks": {"t1": {"train_rows": 10, "test_rows": 5}},
        },
        ("evaluate", "t2"): {**plain, "test_rows": 30},
    }  # fmt: skip


def test_targets_train_for_their_own_steps():
    """A group for those of its targets together; dev rows are scored at the last step at the latest."""
    jobs = planned(rows=METHODS, seeds=(0,), steps={"t1": 12, "t2": 300})
    found = {
        tuple(spec.name for spec in job.config.tasks): (job.config.optim.steps, job.config.optim.eval_every)
        for job in jobs.jobs
        if isinstance(job.config, AdaptRun)
    }
    assert found == {("t1",): (12, 12), ("t2",): (300, 20), TARGETS: (312, 20)}
    others = [job.config.optim.steps for job in jobs.jobs if isinstance(job.config, TeacherRun | SourceRun)]
    assert set(others) == {4}


def test_without_steps_of_its_own_a_target_trains_as_its_row_says():
    optims = {
        job.config.tasks[0].name: job.config.optim
        for job in planned(rows=METHODS[:2], seeds=(0,), steps={"t1": 12}).jobs
        if isinstance(job.config, AdaptRun)
    }
    assert optims["t2"] == OptimConfig.model_validate(BANK)
    assert optims["t1"] == OptimConfig.model_validate({**BANK, "steps": 12, "eval_every": 12})


def test_caps_and_shots_of_a_target_draw_from_what_the_cap_leaves():
    """As the two draws one after the other; a task's own cap counts instead of that of all targets."""
    rows = [Example(f"text {i}", "yn"[i % 2]) for i in range(60)]
    task = Task("t1", list, list, str, {}, choices=("y", "n"))
    for own, most in ((None, 20), (30, 30)):
        limits = {"train_rows": 3, "target_rows": 20, "tasks": {"t1": {"train_rows": own}}}
        run = {"tasks": [SPECS["t1"]], "method": {"name": "tfidf"}, "limits": limits, "seed": 5}
        found = partial(drawn, task=task, examples=rows, warn=pytest.fail)
        assert found(AdaptRun.model_validate(run)) == subset(rows, most)
        few = found(AdaptRun.model_validate({**run, "shots": 4}))
        assert few == few_shot(subset(rows, most), 4, seed=5)
