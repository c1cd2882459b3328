"""How far columns of views vary over other tasks: python -m recipes.sources.scales OPINIONS DATA MODEL

A few rows of a task say little of that. OPINIONS is the folder that recipes.sources.opinions wrote, DATA the
one with clinc150 and scitail; the demo's own tasks that are no targets of any table are read too. The file
goes into the package, beside the source run of the base model MODEL, with the hashes of both.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from weft import tasks
from weft.config.model import BaseConfig
from weft.data.selection import subset
from weft.evaluation.linear import STILL, deviations
from weft.evaluation.views import Views
from weft.methods.weft import SHARED
from weft.models import base_folder, load_backbone
from weft.runs import Run, bundled
from weft.storage import durable

ROWS = {"clinc150": 600, "opinion": 300, "scitail": 150}
DEMO = ("spam", "question", "topic", "sentiment", "paraphrase")
DEMO_ROWS, LIMIT = 100, 256


def texts_of(opinions: Path, data: Path) -> list[str]:
    """Different texts of the tasks, each as its template makes it."""
    here = Path(__file__).parent
    specs = tasks.named(["builtin", "../../demo/tasks", str(opinions.resolve())], here)
    counts = ROWS | dict.fromkeys(DEMO, DEMO_ROWS)
    found = []
    for name, count in counts.items():
        rows = subset(tasks.from_spec(specs[name], data).load("train"), count)
        found += [row.source for row in rows]
    return list(dict.fromkeys(found))


def prompts_of(model: str) -> dict[str, torch.Tensor]:
    """Of the source stage that comes with weft."""
    run, teachers = bundled.start(model)
    kept = {name: Run(bundled.FOLDER / model / one).tensors() for name, one in teachers.items()}
    shared = Run(bundled.FOLDER / model / run).tensors()["shared"]
    return {**{name: one["prompts"][0] for name, one in kept.items()}, SHARED: shared}


def _deviation(x: np.ndarray) -> np.ndarray:
    return deviations(x, share=STILL)[1].astype(np.float32)


def main(opinions: Path, data: Path, model: str, encoder: str = "minilm") -> None:
    """Scales of all views of a base model and an encoder."""
    folders = {name: base_folder.resolve(BaseConfig(model=name)) for name in (model, encoder)}
    place = bundled.prompt(model).position
    base = load_backbone(folders[model], dtype="float32", position=place)
    reader = load_backbone(folders[encoder], dtype="float32")
    views = Views(base, prompts_of(model), {encoder: reader})
    found = views.read(texts_of(opinions, data), LIMIT)
    scales = {json.dumps(view[:3]): _deviation(x) for view, x in found.items()}
    facts = {
        "models": {"": folders[model].hash, encoder: folders[encoder].hash},
        "sources": [bundled.start(model)[0]],
    }
    data_bytes = save(scales, {name: json.dumps(value) for name, value in facts.items()})
    path = bundled.FOLDER / model / bundled.SCALES
    durable.write_bytes(path, data_bytes)
    print(f"{len(scales)} views in {path}: {len(data_bytes):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
