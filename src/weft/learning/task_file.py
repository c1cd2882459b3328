"""The task that a file's rows make: a task file and its rows, as a person would write them. Without torch."""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from weft import storage
from weft.config.base import NAME
from weft.config.describe import yaml_text
from weft.config.task import TaskSpec
from weft.errors import ConfigError
from weft.learning.rows import Rows
from weft.tasks import load_spec

MADE = "# Made by `weft learn`; it may be changed (see docs/tasks.md)."
MOST_WRITTEN = 64  # tokens of an open answer, unless those of the rows are longer


def name_of(file: str) -> str:
    """A task's name from a file's: small letters, digits, `_`, `.` and `-`.

    Raises:
        ConfigError: if nothing is left.
    """
    name = re.sub(r"[^a-z0-9_.-]+", "-", file.split(".")[0].casefold()).strip("-._")[:64]
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"no task can be named after {file!r}", where="the file", fix="name it: --name NAME"
        )
    return name


def source_of(texts: Sequence[str]) -> str:
    """The text form: the column alone, or each of several after its name, as benchmarks write pairs."""
    if len(texts) == 1:
        return f"{{{texts[0]}}}"
    return " ".join(f"{name}: {{{name}}}" for name in texts)


def write(
    folder: Path, name: str, rows: Rows, order: Sequence[str] = (), held: Collection[int] = ()
) -> TaskSpec:
    """Leave the task in a folder, `NAME.yaml` and `NAME.jsonl`, and read it back as any other.

    Args:
        folder: where tasks lie.
        name: the task's.
        rows: that it is learnt from.
        order: answers that come first: those of an earlier run, whose places stay.
        held: places of the rows that are scored and not learnt from; they lie in `NAME.test.jsonl`.

    Raises:
        ConfigError: if a column's name cannot stand in a template.
    """
    columns = rows.columns
    for column in (*columns.texts, columns.answer):
        if re.search(r"[{}]", column):
            raise ConfigError(f"column {column!r} has braces in its name", where="the file", fix="rename it")
    answers = [*order, *(answer for answer in rows.answers if answer not in order)]
    document: dict[str, object] = {
        "name": name,
        "files": {"train": f"{name}.jsonl", **({"test": f"{name}.test.jsonl"} if held else {})},
        "source": source_of(columns.texts),
        "target": f"{{{columns.answer}}}",
    }
    if rows.kind == "closed":
        document |= {"labels": {answer: answer for answer in answers}, "metrics": ["accuracy", "f1_macro"]}
    else:
        document |= {"metrics": ["exact_match", "squad_f1"], "max_target_tokens": MOST_WRITTEN}
    for file, part in ((f"{name}.jsonl", False), (f"{name}.test.jsonl", True)):
        lines = [
            json.dumps(row, ensure_ascii=False) for i, row in enumerate(rows.rows) if (i in held) == part
        ]
        if lines:
            storage.write_text(folder / file, "\n".join(lines) + "\n")
    storage.write_text(folder / f"{name}.yaml", f"{MADE}\n{yaml_text(document)}")
    return load_spec(folder / f"{name}.yaml")
