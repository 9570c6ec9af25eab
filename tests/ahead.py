"""Tiny runs whose teacher answers from a bank, or ahead of time."""

import torch

from kdcli.engine.bank import Bank
from kdcli.engine.banked import Banked
from kdcli.engine.look_ahead import LookAhead
from kdcli.engine.view_answers import about
from tests import tiny


def final(trainer):
    history = trainer.fit()
    return tiny.snapshot(trainer.objective), [{**record, "seconds": 0} for record in history]


def banked(trainer, root, notes=None):
    """The same run with its teacher behind a bank in `root`."""
    network = trainer.objective.teacher.network
    told = about(network, "tiny16", tiny.dataset(), torch.device("cpu"))
    bank = Bank(root, told, note=(notes if notes is not None else []).append)
    trainer.objective.teacher = Banked(network, bank, trainer.loader, trainer.objective.reads)
    return trainer


def looking_ahead(trainer, steps=16):
    """The same run with a teacher that runs ahead of it."""
    made = trainer.objective
    made.teacher = LookAhead(made.teacher.network, trainer.loader, made.reads, steps, made.bf16)
    return trainer


def count_forwards(trainer):
    """Counts the images that the teacher's network is shown from now on."""
    network, seen = trainer.objective.teacher.network, []
    plain = network.features

    def features(images):
        seen.append(len(images))
        return plain(images)

    network.features = features
    return seen
