"""Commands of the Hugging Face hub: push, pull."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.cli.app import RUNS, Base, DryRun, Runs, app, base_of

BaseId = Annotated[
    str | None,
    Parameter(help="what the base model is called on the hub (NAME[@COMMIT]), if it is a folder here"),
]
Licence = Annotated[
    str | None, Parameter(help="of what is shared, as the hub spells it: apache-2.0, mit, ...")
]


@app.command
def push(
    what: str,
    repo: str,
    *,
    private: Annotated[bool, Parameter(negative="", help="only those who may see it")] = False,
    base_id: BaseId = None,
    licence: Licence = None,
    runs: Runs = RUNS,
    base: Base = None,
    dry_run: DryRun = False,
) -> None:
    """Put WHAT (a finished run, or the folder of a bank) into the repository REPO (USER/NAME) of the hub.

    A card goes with it; neither rows nor places of this machine do. What it held of weft before is replaced.
    --dry-run prints the card and the files, and asks the hub nothing.
    """
    from weft.interop.hub import sharing
    from weft.interop.hub.repository import Wish

    wish = Wish(repo, base_id, base_of(base), licence)
    if dry_run:
        print(sharing.outline(what, runs, wish))
    else:
        print(sharing.pushed(what, runs, wish, private=private))


@app.command
def pull(
    repo: str,
    bank: Path | None = None,
    *,
    revision: Annotated[str | None, Parameter(help="a branch, a tag or a commit; else main")] = None,
    replace: Annotated[bool, Parameter(negative="", help="tasks that BANK has already are replaced")] = False,
    runs: Runs = RUNS,
) -> None:
    """Bring a run or a bank from the hub: a run into --runs, a bank's tasks into BANK; prints the folder.

    BANK is made if it is not there; without it, the bank has the repository's name. Every file is held
    against its SHA-256 before it gets its place.
    """
    from weft.interop import hub

    print(hub.pull(repo, bank, revision=revision, root=runs, replace=replace))
