"""Scores against numbers counted by hand, and what an evaluation must leave alone."""

import math

import pytest
import torch
from torch import nn

from kdcli.data import Split
from kdcli.engine.evaluate import evaluate
from kdcli.errors import KdcliError

PLAIN = ((0.0,) * 3, (1.0,) * 3)  # no normalisation: the network sees pixel / 255


class Spoken(nn.Module):
    """Answers the logits that are written in the pixels of an image's first row, first channel."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes
        self.norm = nn.BatchNorm1d(classes, affine=False)
        self.dropout = nn.Dropout(0.9)

    def forward(self, images):
        logits = 255 * images[:, 0, 0, : self.classes]
        self.norm(logits)  # in training mode its statistics would move
        return self.dropout(logits)


def split(rows: list[list[int]], labels: list[int]) -> Split:
    images = torch.zeros(len(rows), 3, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, : len(rows[0])] = torch.tensor(rows, dtype=torch.uint8)
    return Split(images, torch.tensor(labels))


SIX = split(
    [[9, 0, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0], [6, 5, 4, 3, 2, 1], [0, 0, 0, 9, 0, 0]], [0, 1, 5, 3]
)


@pytest.mark.parametrize("batch", [1, 3, 500])
def test_scores_are_those_counted_by_hand(batch):
    scores = evaluate(Spoken(6), SIX, *PLAIN, "cpu", batch)
    # Right at once: images 0 and 3; among the best five: image 1 too; image 2 is sixth.
    assert (scores.top1, scores.top5, scores.images) == (50.0, 75.0, 4)
    assert scores.per_class == (100.0, 0.0, None, 100.0, None, 0.0)
    sure, ladder = math.log(math.exp(9) + 5) - 9, math.log(sum(map(math.exp, range(6))))
    assert scores.loss == pytest.approx((2 * sure + (ladder - 4) + ladder) / 4, rel=1e-5)


def test_with_three_classes_every_answer_is_among_the_best_five():
    scores = evaluate(Spoken(3), split([[3, 1, 2], [3, 1, 2]], [0, 1]), *PLAIN, "cpu")
    assert (scores.top1, scores.top5) == (50.0, 100.0)


def test_images_are_normalised_before_the_network_sees_them():
    class Brightness(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) * torch.tensor([1.0, -1.0, 0.0])

    grey = Split(torch.full((2, 3, 4, 4), 102, dtype=torch.uint8), torch.tensor([0, 1]))  # 0.4
    dark = evaluate(Brightness(), grey, (0.5,) * 3, (0.25,) * 3, "cpu")
    light = evaluate(Brightness(), grey, (0.3,) * 3, (0.25,) * 3, "cpu")
    assert dark.per_class == (0.0, 100.0, None)
    assert light.per_class == (100.0, 0.0, None)


def test_a_network_comes_back_as_it_was_given():
    network = Spoken(6).train()
    network.norm.eval()  # a frozen norm inside a training network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate(network, SIX, *PLAIN, "cpu")
    assert network.training
    assert network.dropout.training
    assert not network.norm.training
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())


def test_a_network_that_answers_nan_is_never_right():
    class Broken(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 4), math.nan)

    scores = evaluate(Broken(), split([[0, 0, 0, 0]], [0]), *PLAIN, "cpu")
    assert (scores.top1, scores.top5) == (0.0, 0.0)
    assert math.isnan(scores.loss)


def test_labels_of_another_dataset_and_empty_splits_are_named():
    with pytest.raises(KdcliError, match=r"tells 3 classes apart.*up to 7") as caught:
        evaluate(Spoken(3), split([[1, 2, 3]], [7]), *PLAIN, "cpu")
    assert caught.value.code == 3
    with pytest.raises(KdcliError, match="no image"):
        evaluate(Spoken(3), Split(SIX.images[:0], SIX.labels[:0]), *PLAIN, "cpu")


@pytest.mark.gpu
def test_a_gpu_counts_as_the_cpu_does():
    here = evaluate(Spoken(6), SIX, *PLAIN, "cpu", 3)
    there = evaluate(Spoken(6).cuda(), SIX, *PLAIN, "cuda", 3)
    assert (there.top1, there.top5, there.per_class) == (here.top1, here.top5, here.per_class)
    assert there.loss == pytest.approx(here.loss, rel=1e-5)
