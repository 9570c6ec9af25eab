"""Compare every loss with recorded numbers: `python -m tests.golden_losses FOLDER`.

FOLDER holds `losses/<name>.safetensors`; sizes and hyper-parameters are read from the files.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from tests import (
    golden_contrast,
    golden_features,
    golden_logits,
    golden_maps,
    golden_relations,
    golden_softened,
)
from tests.conformance_row import Row
from tests.golden_case import compare, read

ADAPTERS = (
    golden_logits.ADAPTERS
    | golden_softened.ADAPTERS
    | golden_contrast.ADAPTERS
    | golden_maps.ADAPTERS
    | golden_features.ADAPTERS
    | golden_relations.ADAPTERS
)


def check(directory: Path) -> Iterator[Row]:
    """One row a number: losses, terms, gradients, and buffers after the call."""
    for path in sorted((directory / "losses").glob("*.safetensors")):
        if path.stem not in ADAPTERS:
            yield Row(path.stem, float("inf"), 0.0, False, "no such loss")
            continue
        for case, expected in read(path):
            yield from compare(case, expected, ADAPTERS[path.stem])


if __name__ == "__main__":
    rows = list(check(Path(sys.argv[1])))
    for found in rows:
        if not found.ok:
            print(f"{found.name}: {found.error:.3g} > {found.tolerance:.3g} {found.note}")
    print(f"{sum(found.ok for found in rows)} of {len(rows)} agree")
    sys.exit(not all(found.ok for found in rows))
