"""Where stages work: the folder of runs, the data, and models that are loaded once and shared."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from weft import runs
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.errors import ConfigError, DataError, NumericError
from weft.models import Backbone, Choice, base_folder, load_backbone
from weft.models.base_folder import BaseFolder
from weft.models.kept_readings import KeptReadings
from weft.models.machine import Machine
from weft.models.precision import Precision
from weft.parallel.group import Group
from weft.progress import Progress
from weft.runs.config import AnyRun, EvaluateRun, splits, touches_weights
from weft.runs.encoders import Encoders
from weft.runs.folder import Run
from weft.runs.lengths import check_lengths
from weft.runs.places import Places
from weft.runs.sharded import check_sharded
from weft.stopping import Stop
from weft.tasks import Task, from_spec

NOTHING: Mapping[str, str] = MappingProxyType({})
TEXTS = ".texts"  # of the folder of runs: pages of keys and values
READINGS = 512 << 20  # bytes of each model's readings that are kept


@dataclass
class Workspace:
    """What stages share.

    Args:
        root: the folder of runs.
        data_root: where tasks find files that are declared `in_data_root`.
        progress: what a person sees.
        stop: whether the process was asked to end.
        save_seconds: least time between two checkpoints of a run.
        keep_texts: whether keys and values of texts are kept on the disk, under `root`.
        places: where models and rows of finished runs lie, if not where these say.
        group: the processes that work together on each run; the first alone writes to its folder.
        nearest: answers of `parents` to what several methods ask of the same rows.
        leaks: answers of `leak_checks` to what several evaluations ask of the same rows.
    """

    root: Path
    data_root: Path | None = None
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    stop: Stop = field(default_factory=Stop)
    save_seconds: float = 30.0
    keep_texts: bool = True
    places: Places = field(default_factory=Places)
    group: Group = field(default_factory=Group)
    nearest: dict[str, tuple[str, dict[str, float]]] = field(default_factory=dict)
    leaks: dict[tuple[str, str], set[int] | None] = field(default_factory=dict)
    _bases: dict[BaseConfig, BaseFolder] = field(default_factory=dict)
    _backbones: dict[tuple[object, ...], Backbone] = field(default_factory=dict)
    _hashes: dict[int, str] = field(default_factory=dict)
    _machines: dict[Path, Machine] = field(default_factory=dict)
    _tasks: dict[str, Task] = field(default_factory=dict)

    def config_of(self, run: Run) -> AnyRun:
        """The configuration of a finished run, with the places that hold here."""
        return self.places.moved(run.config())

    def base(self, config: AnyRun) -> BaseFolder:
        """The folder of a run's base model."""
        return self.folder(config.base)

    def folder(self, base: BaseConfig) -> BaseFolder:
        """The folder of a base model, found once.

        Raises:
            ArtifactError: if it is not there.
            UnsupportedError: if weft does not serve it.
        """
        if base not in self._bases:
            self._bases[base] = base_folder.resolve(base)
        return self._bases[base]

    def backbone(
        self,
        config: AnyRun,
        *,
        fresh: bool = False,
        like: Mapping[str, Any] | None = None,
    ) -> Backbone:
        """A run's base model, loaded once for all runs.

        Args:
            config: the run's.
            fresh: a copy of its own, for methods that change its weights.
            like: what a finished run notes of its machine; none: as the run's own choices are.
        """
        folder, position = self.base(config), self.position(config)
        choices = self.choices(config) if like is None else noted_choices(like)
        given = config.base
        sharded = given.sharded and self.group.size > 1
        loaded = given.checkpointing, given.deterministic, given.chat, sharded
        key = (folder.hash, position, *choices.values(), *loaded)
        if not fresh and key in self._backbones:
            return self._backbones[key]
        check_lengths(config, folder)
        if fresh:
            gc.collect()  # a finished run's own model is held by its own parts, gigabytes after a few runs
        backbone = load_backbone(
            folder,
            **choices,
            chat=given.chat,
            position=position,
            cache_mb=given.text_cache_mb,
            texts=self.root / TEXTS if self.keep_texts and not fresh else None,
            warn=self.progress.warn,
            checkpointing=given.checkpointing,
            sharded=sharded,
        )
        return backbone if fresh else self._share(key, backbone, given)

    def _share(self, key: tuple[object, ...], backbone: Backbone, base: BaseConfig) -> Backbone:
        """Keep a model for all who ask for the same, with the hash that it must still have at the end."""
        self._backbones[key] = backbone
        backbone.kept = KeptReadings(0 if base.deterministic else READINGS)
        self._hashes[id(backbone)] = backbone.weights_hash()
        return backbone

    def encoder(self, name: str, config: AnyRun, noted: str | None = None) -> Backbone:
        """A frozen encoder that reads beside a run's base model, in float32; loaded once.

        Args:
            name: as the run's configuration has it.
            config: the run's.
            noted: hash of its files, as a finished run notes it.

        Raises:
            UnsupportedError: if it is no encoder.
        """
        folder = self.encoders.folder(name, noted)
        key = (folder.hash, "beside", config.base.deterministic)
        if key in self._backbones:
            return self._backbones[key]
        return self._share(key, load_backbone(folder, dtype="float32"), config.base)

    @property
    def encoders(self) -> Encoders:
        """Where encoders lie that read beside base models."""
        return Encoders(self.folder, self.places.encoders)

    def position(self, config: AnyRun) -> Literal["prefix", "suffix"]:
        """Where a run's prompts stand: as configured, or after the text on models that allow it.

        Raises:
            ConfigError: after the text with activation checkpointing; or as `check_sharded`.
            UnsupportedError: as `check_sharded`.
        """
        position = config.prompt.position
        if position == "auto":
            position = "suffix" if self.base(config).family == "causal" else "prefix"
        if position == "suffix" and config.base.checkpointing:
            raise ConfigError(
                "prompts that stand after cached texts cannot be computed twice: the cache would fill twice",
                where="base.checkpointing",
                fix="set it to false: such a step keeps prompt tokens only; or set prompt.position: prefix",
                code="C08",
            )
        check_sharded(config, position)
        return position

    def dtype(self, config: AnyRun) -> str:
        """The number format of the frozen weights.

        As configured; else as the folder says, of the run if it was begun before, of the run that is scored;
        else float32 where the weights are trained (most steps are too small for a bfloat16 to move); else
        the faster one on this machine, measured once for a folder of runs.
        """
        if config.base.deterministic:
            return "float32"
        if config.base.dtype != "auto":
            return config.base.dtype
        before = self._begun(config).get("dtype")
        if before is None and touches_weights(config):
            return "float32"
        return self.machine.precision().dtype if before is None else str(before)

    def attention(self, config: AnyRun) -> str:
        """The implementation of attention: as configured, noted or measured, as `dtype` is.

        A run that was begun before there was a choice has that of the library.
        """
        if config.base.deterministic:
            return "eager"
        if config.base.attention != "auto":
            return config.base.attention
        if self.base(config).family == "encoder":
            return "library"
        if begun := self._begun(config):
            return str(begun.get("attention", "library"))
        suffix = self.position(config) == "suffix"
        return self.machine.attention(self.base(config), self.dtype(config), suffix=suffix)

    def products(self, config: AnyRun) -> str:
        """How products with the weights are computed; chosen as attention is.

        Weights that are trained, or added to, keep float32 and cannot be packed; where bfloat16 is faster,
        they are multiplied in that.
        """
        given, rounded = config.base, config.base.weights != "own"
        if given.deterministic or given.sharded or rounded or self.base(config).family == "encoder":
            return "library"
        scores = isinstance(config, EvaluateRun) and config.run is not None  # answers as it was trained
        asked, changes = config.base.products, touches_weights(config)
        if asked != "auto" and not scores:
            return "library" if changes and asked == "packed" else asked
        if begun := self._begun(config):
            return str(begun.get("products", "library"))
        if changes:
            return "bfloat16" if self._rounds(config) else "library"
        return self.machine.products(self.base(config), self.dtype(config))

    def _rounds(self, config: AnyRun) -> bool:
        """Whether to multiply float32 weights in bfloat16: that is faster, and nobody asked for float32."""
        return config.base.dtype == "auto" and self.machine.precision().dtype == "bfloat16"

    def choices(self, config: AnyRun) -> dict[str, str]:
        """What digits depend on and a run's folder notes: number format, attention, products, rounding."""
        return {
            "dtype": self.dtype(config),
            "attention": self.attention(config),
            "products": self.products(config),
            **({"weights": config.base.weights} if config.base.weights != "own" else {}),
        }

    def settle(self, config: AnyRun) -> None:
        """Let every process of a group run its model as the first one would, which measures what is open."""

        def measured() -> tuple[Precision | None, dict[str, Choice]]:
            self.choices(config)
            return self.machine.measured

        if self.group.size > 1:
            self.machine.measured = self.group.led(measured)

    def _begun(self, config: AnyRun) -> dict[str, Any]:
        """What the folder of a run notes, or that of the run which it scores; empty before it is begun."""
        scored = config.run if isinstance(config, EvaluateRun) else None
        return runs.noted(self.root / scored if scored else self.run(config).path)

    def gflops(self) -> float:
        """The measured matrix rate of the chosen number format, in GFLOP/s."""
        measured = self.machine.precision()
        return measured.rates[measured.dtype]

    @property
    def machine(self) -> Machine:
        """What this machine runs fastest, as the folder of runs notes it."""
        return self._machines.setdefault(self.root, Machine(self.root))

    def tasks(self, config: AnyRun) -> list[Task]:
        """A run's tasks, ready to read their rows."""
        return [self.task(spec) for spec in config.tasks]

    def task(self, spec: TaskSpec) -> Task:
        """A task, made once, so that its rows are read once."""
        key = spec.model_dump_json()
        if key not in self._tasks:
            self._tasks[key] = from_spec(spec, self.data_root)
        return self._tasks[key]

    def check_data(self, config: AnyRun) -> None:
        """Refuse files that changed since their rows were read.

        Raises:
            DataError: with both hashes.
        """
        for spec, split in product(config.tasks, splits(config)):
            then, now = self.task(spec).data_hash(split), from_spec(spec, self.data_root).data_hash(split)
            if then != now:
                raise DataError(
                    f"the {split} rows of {spec.name!r} changed while weft was at work "
                    f"(hash {then[:12]}…, now {now[:12]}…)",
                    where=f"task {spec.name}, {split} ({spec.files.get(split, '')})",
                    fix="run the same command again, which reads the new rows and trains what they change",
                    code="D21",
                )

    def run_id(self, config: AnyRun) -> str:
        """The name of a run's folder, which follows from its identity."""
        return runs.run_id(config, self.identity(config))

    def identity(self, config: AnyRun) -> str:
        """SHA-256 of a run's configuration, data and base model."""
        hashes = {
            f"{task.name}/{split}": task.data_hash(split)
            for task in self.tasks(config)
            for split in splits(config)
        }
        return runs.identity(
            config,
            base_hash=self.base(config).hash,
            data_hashes=hashes,
            encoder_hashes=self.encoder_hashes(config),
            chat_hash=self.chat_hash(config),
        )

    def chat_hash(self, config: AnyRun) -> str | None:
        """SHA-256 of the chat template that a run's texts are put into; none: they are read as they are."""
        return self.base(config).chat_hash if config.base.chat else None

    def encoder_hashes(self, config: AnyRun, noted: Mapping[str, str] = NOTHING) -> dict[str, str]:
        """SHA-256 over the files of every encoder that a run's method reads with, by name.

        Args:
            config: the run's.
            noted: hashes that a finished run notes, by name.
        """
        method = config.method if isinstance(config, EvaluateRun) else config.made_by
        names = method.also_reads if method else ()
        return {name: self.encoders.folder(name, noted.get(name)).hash for name in names}

    def run(self, config: AnyRun) -> Run:
        """The folder of a run, finished or not."""
        return Run(self.root / self.run_id(config))

    def company(self, config: AnyRun) -> set[str]:
        """The runs with which an unfinished run was begun in one batch, itself among them; or none."""
        return set(runs.noted(self.run(config).path).get("together", ()))

    @contextmanager
    def open(self, config: AnyRun, together: Sequence[str] = ()) -> Iterator[Run]:
        """A run folder to fill; it is finished when the block ends without an error.

        Of several processes, the first opens it; for the others it is a name.

        Args:
            config: the run's.
            together: the runs that train in one batch with it, itself among them.
        """
        torch.use_deterministic_algorithms(config.base.deterministic)
        if not self.group.leads:
            yield self.run(config)
            return
        base = self.base(config)
        env: dict[str, Any] = {"base": base.origin, "base_hash": base.hash}
        env |= {"embedding_hash": base.embedding_hash, "tokenizer_hash": base.tokenizer_hash}
        if chat := self.chat_hash(config):
            env["chat_hash"] = chat
        env["identity"] = self.identity(config)
        env |= {**self.choices(config), "position": self.position(config)}
        env["threads"] = torch.get_num_threads()
        if seen := sorted(base.seen & {task.name for task in config.tasks}):
            env["seen_in_pretraining"] = seen
        if encoders := self.encoder_hashes(config):
            env["encoders"] = encoders
        if len(together) > 1:
            env["together"] = list(together)
        env["processes"] = self.group.size
        for what in ("threads", "processes"):
            begun, now = runs.noted(self.run(config).path).get(what), env[what]
            if begun not in (None, now):
                self.progress.warn(f"begun with {begun} {what}, goes on with {now}: last digits may differ")
        if rates := self.machine.note():
            env["gflops"] = rates
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


def noted_choices(env: Mapping[str, Any]) -> dict[str, str]:
    """The choices that a finished run notes; one of before there was a choice has the library's."""
    return {
        "dtype": str(env.get("dtype", "float32")),
        "attention": str(env.get("attention", "library")),
        "products": str(env.get("products", "library")),
        **({"weights": str(env["weights"])} if "weights" in env else {}),
    }
