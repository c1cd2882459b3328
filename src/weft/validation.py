"""One pass over a whole plan before any weights load: settings, tasks, base model, rows, tokens, leaks.

The pass does not stop at the first fault. It reads configuration, data and tokenizer, and never weights.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from weft import bases, report_scores, row_checks, runs, storage
from weft.backbone import answer_tokens, check_position, load_tokenizer
from weft.bases import BaseFolder
from weft.batch import Tokens
from weft.config import (
    AdaptRun,
    Allowance,
    AnyRun,
    EvaluateRun,
    Experiment,
    SourceRun,
    Split,
    TaskSpec,
    TeacherRun,
)
from weft.config_files import load_config, read_yaml
from weft.data import few_shot, subset
from weft.errors import ConfigError, ResourceError, UnsupportedError
from weft.experiments import plan, specs_of
from weft.findings import Findings
from weft.row_checks import Used
from weft.tasks import Example, Task, named, select
from weft.workspace import Workspace

ALL: tuple[Allowance, ...] = ("leaks", "duplicates", "cuts", "special_tokens")
LAYERS = ("num_hidden_layers", "num_layers", "n_layer")  # in a model's config.json


@dataclass
class Checked:
    """What the pass found.

    Attributes:
        findings: all faults.
        rows: task -> split -> rows read, used and dropped by reason, taken by the plan, and texts cut.
        leaks: scored task -> `rows` that are whole in training rows, and how many of them `by_task`.
        shared: scored task -> rows that share a sentence with training rows.
    """

    findings: Findings
    rows: dict[str, dict[Split, dict[str, Any]]] = field(default_factory=dict)
    leaks: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)

    def save(self, root: Path, experiment: Experiment) -> None:
        """Keep for tables and reports what stands beside the scores."""
        warnings = [one.fault.as_dict() for one in self.findings.warnings]
        kept = {"warnings": warnings, "rows": self.rows, "leaks": self.leaks, "shared": self.shared}
        storage.write_json(report_scores.checks_path(root, experiment), kept)


def check_file(path: Path, overrides: dict[str, Any], workspace: Workspace) -> Checked:
    """The pass over an experiment file; its task files are read even where the experiment has faults."""
    checked = Checked(Findings())
    found = checked.findings
    _folder(workspace.root, found)
    experiment = found.attempt(lambda: load_config(path, Experiment, overrides))
    if experiment is None:
        found.attempt(lambda: _specs_beside(path))
        return checked
    specs = found.attempt(lambda: specs_of(experiment))
    found.allow = experiment.allow
    _settings(experiment, found)
    configs = _runs_of(experiment, specs, found) if specs is not None else []
    if not configs:
        found.attempt(lambda: bases.resolve(experiment.base))
    _check_runs(configs, workspace, checked)
    return checked


def check_runs(configs: Sequence[AnyRun], workspace: Workspace) -> Checked:
    """The pass over runs of one stage; what an experiment may allow is a warning here."""
    checked = Checked(Findings(allow=ALL))
    _folder(workspace.root, checked.findings)
    for config in configs:
        _parents(config, workspace, checked.findings)
    _check_runs(configs, workspace, checked)
    return checked


def _specs_beside(path: Path) -> dict[str, TaskSpec]:
    """Task files that a faulty experiment names, as far as it can be read."""
    listed = read_yaml(path).get("tasks")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return named((one for one in names if one == "builtin" or (path.parent / one).exists()), path.parent)


def _folder(root: Path, found: Findings) -> None:
    """C23, R08: where runs go must be a folder that can be written."""
    if root.exists() and not root.is_dir():
        found.error(
            ConfigError(
                "the folder of runs is a file", where=str(root), fix="name another with --runs", code="C23"
            )
        )
        return
    nearest = next(one for one in (root, *root.absolute().parents) if one.exists())
    if not nearest.is_dir():
        cause = f"{nearest} is a file, and runs are to lie below it"
        found.error(ConfigError(cause, where=str(root), fix="name another with --runs", code="C23"))
        return
    if not os.access(nearest, os.W_OK):
        found.error(
            ResourceError(
                "the folder of runs cannot be written",
                where=str(root),
                fix="name another with --runs",
                code="R08",
            )
        )


def _settings(experiment: Experiment, found: Findings) -> None:
    """What is sound and likely not meant: C05, C11, C24."""
    distill = experiment.source.distill
    if not distill.weight or not (distill.logits or distill.hidden):
        found.warn(
            ConfigError(
                "no distillation: the source stage does not learn from the teachers",
                where="source.distill",
                fix="set weight above 0, and logits or hidden to true",
                code="C05",
            )
        )
    for name in sorted(set(experiment.sources) & set(experiment.targets)):
        found.warn(
            ConfigError(
                f"target {name!r} is also a source: its score is no transfer",
                where="sources, targets",
                fix="take it out of one of them; the table says so",
                code="C11",
            )
        )


def _runs_of(experiment: Experiment, specs: dict[str, TaskSpec], found: Findings) -> list[AnyRun]:
    """All runs of the plan, without the tasks that are not declared (C12)."""
    for name in dict.fromkeys((*experiment.sources, *experiment.targets)):
        found.attempt(partial(select, specs, [name]))
    known: dict[str, Any] = {
        part: tuple(name for name in getattr(experiment, part) if name in specs)
        for part in ("sources", "targets")
    }
    if len(known["sources"]) < min(2, len(experiment.sources)) or not known["targets"]:
        return []
    if len(known["sources"]) < len(experiment.sources):  # kappa may not fit the rest
        sampling = experiment.source.sampling.model_copy(update={"kappa": None})
        known["source"] = experiment.source.model_copy(update={"sampling": sampling})
    made = found.attempt(lambda: plan(experiment.model_copy(update=known), specs, _name))
    return [job.config for job in made.jobs] if made else []


def _name(config: AnyRun) -> str:
    """A name that needs neither data nor base model, for runs that are only looked at."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


