"""Which embeddings a model has: SHA-256 of its input matrix. Loads without torch."""

from pathlib import Path

from weft.errors import ArtifactError
from weft.models.model_files import DOWNLOAD
from weft.storage import sha256_bytes
from weft.storage.tensor_header import Entry, entry_of, header_of, numbers_of

EMBEDDINGS = (  # names of the input embeddings in the weights files of known families
    *("shared.weight", "model.shared.weight", "model.embed_tokens.weight", "embed_tokens.weight"),
    *("transformer.wte.weight", "wte.weight", "model.decoder.embed_tokens.weight"),
    *("gpt_neox.embed_in.weight", "transformer.word_embeddings.weight"),
    "model.encoder.embed_tokens.weight",
    "encoder.embeddings.word_embeddings.weight",
    "embeddings.word_embeddings.weight",
    *(f"{kind}.embeddings.word_embeddings.weight" for kind in ("bert", "distilbert", "mpnet", "roberta")),
)


def embedding_hash(folder: Path) -> str:
    """SHA-256 of a model's input embedding matrix `[V, D]`: fp32, little-endian, row by row, as stored.

    Raises:
        ArtifactError: if no weights file of the folder holds it.
    """
    file, start, entry = find_embeddings(folder)
    with file.open("rb") as opened:
        opened.seek(start + entry.begin)
        numbers = numbers_of(opened.read(entry.end - entry.begin), -entry.begin, entry)
    return sha256_bytes(numbers.tobytes())


def find_embeddings(folder: Path) -> tuple[Path, int, Entry]:
    """Where a model's input embeddings lie: file, where its numbers begin, and the tensor; none is read.

    Raises:
        ArtifactError: if no weights file holds them in a number format that weft reads.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            lines, start = header_of(file)
            for name in EMBEDDINGS:
                if name in lines:
                    return file, start, entry_of(lines[name])
        except ValueError as error:
            raise ArtifactError(
                f"not a file of tensors that weft reads: {error}", where=str(file), fix=DOWNLOAD, code="A04"
            ) from None
    raise ArtifactError(
        f"no file holds the input embeddings ({', '.join(EMBEDDINGS)})",
        where=str(folder),
        fix="save the whole model with save_pretrained",
        code="A04",
    )
