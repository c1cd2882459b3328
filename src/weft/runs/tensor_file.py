"""What a run's tensors say of themselves, and the strict reading of them. Format version 1.

A file is safetensors whose one metadata entry, `weft`, holds a JSON object, here called the label: which
run made the tensors, for which tasks and texts, on which base model. `docs/decisions/0007-format-1.md`
lists it. Bytes are believed in this order: size, header, names and shapes, finite values, size of the
values; the caller has checked the SHA-256 before, and compares the label with its own afterwards.
Nothing is unpickled, and no name in a file becomes a path. Loads without torch.
"""

from typing import Any

from weft.config.task import TaskSpec
from weft.errors import ArtifactError
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun
from weft.storage import RESTORE, canonical_json, sha256_json, strict_json
from weft.storage.tensor_header import (
    DTYPES,
    LARGEST,
    LARGEST_HEADER,
    WEIGHTS,
    WITH_BYTES,
    Entry,
    Numbers,
    entry_of,
    header,
    largest,
    numbers_of,
)

FORMAT = 1
AXES = {"soft": {"prompts": "KPD"}, "bank": {"shared": "PD", "u": "KPR", "v": "KRD"}}  # kind -> tensor shapes
BASE_KEYS = ("base", "base_hash", "embedding_hash", "tokenizer_hash")  # in env.json
Label = dict[str, Any]


def label(config: AnyRun, env: dict[str, Any], run: str, tensors: dict[str, tuple[int, ...]]) -> Label:
    """What a run's tensors must say of themselves.

    Args:
        config: the run's configuration.
        env: its `env.json`.
        run: its id.
        tensors: name -> shape.
    """
    made_by = config.made_by
    return {
        "format": FORMAT,
        "run": run,
        "kind": "none" if made_by is None else made_by.keeps,
        "method": config.method.name if isinstance(config, AdaptRun) else config.stage,
        "length": config.prompt.length,
        "width": tensors.get("prompts", tensors.get("shared", (0,)))[-1],
        "rank": tensors.get("u", (0,))[-1],
        "tasks": [{"name": task.name, **text_hashes(task)} for task in config.tasks],
        "base": {key: env.get(key) for key in BASE_KEYS},
        "parents": parents(config),
    }


def parents(config: AnyRun) -> list[str]:
    """The runs that a run was made from, each once."""
    names = list(getattr(config, "teachers", {}).values())
    names += [getattr(config, "source", None), config.run if isinstance(config, EvaluateRun) else None]
    return sorted({name for name in names if name})


def text_form(task: TaskSpec) -> dict[str, str]:
    """How a task's rows become text: what two runs must agree on to share a prompt."""
    return {"source": task.source, "target": task.target, "format": task.format}


def answer_words(task: TaskSpec) -> list[tuple[str, str]] | None:
    """Label and written word of every closed answer, in their order; none where answers are open."""
    labels = task.written().labels
    return None if labels is None else list(labels.items())


def text_hashes(task: TaskSpec) -> dict[str, str]:
    """SHA-256 of a task's text format and of its answer words."""
    return {"text": sha256_json(text_form(task)), "answers": sha256_json(answer_words(task))}


def write(tensors: dict[str, Any], label: Label) -> bytes:
    """Tensors and their label as one safetensors file."""
    from safetensors.torch import save

    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    data: bytes = save(contiguous, metadata={"weft": canonical_json(label).decode()})
    return data