def _check_runs(configs: Sequence[AnyRun], workspace: Workspace, checked: Checked) -> None:
    """Base model, rows and tokens of some runs that share base model and limits."""
    found = checked.findings
    if not configs:
        return
    base = found.attempt(lambda: workspace.base(configs[0]))
    if base is not None:
        _base(configs, base, workspace, found)
    used = _read(configs, workspace, found)
    for one in used.values():
        row_checks.check_rows(one, found)
    codec = found.attempt(lambda: _Codec(load_tokenizer(base), base.family == "causal")) if base else None
    for one in used.values():
        cut = _tokens(one, codec, configs[0].limits.source_tokens, found) if codec else None
        counts = {**one.task.accounting(one.split), "taken": len(one.chosen), "cut": cut}
        checked.rows.setdefault(one.spec.name, {})[one.split] = counts
    _batches(configs, used, found)
    _leaks(configs, used, checked)


# the base model


def _base(configs: Sequence[AnyRun], base: BaseFolder, workspace: Workspace, found: Findings) -> None:
    """Whether the base model can do what the runs ask of it: C06, C07, C08, C19, C24, layers."""
    position = found.attempt(lambda: workspace.position(configs[0]))
    if position is not None:
        found.attempt(lambda: check_position(base, position))
    for config in configs:
        found.attempt(partial(_check_init, config))
        found.attempt(partial(workspace.check_lengths, config, base))
        if isinstance(config, SourceRun):
            _source(config, base, found)
    _dtype(configs[0].base.dtype, found)
    if base.origin.startswith("hub ") and configs[0].base.revision is None:
        found.warn(
            ConfigError(
                f"the base model {base.name!r} is not pinned: the hub may change it",
                where="base.revision",
                fix="name a commit; the run notes the hash of what it read",
                code="C24",
            )
        )


def _check_init(config: AnyRun) -> None:
    """C12: what fresh prompts start from must be there.

    Raises:
        ConfigError: naming it.
    """
    fresh = (
        isinstance(config, TeacherRun | SourceRun)
        or getattr(getattr(config, "method", None), "start", "") == "fresh"
    )
    init, distils = config.prompt.init, isinstance(config, SourceRun) and bool(config.teachers)
    open_tasks = [spec.name for spec in config.tasks if not spec.labels]
    if fresh and init == "labels" and len(open_tasks) > (len(config.tasks) - 1) * (config.stage == "source"):
        raise ConfigError(
            f"prompts cannot start from label words: {open_tasks[0]!r} has open answers",
            where="prompt.init",
            fix="set vocabulary or text",
            code="C12",
        )
    if fresh and init == "teachers" and not distils:
        raise ConfigError(
            "only P* can start from the mean of teachers, and only where there are teachers",
            where="prompt.init",
            fix="set source.init: teachers in an experiment, and vocabulary here",
            code="C12",
        )


