"""The report of an experiment: one HTML page that needs nothing else, for light and dark, wide and narrow."""

from collections.abc import Sequence
from html import escape
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from weft import runs, storage
from weft.experiments.entries import Entry
from weft.experiments.lines import Average, Line, lines
from weft.experiments.notes import notes
from weft.experiments.published import published
from weft.experiments.report import overviews as overviews
from weft.experiments.report import parts as parts
from weft.experiments.report import plots as plots
from weft.experiments.results import collect
from weft.experiments.small_tables import SmallTable
from weft.experiments.tables import cost_texts, heads, small_tables
from weft.experiments.verdict import verdict
from weft.progress import duration

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan

STYLE = """
:root { color-scheme: light dark;
  --ink: #1d2126; --dim: #59636e; --line: #d6dbe1; --back: #fff; --soft: #f3f5f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e7ec; --dim: #9ba5b1; --line: #363d47; --back: #15181c; --soft: #1e2228; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem;
  background: var(--back); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .6rem; }
p, ul, figcaption { max-width: 46rem; }
ul { padding-left: 1.3rem; }
figcaption b { color: var(--ink); }
.dim, figcaption, td small { color: var(--dim); font-size: .875rem; }
.wide { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; }
tr > * { border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--dim); vertical-align: bottom; }
tbody th { font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--back); }
td small { display: block; }
.plots { display: grid; gap: 1.5rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; }
figure svg { display: block; max-width: 100%; height: auto; }
svg text { font-family: inherit !important; }
.wrong { padding: 0; list-style: none; display: grid; gap: .8rem; }
.wrong li { background: var(--soft); border-radius: .4rem; padding: .6rem .9rem; }
.wrong p { margin: 0; white-space: pre-line; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--soft); padding: .8rem 1rem; border-radius: .4rem;
  font-size: .8rem; line-height: 1.4; }
code { overflow-wrap: anywhere; }
@media (max-width: 36rem) {
  th, td { padding: .3rem .45rem; font-size: .85rem; }
  tbody th { white-space: normal; min-width: 6.5rem; } }
"""


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(plan: "Plan", root: Path, seconds: float | None) -> str:
    """The whole page, as text."""
    entries = collect(plan, root)
    table, title = lines(entries, plan), escape(plan.experiment.title or plan.experiment.name)
    body = [
        f"<h1>{title}</h1>\n<p>{escape(_story(plan, root, seconds))}</p>",
        parts.section("Scores", _scores(table, notes(entries, plan), plan)),
        *(parts.section(one.title, _small(one)) for one in small_tables(table, plan)),
        parts.section("What the numbers say", parts.bullets(verdict(entries, plan))),
        *overviews.sections(table, plan),
        parts.section("Scores of every seed", _score_plots(table)),
        *(_source_sections(plan, root, table) if plan.experiment.sources else []),
        parts.section("Where MPT is wrong", parts.examples(plan, root, table)),
        parts.section("Rows used", parts.rows_used(plan, root, entries)),
        parts.section("Settings and runs", parts.settings(plan, root)),
    ]
    return PAGE.format(title=title, style=STYLE, body="\n".join(body))


def _source_sections(plan: "Plan", root: Path, table: Sequence[Line]) -> list[str]:
    trained = parts.losses(plan, root) + parts.source_table(plan, root)
    return [
        parts.section("Training of the source stage", trained),
        parts.section("How alike the prompts are", parts.similarity(plan, root, table)),
    ]


def _position(plan: "Plan", root: Path) -> str:
    """Where prompts stand: as the source run noted it, where the settings leave it to the model."""
    first = plan.source if plan.experiment.sources else plan.cells[0].run
    noted = runs.noted(root / first).get("position")
    return str(noted or plan.experiment.prompt.position)


def _story(plan: "Plan", root: Path, seconds: float | None) -> str:
    """What was done, in plain words."""
    experiment, prompt = plan.experiment, plan.experiment.prompt
    trained = [row for row in experiment.rows if row.method.learns]
    changing = dict.fromkeys(row.method.title for row in experiment.rows if row.method.touches_weights)
    apart = f" ({', '.join(changing)} aside)" if changing else ""
    place = {"prefix": "before", "suffix": "after", "auto": "beside"}[_position(plan, root)]
    said = [
        f"The language model {experiment.base.model} stays as it is{apart}.",
        f"Prompts are {prompt.length} vectors that it reads {place} the text.",
        *_source_story(plan),
        f"Each of the target tasks ({', '.join(experiment.targets)}) is then learnt in {len(trained)} ways,",
        f"each with {_times(len(experiment.seeds))}, and all are scored on the same {experiment.split} rows.",
    ]
    return " ".join(
        said + ([] if seconds is None else [f"The command that wrote this page took {duration(seconds)}."])
    )


