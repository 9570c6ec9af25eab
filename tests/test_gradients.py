"""Whether all is finite: one answer of many tensors, at a price that their number does not set."""

import pytest
import torch

from kdcli.engine.gradients import all_finite
from tests.tape import Tape


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_number_anywhere_is_seen(bad, place):
    tensors = [torch.ones(3), torch.zeros(2, 2), torch.ones((), dtype=torch.float64)]
    assert all_finite(tensors)
    tensors[place].view(-1)[0] = bad
    assert not all_finite(tensors)


def test_many_tensors_take_as_many_kernels_as_few():
    taken = []
    for count in (2, 200):
        tensors = [torch.ones(3) for _ in range(count)]
        with Tape() as tape:
            all_finite(tensors)
        taken.append([operator for operator, *_ in tape.calls])
    assert taken[0] == taken[1]
