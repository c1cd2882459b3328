"""Which embeddings a model has: SHA-256 of its input matrix. Loads without torch."""

from pathlib import Path

from weft.errors import ArtifactError
from weft.storage import sha256_bytes, strict_json
from weft.storage.tensor_header import LARGEST_HEADER, WEIGHTS, Numbers, entry_of, numbers_of

EMBEDDINGS = (  # names of the input embeddings in the weights files of known families
    *("shared.weight", "model.shared.weight", "model.embed_tokens.weight", "embed_tokens.weight"),
    *("transformer.wte.weight", "wte.weight", "model.decoder.embed_tokens.weight"),
    *("gpt_neox.embed_in.weight", "transformer.word_embeddings.weight"),
    "encoder.embeddings.word_embeddings.weight",
    "embeddings.word_embeddings.weight",
    *(f"{kind}.embeddings.word_embeddings.weight" for kind in ("bert", "distilbert", "mpnet", "roberta")),
)


def embedding_hash(folder: Path) -> str:
    """SHA-256 of a model's input embedding matrix `[V, D]`: fp32, little-endian, row by row, as stored.

    Raises:
        ArtifactError: if no weights file of the folder holds it.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            found = _embeddings_in(file)
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"not a file of tensors: {error}", where=str(file), code="A04") from None
        if found is not None:
            return sha256_bytes(found.tobytes())
    raise ArtifactError(f"no file holds the input embeddings ({', '.join(EMBEDDINGS)})", where=str(folder))


def _embeddings_in(file: Path) -> Numbers | None:
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        lines = strict_json(opened.read(min(size, LARGEST_HEADER[WEIGHTS])))
        names = [name for name in EMBEDDINGS if name in lines]
        if not names:
            return None
        entry = entry_of(lines[names[0]])
        opened.seek(8 + size + entry.begin)
        return numbers_of(opened.read(entry.end - entry.begin), -entry.begin, entry)