def _source_story(plan: "Plan") -> list[str]:
    experiment = plan.experiment
    if experiment.source is None or not experiment.sources:
        tasks = ", ".join(plan.teachers)
        return [f"Source prompts are those that come with weft ({tasks})."] if plan.source else []
    distils = experiment.source.distill.weight > 0
    how = "these teachers are distilled into" if distils else "all source tasks together train"
    return [
        f"First, each of the source tasks ({', '.join(experiment.sources)}) gets a prompt of its own;",
        f"{how} one shared prompt and a pair of small factors for each task (multitask prompt tuning, MPT).",
    ]


def _times(seeds: int) -> str:
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def _scores(table: Sequence[Line], below: Sequence[str], plan: "Plan") -> str:
    """The result table, the best of each column in bold, and its notes."""
    by_target = list(zip(*(line.entries for line in table), strict=True))
    columns = [
        [escape(line.label) for line in table],
        *(_scores_column(entries) for entries in by_target),
        *(_averages_column(averages) for averages in zip(*(line.averages for line in table), strict=True)),
        _column([(cost_texts(line)[0], line.parameters) for line in table], sign=-1),
        _column([(cost_texts(line)[1], line.seconds) for line in table], sign=-1),
    ]
    head = ["method", *heads(table)]
    said = [
        "Bold: the best of a column; of costs, the least among the methods that train.",
        *(["Written: the score of freely written answers."] if any(map(_writes, chain(*by_target))) else []),
    ]
    printed = [
        (f"<em>{escape(row.label)}</em>", *row.cells(plan.experiment)) for row in published(plan.experiment)
    ]
    return parts.table(head, [*zip(*columns, strict=True), *printed]) + parts.bullets(
        [*said, *below], small=True
    )


def _writes(entry: Entry) -> bool:
    """Whether written answers have a score beside that of the chosen ones."""
    return entry.written is not None and not entry.open


def _averages_column(averages: Sequence[Average]) -> list[str]:
    return _column([(one.text(), one.mean) for one in averages])


def _small(found: SmallTable) -> str:
    return parts.table(found.head, [[escape(cell) for cell in row] for row in found.rows])


def _scores_column(entries: Sequence[Entry]) -> list[str]:
    """Scores on one target, and below each that of freely written answers."""
    scores = _column([(entry.text(), entry.mean) for entry in entries])
    small = [f"<small>written {entry.written_text}</small>" if _writes(entry) else "" for entry in entries]
    return [score + below for score, below in zip(scores, small, strict=True)]


def _column(pairs: Sequence[tuple[str, float | None]], sign: int = 1) -> list[str]:
    """A column's cells, the best as shown in bold: the highest, or with sign -1 the lowest."""
    known = [sign * round(value, 1) for _, value in pairs if value is not None]
    return [
        f"<strong>{text}</strong>" if value is not None and sign * round(value, 1) == max(known) else text
        for text, value in pairs
    ]


def _score_plots(table: Sequence[Line]) -> str:
    panels = [
        parts.figure(plots.scores_plot(table, i), entry.target, heads=True)
        for i, entry in enumerate(table[0].entries)
    ]
    text = "A dot is the mean, its bar the 95 % interval; the rings below are the seeds. MPT is blue."
    return f'<p class="dim">{text}</p><div class="plots">{"".join(panels)}</div>'


def write_report(plan: "Plan", root: Path, path: Path, seconds: float | None) -> None:
    """Write the experiment's report: one HTML file that needs nothing else.

    Args:
        plan: the experiment's runs.
        root: the folder of runs; those that are not finished are shown as missing.
        path: the file.
        seconds: how long the whole experiment took, if it is known.

    Raises:
        ArtifactError: if a finished run's files were changed.
        ResourceError: if the file cannot be written.
    """
    storage.write_text(path, page(plan, root, seconds))
