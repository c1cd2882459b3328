"""What runs train, from the methods themselves: built on a base model that has no numbers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from weft import runs
from weft.experiments.costs.machine import Own
from weft.experiments.jobs import Plan
from weft.methods import Method, TrainedMethod
from weft.models import Backbone
from weft.prompts.bank import PromptBank, new_bank
from weft.runs import parents
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, SourceRun, TeacherRun
from weft.runs.workspace import Workspace


@dataclass(frozen=True)
class Learner:
    """What answers, as a pass sees it.

    Attributes:
        trained: numbers that are trained.
        kept: numbers that its run keeps.
        prompt: tokens of a row's prompt.
        keeps_texts: whether texts are read once and kept.
        own: which model its run has for itself; none: it shares the frozen one.
    """

    trained: int = 0
    kept: int = 0
    prompt: int = 0
    keeps_texts: bool = False
    own: Own | None = None


def own_model(method: Method | None) -> Own | None:
    """Which model a method's runs have for themselves."""
    if method is None or not method.touches_weights:
        return None
    return "full" if "model" in method.groups else "added"


@dataclass
class Learners:
    """Learners of a plan's runs.

    Args:
        plan: the runs.
        workspace: gives tasks and places of prompts.
        outline: gives a base model without numbers, a fresh one each time.
    """

    plan: Plan
    workspace: Workspace
    outline: Callable[[], Backbone]

    def __post_init__(self) -> None:
        self._configs = {job.id: job.config for job in self.plan.jobs}
        self._known: dict[tuple[object, ...], Learner] = {}
        self.suffix = self.workspace.position(self.plan.jobs[0].config) == "suffix"

    def of(self, config: AnyRun) -> Learner:
        """What a run trains; or of an evaluation, what is scored."""
        if isinstance(config, EvaluateRun):
            made = self._configs.get(config.run or "")
            return Learner() if made is None or isinstance(made, EvaluateRun) else self.of(made)
        length, count = config.prompt.length, len(config.tasks)
        if isinstance(config, TeacherRun):
            return self._prompted(count * length * self._width, length)
        if isinstance(config, SourceRun):
            factors = count * config.factors.rank * (length + self._width)
            return self._prompted(length * self._width + factors, length)
        if not isinstance(config.method, TrainedMethod):
            return Learner()
        settings = config.method.model_dump_json(), config.prompt.model_dump_json(), config.source_tokens
        key = (*settings, count, config.source, tuple(config.teachers))
        if key not in self._known:
            self._known[key] = self._built(config, config.method)
        return self._known[key]

    def method(self, config: EvaluateRun) -> Method | None:
        """What made that which is scored; none of a run that is not of the plan."""
        made = self._configs.get(config.run or "")
        return config.method if made is None else made.made_by

    def sources(self, config: AdaptRun) -> int:
        """How many prompts the source run of a training holds."""
        return len(self._source(config).tasks)

    @property
    def _width(self) -> int:
        return self.workspace.base(self.plan.jobs[0].config).width

    def _prompted(self, numbers: int, length: int) -> Learner:
        return Learner(numbers, numbers, length, self.suffix)

    def _built(self, config: AdaptRun, method: TrainedMethod) -> Learner:
        """By building it: prompts of other runs are zeros here, which have the same sizes."""
        backbone = self.outline()
        vars(backbone)["scale"] = 1.0  # of embeddings, which are not there
        prompt = torch.zeros(config.prompt.length, backbone.width)
        setup = replace(
            parents.setup_of(config, self.workspace),
            load_backbone=lambda: backbone,
            load_encoded=list,
            load_source=lambda: self._bank(config, prompt),
            load_teachers=lambda: dict.fromkeys(config.teachers, prompt),
            nearest=lambda prompts, task: (next(iter(prompts)), {}),
        )
        model, _ = method.build(setup)
        trained, length, kept = model.trained_parameters, 0, model.trained_parameters
        if model.prompts is not None:
            length = int(model.prompts.length)
            every = sum(tensor.numel() for tensor in model.prompts.state_dict().values())
            kept = kept if model.prompts.fixed else every
        return Learner(trained, kept, length, model.keeps_texts, own_model(method))

    def _bank(self, config: AdaptRun, prompt: torch.Tensor) -> PromptBank:
        """Of the source run, which may have come with weft."""
        source = self._source(config)
        return new_bank(prompt, source.factors, tuple(task.name for task in source.tasks), seed=0)

    def _source(self, config: AdaptRun) -> SourceRun:
        name = config.source or ""
        source = self._configs.get(name) or runs.find(self.workspace.root, name).config()
        assert isinstance(source, SourceRun)
        return source