def _source(config: SourceRun, base: BaseFolder, found: Findings) -> None:
    """Rank against width, and distilled layers against those that there are."""
    if config.factors.rank > base.width:
        found.error(
            ConfigError(
                f"factors.rank ({config.factors.rank}) exceeds the width of {base.name!r} ({base.width})",
                where="source.factors.rank",
                fix=f"set it to {min(base.width, config.prompt.length)} or less",
                code="C06",
            )
        )
    depth = next((int(base.reader[name]) for name in LAYERS if base.reader.get(name)), None)
    layers = config.distill.layers
    wrong = [n for n in layers if depth is not None and n >= depth] if isinstance(layers, tuple) else []
    if wrong:
        found.error(
            ConfigError(
                f"layer {wrong[0]} does not exist in {base.name!r}",
                where="source.distill.layers",
                fix=f"the model has layers 0 to {(depth or 1) - 1}",
                code="C06",
            )
        )


def _dtype(dtype: str, found: Findings) -> None:
    """C19: try the number format on the device."""
    import torch
    from accelerate import PartialState

    if dtype == "auto":
        return
    try:
        one = torch.ones(2, 2, dtype=getattr(torch, dtype), device=PartialState().device)
        (one @ one).sum().item()
    except (RuntimeError, AssertionError) as error:
        found.error(
            UnsupportedError(
                f"this machine does not compute with {dtype} ({type(error).__name__})",
                where="base.dtype",
                fix="set base.dtype: float32, or auto",
                code="C19",
            )
        )


