"""Losses and the student they train: built for what is trained, whichever stands first."""

import pytest
import torch

from kdcli import models
from kdcli.engine.objective import assemble
from kdcli.errors import KdcliError
from kdcli.losses.simkd import Reused

IMAGES, LABELS = torch.zeros(2, 3, 32, 32), torch.arange(64) % 8


def made(*terms, **settings):
    torch.manual_seed(0)
    networks = [models.build(name, classes=8) for name in ("tiny8", "tiny16")]
    chosen = {term: settings.get(term, {}) for term in terms}
    return networks, *assemble(networks[0], networks[1:], chosen, IMAGES, LABELS, 8, 10)


@pytest.mark.parametrize("terms", [("dcd", "simkd"), ("simkd", "dcd")], ids="+".join)
def test_a_loss_beside_one_that_rebuilds_the_student_sees_the_rebuilt_one(terms):
    _, student, losses = made(*terms)
    assert isinstance(student, Reused)
    assert tuple(losses) == terms
    shown = student.features(torch.randn(4, 3, 32, 32))
    assert losses["dcd"].embed_student.in_features == shown.pooled.shape[1] == 96


def test_without_such_a_loss_the_student_is_the_one_that_came():
    (student, _), found, losses = made("ce", "kd")
    assert found is student and tuple(losses) == ("ce", "kd")


def test_one_file_gives_two_terms():
    _, _, losses = made("kd", "cold", cold={"use": "kd", "temperature": 1.0})
    assert (losses["kd"].temperature, losses["cold"].temperature) == (4.0, 1.0)


def test_probing_moves_no_statistics():
    networks, _, _ = made("ce", "fitnet")
    for network in networks:
        counters = [value for key, value in network.state_dict().items() if "batches" in key]
        assert counters and not any(counters)


def test_two_losses_that_rebuild_the_student_are_refused():
    with pytest.raises(KdcliError, match="simkd and catkd each rebuild the student"):
        made("ce", "simkd", "catkd")