def read(data: bytes, name: str, where: str) -> tuple[Label, dict[str, Any]]:
    """Label and tensors of a file whose bytes are those that were sealed.

    Args:
        data: the whole file.
        name: `prompts.safetensors` or `weights.safetensors`.
        where: for messages.

    Raises:
        ArtifactError: if anything in the file is not as format 1 has it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found, entries, start = _parse(data, name)
        _check_names(found, entries, name)
        _check_values({key: numbers_of(data, start, entry) for key, entry in entries.items()}, found["kind"])
        return found, load(data)
    except SafetensorError as error:
        cause = f"this is not a file of tensors: {error}"
        raise ArtifactError(cause, where=where, fix=RESTORE, code="A04") from None
    except ArtifactError as fault:
        raise ArtifactError(fault.cause, where=where, fix=RESTORE, code=fault.code) from None


def _fault(cause: str, code: str) -> ArtifactError:
    """What is wrong with a file, where the caller knows where the file lies."""
    return ArtifactError(cause, code=code)


def check_label(found: Label, expected: Label, where: str) -> None:
    """Refuse tensors that were made by another run than that of their folder.

    Raises:
        ArtifactError: naming what differs, with both sides.
    """
    if canonical_json(found) == canonical_json(expected):
        return
    differ = (
        key for key in sorted(found.keys() | expected.keys()) if _part(found, key) != _part(expected, key)
    )
    key = next(differ)
    raise ArtifactError(
        f"the tensors are not those of this run: their {key[:40]!r} is {_part(found, key)[:120]}, "
        f"and the run's is {_part(expected, key)[:120]}",
        where=where,
        fix=RESTORE,
        code="A14",
    )


def _part(label: Label, key: str) -> str:
    return canonical_json(label[key]).decode() if key in label else "not said"


def _parse(data: bytes, name: str) -> tuple[Label, dict[str, Entry], int]:
    """The label, the tensors' lines, and where the numbers begin."""
    if len(data) > LARGEST[name]:
        raise _fault(f"the file has {len(data):,} bytes; at most {LARGEST[name]:,} are read", "A03")
    try:
        lines, start = header(data, LARGEST_HEADER[name])
        metadata = lines.pop("__metadata__", None)
        entries = {key: entry_of(value, WITH_BYTES) for key, value in lines.items()}
        _check_cover(entries, len(data) - start)
        return _label_in(metadata), entries, start
    except ValueError as error:
        raise _fault(f"this is not a file of tensors: {error}", "A04") from None


def _check_cover(entries: dict[str, Entry], size: int) -> None:
    """The tensors lie one behind the other, and fill the file to its last byte."""
    place = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != place:
            raise ValueError(f"bytes {place} to {entry.begin} belong to no tensor, or to two")
        place = entry.end
    if place != size:
        raise ValueError(f"the tensors have {place:,} bytes, and {size:,} are there")


def _label_in(metadata: Any) -> Label:
    text = metadata.get("weft") if isinstance(metadata, dict) and len(metadata) == 1 else None
    if not isinstance(text, str):
        raise _fault("the file is not of format 1: it does not say what it holds", "A20")
    found = strict_json(text.encode())
    if not isinstance(found, dict):
        raise ValueError("its label is not a JSON object")
    check_format(found.get("format"))
    return found


def check_format(version: Any) -> None:
    """Refuse what another version of weft wrote in another format.

    Raises:
        ArtifactError: naming the format that is needed.
    """
    if type(version) is int and version > FORMAT:
        raise _fault(
            f"this needs a version of weft that reads format {version}; this one reads {FORMAT}", "A20"
        )
    if type(version) is not int or version < FORMAT:
        raise _fault(f"this was written before format {FORMAT} was fixed", "A20")


def _check_names(found: Label, entries: dict[str, Entry], name: str) -> None:
    """The tensors are those of their kind, with the sizes that the label says."""
    kind = found.get("kind")
    if name == WEIGHTS:
        weights = all(key.startswith("lm.") and one.dtype in DTYPES for key, one in entries.items())
        if kind != "weights" or not weights or not entries:
            raise _fault("the file holds other tensors than a model's weights", "A04")
        return
    if kind == "arrays":  # a method's own names; it checks their shapes against the model when it answers
        if not entries or any(entry.dtype not in ("F32", "BF16", "U8") for entry in entries.values()):
            raise _fault("a method's numbers must be F32, BF16 or U8, and there must be some", "A07")
        return
    if not isinstance(kind, str) or kind not in AXES or entries.keys() != AXES[kind].keys():
        raise _fault(f"the tensors {', '.join(sorted(entries))[:80]!r} are not those of a prompt", "A04")
    tasks = found.get("tasks")
    sizes = {"P": found.get("length"), "D": found.get("width"), "R": found.get("rank")}
    sizes["K"] = len(tasks) if isinstance(tasks, list) else None
    for key, axes in AXES[kind].items():
        expected = tuple(sizes[axis] for axis in axes)
        if entries[key].shape != expected or entries[key].dtype != "F32" or 0 in expected:
            raise _fault(
                f"{key!r} is {entries[key].dtype} {list(entries[key].shape)}, and should be F32 "
                f"{list(expected)} ({', '.join(axes)})",
                "A07",
            )


def _check_values(values: dict[str, Numbers], kind: str) -> None:
    """Every number is finite and of a sane size, and so are the prompts that a bank composes."""
    for name, value in values.items():
        largest(value, repr(name))
    if kind == "bank":
        for u, v in zip(values["u"], values["v"], strict=True):
            whole = values["shared"].astype(float) * (u.astype(float) @ v.astype(float))
            largest(whole, "'shared * (u v)'")
