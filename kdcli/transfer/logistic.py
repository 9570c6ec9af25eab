"""Multinomial logistic regression on frozen features, solved to its optimum by L-BFGS.

Kornblith, Shlens, Le: Do Better ImageNet Models Transfer Better? CVPR 2019, arXiv:1805.08974,
judges fixed features so: no learning rate, schedule or seed of the weights is left to argue about.
Minimised is mean cross-entropy + decay / 2 |W|², the bias free, on features of mean 0 and
deviation 1; C = 1 / (decay N) is scikit-learn's. The decay is chosen by accuracy on held-out
training images, then all training images are fitted with it. The test images choose nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.data.plan import generator
from kdcli.errors import DATA, KdcliError
from kdcli.transfer.features import (
    Frozen,
    Report,
    Scored,
    common,
    score,
    standardized,
    with_ones,
)

CANDIDATES = tuple(round(10 ** (-half / 2), 9) for half in range(13))  # decays: 1 to 1e-6
HELD_OUT = 0.2  # of each class's training images, at least one
PATIENCE = 3  # candidates in a row without a better accuracy end the search
ROUGH, TIGHT = 1e-4, 1e-6  # largest entry of the gradient: of the search, of the answer
ITERATIONS = 2000


@dataclass(frozen=True, kw_only=True)
class LogisticScored(Scored):
    """Of logistic regression; `settings` has the decay, as C too, and what it was chosen from."""

    loss: float  # cross-entropy
    train_top1: float
    train_loss: float
    held_out_top1: float  # of the chosen decay, on the images that chose it
    iterations: int
    gradient: float  # its largest entry in the end
    converged: bool  # that is at most `TIGHT`


class Optimum(NamedTuple):
    """Where L-BFGS ended."""

    weight: Tensor  # [D + 1, K] as exact as the inputs, the bias last
    iterations: int
    gradient: float  # largest entry


def solve(
    inputs: Tensor, labels: Tensor, classes: int, decay: float, start: Tensor | None = None,
    tolerance: float = TIGHT,
) -> Optimum:  # fmt: skip
    """Minimise over inputs [N, D + 1], its last column ones, and labels [N].

    From `start` [D + 1, K], or zero. The optimum is one point up to a number added to all biases.
    """
    count = len(labels)
    weight = inputs.new_zeros(inputs.shape[1], classes) if start is None else start.clone()
    weight.requires_grad_()
    rows = torch.arange(count, device=labels.device)

    @torch.no_grad()
    def objective() -> Tensor:
        """Its value; the gradient is written out, which takes half of autograd's memory."""
        logs = F.log_softmax(inputs @ weight, dim=1)
        value = -logs[rows, labels].mean() + decay / 2 * weight[:-1].square().sum()
        error = logs.exp_()
        error[rows, labels] -= 1
        weight.grad = inputs.T @ error / count
        weight.grad[:-1] += decay * weight[:-1]
        return value

    optimizer = torch.optim.LBFGS(
        [weight], max_iter=ITERATIONS, tolerance_grad=tolerance, tolerance_change=0,
        history_size=10, line_search_fn="strong_wolfe",
    )  # fmt: skip
    optimizer.step(objective)
    objective()
    state = optimizer.state[weight]
    return Optimum(weight.detach(), state.get("n_iter", 0), weight.grad.abs().max().item())


def split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rows that fit and rows that choose: of each class the same share, drawn by `seed`.

    A class of one image only fits. KdcliError (data) when no class has two.
    """
    fit, choose = [], []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        drawn = torch.randperm(len(rows), generator=generator(seed, label, 2)).to(rows.device)
        taken = max(1, round(HELD_OUT * len(rows))) if len(rows) > 1 else 0
        choose.append(rows[drawn[:taken]])
        fit.append(rows[drawn[taken:]])
    held = torch.cat(choose)
    if not len(held):
        raise KdcliError(
            "logistic regression chooses its decay on held-out training images: some class must "
            "have two of them. --solver sgd and knn choose nothing.",
            DATA,
        )
    return torch.cat(fit), held


def choose(
    inputs: Tensor, labels: Tensor, classes: int, seed: int, report: Report | None = None
) -> tuple[float, float, Tensor]:
    """The decay with the highest held-out top-1, the greatest of equals; that top-1, its weights.

    Candidates fall, each from the optimum of the one before, in float32: this only has to rank.
    """
    inputs = inputs.float()
    fit, held = split(labels, seed)
    best, chosen, kept, start, worse = -1.0, 0.0, inputs, None, 0
    for number, decay in enumerate(CANDIDATES):
        start = solve(inputs[fit], labels[fit], classes, decay, start, ROUGH).weight
        right = (inputs[held] @ start).argmax(1) == labels[held]
        top1 = 100 * right.double().mean().item()
        worse = 0 if top1 > best else worse + 1
        if top1 > best:
            best, chosen, kept = top1, decay, start
        if report:
            report(number + 1, len(CANDIDATES) + 1, f"decay {decay:g}: held-out top-1 {top1:.2f} %")
        if worse == PATIENCE:
            break
    return chosen, best, kept


def logistic(found: Frozen, *, seed: int, report: Report | None = None) -> LogisticScored:
    """Regression on all training features, with the decay that some of them choose.

    `seed` draws the held-out images and decides nothing else. float64 on the features' device, or
    on the CPU where that has none (MPS).
    """
    began = time.perf_counter()
    place = "cpu" if found.train.device.type == "mps" else found.train.device
    labels, wanted = found.labels.to(place), found.wanted.to(place)
    train, test = (
        with_ones(features)
        for features in standardized(found.train.to(place).double(), found.test.to(place).double())
    )
    decay, held_out, near = choose(train, labels, found.classes, seed, report)
    optimum = solve(train, labels, found.classes, decay, near.double())
    scores = score(test @ optimum.weight, wanted, began)
    fitted = score(train @ optimum.weight, labels, began)
    if report:
        report(len(CANDIDATES) + 1, len(CANDIDATES) + 1, f"top-1 {scores.top1:.2f} %")
    return LogisticScored(
        solver="lbfgs",
        top1=scores.top1,
        top5=scores.top5,
        loss=scores.loss,
        train_top1=fitted.top1,
        train_loss=fitted.loss,
        held_out_top1=held_out,
        iterations=optimum.iterations,
        gradient=optimum.gradient,
        converged=optimum.gradient <= TIGHT,
        settings={
            "weight_decay": decay,  # as SGD means it: of the mean loss
            "C": 1 / (decay * len(labels)),
            "candidates": list(CANDIDATES),
            "held_out": HELD_OUT,
            "seed": seed,
            "standardized": True,
        },
        **common(found, began),
    )
