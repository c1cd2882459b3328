"""The runner of the benchmarks: what fails is named and stops nothing, and losses are compared fairly."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import __main__ as runner
from benchmarks import inputs, ours, peers, smollm2_step, t5_step
from benchmarks.goals import Result, Settings
from weft.data.batch import Encoded
from weft.errors import ArtifactError

FACTS = {"processor": "p", "features": [], "cores": 2, "threads": 1, "rates": {"float32": 10.0}}
FACTS |= {"kind": "without bf16 units", "system": "s", "python": "3", "packages": {}}
ROWS = [Encoded((5, 6, 7), (8, 1)), Encoded((9,), (4, 1))]


def works(settings):
    """A benchmark that finds something."""
    return [Result("made up", [2.0], "nothing was run")]


def breaks(settings):
    """One that stops half-way."""
    raise AssertionError("the two sides differ")


def is_missing(settings):
    """One that lacks what it needs."""
    raise ArtifactError("the model is not there", fix="install it")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs benchmarks; gives the exit code and the names of those that left results."""
    monkeypatch.setattr(runner.machine, "facts", lambda: FACTS)

    def run(benchmarks, *names):
        monkeypatch.setattr(runner, "BENCHMARKS", benchmarks)
        code = 0
        try:
            runner.bench(*names, out=tmp_path, quick=True)
        except SystemExit as stop:
            code = stop.code
        return code, [
            one["benchmark"] for one in json.loads((tmp_path / "bench.json").read_text())["results"]
        ]

    return run


def test_what_fails_is_named_and_the_rest_goes_on(bench, capsys):
    """Two of four fail: the others' results are kept, both errors are said, the exit code is the first's."""
    made = {"one": works, "broken": breaks, "missing": is_missing, "last": works}
    assert bench(made) == (1, ["one", "last"])
    said = capsys.readouterr()
    assert "broken failed: AssertionError: the two sides differ" in said.err
    assert "missing failed: ArtifactError: the model is not there" in said.err
    assert said.err.splitlines()[-1] == "failed: broken, missing"
    assert "made up" in said.out
    assert bench(made, "missing", "one") == (4, ["one", "last"])
    assert bench(made, "last") == (0, ["one", "last"])


@pytest.mark.parametrize(
    ("dtype", "apart", "fits"),
    [
        (torch.bfloat16, 0.146, True),  # as found on a machine whose format it is
        (torch.bfloat16, 1.0, False),
        (torch.float32, 0.001, True),
        (torch.float32, 0.146, False),
    ],
)
@pytest.mark.parametrize("benchmark_", ["smollm2", "t5"])
def test_losses_may_differ_by_what_the_format_rounds(
    monkeypatch, make_backbone, benchmark_, dtype, apart, fits
):
    """Losses near 20: 0.7 % in bfloat16 is rounding, 5 % is not; in float32 0.7 % is no rounding."""
    backbone = make_backbone("llama-prefix").to(dtype)
    monkeypatch.setattr(inputs, "load", lambda *args, **kw: backbone)
    monkeypatch.setattr(peers, "loss_of", lambda model, batch: 20.0)
    monkeypatch.setattr(ours, "loss", lambda model, batch: 20.0 + apart)
    peer = SimpleNamespace(peft_config={"default": SimpleNamespace(num_virtual_tokens=4)})
    settings = Settings(1, True, None, None, str(dtype).removeprefix("torch."))

    def difference():
        if benchmark_ == "smollm2":
            return smollm2_step._difference(settings, peer, ROWS)
        return t5_step._difference(ours.prompts(backbone, 4, 1), peer, ROWS)

    if fits:
        assert difference() == pytest.approx(apart)
    else:
        with pytest.raises(AssertionError, match=r"20\.0"):
            difference()
