"""Penultimate features of the first classes in the plane, teacher and students side by side.

(van der Maaten, Hinton: Visualizing Data using t-SNE. JMLR 2008; as in the distillation papers, of
the features that the classifier sees.) The picture is of neighbourhoods alone; so the number beside
it is taken from the features themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from kdcli.analysis import draw
from kdcli.analysis.draw import COLOURS, MARKERS, Piece
from kdcli.analysis.naming import listed
from kdcli.analysis.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES, IMAGES, NEIGHBOURS, SEED = 20, 2000, 10, 0
PERPLEXITY = 30.0  # scikit-learn's; fewer than a third of the images always
ACROSS = 3  # panels in a row


class Plane(NamedTuple):
    """Some test images in the plane."""

    places: Tensor  # [n, 2] float32; neither axis has a meaning or a unit
    purity: float  # percent of the nearest neighbours, among the features, of the same class


def chosen(labels: Tensor, classes: int = CLASSES, images: int = IMAGES) -> Tensor:
    """Rows of the first `classes` classes, at most `images` of them, as many of each; [n] int64."""
    each = max(1, images // classes)
    rows = [torch.nonzero(labels == number).flatten()[:each] for number in range(classes)]
    return torch.cat(rows).sort().values


def purity(features: Tensor, labels: Tensor, neighbours: int = NEIGHBOURS) -> float:
    """Percent of each image's nearest `neighbours`, itself excluded, that are of its class.

    features [n, D], Euclidean distance; labels [n].

    >>> purity(torch.tensor([[0.0], [1.0], [9.0], [10.0]]), torch.tensor([0, 0, 1, 0]), 1)
    50.0
    """
    distance = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    nearest = distance.topk(min(neighbours, len(labels) - 1), largest=False).indices
    return 100 * (labels[nearest] == labels.unsqueeze(1)).double().mean().item()


def perplexity(images: int) -> float:
    """That of t-SNE on so many images."""
    return min(PERPLEXITY, (images - 1) / 3)


def plane(features: Tensor, labels: Tensor) -> Plane:
    """t-SNE from a PCA, fixed seed, on one thread: sums on several come in any order."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    method = TSNE(init="pca", perplexity=perplexity(len(labels)), random_state=SEED)
    with threadpool_limits(1):
        places = method.fit_transform(features.numpy())
    return Plane(torch.from_numpy(places), purity(features, labels))


def pieces(study: Study) -> Iterator[Piece]:
    """One figure, a panel a network."""
    classes = study.dataset.classes[:CLASSES]
    labels = study.dataset.test.labels
    index = chosen(labels, len(classes))
    found = {
        name: plane(each.pooled[index], labels[index]) for name, each in study.everyone().items()
    }
    rows = (
        [name, image, classes[label], *place]
        for name, each in found.items()
        for image, label, place in zip(
            index.tolist(), labels[index].tolist(), each.places.tolist(), strict=True
        )
    )
    yield Piece(
        "tsne",
        f"t-SNE of penultimate features, {study.place}, first {len(classes)} classes: "
        f"{listed(found)}",
        f"{len(index):,} test images; PCA initialisation, perplexity {perplexity(len(index)):.3g}, "
        f"seed {SEED}. "
        "Distances between clusters, their sizes and the axes mean nothing, and no two panels "
        "share a frame. The percentage is measured in the features and not in the plane: of each "
        f"image's {NEIGHBOURS} nearest neighbours, how many are of its class.",
        {"same_class_neighbours": {name: each.purity for name, each in found.items()}},
        ["network", "test image", "class", "x", "y"],
        rows,
        lambda: _draw(found, labels[index], classes),
    )


def _draw(found: dict[str, Plane], labels: Tensor, classes: tuple[str, ...]) -> Figure:
    across = min(ACROSS, len(found))
    figure, axes = draw.canvas(-(-len(found) // across), across, 3.3, 3.3)
    for place, (name, each) in zip(axes.flat, found.items(), strict=False):
        _scatter(place, each.places, labels, classes)
        place.set_title(f"{draw.wrapped(name)}\n{each.purity:.1f} % neighbours of the same class")
    for place in axes.flat[len(found) :]:
        place.axis("off")
    draw.legend_outside(figure, axes[0, 0], markerscale=1.8)
    return figure


def _scatter(axes: Any, places: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
    """Colour and marker together say the class: twenty colours alone nobody can tell apart."""
    for number, name in enumerate(classes):
        x, y = places[labels == number].T.numpy()
        axes.scatter(
            x, y, s=9, color=COLOURS[number % len(COLOURS)], linewidths=0, alpha=0.8,
            marker=MARKERS[number // len(COLOURS) % len(MARKERS)],
            label=draw.clipped(name.replace("_", " ")), rasterized=True,
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(True)
