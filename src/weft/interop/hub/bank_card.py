"""The model card of a bank: its tasks, with the scores that were added with them."""

from collections.abc import Sequence

from weft.bank import Entry, Snapshot
from weft.bank.manifest import BaseFacts
from weft.experiments.tables import markdown_table
from weft.interop.hub.card import licence_of
from weft.interop.hub.loading import REPO
from weft.interop.hub.markdown import DASH, code, fence, front_matter, percent, plain
from weft.interop.hub.released import hub_id

SHOWN = 200  # tasks of the table
HEAD = ("task", "answers", "metric", "score", "licence of the data", "run")
KINDS = "each is a prompt, two factors of a shared prompt, or a small head."
SERVE = "weft serve my-bank"
MEANING = (
    "Scores are in percent, of the evaluation that was added with a task; where none was, a dash stands. A "
    "bank keeps neither how many rows were scored nor intervals."
)


def bank_card(snapshot: Snapshot, base: BaseFacts, repo: str, licence: str | None) -> str:
    """The card of a bank.

    Args:
        snapshot: the generation that others get.
        base: its base model, as others know it.
        repo: the repository's name; empty where there is none yet.
        licence: of the bank itself, as the hub spells it; none: not said.

    Raises:
        QuarantinedError: if a task is damaged.
    """
    entries = [snapshot.find(name) for name in snapshot.names(limit=SHOWN)]
    known, repo = hub_id(base.model), repo or REPO
    own = f"The bank itself: {code(licence)}." if licence else "The bank's own licence is not said."
    data = front_matter(
        base_model=known,
        base_model_relation="adapter" if known else None,
        library_name="weft",
        license=licence,
        tags=["weft", "prompt-tuning", "multitask-prompt-tuning"],
    )
    opened = f'bank.open(weft.pull("{repo}", "my-bank"))'
    parts = [
        data,
        f"# A bank of {len(snapshot):,} tasks",
        f"Tasks of one frozen language model, {code(base.model)}, made with weft: {KINDS} SHA-256 over the "
        f"model's files: `{base.base_hash}`. weft refuses another one. A model in a folder is named by "
        "`--base FOLDER`.",
        "## Load it",
        fence("", f"weft pull {repo} my-bank      # every file is held against its SHA-256", SERVE),
        "In Python:",
        fence("python", "import weft", "from weft import bank", "", opened),
        "## Tasks and scores",
        _table(entries, len(snapshot)),
        "## What is not in it",
        "The base model, and the rows of the tasks. A licence in the table is that of the task's data, as "
        f"its publishers state it. {own}",
    ]
    return "\n\n".join(parts) + "\n"


def _table(entries: Sequence[Entry], count: int) -> str:
    shown = len(entries)
    left = f" The first {shown:,} of {count:,} tasks; `weft bank ls` lists all." if count > shown else ""
    return f"{markdown_table(HEAD, [_row(entry) for entry in entries])}\n\n{MEANING}{left}"


def _row(entry: Entry) -> list[str]:
    metric = entry.task.metrics[0]
    answers = str(len(entry.task.choices)) if entry.task.choices else "open"
    licence = licence_of(entry.task) if entry.task.licence else DASH
    return [plain(entry.name), answers, metric, percent(entry.metrics.get(metric)), licence, plain(entry.run)]
