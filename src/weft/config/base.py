"""What every configuration is: unknown keys are errors, values never change, NaN is refused."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = r"[a-z0-9][a-z0-9_.-]{0,63}"
Name = Annotated[str, Field(pattern=rf"^{NAME}$")]
Split = Literal["train", "dev", "test"]
HoldoutDraw = Literal["weft", "attempt"]
Allowance = Literal["leaks", "duplicates", "cuts", "special_tokens"]


class RelationError(ValueError):
    """Settings that do not fit together, with their number in the catalogue of faults."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Config(BaseModel):
    """Base of all configuration: unknown keys are errors, values never change, NaN is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: object) -> object:
        """Pydantic would read true as 1."""
        for name, field in cls.model_fields.items() if isinstance(values, dict) else ():
            kinds = {field.annotation, *get_args(field.annotation)}
            if isinstance(values, dict) and isinstance(values.get(name), bool) and kinds & {int, float}:
                raise ValueError(f"{name} is a number, not true or false")
        return values


class Content(BaseModel):
    """What is read of a JSON file that weft wrote; what else stands there is let be."""

    model_config = ConfigDict(strict=True, extra="allow")


def check_shots(shots: int | None, shots_total: int | None) -> None:
    """Refuse two counts of the rows that are drawn.

    Raises:
        ValueError: naming both.
    """
    if shots is not None and shots_total is not None:
        raise ValueError(
            f"shots ({shots}) counts rows per answer and shots_total ({shots_total}) rows in all: give one"
        )
