"""The seam: what a method is, what it is given, and what it gives back."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel

from weft.config.base import Config, Content
from weft.config.training import PromptConfig
from weft.errors import ConfigError
from weft.tasks import Example, Task

if TYPE_CHECKING:  # these load torch
    from torch import Tensor

    from weft.data.encoding import EncodedTask
    from weft.evaluation.answers import Answerer
    from weft.models import Backbone
    from weft.models.tuned import TunedModel
    from weft.prompts.bank import PromptBank

Need = Literal["source", "teachers"]  # finished runs that a method starts from
Starts = dict[str, dict[str, object]]  # task -> where its training started, and what spoke for it


LEARNING = "which is there to learn from, and this is not training"
UNNAMED = "and its `needs` does not name it"


def nothing_found(what: str, why: str = LEARNING) -> Any:
    """Stands for what a method is not given.

    Raises:
        ConfigError: always; the method must be mended.
    """
    raise ConfigError(
        f"the method asks for {what}, {why}",
        where="method",
        fix="name it in `needs`"
        if why == UNNAMED
        else "ask for it in `build` or `fit`, and keep what answers need",
    )


@dataclass(frozen=True)
class Setup:
    """What a method is given. Models, tokens and finished runs are loaded when they are first asked for.

    Attributes:
        tasks: the tasks, in the order of the task ids.
        rows: the training rows of each.
        seed: of all that is drawn.
        prompt: length and start of prompts.
        source_tokens: longest text of each, in tokens.
        dropout: whether the frozen model's dropout stays on in training.
        load_backbone: gives the frozen model; one of its own where the method touches weights.
        load_encoded: gives the training rows as tokens; only in training.
        load_encoder: gives a frozen encoder that the method's `also_reads` names.
        load_source: gives the bank of the source stage; only in training, where `needs` names it.
        load_teachers: gives the teachers' prompts `[P, D]` by task; likewise.
        load_scales: gives the deviation of views' columns `[D]` over texts of other tasks, by encoder, prompt
            and layer, where it comes with weft; only in training.
        nearest: of named prompts, the one under which a task's rows are likeliest, and the loss of each; only
            in training.
    """

    tasks: tuple[Task, ...]
    rows: Sequence[Sequence[Example]]
    seed: int
    prompt: PromptConfig
    source_tokens: tuple[int, ...]
    dropout: bool = False
    load_backbone: "Callable[[], Backbone]" = field(
        default=lambda: nothing_found("a base model", "and nothing gives one")
    )
    load_encoded: "Callable[[], list[EncodedTask]]" = field(default=lambda: nothing_found("tokens"))
    load_encoder: "Callable[[str], Backbone]" = field(
        default=lambda name: nothing_found(f"the encoder {name!r}", "and nothing gives one")
    )
    load_source: "Callable[[], PromptBank]" = field(default=lambda: nothing_found("source"))
    load_teachers: "Callable[[], dict[str, Tensor]]" = field(default=lambda: nothing_found("teachers"))
    load_scales: "Callable[[], Mapping[tuple[str, str, int], Any]]" = dict
    nearest: "Callable[[Mapping[str, Tensor], int], tuple[str, dict[str, float]]]" = field(
        default=lambda prompts, task: nothing_found("nearest")
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names."""
        return tuple(task.name for task in self.tasks)

    def with_rows(self, rows: Sequence[Sequence[Example]]) -> "Setup":
        """The same models and source runs, loaded once, for other rows, whose tokens nobody asks for."""
        return replace(
            self,
            rows=rows,
            load_backbone=lambda: self.backbone,
            load_encoded=lambda: nothing_found("tokens"),
            load_source=lambda: self.source,
            load_teachers=lambda: self.teachers,
        )

    @cached_property
    def backbone(self) -> "Backbone":
        """The frozen model."""
        return self.load_backbone()

    @cached_property
    def encoded(self) -> "list[EncodedTask]":
        """The training rows of each task as tokens."""
        return self.load_encoded()

    @cached_property
    def source(self) -> "PromptBank":
        """The bank of the source stage."""
        return self.load_source()

    @cached_property
    def teachers(self) -> "dict[str, Tensor]":
        """The teachers' prompts `[P, D]` by source task."""
        return self.load_teachers()


@dataclass(frozen=True)
class Saved:
    """What a run kept of a method: all that answering needs beside the base model.

    Attributes:
        tensors: by name.
        notes: what is no tensor, as JSON values.
        parameters: how many numbers are the tasks' own: trained, fitted or computed from rows, and needed to
            answer.
    """

    tensors: "Mapping[str, Tensor]" = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0


