"""One pass over a whole plan before any weights load: settings, tasks, base model, rows, tokens, leaks.

The pass does not stop at the first fault. It reads configuration, data and tokenizer, and of weights the
headers alone.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from weft import runs, storage
from weft.checks import answer_checks, label_checks, leak_checks, row_checks, used_rows
from weft.checks.base_model import check_base
from weft.checks.findings import Findings
from weft.checks.outline import check_outline
from weft.checks.parents import check_parents
from weft.checks.readers import Readers
from weft.checks.used_rows import Used
from weft.config.base import Allowance, Split
from weft.config.files import read_yaml
from weft.config.task import TaskSpec
from weft.errors import ConfigError, ResourceError
from weft.experiments import published, results
from weft.experiments.config import Experiment
from weft.experiments.jobs import load_experiment, plan, specs_of
from weft.models import base_folder, load_tokenizer
from weft.runs import parents
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, SourceRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.tasks import named, select

ALL: tuple[Allowance, ...] = ("leaks", "duplicates", "cuts", "special_tokens")


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
        storage.write_json(results.checks_path(root, experiment), kept)


def check_file(path: Path, overrides: dict[str, Any], workspace: Workspace) -> Checked:
    """The pass over an experiment file; its task files are read even where the experiment has faults."""
    checked = Checked(Findings())
    found = checked.findings
    _folder(workspace.root, found)
    experiment = found.attempt(lambda: load_experiment(path, overrides))
    if experiment is None:
        found.attempt(lambda: _specs_beside(path))
        return checked
    specs = found.attempt(lambda: specs_of(experiment))
    found.allow = experiment.allow
    found.attempt(lambda: published.published(experiment))
    _settings(experiment, found)
    configs = _runs_of(experiment, specs, found) if specs is not None else []
    for config in configs if not experiment.sources else ():  # else its parents are runs of its own
        check_parents(config, workspace, found)
    if not configs:
        found.attempt(lambda: base_folder.resolve(experiment.base))
    _check_runs(configs, workspace, checked)
    return checked


def check_runs(configs: Sequence[AnyRun], workspace: Workspace) -> Checked:
    """The pass over runs of one stage; what an experiment may allow is a warning here."""
    checked = Checked(Findings(allow=ALL))
    _folder(workspace.root, checked.findings)
    for config in configs:
        check_parents(config, workspace, checked.findings)
    _check_runs(configs, workspace, checked)
    for config in configs if not checked.findings.errors else ():
        if isinstance(config, AdaptRun):
            checked.leaks |= leak_checks.leaks_of(config, workspace, checked.findings)
    return checked


def check_evaluation(config: EvaluateRun, workspace: Workspace) -> Checked:
    """Base model, scored rows as models receive them, and D11: whether rows behind the run hold them."""
    checked = Checked(Findings(allow=ALL))
    found = checked.findings
    made_by: AnyRun = config
    noted: Mapping[str, str] = {}
    if config.run is not None:
        run = runs.find(workspace.root, config.run)
        made_by, noted = run.config(), run.encoders()
        workspace.encoders.check([run])
        found.attempt(lambda: parents.check_fit(run, config, workspace))
    readers = Readers(
        [made_by],
        found.attempt(lambda: workspace.base(config)),
        limits_of([config]),
        workspace,
        noted,
    )
    for one in used_rows.read([config], workspace, found).values():
        row_checks.check_texts(one, found)
        answer_checks.check_open_answers(one, found)
        readers.check(one, found)
    if not found.errors:
        checked.leaks = leak_checks.leaks_of(config, workspace, found)
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
    if experiment.source and not experiment.source.distill.teaches:
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
    if experiment.source and len(known["sources"]) < len(experiment.sources):  # kappa may not fit the rest
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
        check_base(configs, base, workspace, found)
    used = used_rows.read(configs, workspace, found)
    for one in used.values():
        row_checks.check_rows(one, found)
        answer_checks.check_open_answers(one, found)
        label_checks.check_labels(one.spec, found)
    tokenizer = found.attempt(lambda: load_tokenizer(base, chat=configs[0].base.chat)) if base else None
    readers = Readers(configs, base, limits_of(configs), workspace)
    for one in used.values():
        cut = readers.check(one, found)
        counts = {**one.task.accounting(one.split), "taken": len(one.chosen), "cut": cut}
        checked.rows.setdefault(one.spec.name, {})[one.split] = counts
    _batches(configs, used, found)
    _leaks(configs, used, checked)
    if base and tokenizer:
        check_outline(configs, base, tokenizer, workspace, found)


def limits_of(configs: Sequence[AnyRun]) -> dict[str, int]:
    """The longest text of each task of some runs, in tokens."""
    return {name: one.limits.tokens(name) for one in configs for name in (spec.name for spec in one.tasks)}


def _batches(configs: Sequence[AnyRun], used: dict[tuple[str, Split], Used], found: Findings) -> None:
    """C17: batches that hold more rows than there are."""
    for config in configs:
        if isinstance(config, EvaluateRun) or config.optim is None:
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
    """D11: dev rows against own training rows; scored ones against those of group, sources and dev."""
    sources = {spec.name for one in configs if isinstance(one, TeacherRun | SourceRun) for spec in one.tasks}
    scored = {(spec.name, one.split) for one in configs if isinstance(one, EvaluateRun) for spec in one.tasks}
    groups = [{spec.name for spec in one.tasks} for one in configs if isinstance(one, AdaptRun)]
    for (name, split), one in used.items():
        if split == "train":
            continue
        together = {name}.union(*(group for group in groups if name in group))  # they share P*
        trains = together | sources if (name, split) in scored else {name}
        seen = [used[task, "train"] for task in sorted(trains) if (task, "train") in used]
        leaked = leak_checks.check_leaks(one, seen, checked.findings, scored=(name, split) in scored)
        if (name, split) in scored:
            dev = [used[name, "dev"]] if split != "dev" and (name, "dev") in used else []
            leak_checks.check_leaks(one, dev, checked.findings, scored=False)
            checked.leaks[name] = leak_checks.counts(leaked)
            checked.shared[name] = leak_checks.shared_sentences(one, seen)


def row_lines(checked: Checked) -> Iterator[str]:
    """One line a task and split: rows read, dropped, taken."""
    for name, splits in checked.rows.items():
        for split, counts in splits.items():
            dropped = "".join(f", {n:,} dropped ({why})" for why, n in counts["dropped"].items())
            cut = f", {counts['cut']:,} cut" if counts["cut"] else ""
            yield f"{name} {split}: {counts['read']:,} rows read{dropped}, {counts['taken']:,} taken{cut}"
