"""A written instruction, and examples in the context of the frozen model (Brown et al. 2020, 2005.14165).

Choices are calibrated as in Zhao et al. 2021 (2102.09690): see `weft.evaluation.in_context`, which answers,
and `weft.data.context`, which lays the context out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from weft.config.base import Content
from weft.errors import ArtifactError, ConfigError, DataError
from weft.methods.kept import check_answers, of_task
from weft.methods.method import FittedMethod, Saved, Setup
from weft.tasks import Example, Task

if TYPE_CHECKING:
    from weft.data.context import ContextLayout
    from weft.evaluation.in_context import InContextAnswerer

Count = Annotated[int, Field(ge=0, strict=True)]
Tokens = Annotated[int, Field(gt=0, strict=True)]
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]  # text and answer


class Noted(Content):
    """What is noted of the examples; runs of before `source_tokens` was noted have their own limit.

    A number is the limit of all tasks.
    """

    source_tokens: Tokens | dict[str, Tokens] | None = None
    examples: dict[str, list[Pair]] = Field(default_factory=dict)


class InContext(FittedMethod):
    """An instruction and examples in the context; nothing is trained."""

    name: Literal["in_context"] = "in_context"
    instruction: str = Field(
        "", description="what to do; {answers} stands for the answers; empty: a sentence that names them"
    )
    examples: Literal["fit"] | Count = Field(
        "fit",
        description="training rows in the context, balanced over answers: 0 for the instruction alone, "
        "a number at most, or fit for as many as the context holds",
    )
    calibrate: bool = Field(
        True, description="divide probabilities of choices by those for texts that say nothing"
    )
    context_tokens: int = Field(
        1024, gt=0, description="of instruction and examples; fewer where the model has fewer positions"
    )

    noted: ClassVar[type[BaseModel]] = Noted
    quotes: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "examples in context" if self.learns else "instruction"

    @property
    def learns(self) -> bool:
        """An instruction alone learns nothing."""
        return self.examples != 0

    def check(self, setup: Setup) -> None:
        """Refuse a context without room: all of it is tokens, which need no weights.

        Raises:
            ConfigError: with the remedies.
        """
        if self.learns:
            self.fit(setup)
        else:
            self.restore(setup, Saved())

    def fit(self, setup: Setup) -> Saved:
        """The examples of each task, as texts and answers; no tensors.

        Raises:
            ConfigError: if a context has no room for one.
        """
        from weft.data.context import ContextLayout

        found = {}
        for k, (task, rows) in enumerate(zip(setup.tasks, setup.rows, strict=True)):
            layout = ContextLayout(setup.backbone, setup.source_tokens[k])
            room = self._room(setup, k) - len(self._context(setup, k, layout, []))
            found[task.name] = layout.choose(rows, room, self._most, setup.seed)
            if not found[task.name]:
                raise no_room(task, f"has room for {room} tokens of examples, and the first has more")
        notes = {name: [[one.source, one.target] for one in rows] for name, rows in found.items()}
        counts = {name: len(rows) for name, rows in found.items()}
        limits = dict(zip(setup.names, setup.source_tokens, strict=True))
        return Saved(notes={"source_tokens": limits, "counts": counts, "examples": notes})

    def restore(self, setup: Setup, saved: Saved) -> "InContextAnswerer":
        """The frozen model behind the context of each task.

        Raises:
            ConfigError: if a context has no room.
            ArtifactError: if the examples are not of the tasks, or hold no text.
        """
        from weft.data.context import ContextLayout
        from weft.evaluation.in_context import InContextAnswerer

        layouts = tuple(ContextLayout(setup.backbone, limit) for limit in setup.source_tokens)
        as_fitted = [ContextLayout(setup.backbone, limit) for limit in fitted_limits(setup, saved)]
        try:
            contexts = tuple(
                self._context(setup, k, as_fitted[k], self._kept(task, saved))
                for k, task in enumerate(setup.tasks)
            )
        except DataError as fault:  # of an example, the only text here
            raise ArtifactError(f"an example that the run kept: {fault.cause}", code="A04") from None
        return InContextAnswerer(setup.backbone, setup.tasks, contexts, layouts, self.calibrate)

    def _kept(self, task: Task, saved: Saved) -> list[Example]:
        """The examples of a task; an instruction alone has none."""
        pairs = of_task(saved.notes.get("examples", {}), task) if self.learns else []
        check_answers([answer for _, answer in pairs], task)
        return [Example(*pair) for pair in pairs]

    def words(self, task: Task) -> str:
        """The instruction for a task."""
        made = "Answer with one of: {answers}." if task.choices else "Write the answer to each text."
        return (self.instruction.strip() or made).replace("{answers}", ", ".join(task.choices))

    @property
    def _most(self) -> int | None:
        return None if self.examples == "fit" else self.examples

    def _context(
        self, setup: Setup, k: int, layout: "ContextLayout", examples: Sequence[Example]
    ) -> tuple[int, ...]:
        """All that stands before a task's texts."""
        task = setup.tasks[k]
        tokens, room = layout.context(self.words(task), examples), self._room(setup, k)
        if len(tokens) > room:
            raise no_room(task, f"has {len(tokens)} tokens, and there is room for {room}")
        return tokens

    def _room(self, setup: Setup, k: int) -> int:
        """Tokens for instruction and examples: as set, if the model has positions for text and answer too."""
        positions, task = setup.backbone.positions, setup.tasks[k]
        if positions is None:
            return self.context_tokens
        longest = [len(setup.backbone.answer_tokens(word)) for word in task.choices]
        answer = max(task.max_target_tokens, *longest, 0)
        return min(
            self.context_tokens, positions - setup.backbone.codec.whole(setup.source_tokens[k]) - answer
        )


def fitted_limits(setup: Setup, saved: Saved) -> list[int]:
    """The longest text of each task when its examples were chosen.

    Raises:
        ArtifactError: if the run notes limits, and none for a task.
    """
    noted = saved.notes.get("source_tokens") or dict(zip(setup.names, setup.source_tokens, strict=True))
    return [noted if isinstance(noted, int) else of_task(noted, task) for task in setup.tasks]


def no_room(task: Task, fault: str) -> ConfigError:
    """A context that is too small, with the remedies."""
    return ConfigError(
        f"the context of task {task.name!r} {fault}",
        where="method.instruction, method.context_tokens, limits.source_tokens",
        fix="shorten the instruction, raise method.context_tokens or, where the model's positions end, lower "
        "limits.source_tokens",
        code="C07",
    )
