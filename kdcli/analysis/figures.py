"""The kinds of figures, by the name that --only takes; importing this imports neither torch nor
matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from kdcli.errors import KdcliError, unknown

if TYPE_CHECKING:
    from kdcli.analysis.draw import Piece
    from kdcli.analysis.study import Study

KINDS = {  # kdcli.analysis.MODULE has pieces(study); in the order of a report
    "time": "timing",
    "curves": "curves",
    "agreement": "agreement",
    "correlation": "correlation",
    "cka": "cka",
    "tsne": "tsne",
    "classes": "classes",
    "calibration": "calibration",
}


def chosen(only: str) -> list[str]:
    """`only` is names parted by commas, all kinds if empty; KdcliError for one that is not there.

    >>> chosen("tsne, time")
    ['time', 'tsne']
    """
    asked = {name.strip() for name in only.split(",") if name.strip()} or set(KINDS)
    for name in sorted(asked - KINDS.keys()):
        raise unknown("figure", name, KINDS)
    return [kind for kind in KINDS if kind in asked]


def pieces(
    study: Study, kinds: Iterable[str], tell: Callable[[str], None]
) -> Iterator[tuple[str, Piece | KdcliError]]:
    """Each figure that the runs allow, by kind; where they do not, the error says why."""
    for kind in kinds:
        tell(f"figure: {kind}")
        module = importlib.import_module(f"kdcli.analysis.{KINDS[kind]}")
        try:
            for piece in module.pieces(study):
                yield kind, piece
        except KdcliError as error:
            yield kind, error
