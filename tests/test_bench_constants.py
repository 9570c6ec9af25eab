"""The constants that floors are computed from: what is measured, and of which convolutions."""

from dataclasses import replace

import pytest
import torch

from kdcli.analysis.cost import cost
from kdcli.bench import constants, kernels
from kdcli.models import build
from tests.test_bench import setting

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_the_work_of_a_convolution_is_what_a_cost_counts():
    first, *_ = found = kernels.shapes(("tiny8",))
    assert (first.inputs, first.groups, first.side) == (3, 1, 32)
    network = build("tiny8", classes=8)
    linear = 2 * network.head.in_features * network.head.out_features
    assert sum(shape.flops(1) for shape in found) == cost(network).flops_per_image - linear


def test_what_a_cpu_has_is_measured(monkeypatch):
    monkeypatch.setattr(constants, "PAIR", ("tiny16", "tiny8"))
    monkeypatch.setattr(constants, "CRD", (4, 64, 16))
    monkeypatch.setattr(kernels, "TURN", 0.0)
    told = dict(constants.measured(CPU, "shapes", "none"))
    assert told.keys() >= {"rates", "operator", "block", "contrast", "teacher, 64 at once"}
    assert "node" not in told and told["operator"] > 0
    assert told["contrast"].keys() == {"draw", "product", "gathered"}
    assert all(rate > 0 for rate in told["convolutions, 64, torch.float32"].values())


@pytest.mark.gpu
def test_graphs_are_measured_on_a_gpu():
    assert 0 < kernels.node(CUDA, 20) < kernels.operator(CUDA, 20)
    assert constants.side_by_side(replace(setting("kd"), device="cuda"), 2) > 0