class Method(Config):
    """A way to make a frozen model do tasks: its settings, and what is done with them.

    Attributes:
        name: in a configuration; the subclass gives a `Literal` with a default.
        keeps: kind of file that it leaves: plain prompts (`soft`), a shared prompt with factors (`bank`),
            changed `weights`, other named numbers (`arrays`), or nothing (`none`).
        noted: what its notes hold; a run whose notes are other is refused before it is restored.
        touches_weights: it changes or adds weights: the base is one of its own, in float32, and its rows
            share no batch with those of other runs.
        reads_texts: its prompt depends on the text, or it changes how the text is read: no batch is shared,
            and no text is kept.
        closed_only: whether it answers only where the answers are a closed set.
        only_reads: whether it needs no more of a model than its hidden states, so that an encoder will do.
        reads_base: whether the base model reads its texts.
        asks_rows: whether it answers from all training rows at once, although it learns nothing.
        apart: whether the arrays of one task, `K.NAME`, answer with the shared ones alone, so that a bank may
            keep tasks one by one.
        places: settings that say where something lies, which names no run; what lies there has a setting too.
        quotes: whether what it keeps quotes its rows, or holds their words, and so is not published.
        composes: whether its arrays give one plain prompt a task, `composed`, which is what a bank keeps.
    """

    name: str
    keeps: ClassVar[Literal["soft", "bank", "weights", "arrays", "none"]] = "none"
    noted: ClassVar[type[BaseModel]] = Content
    touches_weights: ClassVar[bool] = False
    reads_texts: ClassVar[bool] = False
    closed_only: ClassVar[bool] = False
    only_reads: ClassVar[bool] = False
    reads_base: ClassVar[bool] = True
    asks_rows: ClassVar[bool] = False
    apart: ClassVar[bool] = False
    quotes: ClassVar[bool] = False
    composes: ClassVar[bool] = False
    places: ClassVar[frozenset[str]] = frozenset()

    @property
    def fits_bank(self) -> bool:
        """Whether a bank can keep its tasks: as prompts, or as arrays that stand apart."""
        plain = not self.touches_weights and not self.reads_texts
        return plain and (self.keeps in ("soft", "bank") or self.apart or self.composes)

    @property
    def title(self) -> str:
        """What the field calls it; rows of one title are variants of one method."""
        return self.name.replace("_", " ")

    @property
    def learns(self) -> bool:
        """Whether training rows change what it answers; what learns nothing has one score for all seeds."""
        return True

    @property
    def groups(self) -> set[str]:
        """Parameter groups that are trained by gradient, each with a learning rate; empty where none is."""
        return set()

    @property
    def needs(self) -> frozenset[Need]:
        """The finished runs that it starts from."""
        return frozenset()

    @property
    def starts(self) -> frozenset[str] | None:
        """Values of `start` beside the source tasks' names; none where it has no such setting."""
        return None

    @property
    def also_reads(self) -> tuple[str, ...]:
        """Frozen encoders that it reads with beside the base model: known names, folders or hub ids."""
        return ()

    def renamed(self, name: Callable[[str], str]) -> "Method":
        """The same method, with other names of what it `also_reads`."""
        return self

    @property
    def shares_batches(self) -> bool:
        """Whether its training rows may go through the frozen model beside those of other runs."""
        return bool(self.groups) and not self.touches_weights and not self.reads_texts

    def check(self, setup: Setup) -> None:
        """Refuse what `build`, `fit` or `restore` would refuse, before any weights load.

        Args:
            setup: as for those; its base model has layers, sizes and a tokenizer, and no numbers. Rows are
                there for a `FittedMethod` that learns, and finished runs are not.

        Raises:
            WeftError: with the remedy. Nothing is refused here unless a method says so.
        """

    def composed(self, names: tuple[str, ...], saved: Saved) -> "Tensor":
        """The prompts `[K, P, D]` of what a run kept of tasks, of a method that `composes`.

        Raises:
            ArtifactError: as `restore`.
        """
        raise NotImplementedError

    @abstractmethod
    def restore(self, setup: Setup, saved: Saved) -> "Answerer":
        """What answers, from what a run kept; with nothing kept where nothing is learnt.

        Raises:
            ArtifactError: if the tensors or notes do not fit the base model and the tasks.
        """


class TrainedMethod(Method):
    """A method that is trained by gradient, in the one loop."""

    @abstractmethod
    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """The model that is trained, and a record of where each task starts."""


class FittedMethod(Method):
    """A method that is fitted to its rows at once."""

    @abstractmethod
    def fit(self, setup: Setup) -> Saved:
        """What is kept of the rows."""
