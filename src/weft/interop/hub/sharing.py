"""What users call: write a repository, push it, pull one, answer with one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from weft.bank import exchange
from weft.errors import ArtifactError, ConfigError, UnsupportedError
from weft.interop.hub import repository, transfers
from weft.interop.hub.repository import Wish
from weft.interop.hub.transfers import AGAIN, Fetched
from weft.runs import packs
from weft.storage import LARGEST_FILE, seal
from weft.storage.durable import write_parts
from weft.storage.placing import checked, placed
from weft.storage.sealed import Entries

if TYPE_CHECKING:
    from weft.serving.predictor import Predictor


def save_pretrained(
    what: str | Path,
    folder: str | Path,
    *,
    root: str | Path = "runs",
    base_id: str | None = None,
    base: str | Path | None = None,
    licence: str | None = None,
) -> Path:
    """Write a run or a bank as a folder that can be a repository of the hub: with a card, without rows.

    Args:
        what: a run's id or folder, or the folder of a bank.
        folder: where nothing is yet.
        root: the folder of runs that ids are looked up in.
        base_id: what the base model is called on the hub, with @COMMIT or without, if it is a folder here.
        base: where the base model of the run lies here, if not where it was trained.
        licence: of what is shared, as the hub spells it, such as apache-2.0.

    Raises:
        WeftError: as `repository.write`.
    """
    wish = Wish("", base_id, _text(base), licence)
    return repository.write(str(what), Path(folder), Path(root), wish)


def push_to_hub(
    what: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    root: str | Path = "runs",
    base_id: str | None = None,
    base: str | Path | None = None,
    licence: str | None = None,
) -> str:
    """Put a run or a bank into a repository of the hub, as one commit; the commit's address.

    Args:
        what: as in `save_pretrained`, and so are the others.
        repo_id: USER/NAME; made, if it is not there. What it held of weft before is replaced.
        private: only those who may see it; a repository that is public already is refused.
        root: the folder of runs.
        base_id: the base model on the hub.
        base: the base model here.
        licence: of what is shared.

    Raises:
        ArtifactError: if the hub refuses or cannot be reached.
        WeftError: as `repository.write`.
    """
    wish = Wish(repo_id, base_id, _text(base), licence)
    return pushed(str(what), Path(root), wish, private=private)


def pushed(what: str, root: Path, wish: Wish, *, private: bool) -> str:
    """See `push_to_hub`."""
    transfers.check_name(wish.repo)
    with TemporaryDirectory() as place:
        folder = repository.write(what, Path(place), root, wish)
        return transfers.upload(folder, wish.repo, private=private, message="Push with weft")


def outline(what: str, root: Path, wish: Wish) -> str:
    """What `pushed` would put up: the card, and the files with their sizes."""
    transfers.check_name(wish.repo)
    with TemporaryDirectory() as place:
        folder = repository.write(what, Path(place), root, wish)
        card = (folder / repository.CARD).read_text("utf-8")
        files = {
            path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
    return card + "\n" + "\n".join(f"{size:>13,}  {name}" for name, size in sorted(files.items()))


def pull(
    repo_id: str,
    out: str | Path | None = None,
    *,
    revision: str | None = None,
    root: str | Path = "runs",
    replace: bool = False,
) -> Path:
    """Bring a run or a bank from the hub, every file held against its SHA-256; its folder.

    Args:
        repo_id: USER/NAME.
        out: the bank that tasks go into, made if it is not there; none: one with the repository's name.
        revision: a branch, a tag or a commit; none: main.
        root: the folder of runs that a run goes into.
        replace: tasks that the bank has already are replaced.

    Raises:
        ArtifactError: if the hub refuses or cannot be reached, it is not of weft, or a file is torn.
        ConfigError: if a place for a bank is given, and it is a run.
    """
    bank = Path(out or repo_id.rpartition("/")[2])

    def check(files: Entries) -> None:
        if exchange.ABOUT not in files and (out is not None or replace):
            cause = f"{repo_id} is a run, which goes into the folder of runs"
            raise ConfigError(
                cause, where="BANK", fix="leave BANK and --replace out; name --runs", code="C12"
            )

    def put(found: Fetched) -> Path:
        to_bank = exchange.ABOUT in found.files
        return _put_bank(found, bank, replace) if to_bank else _put_run(found, Path(root))

    return _pulled(repo_id, revision, check, put)


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    root: str | Path = "runs",
    base: str | Path | None = None,
    encoders: Sequence[str | Path] = (),
) -> "Predictor":
    """A run from the hub, or from a folder of `save_pretrained`, ready to answer; see `weft.load`.

    Args:
        name: USER/NAME, or the folder.
        revision: a branch, a tag or a commit; none: main.
        root: the folder of runs that a run of the hub goes into.
        base: where its base model lies here; none: as the run says.
        encoders: likewise of encoders that it reads with.

    Raises:
        UnsupportedError: if it is a bank.
        ArtifactError: as `pull` and `weft.load`.
    """
    from weft.serving.predictor import load

    def check(files: Entries) -> None:
        if exchange.ABOUT in files:
            raise _no_run(str(name), f"weft pull {name} BANK, and weft serve BANK")

    def pulled() -> Path:
        return _pulled(str(name), revision, check, lambda found: _put_run(found, Path(root)))

    path = _in_folder(Path(name)) if Path(name).is_dir() else pulled()
    return load(path, root=root, base=base, encoders=encoders)


def _in_folder(folder: Path) -> Path:
    """The run in a repository that was written as a folder; else the folder itself.

    Raises:
        UnsupportedError: if a bank is in it.
    """
    if (folder / repository.BANK / exchange.ABOUT).is_file():
        raise _no_run(str(folder), f"weft bank import BANK {folder / repository.BANK}")
    found = [path.parent for path in folder.glob("*/config.yaml")]
    return found[0] if len(found) == 1 else folder


def _no_run(name: str, fix: str) -> UnsupportedError:
    return UnsupportedError("this is a bank, and not one run", where=name, fix=fix, code="C16")


def _text(place: str | Path | None) -> str | None:
    return None if place is None else str(place)


def _check_wanted(files: Entries, where: str) -> None:
    """Refuse files that neither a run nor a bank's export has, before they are downloaded.

    Raises:
        ArtifactError: naming the first.
    """
    fix = "name a repository that weft push made, and use the version of weft that made it"
    if exchange.ABOUT not in files:
        packs.check_files(files, where, fix)
        return
    for name, row in files.items():
        if not name.endswith((".json", ".jsonl", ".safetensors", ".yaml")) or row["bytes"] > LARGEST_FILE:
            cause = f"{name!r} with {row['bytes']:,} bytes is no file of a bank's export"
            raise ArtifactError(cause, where=where, fix=fix, code="A03")


def _fill(found: Fetched, folder: Path) -> None:
    """Copy a download, every file held against its hash as it is written."""
    for name, row in found.files.items():
        path = found.path / name
        if not path.is_file():
            raise ArtifactError(f"{name!r} is missing", where=found.where, fix=AGAIN, code="A01")
        with path.open("rb") as file:
            write_parts(folder / name, checked(file, row, f"{found.where}/{name}", AGAIN), row["bytes"])
    seal(folder, list(found.files))


def _pulled(
    repo: str, revision: str | None, check: Callable[[Entries], None], put: Callable[[Fetched], Path]
) -> Path:
    """Download, and put it where it goes; once more from the start, if what was downloaded before is torn.

    Args:
        repo: name of the repository.
        revision: of it.
        check: refuses what is not asked for, before it is downloaded.
        put: gives a download its place.
    """

    def wanted(files: Entries, where: str) -> None:
        _check_wanted(files, where)
        check(files)

    transfers.check_name(repo)
    try:
        return put(transfers.fetched(repo, revision, wanted))
    except ArtifactError as fault:
        if fault.code != "A01":
            raise
    return put(transfers.fetched(repo, revision, wanted, again=True))


def _put_run(found: Fetched, root: Path) -> Path:
    def fill(folder: Path) -> None:
        _fill(found, folder)
        packs.check_moved(folder, found.where, AGAIN)

    return placed(root, found.name, found.files, fill)


def _put_bank(found: Fetched, bank: Path, replace: bool) -> Path:
    """Take the tasks of a download into a bank."""
    with TemporaryDirectory() as place:
        folder = Path(place, found.name)
        _fill(found, folder)
        exchange.take(bank, folder, replace=replace)
    return bank
