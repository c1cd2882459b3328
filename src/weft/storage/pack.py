"""A sealed folder as one file, and back: two lines of head, then the bytes of its files end to end.

    weft pack 1 <SHA-256 of the next line>
    {"name": "<of the folder>", "files": {"<name>": {"bytes": <count>, "sha256": "<hash>"}, …}}

Names are no paths; there is no link, no compression, and no byte between or behind the files. So a pack holds
what its head says, as large as it is, and nothing of it is written before all of it was hashed.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from weft.errors import ArtifactError, ResourceError
from weft.storage.durable import write_parts
from weft.storage.hashing import canonical_json, sha256_bytes, strict_json
from weft.storage.placing import checked, placed
from weft.storage.sealed import (
    LARGEST_MANIFEST,
    MANIFEST,
    Entries,
    entries,
    is_entry,
    open_plain,
    seal,
)

FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")  # no name of a folder is a path
MARK = b"weft pack 1 "
AGAIN = "copy the pack again, or pack the run again where it lies"


@dataclass(frozen=True)
class Head:
    """What a pack says it holds.

    Attributes:
        name: of the folder.
        files: its files.
        start: where their bytes begin.
    """

    name: str
    files: Entries
    start: int


def pack(folder: Path, out: Path) -> None:
    """Write a sealed folder as one file.

    Raises:
        ArtifactError: if a file of the folder is not the one that was sealed.
        ResourceError: if there is a file of that name, or the disk refuses.
    """
    if os.path.lexists(out):
        raise ResourceError("there is a file of that name", where=str(out), fix="name another", code="C23")
    files = entries(folder)
    line = canonical_json({"name": folder.absolute().name, "files": files}) + b"\n"
    size = len(line) + sum(row["bytes"] for row in files.values())
    write_parts(out, _parts(folder, files, line), size)


def _parts(folder: Path, files: Entries, line: bytes) -> Iterator[bytes]:
    yield MARK + sha256_bytes(line).encode() + b"\n" + line
    for name, row in files.items():
        with open_plain(folder / name) as file:
            yield from checked(file, row, f"{folder / name}", AGAIN)


def head(path: Path) -> Head:
    """What a pack holds; the bytes of its files are not read.

    Raises:
        ArtifactError: if it is no pack, or it is shorter or longer than it says.
    """
    if not path.exists():
        raise ArtifactError("there is no such file", where=str(path), fix="weft unpack FILE", code="D23")
    with _open(path) as file:
        first = file.readline(len(MARK) + 65)
        if not re.fullmatch(re.escape(MARK) + b"[0-9a-f]{64}\n", first):
            raise ArtifactError(
                "this is not a file of weft pack",
                where=str(path),
                fix="weft pack RUN OUT makes one",
                code="A20",
            )
        line = file.readline(LARGEST_MANIFEST)
        if sha256_bytes(line).encode() != first[len(MARK) : -1]:
            raise _damaged(path, "its head is not the one that was written")
        found = _parsed(line, path, file.tell())
        size = os.fstat(file.fileno()).st_size
    wanted = found.start + sum(row["bytes"] for row in found.files.values())
    if size != wanted:
        raise _damaged(path, f"it has {size:,} bytes and should have {wanted:,}")
    return found


def _open(path: Path) -> AbstractContextManager[BinaryIO]:
    return open_plain(path.resolve())  # a link to a pack is one's own affair


def _parsed(line: bytes, path: Path, start: int) -> Head:
    """The head, of which no name is a path."""
    try:
        found = strict_json(line)
    except ValueError as error:
        raise _damaged(path, f"its head cannot be read ({error})") from None
    if not isinstance(found, dict) or found.keys() != {"name", "files"}:
        raise _damaged(path, "its head says other things than name and files")
    name, files = found["name"], found["files"]
    named = isinstance(name, str) and FOLDER_NAME.fullmatch(name) is not None
    filed = isinstance(files, dict) and MANIFEST not in files
    if not named or not filed or not all(is_entry(*one) for one in files.items()):
        raise _damaged(path, "its head names no folder with files")
    return Head(name, files, start)


def _damaged(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"the pack is damaged: {why}", where=str(path), fix=AGAIN, code="A01")


def unpack(path: Path, found: Head, root: Path, accept: Callable[[Path], None]) -> Path:
    """Put a pack's folder back, whole or not at all; one that is there already is left as it is.

    Args:
        path: the pack.
        found: its head.
        root: the folder that its folder goes into.
        accept: looks at the folder before it gets its place, and raises what is wrong with it.

    Raises:
        ArtifactError: if the bytes are not those of the head, or another folder of that name is there.
        ResourceError: if the disk refuses, or another process unpacks there.
    """

    def fill(folder: Path) -> None:
        _check_bytes(path, found)
        _write(path, found, folder)
        accept(folder)

    return placed(root, found.name, found.files, fill)


def _check_bytes(path: Path, found: Head) -> None:
    """Hash everything once before anything is written."""
    with _open(path) as file:
        file.seek(found.start)
        for name, row in found.files.items():
            deque(checked(file, row, f"{path} ({name})", AGAIN), maxlen=0)


def _write(path: Path, found: Head, folder: Path) -> None:
    """The files, and the manifest after them."""
    with _open(path) as file:
        file.seek(found.start)
        for name, row in found.files.items():
            write_parts(folder / name, checked(file, row, f"{path} ({name})", AGAIN), row["bytes"])
    seal(folder, list(found.files))
