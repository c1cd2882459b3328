"""Where stages work: the folder of runs, the data, and models that are loaded once and shared."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from weft import bases, runs
from weft.backbone import Backbone, Precision, load_backbone, probe
from weft.bases import BaseFolder
from weft.config import AnyRun, BaseConfig, EvaluateRun, Split
from weft.errors import ConfigError, NumericError
from weft.progress import Progress
from weft.runs import Run
from weft.tasks import Task, from_spec


@dataclass
class Workspace:
    """What stages share.

    Args:
        root: the folder of runs.
        data_root: where tasks find files that are declared `in_data_root`.
        progress: what a person sees.
    """

    root: Path
    data_root: Path | None = None
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    _bases: dict[BaseConfig, BaseFolder] = field(default_factory=dict)
    _backbones: dict[tuple[str, str, str], Backbone] = field(default_factory=dict)
    _hashes: dict[int, str] = field(default_factory=dict)
    _precision: Precision | None = None
    _tasks: dict[str, Task] = field(default_factory=dict)

    def base(self, config: AnyRun) -> BaseFolder:
        """The folder of a run's base model."""
        if config.base not in self._bases:
            self._bases[config.base] = bases.resolve(config.base)
        return self._bases[config.base]

    def backbone(self, config: AnyRun, *, fresh: bool = False) -> Backbone:
        """A run's base model, loaded once for all runs; `fresh` for methods that change its weights."""
        folder, dtype = self.base(config), self.dtype(config.base)
        position = self.position(config)
        key = (folder.hash, dtype, position)
        if not fresh and key in self._backbones:
            return self._backbones[key]
        self._check_lengths(config, folder)
        cache_mb = config.base.text_cache_mb
        backbone = load_backbone(folder, dtype=dtype, position=position, cache_mb=cache_mb)
        if not fresh:
            self._backbones[key] = backbone
            self._hashes[id(backbone)] = backbone.weights_hash()
        return backbone

    def position(self, config: AnyRun) -> Literal["prefix", "suffix"]:
        """Where a run's prompts stand: as configured, or after the text on models that allow it."""
        if config.prompt.position != "auto":
            return config.prompt.position
        return "suffix" if self.base(config).family == "causal" else "prefix"

    def dtype(self, base: BaseConfig) -> str:
        """The number format of the frozen weights: as configured, or the faster one by measurement."""
        if base.dtype != "auto":
            return base.dtype
        if self._precision is None:
            self._precision = _probe()
        return self._precision.dtype

    def gflops(self) -> float:
        """The measured matrix rate of the chosen number format, in GFLOP/s."""
        self._precision = self._precision or _probe()
        return self._precision.rates[self._precision.dtype]

    def tasks(self, config: AnyRun) -> list[Task]:
        """A run's tasks, ready to read their rows."""
        found = []
        for spec in config.tasks:
            key = spec.model_dump_json()
            if key not in self._tasks:
                self._tasks[key] = from_spec(spec, self.data_root)
            found.append(self._tasks[key])
        return found

    def run_id(self, config: AnyRun) -> str:
        """The name of a run's folder, which follows from its configuration, data and base model."""
        hashes = {
            f"{task.name}/{split}": task.data_hash(split)
            for task in self.tasks(config)
            for split in self._splits(config, task)
        }
        return runs.run_id(
            config, runs.identity(config, base_hash=self.base(config).hash, data_hashes=hashes)
        )

    def run(self, config: AnyRun) -> Run:
        """The folder of a run, finished or not."""
        return Run(self.root / self.run_id(config))

    @contextmanager
    def open(self, config: AnyRun) -> Iterator[Run]:
        """A run folder to fill; it is finished when the block ends without an error."""
        env: dict[str, Any] = {"base": self.base(config).origin, "base_hash": self.base(config).hash}
        env["dtype"], env["position"] = self.dtype(config.base), self.position(config)
        if self._precision is not None:
            env["gflops"] = {name: round(rate) for name, rate in self._precision.rates.items()}
        with runs.create(self.root, self.run_id(config), config, env) as run:
            yield run

    def check_frozen(self) -> None:
        """Prove that no stage changed a byte of a shared model.

        Raises:
            NumericError: if one did: its results cannot be trusted.
        """
        for backbone in self._backbones.values():
            if backbone.weights_hash() != self._hashes[id(backbone)]:
                raise NumericError(f"the frozen model {backbone.name!r} was changed in training", code="N12")

    @staticmethod
    def _check_lengths(config: AnyRun, folder: BaseFolder) -> None:
        """Refuse what a model with absolute positions cannot read."""
        longest = max(task.max_target_tokens for task in config.tasks)
        total = config.prompt.length + config.limits.source_tokens + longest
        if folder.positions is not None and total > folder.positions:
            room = folder.positions - config.prompt.length - longest
            raise ConfigError(
                f"prompt {config.prompt.length}, text {config.limits.source_tokens} and answer {longest} are "
                f"{total} tokens, and {folder.name!r} has {folder.positions} positions",
                where="prompt.length, limits.source_tokens",
                fix=f"set limits.source_tokens to {room} or less" if room > 0 else "shorten the prompt",
                code="C07",
            )

    @staticmethod
    def _splits(config: AnyRun, task: Task) -> list[Split]:
        """The splits a run reads."""
        if isinstance(config, EvaluateRun):
            majority = config.method is not None and config.method.name == "majority"
            return ["train", config.split] if majority else [config.split]
        return ["train", "dev"] if config.optim.eval_every else ["train"]


def _probe() -> Precision:
    from accelerate import PartialState

    return probe(PartialState().device)
