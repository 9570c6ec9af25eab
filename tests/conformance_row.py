"""One comparison with a reference number."""

from typing import NamedTuple


class Row(NamedTuple):
    """What was compared, how far apart it is, and how far apart it may be."""

    name: str
    error: float
    tolerance: float
    ok: bool
    note: str
