"""`manifest.json` of a bank: which files it has, and what they are; swapped atomically. Loads without torch.

It names a file before any task in the index does, and changes only with the files, so most changes leave it
as it is: the index says which generation holds.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from weft import storage
from weft.bank.forms import Dtype, Form, Kind
from weft.config.base import Config
from weft.errors import ArtifactError, UnsupportedError

NAME = "manifest.json"
FORMAT = 1
LARGEST = 4 << 20  # bytes
MOST = 10_000  # shards, and shared arrays: those that a manifest of that size can name
RESTORE = "restore the folder from a copy, or make the bank again (weft bank add)"
FACTS = (
    ("tokenizer (hash)", "A09", "tokenizer_hash"),
    ("base model (hash of embeddings)", "A08", "embedding_hash"),
    ("base model (hash of files)", "A08", "base_hash"),
    ("prompt position", "A07", "position"),
    ("chat template (hash)", "A07", "chat_hash"),
)
AXES: dict[Kind, int] = {"factors": 3, "prompt": 2, "readers": 0}  # l R d; P D; records
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Size = Annotated[int, Field(gt=0, lt=1 << 31)]


class BaseFacts(Config):
    """The one base model of all tasks, as `env.json` and the configuration of their runs have it.

    Attributes:
        name: where it came from, as `env.json` says.
        model: what the configuration of the first run calls it: a known name, a folder or a hub id.
        revision: of a hub id.
        base_hash: SHA-256 over all its files.
        embedding_hash: of its input embeddings.
        tokenizer_hash: of its tokenizer's files.
        position: where prompts stand.
        chat_hash: of the chat template that texts are put into, if they are.
    """

    name: str
    model: str
    revision: str | None = None
    base_hash: Sha
    embedding_hash: Sha
    tokenizer_hash: Sha
    position: Literal["prefix", "suffix"]
    chat_hash: Sha | None = None

    @model_serializer(mode="wrap")
    def _chats_alone_say_so(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Banks of texts that are read as they are have no such key, as all had before there was one."""
        values: dict[str, Any] = written(self)
        return values if self.chat_hash else {k: one for k, one in values.items() if k != "chat_hash"}


def check_same(found: BaseFacts, base: BaseFacts, where: str) -> None:
    """Refuse tasks of another base model than a bank's, as `runs.parents.check_fit` does; nothing is loaded.

    Args:
        found: what a run or an export notes.
        base: the bank's.
        where: for messages.

    Raises:
        ArtifactError: with both sides.
    """
    for what, code, theirs, ours in differences(found, base):
        raise ArtifactError(
            f"the tasks were trained on another {what}: {theirs}, and the bank's is {ours}",
            where=where,
            fix="a bank is of one base model: make another bank for them",
            code=code,
        )


def differences(found: BaseFacts, base: BaseFacts) -> Iterator[tuple[str, str, str, str]]:
    """By which facts two base models are not one: name, code of the fault, beginnings of both values."""
    for what, code, key in FACTS:
        theirs, ours = (getattr(one, key) or "none" for one in (found, base))
        if theirs != ours:
            yield what, code, theirs[:12], ours[:12]


class Shard(Config):
    """One file of rows; the index counts them."""

    kind: Kind
    shape: tuple[Size, ...]

    @model_validator(mode="after")
    def _shape_is_of_its_kind(self) -> "Shard":
        if len(self.shape) != AXES[self.kind]:
            raise ValueError(f"{self.kind} have {AXES[self.kind]} axes, not {len(self.shape)}")
        return self

    def form(self, dtype: Dtype) -> Form:
        """How its rows lie."""
        return Form(self.kind, self.shape, dtype)


class Group(Config):
    """What tasks share: name -> SHA-256 of an array; of factors the one array is P*."""

    kind: Kind
    arrays: dict[str, Sha]


class Manifest(Config):
    """What a bank is made of.

    Attributes:
        bank: drawn when it was made; its index has it too.
        generation: the one at which the files last changed; the index is at least as far.
        index: file of the index.
        shards: file -> what lies in it.
        arrays: SHA-256 of a shared array -> its shape; the file is `shared-<SHA-256>.f32`.
        groups: of tasks that share arrays.
    """

    format: Literal[1] = 1
    bank: str = Field(default_factory=lambda: secrets.token_hex(16), pattern=r"^[0-9a-f]{32}$")
    base: BaseFacts
    dtype: Dtype = "float32"
    generation: Count = 0
    index: str = Field("index-000000.sqlite", pattern=r"^index-[0-9]{6,}\.sqlite$")
    shards: dict[Annotated[str, Field(pattern=r"^(factors|prompt|readers)-[0-9]{6,}\.rows$")], Shard] = Field(
        default_factory=dict, max_length=MOST
    )
    arrays: dict[Sha, tuple[Size, ...]] = Field(default_factory=dict, max_length=MOST)
    groups: dict[Sha, Group] = Field(default_factory=dict, max_length=MOST)

    @property
    def files(self) -> set[str]:
        """The files of the generation, without those that SQLite puts beside its own."""
        return {NAME, self.index, *self.shards, *map(array_file, self.arrays)}


def array_file(sha256: str) -> str:
    """The file of a shared array, which proves itself by its name."""
    return f"shared-{sha256}.f32"


def write(folder: Path, manifest: Manifest) -> None:
    """Swap the manifest.

    Raises:
        UnsupportedError: if it names more files than a bank may have.
        ResourceError: if the disk refuses.
    """
    most = max(len(manifest.shards), len(manifest.arrays), len(manifest.groups))
    if most > MOST:
        raise UnsupportedError(
            f"the bank would have {most:,} shards or shared prompts; at most {MOST:,} fit",
            where=str(folder),
            fix="put tasks with shared prompts of their own into a second bank",
            code="A18",
        )
    values = manifest.model_dump(mode="json")
    storage.write_json(folder / NAME, {**values, "sha256": storage.sha256_json(values)})


def read(folder: Path) -> Manifest:
    """The manifest of a bank.

    Raises:
        ArtifactError: if there is none, it was changed, or another version of weft wrote it.
    """
    path = folder / NAME
    try:
        values = storage.strict_json(storage.read_plain(path, LARGEST))
    except FileNotFoundError:
        raise ArtifactError(
            "there is no bank: the folder has no manifest",
            where=str(path),
            fix="weft bank add BANK RUN makes one",
            code="A15",
        ) from None
    except ValueError as error:
        raise _other(path, f"is not JSON ({error})") from None
    return _parsed(values, path)


def _parsed(values: Any, path: Path) -> Manifest:
    if not isinstance(values, dict) or "bank" not in values:
        raise _other(path, "is not that of a bank")
    digest, version = values.pop("sha256", None), values.get("format")
    if type(version) is int and version > FORMAT:
        cause = f"this needs a version of weft that reads banks of format {version}; this one reads {FORMAT}"
        raise ArtifactError(cause, where=str(path), fix="use that version of weft", code="A20")
    if digest != storage.sha256_json(values):
        raise _other(path, "is not the one that was written")
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise _other(path, f"has other contents: {error.errors()[0]['msg']}") from None


def _other(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"the manifest {why}", where=str(path), fix=RESTORE, code="A01")