class _Codec:
    """Tokens of texts and answers, as the backbone makes them."""

    def __init__(self, tokenizer: Any, spaced: bool) -> None:
        self.tokenizer, self.spaced = tokenizer, spaced

    @cached_property
    def special(self) -> tuple[str, ...]:
        """Tokens that are no text."""
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        return tuple(sorted({*self.tokenizer.all_special_tokens, *added}))

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, whole."""
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return ids

    def answer(self, text: str) -> Tokens:
        """Token ids of an answer, and the end token."""
        return answer_tokens(self.tokenizer, text, spaced=self.spaced)

    def kept(self, text: str, limit: int) -> str:
        """What is left of a text that is cut."""
        ids = self.tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


# rows


def _read(configs: Sequence[AnyRun], workspace: Workspace, found: Findings) -> dict[tuple[str, Split], Used]:
    """The rows that the runs use, by task and split."""
    used: dict[tuple[str, Split], Used | None] = {}
    for config in configs:
        for spec in config.tasks:
            task = found.attempt(partial(workspace.task, spec))
            if task is None:
                continue
            for split in workspace.splits(config):
                if (spec.name, split) not in used:
                    used[spec.name, split] = found.attempt(partial(_load, spec, task, split))
                one = used[spec.name, split]
                picked = found.attempt(partial(_picked, config, one)) if one else None
                if one and picked:
                    places = {id(example): i for i, example in enumerate(one.examples)}
                    one.places |= {places[id(example)] for example in picked}
    return {key: one for key, one in used.items() if one and one.places}


def _load(spec: TaskSpec, task: Task, split: Split) -> Used:
    task.data_hash(split)  # before the rows, so that a file that changes between the two is noticed
    rows, examples = zip(*task.numbered(split), strict=True) if task.load(split) else ((), ())
    return Used(spec, task, split, task.rows(split), list(examples), list(rows))


def _picked(config: AnyRun, used: Used) -> list[Example]:
    """The examples of a split that a run trains on or scores."""
    limits = config.limits
    if isinstance(config, EvaluateRun):  # the majority answer reads training rows, and learns no text
        return subset(used.examples, limits.test_rows) if used.split == config.split else []
    if used.split == "dev":
        return subset(used.examples, limits.dev_rows)
    shots = config.shots if isinstance(config, AdaptRun) else None
    if shots is None:
        return subset(used.examples, None if isinstance(config, AdaptRun) else limits.train_rows)
    task = used.task
    return few_shot(used.examples, shots, seed=config.seed, task=task.name, closed=bool(task.choices))


def _tokens(used: Used, codec: _Codec, limit: int, found: Findings) -> int:
    if used.task.choices:
        row_checks.check_words(used.task, codec, found)
    return row_checks.check_tokens(used, codec, limit, found)


def _batches(configs: Sequence[AnyRun], used: dict[tuple[str, Split], Used], found: Findings) -> None:
    """C17: batches that hold more rows than there are."""
    for config in configs:
        if isinstance(config, EvaluateRun):
            continue
        rows = sum(
            len(used[spec.name, "train"].chosen) for spec in config.tasks if (spec.name, "train") in used
        )
        names = ", ".join(spec.name for spec in config.tasks)
        if 0 < rows < config.optim.batch_size:
            found.warn(
                ConfigError(
                    f"a batch of {config.optim.batch_size} rows is more than the {rows} training rows",
                    where=f"{config.stage} of {names} (optim.batch_size)",
                    fix=f"set batch_size to {rows} or less; else a batch holds a row twice",
                    code="C17",
                )
            )


def _leaks(configs: Sequence[AnyRun], used: dict[tuple[str, Split], Used], checked: Checked) -> None:
    """D11: dev rows against own training rows; scored ones also against those of group and sources."""
    sources = {spec.name for one in configs if isinstance(one, TeacherRun | SourceRun) for spec in one.tasks}
    scored = {(spec.name, one.split) for one in configs if isinstance(one, EvaluateRun) for spec in one.tasks}
    groups = [{spec.name for spec in one.tasks} for one in configs if isinstance(one, AdaptRun)]
    for (name, split), one in used.items():
        if split == "train":
            continue
        together = {name}.union(*(group for group in groups if name in group))  # they share P*
        trains = together | sources if (name, split) in scored else {name}
        seen = [used[task, "train"] for task in sorted(trains) if (task, "train") in used]
        rows, by_task = row_checks.check_leaks(one, seen, checked.findings, scored=(name, split) in scored)
        if (name, split) in scored:
            checked.leaks[name] = {"rows": rows, "by_task": by_task}
            checked.shared[name] = row_checks.shared_sentences(one, seen)


# parents of a stage's runs


def _parents(config: AnyRun, workspace: Workspace, found: Findings) -> None:
    """C12, C13, C15, C16: the finished runs that a run starts from."""
    if isinstance(config, SourceRun) and config.teachers:
        for name in (spec.name for spec in config.tasks if spec.name not in config.teachers):
            found.error(
                ConfigError(
                    f"task {name!r} has no teacher",
                    where="teachers",
                    fix="run 'weft teachers' for it",
                    code="C12",
                )
            )
    for task, name in _parents_of(config):
        found.attempt(partial(_check_parent, config, task, name, workspace))


def _parents_of(config: AnyRun) -> Iterable[tuple[str | None, str]]:
    """The runs that a configuration names, those of teachers with their task."""
    if isinstance(config, SourceRun | AdaptRun):
        yield from config.teachers.items()
    if isinstance(config, AdaptRun) and config.source is not None:
        yield None, config.source


def _check_parent(config: AnyRun, task: str | None, name: str, workspace: Workspace) -> None:
    run = runs.find(workspace.root, name)
    parent = run.config()
    if task is not None and task not in {spec.name for spec in parent.tasks}:
        raise ConfigError(
            f"the run {run.id!r} has no prompt for {task!r}",
            where="teachers",
            fix=f"it has {', '.join(spec.name for spec in parent.tasks)}",
            code="C12",
        )
    if parent.prompt.length != config.prompt.length:
        raise ConfigError(
            f"the prompts of {run.id!r} have {parent.prompt.length} tokens, and this run's "
            f"{config.prompt.length}",
            where="prompt.length",
            fix="set the same length, or train the parent again",
            code="C15",
        )
    trained_on, here = str(runs.noted(run.path).get("base_hash")), workspace.base(config).hash
    if trained_on != here:
        raise ConfigError(
            f"the run {run.id!r} was trained on another base model "
            f"(hash {trained_on[:12]}…, this is {here[:12]}…)",
            where="base.model",
            fix="name the same base model, or train the parent again",
            code="C13",
        )


def row_lines(checked: Checked) -> Iterator[str]:
    """One line a task and split: rows read, dropped, taken."""
    for name, splits in checked.rows.items():
        for split, counts in splits.items():
            dropped = "".join(f", {n:,} dropped ({why})" for why, n in counts["dropped"].items())
            cut = f", {counts['cut']:,} cut" if counts["cut"] else ""
            yield f"{name} {split}: {counts['read']:,} rows read{dropped}, {counts['taken']:,} taken{cut}"
