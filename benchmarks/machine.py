"""What the machine is: processor, features, number formats, and the rates it reaches."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from weft.models import probe

FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
)
PACKAGES = ("weft", "torch", "transformers", "peft", "accelerate")
KINDS = {True: "with bf16 units", False: "without bf16 units"}


def facts() -> dict[str, Any]:
    """Everything that a number below may depend on, for JSON."""
    lines = _processor()
    flags = set(lines.get("flags", "").split())
    rates = probe(torch.device("cpu")).rates
    return {
        "processor": lines.get("model name", platform.processor() or "unknown"),
        "features": [name for name in FEATURES if name in flags],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "rates": {name: round(rate, 1) for name, rate in rates.items()},
        "kind": kind(rates),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def kind(rates: dict[str, float]) -> str:
    """Which column of the goals holds: bf16 products faster than fp32, or not."""
    return KINDS[rates["bfloat16"] > rates["float32"]]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _processor() -> dict[str, str]:
    """The first processor's entry in /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
