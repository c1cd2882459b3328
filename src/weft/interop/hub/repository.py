"""What a repository of the hub holds: a run or a bank's export as weft writes it, and its card.

README.md                     the card
adapt-mpt-banking-s0-3f2a91c0/   the run, sealed: weft predict takes it as it is
adapter_config.json           where stock PEFT can hold the prompt: the same prompt once more,
adapter_model.safetensors     so that AutoPeftModel takes the repository as it is
bank/                         or, of a bank, its export, sealed: weft bank import takes it as it is
"""

import json
from dataclasses import dataclass
from pathlib import Path

from weft import bank as banks
from weft import runs, storage
from weft.bank import exchange
from weft.config.model import BaseConfig
from weft.errors import ResourceError
from weft.interop.hub.bank_card import bank_card
from weft.interop.hub.card import Told, card
from weft.interop.hub.released import check_no_places, hub_id, known_as, places_in, released
from weft.interop.hub.scores import scores_of
from weft.runs import Run
from weft.runs.places import Places
from weft.storage.prompt_files import CONFIG

BANK, CARD = "bank", "README.md"


@dataclass(frozen=True)
class Wish:
    """What is said of a repository beside what it holds.

    Attributes:
        repo: its name; empty where it has none yet.
        base_id: what the base model is called on the hub, perhaps with @COMMIT; none: as it is called here.
        base: where the base model of a run lies, if not where it was trained; PEFT's adapter is made with it.
        licence: of what is shared, as the hub spells it; none: not said.
    """

    repo: str = ""
    base_id: str | None = None
    base: str | None = None
    licence: str | None = None


def write(what: str, folder: Path, root: Path, wish: Wish) -> Path:
    """Write the repository of a run or of a bank as a folder.

    Args:
        what: a run's id or folder, or the folder of a bank.
        folder: where nothing is yet, or an empty folder.
        root: the folder of runs, with the run's evaluations.
        wish: what else is said.

    Raises:
        ArtifactError: if the run or the bank is not there, is unfinished or damaged.
        ConfigError: if the base model is a folder of this machine, and no other name is given.
        UnsupportedError: if it holds words of its rows, or a place of this machine.
        ResourceError: if something is there already, or the disk refuses.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ResourceError("something is there already", where=str(folder), fix="name another", code="C23")
    if exchange.is_bank(Path(what)):
        _write_bank(Path(what), folder, wish)
        places = [Path(what).resolve()]
    else:
        run = runs.find(root, what)
        home = runs.home(run, root)
        _write_run(run, folder, home, wish)
        places = [*places_in(run.config()), home.resolve(), run.path.resolve()]
    check_no_places(folder, [*places, Path.cwd()])
    return folder


def _write_run(run: Run, folder: Path, root: Path, wish: Wish) -> None:
    base = run.config().base
    known = known_as(base.model, base.revision, wish.base_id)
    found = scores_of(run, root)
    out = Run(released(run, known, folder))
    peft = _adapter(run, folder, root, known, wish.base)
    told = Told(out, known, found, wish.repo, wish.licence, peft)
    storage.write_text(folder / CARD, card(told))


def _adapter(run: Run, folder: Path, root: Path, known: BaseConfig, place: str | None) -> str:
    """PEFT's two files, where it can hold the run's prompt, and its type of the task; else nothing."""
    from weft.interop.peft_adapter import to_peft
    from weft.runs.workspace import Workspace

    config = run.config()
    hub, made_by = hub_id(known.model), config.made_by
    prompt = made_by is not None and not made_by.touches_weights and not made_by.reads_texts
    prompt = prompt and made_by is not None and (made_by.keeps in ("soft", "bank") or made_by.composes)
    if not prompt or hub is None or len(config.tasks) != 1 or run.env().get("position") != "prefix":
        return ""
    workspace = Workspace(root, keep_texts=False, places=Places(place))
    name = known.model_copy(update={"model": hub})
    to_peft(str(run.path), config.tasks[0].name, folder, workspace, name)
    return str(json.loads((folder / CONFIG).read_bytes())["task_type"])


def _write_bank(path: Path, folder: Path, wish: Wish) -> None:
    with banks.open(path).snapshot() as snapshot:
        known = known_as(snapshot.base.model, snapshot.base.revision, wish.base_id)
        base = snapshot.base.model_copy(update={"model": known.model, "revision": known.revision})
        exchange.export(snapshot, folder / BANK, base=base)
        storage.write_text(folder / CARD, bank_card(snapshot, base, wish.repo, wish.licence))
