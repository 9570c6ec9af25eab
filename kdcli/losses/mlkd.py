"""Jin, Wang, Lin: Multi-Level Logit Distillation. CVPR 2023, section 3.

Two views of each image, a weak and a strong one; p = softmax(z / tau), tau in {T, 3, 5, 2, 6}:

    kd_i = tau² KL( p_i^t || p_i^s )                                               of image i
    bc_i = | row i of p^t p^t' - p^s p^s' |²                                       of image i
    cc_c = | row c of p^t' p^t - p^s' p^s |²                                       of class c

p [B, K] holds a view's batch, p' is its transpose. m_i is 1 where the teacher's largest probability
on the weak view (tau = 1) is at most its median in the batch, n_c where the probability that class
c collects there is at most the median over the classes. With sums over all tau, and means over i
or c:

    "reference"  mean(m) (sum kd(weak) + sum bc(weak)) + mean(n) sum cc(weak)
                 + sum kd(strong; weak at the last two tau)
    "paper"      mean(m kd) + mean(m bc) + mean(n cc), of both views, each from its own logits

`form = "reference"` is what the authors' code computes, and so what is published: there the masks
meet numbers that are already means, the strong view's last two temperatures see the weak logits,
and the strong view's bc and cc are computed but not added.

`standardize` (see `kdcli.losses.kd`) reaches kd alone. The cross-entropy of the strong view is the
recipe's: a second `ce` with view = 1. The strong view's augmentation is the recipe's [data].
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.errors import unknown
from kdcli.losses import Context, Loss
from kdcli.losses.kd import standardize, wide

FORMS = ("reference", "paper")
FURTHER = (3.0, 5.0, 2.0, 6.0)  # temperatures beside the recipe's
SLIPPED = 2  # so many of the last temperatures see the weak view in both places
Pair = tuple[Tensor, Tensor]  # of student and teacher, [B, K] each


def divergences(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher || student) of each image; [B, K] twice -> [B]."""
    student, teacher = (F.log_softmax(z / temperature, dim=1) for z in (student, teacher))
    terms = F.kl_div(student, teacher, reduction="none", log_target=True)
    return temperature**2 * terms.sum(1)


def relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the products of columns, a row each; [B, K] probabilities -> [K]."""
    return (teacher.T @ teacher - student.T @ student).square().sum(1)


def below_median(values: Tensor) -> Tensor:
    """1 where a value is at most the median, the mean of the middle two; [N] -> [N]."""
    ordered, count = values.sort().values, len(values)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return (values <= median).to(values.dtype)


def masks(teacher: Tensor) -> Pair:
    """m and n; [B, K] weak logits of the teacher -> [B], [K]."""
    shares = teacher.softmax(1)
    return below_median(shares.max(1).values), below_median(shares.sum(0))


class MLKD(Loss):
    """Divergences of instances, batches and classes on two views at five temperatures."""

    views = 2
    reads = frozenset({"logits"})

    def __init__(
        self,
        ctx: Context,
        temperature: float = 4.0,
        form: str = "reference",
        standardize: bool = False,
    ):
        super().__init__(ctx)
        if form not in FORMS:
            raise unknown("form of loss 'mlkd'", form, FORMS)
        self.temperatures = (temperature, *FURTHER)
        self.form, self.standardize = form, standardize

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        pairs = [
            (wide(own.logits), wide(taught.logits.detach()))
            for own, taught in ((student, teacher), (student.others[0], teacher.others[0]))
        ]
        return sum((self.reference if self.form == "reference" else self.paper)(*pairs).values())

    def instances(self, pair: Pair) -> list[Tensor]:
        """kd at each temperature, [B] each."""
        if self.standardize:
            pair = tuple(map(standardize, pair))
        return [divergences(*pair, tau) for tau in self.temperatures]

    def batches(self, pair: Pair) -> list[Tensor]:
        """bc at each temperature, [B] each."""
        softened = ([(z / tau).softmax(1).T for z in pair] for tau in self.temperatures)
        return [relations(*sides) for sides in softened]

    def classes(self, pair: Pair) -> list[Tensor]:
        """cc at each temperature, [K] each."""
        softened = ([(z / tau).softmax(1) for z in pair] for tau in self.temperatures)
        return [relations(*sides) for sides in softened]

    def reference(self, weak: Pair, strong: Pair) -> dict[str, Tensor]:
        """The terms of the authors' code, by what they compare."""
        kept, slipped = self.instances(strong)[:-SLIPPED], self.instances(weak)[-SLIPPED:]
        rows, columns = (mask.mean() for mask in masks(weak[1]))
        return {
            "kd_weak": rows * _mean(self.instances(weak)),
            "kd_strong": _mean([*kept, *slipped]),
            "cc_weak": columns * _mean(self.classes(weak)),
            "bc_weak": rows * _mean(self.batches(weak)),
        }

    def paper(self, weak: Pair, strong: Pair) -> dict[str, Tensor]:
        """Every level of both views, each image and class by its own mask."""
        rows, columns = masks(weak[1])
        terms = {}
        for name, pair in (("weak", weak), ("strong", strong)):
            terms[f"kd_{name}"] = _mean([rows * value for value in self.instances(pair)])
            terms[f"cc_{name}"] = _mean([columns * value for value in self.classes(pair)])
            terms[f"bc_{name}"] = _mean([rows * value for value in self.batches(pair)])
        return terms


def _mean(values: list[Tensor]) -> Tensor:
    """Mean of each, summed over the temperatures; [N] each -> scalar."""
    return sum(value.mean() for value in values)
