"""What a person sees while runs go on: percentages and times to go, by a clock that the test sets."""

import pytest

from weft import progress
from weft.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    """Seconds as the test sets them."""
    seconds = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture
def stream(tmp_path):
    """A file, so no terminal."""
    with (tmp_path / "shown").open("w+", encoding="utf-8") as file:
        yield file


def lines(shown):
    shown.stream.flush()
    shown.stream.seek(0)
    return shown.stream.read().splitlines()


def test_the_first_line_comes_at_once_and_the_next_when_there_was_time(clock, stream):
    """A first step can take minutes, in which nobody should see nothing."""
    shown = Progress(total=200.0, stream=stream)
    shown.begin("teacher a", 100.0)
    clock[0] = 14
    shown.step(0.1, "step 1")
    assert lines(shown) == ["  0% teacher a  "]
    clock[0] = 15
    shown.step(0.5, "step 5")
    assert lines(shown)[1:] == [" 25% teacher a  step 5  [45 s to go]"]


def test_no_time_to_go_is_made_of_a_first_step(clock, stream):
    """It holds what is read ahead for all steps: a hundredth of the work says more."""
    shown = Progress(total=1000.0, stream=stream)
    shown.begin("teacher a", 1000.0)
    clock[0] = 150
    shown.step(0.009, "step 1")
    assert lines(shown)[-1] == "  1% teacher a  step 1"
    clock[0] = 200
    shown.step(0.02, "step 2")
    assert lines(shown)[-1] == "  2% teacher a  step 2  [2 h 43 min to go]"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_that_is_over_counts_whole(clock, stream, quiet):
    """Its units are done; what goes on beside it keeps its share. Quiet shows warnings alone."""
    shown = Progress(total=100.0, stream=stream, quiet=quiet)
    shown.begin("two together", 100.0)
    clock[0] = 30
    shown.end("one", 50.0, "dev 80.0")
    shown.warn("hot")
    said = [] if quiet else ["  0% two together  ", " 50% one  dev 80.0  [30 s to go]"]
    assert lines(shown) == [*said, "warning: hot"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
