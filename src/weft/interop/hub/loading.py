"""The part of a card that says how its run is loaded: in weft, over HTTP, as a start, in PEFT."""

import json

from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.interop.hub.markdown import code, fence
from weft.interop.hub.released import hub_id
from weft.runs.config import AnyRun, SourceRun
from weft.tasks import template

REPO = "USER/NAME"  # stands for the repository's name where there is none yet
AUTO = {"CAUSAL_LM": "AutoPeftModelForCausalLM", "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM"}
OTHER = " PEFT loads the hub's own weights, which are not those of weft, and scores differ on them."


def loading(run: str, config: AnyRun, base: BaseConfig, repo: str, peft: str) -> str:
    """How a run is loaded.

    Args:
        run: its id.
        config: its configuration.
        base: its base model, as others know it.
        repo: the repository's name.
        peft: PEFT's type of the task, if the repository holds an adapter; else empty.
    """
    row = json.dumps(dict.fromkeys(template.names(config.tasks[0].source), "..."), ensure_ascii=False)
    parts = [
        fence(
            "", f"weft pull {repo}      # into runs/; every file is held against its SHA-256", _predict(run)
        ),
        "In Python:",
        fence(
            "python", "import weft", "", f'model = weft.from_pretrained("{repo}")', f"model.predict([{row}])"
        ),
    ]
    if config.made_by is not None and config.made_by.fits_bank:
        parts += ["Over HTTP, with any number of other tasks of the same base model:"]
        parts += [fence("", f"weft bank add my-bank {run}", "weft serve my-bank")]
    if isinstance(config, SourceRun):
        parts += ["As the start of a new task, in the file of `weft adapt`:"]
        length = f"prompt: {{length: {config.prompt.length}}}"
        parts += [fence("yaml", f"source: {run}", length, "method: {name: mpt, start: nearest}")]
    if peft:
        parts += [_peft(config.tasks[0], repo, base, AUTO[peft])]
    return "\n\n".join(parts)


def _predict(run: str) -> str:
    return f"weft predict {run} new-rows.csv"


def _peft(spec: TaskSpec, repo: str, base: BaseConfig, name: str) -> str:
    other = "" if hub_id(base.model) == base.model else OTHER
    told = (
        f"Stock PEFT loads the same prompt; the model reads {code(spec.source)}, with a row's columns in it."
    )
    lines = fence("python", f"from peft import {name}", "", f'model = {name}.from_pretrained("{repo}")')
    return f"{told}{other}\n\n{lines}"
