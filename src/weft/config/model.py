"""Which frozen language model, and how it is run."""

from typing import Literal

from pydantic import Field, model_validator

from weft.config.base import Config


class BaseConfig(Config):
    """Which frozen language model, and how it is run."""

    model: str = Field("smollm2", description="a known name, a folder with a model, or a hub id")
    revision: str | None = Field(None, description="commit of a hub id; needed for results that last")
    chat: bool = Field(
        False,
        description="texts are a user's turn and answers the assistant's, as the model's chat template has "
        "it; for models that were tuned to chats",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the frozen weights; auto measures which is faster on this machine"
    )
    weights: Literal["own", "int8", "nf4"] = Field(
        "own",
        description="of the frozen model's layers, for methods that leave them be: its own, or rounded to 8 "
        "bits (by torchao) or 4 (by bitsandbytes); products are in dtype",
    )
    dropout: bool = Field(
        False, description="leave the frozen model's dropout on in training, as the paper's code does"
    )
    attention: Literal["auto", "library", "eager", "sdpa", "grouped"] = Field(
        "auto",
        description="implementation of attention; auto measures which is faster on this machine; "
        "library: as transformers chooses",
    )
    products: Literal["auto", "library", "packed", "bfloat16"] = Field(
        "auto",
        description="products with the weights; packed: frozen ones laid out once on a processor, for twice "
        "their memory more, which auto measures for models up to 2 GB; bfloat16: of float32 weights that a "
        "method trains or adds to, as auto has it where the machine is faster so",
    )
    checkpointing: bool = Field(
        False, description="compute layers twice, to save memory in training (not with suffix prompts)"
    )
    sharded: bool = Field(
        False,
        description="each of several processes holds a part of the frozen layers (FSDP2), for models "
        "that fit no device; docs/how-to/scale.md says for which runs",
    )
    deterministic: bool = Field(
        False, description="float32, eager attention, whole batches: no number depends on a measurement"
    )
    text_cache_mb: int = Field(
        2048,
        ge=0,
        description="room in the folder of runs for keys and values of texts, shared by all (suffix prompts)",
    )

    @model_validator(mode="after")
    def _rounded_weights_stand_alone(self) -> "BaseConfig":
        if self.weights != "own" and self.products not in ("auto", "library"):
            raise ValueError(f"weights in {self.weights} have products of their own: leave products out")
        if self.weights != "own" and self.sharded:
            raise ValueError(f"weights in {self.weights} are not spread over processes: leave sharded out")
        return self

    @model_validator(mode="after")
    def _deterministic_is_one_thing(self) -> "BaseConfig":
        others = (self.dtype, self.attention, self.products)
        fixed = (("auto", "float32"), ("auto", "eager"), ("auto", "library"))
        if self.deterministic and any(one not in known for one, known in zip(others, fixed, strict=True)):
            raise ValueError(
                "deterministic means float32, eager attention and the library's products: leave dtype, "
                "attention and products out"
            )
        return self
