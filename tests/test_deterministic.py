"""What `--deterministic` promises on a GPU: the same seed gives the same bits, in a graph too."""

import warnings

import pytest
import torch

from kdcli import recipes
from kdcli.bench.rates import as_convolutions
from kdcli.engine.capture import Captured, Eager
from kdcli.engine.speed import set_numerics
from tests import tiny

CUDA = torch.device("cuda")


def final(name, runner):
    trainer = tiny.trainer(recipes.load(name), epochs=8, runner=runner, device="cuda")
    trainer.fit()
    return tiny.snapshot(trainer.objective)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["kd", "crd", "mcld", "at", "reviewkd", "catkd", "dot+kd"])
@pytest.mark.parametrize("runner", [Eager, Captured])
def test_deterministic_runs_repeat_their_bits(name, runner):
    set_numerics(CUDA, "tf32", deterministic=True)
    assert tiny.same(final(name, runner), final(name, runner))


def test_what_the_switches_of_a_run_are(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # and taken back afterwards
    for precision, tf32 in (("tf32", True), ("bf16", True), ("fp32", False)):
        for strict in (False, True):
            set_numerics(CUDA, precision, deterministic=strict)
            assert torch.backends.cudnn.allow_tf32 == tf32
            assert not torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.benchmark != strict
            assert torch.are_deterministic_algorithms_enabled() == strict
            assert not torch.utils.deterministic.fill_uninitialized_memory


def test_no_reader_is_told_of_newer_switches(monkeypatch):
    def switch(value):
        warnings.warn("Please use the new API settings to control TF32 behavior", stacklevel=2)

    with monkeypatch.context() as patched, warnings.catch_warnings():
        patched.setattr(torch._C, "_set_cublas_allow_tf32", switch)
        warnings.simplefilter("error")
        set_numerics(CUDA, "tf32", deterministic=False)
        with as_convolutions(torch.device("cpu")):
            pass
