"""ONE: the student is branch 1; gate and further branches belong to the loss and stay behind."""

import pytest
import torch
from torch.nn import functional as F

from kdcli import losses, models, recipes
from kdcli.contracts import Features
from kdcli.errors import KdcliError
from kdcli.losses import Context
from kdcli.losses.one import ensemble_distance, ramp_up
from tests import tiny
from tests.loss_inputs import STUDENT, TEACHER, batch
from tests.pairs import parameters

LABELS = torch.arange(6) % 3


def made(student="tiny8", **settings):
    torch.manual_seed(0)
    network = models.build(student, classes=10).eval()
    with torch.no_grad():
        shown = network.features(torch.randn(2, 3, 32, 32))
    loss = losses.build("one", Context(shown, None, None, 10, LABELS, 300), **settings)
    return loss, loss.wrap(network)


def test_known_value_of_a_branch():
    assert ensemble_distance(STUDENT, TEACHER, 3.0).item() == pytest.approx(1.25788577, abs=6e-9)


def test_the_weight_of_the_ensemble_ramps_up():
    found = ramp_up(torch.tensor([0, 40, 80, 200]), 80).tolist()
    assert found == pytest.approx([0.0067, 0.2865, 1.0, 1.0], abs=5e-5)
    assert ramp_up(torch.tensor([0, 7]), 0).tolist() == [1.0, 1.0]


def test_the_objective_is_the_papers_sum():
    loss, student = made(ramp=0, temperature=2.0)
    images = torch.randn(6, 3, 32, 32)
    shown = student.features(images)
    logits = [shown.logits] + [branch(shown.stages[-2]) for branch in loss.branches]
    gate = loss.gate(shown.stages[-2].mean((2, 3))).softmax(1)
    ensemble = sum(gate[:, [b]] * z for b, z in enumerate(logits))
    wanted = F.cross_entropy(ensemble, LABELS)
    q = (ensemble / 2).softmax(1) + 1e-7
    for z in logits:
        wanted += F.cross_entropy(z, LABELS)
        wanted += 4 * (q * (q.log() - (z / 2).log_softmax(1))).sum() / 6
    assert loss(shown, None, batch(LABELS)).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_the_ensemble_is_a_target_without_gradient():
    branch, ensemble = (torch.randn(4, 10, requires_grad=True) for _ in range(2))
    ensemble_distance(branch, ensemble, 3.0).backward()
    assert ensemble.grad is None and branch.grad.norm() > 0


def test_the_student_that_is_deployed_is_the_one_that_was_given():
    _, student = made()
    assert student.architecture == {"name": "tiny8", "classes": 10}
    assert parameters(student) == parameters(models.build("tiny8", classes=10))


@pytest.mark.parametrize("name", ["resnet8", "ResNet18", "wrn_16_1", "vgg8", "MobileNetV2"])
def test_every_branch_is_a_last_stage_with_weights_of_its_own(name):
    loss, student = made(name)
    tails = [student.tail, *loss.branches]
    sizes = [parameters(tail) for tail in tails]
    assert sizes[0] == sizes[1] == sizes[2] > parameters(student) / 10
    convolutions = [next(p for p in tail.parameters() if p.dim() == 4) for tail in tails]
    for other in convolutions[1:]:
        assert not torch.equal(other, convolutions[0])
        deviation = (2 / other[:, 0].numel()) ** 0.5
        assert other.std().item() == pytest.approx(deviation, rel=0.1)
    assert not torch.equal(convolutions[1], convolutions[2])


@pytest.mark.parametrize("settings", [{"branches": 2}, {"branches": 4}])
def test_there_are_as_many_branches_as_asked(settings):
    loss, _ = made(**settings)
    assert len(loss.branches) + 1 == settings["branches"] == loss.gate[0].out_features


def test_below_the_branches_the_statistics_move_once_a_step():
    trainer = tiny.trainer(recipes.load("one"))
    trainer.fit()
    counters = {
        name: value.item()
        for name, value in trainer.objective.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    assert set(counters.values()) == {6} and any("branches.1" in name for name in counters)


@pytest.mark.parametrize(
    ("student", "settings", "said"),
    [
        ("ShuffleV2", {}, "does not show as a part of its own"),
        ("torchvision:resnet18", {}, "does not show as a part of its own"),
        ("tiny8", {"branches": 1}, "at least 2 and 0"),
        ("tiny8", {"ramp": -1}, "at least 2 and 0"),
    ],
)
def test_what_cannot_be_branched_is_refused(student, settings, said):
    with pytest.raises(KdcliError, match=said):
        made(student, **settings)


def test_a_tail_that_does_not_continue_the_network_is_refused():
    network = models.build("vgg8", classes=10).eval()
    with torch.no_grad():
        shown = network.features(torch.randn(2, 3, 64, 64))  # pooled before the last group
    loss = losses.build("one", Context(shown, None, None, 10, LABELS, 300))
    with pytest.raises(KdcliError, match="vgg \\(32x32\\)"):
        loss.wrap(network)
    flat = Features(shown.logits, shown.pooled)
    with pytest.raises(KdcliError, match="two stages or more"):
        losses.build("one", Context(flat, None, None, 10, LABELS, 300))
