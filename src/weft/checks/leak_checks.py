"""Scored rows that stand in training rows."""

from collections.abc import Iterable

from weft.checks.findings import Findings
from weft.checks.overlap import leaks, shared
from weft.checks.row_checks import SHOWN, Used, share
from weft.errors import DataError


def check_leaks(
    used: Used, seen: Iterable[Used], found: Findings, *, scored: bool = True
) -> dict[str, set[int]]:
    """D11: rows whose whole input is in training rows: for each task that has any, their places.

    Scored rows that leak are an error unless allowed; dev rows, which only choose a state, a warning.
    """
    leaked: dict[str, set[int]] = {}
    for train in seen:
        pairs = leaks(train.inputs, used.inputs)
        if not pairs:
            continue
        leaked[train.spec.name] = {pair.scored for pair in pairs}
        exact = sum(pair.exact for pair in pairs)
        shown = "; ".join(
            f"row {used.row(one.scored)} = training row {train.row(one.seen)}" for one in pairs[:SHOWN]
        )
        fault = DataError(
            f"{share(len(pairs), len(used.inputs))} {used.split} rows stand in the training rows of "
            f"{train.spec.name}, {exact} of them letter for letter",
            where=f"{used.name} and {train.name}: {shown}{'; …' if len(pairs) > SHOWN else ''}",
            fix="remove them from one of the files",
            code="D11",
        )
        if scored:
            found.unless("leaks", fault)
        else:
            found.warn(fault)
    return leaked


def shared_sentences(scored: Used, seen: Iterable[Used]) -> int:
    """How many scored rows have a sentence, but not their whole input, in common with training rows."""
    return shared([fields for train in seen for fields in train.inputs], scored.inputs)
