"""The checker that the import hook puts on every function of weft while tests run."""

from collections.abc import Callable
from typing import TypeVar

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep3119Exception

C = TypeVar("C", bound=Callable)


def check(function: C) -> C:
    """`beartype`, but a function that takes a protocol which cannot be checked at run time stays as it is."""
    try:
        return beartype(function)
    except BeartypeDecorHintPep3119Exception:
        return function
