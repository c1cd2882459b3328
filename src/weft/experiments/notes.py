"""What a reader of the table must know, in sentences. Loads without torch."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.config.decoding import GREEDY
from weft.experiments import config, differences, published
from weft.experiments.entries import CONSTANT, DASH, OPEN, SEEN, ZERO, Entry
from weft.experiments.lines import Line, lines

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan


def notes(entries: Sequence[Entry], plan: "Plan") -> list[str]:
    """What a reader of the table must know."""
    experiment, table = plan.experiment, lines(entries, plan)
    model = [experiment.base.model, *(entry.dtype for entry in entries if entry.dtype)]
    said = [
        f"Scores: {_metrics(entries)} in percent, {_spread(plan)}.",
        f"Scored rows ({experiment.split}): {_tested(entries)}. "
        f"Training rows of targets: {_shots(entries, plan)}.",
        f"Base model: {', '.join(dict.fromkeys(model))}. 'seconds' is the training of one target.",
        _varied(plan),
    ]
    return (
        said
        + _own_settings(plan)
        + _decoded(plan)
        + _grouped(plan)
        + _steps(plan)
        + _caps(plan)
        + _allowed(plan)
        + _seen(entries)
        + _overlaps(entries)
        + _gaps(entries)
        + _constant(entries)
        + _open(table)
        + differences.said(table)
        + published.said(experiment)
    )


def _decoded(plan: "Plan") -> list[str]:
    decoding = plan.experiment.decoding
    return [] if decoding == GREEDY else [f"Written answers: {decoding.words}."]


def _metrics(entries: Sequence[Entry]) -> str:
    """`accuracy`, or each target's metric where they differ."""
    names = {entry.target: entry.metric for entry in entries}
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return ", ".join(f"{target} {metric}" for target, metric in names.items())


def _spread(plan: "Plan") -> str:
    seeds = plan.experiment.seeds
    if len(seeds) == 1:
        return f"seed {seeds[0]} alone, so without an interval"
    return f"mean ± 95 % t interval over seeds {', '.join(map(str, seeds))}"


def _tested(entries: Sequence[Entry]) -> str:
    rows = {entry.target: DASH for entry in entries}
    rows |= {entry.target: f"{entry.rows:,}" for entry in entries if entry.rows is not None}
    return ", ".join(f"{target} {count}" for target, count in rows.items())


def _varied(plan: "Plan") -> str:
    """What differs from seed to seed."""
    varied = "the rows drawn and the training" if _draws(plan) else "the training"
    if plan.experiment.vary_sources:
        return f"Seeds vary {varied} of targets, and the source stage and teachers from which they start."
    return f"Seeds vary {varied} of targets; the source stage is trained once."


def _own_settings(plan: "Plan") -> list[str]:
    """Rows that have a part of the experiment for themselves."""
    said = [
        f"{row.label} ({', '.join(f'{key} {_shown(value)}' for key, value in row.settings.items())})"
        for row in plan.experiment.rows
        if row.settings
    ]
    return [f"Settings of rows: {'; '.join(said)}."] if said else []


