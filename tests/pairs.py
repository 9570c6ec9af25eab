"""Published pairs of networks as a loss sees them: shapes without numbers, no network is run."""

import torch
from torch import nn

from kdcli import losses, models
from kdcli.losses import Context


def context(teacher: str, student: str, classes: int = 100, size: int = 32) -> Context:
    """What a loss is built from, all of it on the meta device."""
    with torch.device("meta"):
        images = torch.zeros(2, 3, size, size)
        networks = [models.build(name, classes=classes).eval() for name in (student, teacher)]
        shown = [network.features(images) for network in networks]
        labels = torch.zeros(8, dtype=torch.int64)
    return Context(*shown, networks[1], classes, labels, 240)


def side_parameters(name: str, pair: str, **arguments: object) -> int:
    """Parameters that the loss `name` trains beside the student of `teacher->student`."""
    ctx = context(*pair.split("->"))
    with torch.device("meta"):
        return parameters(losses.build(name, ctx, **arguments))


def parameters(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
