"""When a checkpoint is written: at every epoch's end, but not so often that a GPU waits for it."""

import pytest
import torch

from kdcli import recipes
from kdcli.engine.checkpoint import Checkpoints
from kdcli.engine.saved import APART, worth_saving
from tests import tiny
from tests.test_train import final


def test_a_gpu_is_saved_from_now_and_then_and_a_cpu_at_every_end():
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert worth_saving(cpu, 0.0)
    assert not worth_saving(cuda, APART / 2)
    assert worth_saving(cuda, APART)


@pytest.mark.parametrize(("worth", "kept"), [(True, [6, 9]), (False, [9])])
def test_the_last_end_is_always_saved(worth, kept, tmp_path, monkeypatch):
    monkeypatch.setattr("kdcli.engine.train.worth_saving", lambda device, seconds: worth)
    made = tiny.trainer(recipes.load("kd"), epochs=3, checkpoints=Checkpoints(tmp_path))
    whole, log = final(made)
    assert Checkpoints(tmp_path).steps() == kept
    again = tiny.trainer(recipes.load("kd"), epochs=3, checkpoints=Checkpoints(tmp_path))
    found, found_log = final(again)
    assert tiny.same(found, whole) and found_log == log