def _shown(value: object) -> str:
    """A setting as people write it."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _draws(plan: "Plan") -> bool:
    """Whether targets train on drawn rows."""
    experiment = plan.experiment
    return any(any(experiment.shots_of(row)) for row in experiment.rows)


def _shots(entries: Sequence[Entry], plan: "Plan") -> str:
    """Training rows as the experiment says, and as rows of the table say for themselves."""
    own = [row for row in plan.experiment.rows if row.shots or row.shots_total]
    plain = [one for one in entries if one.row not in {row.label for row in own}]
    said: dict[str, list[str]] = defaultdict(list)
    for row in own:
        said[_drawn(row, [one for one in entries if one.row == row.label], plan)].append(row.label)
    others = [f"{count} for {', '.join(labels)}" for count, labels in said.items()]
    return "; ".join([_drawn(plan.experiment, plain, plan), *others])


def _drawn(asked: config.Entry | config.Experiment, entries: Sequence[Entry], plan: "Plan") -> str:
    """`16 per answer` or `16 in total`; `up to 16`, and how many there were, where a target has fewer."""
    shots, total = asked.shots or 0, asked.shots_total or 0
    if not shots and not total:
        return "all"
    answers = {task.name: len(task.choices or "1") for job in plan.jobs for task in job.config.tasks}
    count = f"{total} in total" if total else f"{shots} per answer"
    fewer = {
        one.target: one.trained
        for one in entries
        if one.trained is not None and one.trained < (total or shots * answers[one.target])
    }
    there = ", ".join(f"{target} {rows:,} rows" for target, rows in fewer.items())
    return f"up to {count} ({there})" if fewer else count


def _grouped(plan: "Plan") -> list[str]:
    """The named groups of targets, and the rows that train each of them in one run."""
    experiment = plan.experiment
    labels = [row.label for row in experiment.rows if row.group]
    groups = [f"{name} ({', '.join(targets)})" for name, targets in experiment.groups.items()]
    return [f"Trained in one run by {', '.join(labels)}: {'; '.join(groups)}."] if labels and groups else []


def _steps(plan: "Plan") -> list[str]:
    """Steps of targets that have their own, the same in every row."""
    said = ", ".join(f"{target} {steps:,}" for target, steps in plan.experiment.steps.items())
    return [f"Steps of every training by gradient: {said}."] if said else []


def _caps(plan: "Plan") -> list[str]:
    limits = plan.experiment.limits
    caps = {
        "training rows of a source": limits.train_rows,
        "training rows of a target": limits.target_rows,
        "dev rows": limits.dev_rows,
        "scored rows of a target": limits.test_rows,
    }
    caps |= {
        f"{what} of {name}": getattr(one, key)
        for name, one in limits.tasks.items()
        for key, what in (
            ("train_rows", "training rows"),
            ("dev_rows", "dev rows"),
            ("test_rows", "scored rows"),
        )
    }
    said = [f"at most {rows:,} {what}" for what, rows in caps.items() if rows is not None]
    return [f"Capped: {', '.join(said)}."] if said else []


def _allowed(plan: "Plan") -> list[str]:
    """Faults of the data that the experiment allows, and targets that are sources too."""
    experiment = plan.experiment
    both = [name for name in experiment.targets if name in {*experiment.sources, *plan.teachers}]
    allowed = [f"Allowed in the data: {', '.join(experiment.allow)}."] if experiment.allow else []
    return allowed + ([f"Targets that are also sources: {', '.join(both)}."] if both else [])


def _seen(entries: Sequence[Entry]) -> list[str]:
    """Targets that the base model was trained on before."""
    names = dict.fromkeys(entry.target for entry in entries if entry.seen)
    if not names:
        return []
    return [f"{SEEN} The base model was trained on data of {', '.join(names)} before: left out of averages."]


def _overlaps(entries: Sequence[Entry]) -> list[str]:
    """Scored rows that are in training rows, whole or with one sentence."""
    whole = {one.target: one.leaked for one in entries if one.leaked}
    part = {one.target: one.shared for one in entries if one.shared}
    kinds = {"are whole in training rows": whole, "share a sentence with training rows": part}
    return [
        f"Scored rows that {kind}: {', '.join(f'{target} {count:,}' for target, count in counts.items())}."
        for kind, counts in kinds.items()
        if counts
    ]


def _gaps(entries: Sequence[Entry]) -> list[str]:
    """What is not there: unfinished runs and undefined scores."""
    missing = sum(entry.missing for entry in entries)
    said = [
        f"{DASH} marks what is not finished ({missing} missing evaluations); an average needs every target."
    ]
    return (said if missing else []) + _undefined(entries)


def _constant(entries: Sequence[Entry]) -> list[str]:
    """Scores of answers that do not depend on the text."""
    found = [
        f"{one.row} on {one.target} ({one.constant} of {len(one.scores)} seeds)"
        for one in entries
        if one.constant and one.mean is not None
    ]
    return [f"{CONSTANT} One answer for all rows: {'; '.join(found)}."] if found else []


def _open(table: Sequence[Line]) -> list[str]:
    """Targets of open answers, which a classifier has no score on."""
    unable = [one.target for line in table for one in line.entries if one.unable]
    targets = ", ".join(dict.fromkeys(unable))
    said = f"{OPEN} The answers of {targets} are open, and a classifier needs closed ones; it has no average."
    return [said] if unable else []


def _undefined(entries: Sequence[Entry]) -> list[str]:
    """Scores that count as 0."""
    zeros = [
        f"{one.row} on {one.target}{kind} ({count} of {len(one.scores)} seeds)"
        for one in entries
        for kind, count in (("", one.undefined), (", written", one.undefined_written))
        if count and one.mean is not None
    ]
    return [f"{ZERO} Counts as 0 where the metric is undefined: {'; '.join(zeros)}."] if zeros else []
