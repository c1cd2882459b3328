"""Methods: ways to make a frozen model do tasks, each in a file of its own; `method` is the seam they share.

A method's file holds its settings, what it trains or fits, and how it answers from what it kept. Nothing
outside of this room asks for a method's name. Method files load without torch until they are put to work,
so that settings are checked at once. `docs/add-a-method.md` adds one.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field

from weft.errors import ConfigError
from weft.methods.method import FittedMethod, Method, TrainedMethod

__all__ = ["AnyMethod", "FittedMethod", "Method", "TrainedMethod", "known"]

GROUP = "weft.methods"  # of entry points, by which other packages bring methods
BUILT_IN = {  # name in a configuration -> where the method is
    "majority": "weft.methods.majority:Majority",
    "tfidf": "weft.methods.tfidf:TfIdf",
    "frozen_features": "weft.methods.frozen_features:FrozenFeatures",
    "sentence_embeddings": "weft.methods.sentence_embeddings:SentenceEmbeddings",
    "no_prompt": "weft.methods.no_prompt:NoPrompt",
    "prompt_tuning": "weft.methods.prompt_tuning:PromptTuning",
    "mpt": "weft.methods.mpt:MPT",
    "attempt": "weft.methods.attempt:ATTEMPT",
    "dept": "weft.methods.dept:DePT",
    "ulpt": "weft.methods.ulpt:ULPT",
    "full": "weft.methods.full:FullFineTuning",
    "in_context": "weft.methods.in_context:InContext",
    "lora": "weft.methods.lora:LoRA",
    "alora": "weft.methods.alora:ActivatedLoRA",
    "ia3": "weft.methods.ia3:IA3",
    "bitfit": "weft.methods.bitfit:BitFit",
    "adapter": "weft.methods.adapter:Adapters",
    "weft": "weft.methods.weft:Weft",
    "given": "weft.methods.given:GivenPrompt",
}


@cache
def known() -> dict[str, type[Method]]:
    """All methods by name: those of weft, then those of installed packages, by name.

    Raises:
        ConfigError: if a package's method cannot be loaded, or has the name of another.
    """
    own = [EntryPoint(name, where, GROUP) for name, where in BUILT_IN.items()]
    found: dict[str, type[Method]] = {}
    for point in [*own, *sorted(entry_points(group=GROUP), key=lambda one: one.name)]:
        if point.name in found:
            raise ConfigError(f"two methods have the name {point.name!r}", where=point.value, code="C01")
        found[point.name] = _loaded(point)
    return found


def _loaded(point: EntryPoint) -> type[Method]:
    try:
        method = point.load()
    except Exception as error:  # whatever the package's code raises
        raise ConfigError(
            f"the method {point.name!r} cannot be loaded ({type(error).__name__}: {error})",
            where=f"entry point {point.value} of group {GROUP}",
            fix="mend or uninstall the package that brings it",
            code="C24",
        ) from None
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ConfigError(f"{point.value} is no weft.methods.Method", where=f"entry point {point.name!r}")
    if method.model_fields["name"].default != point.name:
        raise ConfigError(f"the method of {point.value} has another name than {point.name!r}", where=GROUP)
    return method


if TYPE_CHECKING:
    AnyMethod = Method


def __getattr__(name: str) -> Any:
    if name == "AnyMethod":  # loads all methods, of which some import this module: not before it is there
        return _any_method()
    raise AttributeError(f"module 'weft.methods' has no attribute {name!r}")


def _any_method() -> Any:
    """In a configuration, the name says which method it is; keys of another are refused."""
    return Annotated[Union[tuple(known().values())], Field(discriminator="name")]  # noqa: UP007
