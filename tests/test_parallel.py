"""One training by several processes: as one process would do it, and ended by name where one is lost."""

import pytest
import torch
from several import alone, together


def said(group):
    """What each of the group's calls gives."""
    mine = torch.full((2,), float(group.rank)), torch.ones(3, dtype=torch.float64)
    group.sum_(mine)
    first = torch.tensor([float(group.rank + 5)])
    group.copy_([first])
    return (
        group.led(lambda: ("of", group.rank, group.size)),
        group.agree(group.rank),
        group.most(10 * group.rank),
        [one.tolist() for one in mine],
        first.item(),
        group.every(lambda: group.rank),
    )


def test_what_processes_tell_each_other():
    """Rank 0's word for all, sums, the largest number; a process alone hears itself."""
    found = together(3, said)
    for rank, one in enumerate(found):
        assert one == (("of", 0, 1), 0, 20, [[3.0, 3.0], [3.0, 3.0, 3.0]], 5.0, rank)
    assert alone(said) == (("of", 0, 1), 0, 0, [[0.0, 0.0], [1.0, 1.0, 1.0]], 5.0, 0)
