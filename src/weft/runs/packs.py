"""A finished run as one file, and back: all that it answers with but the base model. Its rows stay behind."""

from pathlib import Path

from weft.errors import ArtifactError
from weft.runs import config_file, contents
from weft.runs.folder import LOG, NOTES, Run
from weft.runs.root import find
from weft.storage import LARGEST_FILE, pack, tensor_header
from weft.storage.sealed import Entries

LARGEST = {  # bytes of the files that a trained run has
    **dict.fromkeys(("env.json", LOG, "timing.json", contents.RESULT, NOTES), LARGEST_FILE),
    "config.yaml": config_file.LARGEST,
    **tensor_header.LARGEST,
}


def packed(root: Path, name: str, out: Path) -> Path:
    """Write a finished run as one file.

    Args:
        root: the folder of runs.
        name: the run's id or folder.
        out: the file.

    Raises:
        ArtifactError: if the run is not finished, is damaged, or holds nothing to answer with.
        ResourceError: if there is a file of that name, or the disk refuses.
    """
    run = find(root, name)
    check_answers(run)
    pack.pack(run.path, out)
    return out


def unpacked(file: Path, root: Path) -> Run:
    """Put a run back from such a file, whole or not at all.

    Args:
        file: what `packed` wrote.
        root: the folder of runs.

    Raises:
        ArtifactError: if the file is damaged, is something else, or another folder of that name is there.
        ResourceError: if the disk refuses.
    """
    head = pack.head(file)
    check_files(head.files, str(file), "unpack what weft pack wrote, with the version of weft that wrote it")
    return Run(pack.unpack(file, head, root, lambda folder: check_moved(folder, str(file), pack.AGAIN)))


def check_files(files: Entries, where: str, fix: str) -> None:
    """Refuse files that no trained run has, before any of them is read.

    Raises:
        ArtifactError: naming the first.
    """
    for name, row in files.items():
        if row["bytes"] > LARGEST.get(name, -1):
            cause = f"{name!r} with {row['bytes']:,} bytes is no file of a trained run"
            raise ArtifactError(cause, where=where, fix=fix, code="A03")


def check_moved(folder: Path, where: str, again: str) -> None:
    """Refuse a run that was brought from elsewhere, and does not answer.

    Args:
        folder: of the run.
        where: it comes from, for messages.
        again: the remedy.

    Raises:
        ArtifactError: for the first fault.
    """
    try:
        check_answers(Run(folder))
    except ArtifactError as fault:
        fix = fault.fix if fault.code == "A20" else again  # another version of weft reads it
        raise ArtifactError(fault.cause, where=where, fix=fix, code=fault.code) from None


def check_answers(run: Run) -> None:
    """Refuse a run that holds nothing to answer with, or of which something is not as it was written.

    Raises:
        ArtifactError: for the first fault.
    """
    if run.config().made_by is None:
        fix = "name the run that it scored"
        raise ArtifactError("an evaluation has nothing to answer with", where=str(run.path), fix=fix)
    run.seconds()
    run.lines(LOG)
    run.saved()
