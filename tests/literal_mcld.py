"""MCLD read literally, one sample and one formula at a time, with numpy: slow and separate."""

import math

import numpy as np

Array = np.ndarray
TRANSFORMS = {
    "normalise": lambda z: z / np.sqrt((z**2).sum()),
    "raw": lambda z: z,
    "zscore": lambda z: (z - z.mean()) / (z.std(ddof=1) + 1e-7),
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(),
}


def instance(student: Array, teacher: Array, queue: Array, tau: float, counted: Array) -> float:
    """Mean of -log(e^pos / (e^pos + sum of the counted e^neg)); `counted` [B, Q] bool."""
    losses = []
    for row, own, use in zip(student, teacher, counted, strict=True):
        positive = math.exp(row @ own / tau)
        below = sum(math.exp(row @ key / tau) for key, used in zip(queue, use, strict=True) if used)
        losses.append(-math.log(positive / (positive + below)))
    return sum(losses) / len(losses)


def sample(rows: Array, columns: Array, tau: float) -> float:
    """Mean of -log(e^own / sum over the batch)."""
    losses = []
    for i, row in enumerate(rows):
        scores = [math.exp(row @ column / tau) for column in columns]
        losses.append(-math.log(scores[i] / sum(scores)))
    return sum(losses) / len(losses)


def category(
    rows: Array, columns: Array, labels: Array, tau: float, form: str, diagonal: bool, lonely: str
) -> float:
    """Mean over the anchors of the chosen form."""
    losses, anchors = 0.0, 0
    for i, row in enumerate(rows):
        others = [j for j in range(len(columns)) if j != i or diagonal]
        e = {j: math.exp(row @ columns[j] / tau) for j in others}
        positives = [j for j in others if labels[j] == labels[i]]
        negatives = [j for j in others if labels[j] != labels[i]]
        if not positives or (form in ("ratio", "negatives") and not negatives):
            continue
        anchors += 1
        every, wrong = sum(e.values()), sum(e[j] for j in negatives)
        right = sum(e[j] for j in positives)
        if form == "out":
            losses -= sum(math.log(e[j] / every) for j in positives) / len(positives)
        elif form == "in":
            losses -= math.log(right / every)
        elif form == "ratio":
            losses += math.log((wrong / len(negatives)) / (right / len(positives)))
        else:
            losses -= sum(math.log(e[j] / wrong) for j in positives) / len(positives)
    return losses / (max(anchors, 1) if lonely == "skip" else len(rows))
