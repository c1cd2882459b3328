"""The folder of runs: what is made in it, found and listed. Loads without torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weft import storage
from weft.config.describe import to_yaml
from weft.errors import ArtifactError, ResourceError, did_you_mean
from weft.runs import bundled
from weft.runs.config import AnyRun
from weft.runs.folder import Run, noted
from weft.runs.identity import environment


@contextmanager
def create(root: Path, name: str, config: AnyRun, env: dict[str, Any]) -> Iterator[Run]:
    """An open run folder, held against other processes; finished when the block ends without an error.

    Raises:
        ResourceError: if another process works on it or has finished it, or the disk refuses.
    """
    run = Run(root / name)
    with storage.locked(run.path):
        if run.done:
            raise ResourceError(
                "another process has finished this run meanwhile",
                where=str(run.path),
                fix="run the same command again: it goes on from there",
                code="R12",
            )
        storage.sweep(run.path)
        begun = noted(run.path)
        if begun:
            _check_same(run, begun, env)
            run.own("env.json")
        else:
            run.write_json("env.json", {**environment(), "run": name, **env})
        run.write("config.yaml", to_yaml(config))
        yield run
        storage.seal(run.path, run.files)
        run.tidy()


def _check_same(run: Run, begun: dict[str, Any], env: dict[str, Any]) -> None:
    """A folder's name holds a part of the identity only; what goes on in it must be the same run."""
    if begun.get("identity") != env.get("identity"):
        raise ArtifactError(
            f"the folder belongs to another run (identity {str(begun.get('identity'))[:12]}…)",
            where=str(run.path),
            fix="move the folder away, or choose another with --runs",
            code="C23",
        )


def find(root: Path, name: str) -> Run:
    """A finished run by id or folder.

    Raises:
        ArtifactError: with the nearest known id, if there is none; or if it is unfinished.
    """
    for path in (root / name, Path(name), *bundled.places(name)):
        if (path / "adapter_config.json").is_file():
            raise ArtifactError(
                "this is an adapter of PEFT, not a run of weft",
                where=str(path),
                fix="name a run: weft writes adapters (weft export), and reads none",
                code="C16",
            )
        if (path / "config.yaml").is_file():
            run = Run(path)
            run.check_done()
            return run
    known = [path.name for path in root.glob("*") if (path / "config.yaml").is_file()]
    raise ArtifactError(
        f"there is no run {name!r}", where=str(root), fix=did_you_mean(name, known), code="C12"
    )


def home(run: Run, root: Path) -> Path:
    """The folder of runs that a run lies in; for one that comes with weft, the given one."""
    own = run.path.absolute().parent
    return root if bundled.ships(run) or own == root.absolute() else own


def finished(root: Path) -> list[Run]:
    """All finished runs of a folder, by name."""
    return [
        Run(path)
        for path in sorted(root.glob("*"))
        if storage.is_sealed(path) and (path / "config.yaml").is_file()
    ]
