"""Networks by name: `TABLE` (plain data, no torch), `canonical` and `build`.

Beside the table, `torchvision:NAME`, `timm:NAME` and `package.module:factory` name the networks
of others; `kdcli.models.foreign` adapts them.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING

from kdcli.errors import KdcliError, unknown
from kdcli.models.table import TABLE, Row

if TYPE_CHECKING:
    from kdcli.models.network import Network

__all__ = ["TABLE", "Row", "build", "canonical", "from_architecture"]

FOREIGN = "Beside these: torchvision:NAME, timm:NAME or your own package.module:factory."
OURS = "kdcli.losses."  # a loss may replace the student by a network of its own (SimKD)
MOST_CLASSES = 100_000


def _fold(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def canonical(name: str) -> str:
    """The table's spelling of `name`, whatever its case and dashes; a foreign name as it is.

    >>> canonical("WRN-40-2"), canonical("mobilenetv2"), canonical("torchvision:resnet18")
    ('wrn_40_2', 'MobileNetV2', 'torchvision:resnet18')
    """
    if name in TABLE or ":" in name:
        return name
    spellings = {_fold(known): known for known in TABLE}
    if _fold(name) not in spellings:
        raise unknown("model", name, TABLE, FOREIGN)
    return spellings[_fold(name)]


def build(name: str, classes: int = 100, **arguments: object) -> Network:
    """A new network with `classes` outputs, its weights drawn from torch's default generator.

    `arguments` go to a foreign factory beside `num_classes`; a network of the table takes none.
    KdcliError when the name, the number of classes or the factory is no good.
    """
    name = canonical(name)
    if type(classes) is not int or not 1 <= classes <= MOST_CLASSES:
        raise KdcliError(f"a network has 1 to {MOST_CLASSES:,} classes, not {classes!r}.")
    if name not in TABLE:
        from kdcli.models.foreign import build_foreign

        return build_foreign(name, classes, arguments)
    if arguments:
        raise KdcliError(f"model '{name}' takes no settings, but got {', '.join(arguments)}.")
    row = TABLE[name]
    module, constructor = row.constructor.split(":")
    family = importlib.import_module(f"{__name__}.{module}")
    network = getattr(family, constructor)(classes, **row.arguments)
    network.architecture = {"name": name, "classes": classes}
    return network


def from_architecture(
    architecture: dict[str, object], allowed: Collection[str] | None = None
) -> Network:
    """The network that `Network.architecture` describes; a value that is one itself is built first.

    `allowed`: the only foreign names that may be imported, beside the product's own, because the
    description was read from a file; None trusts it.
    """
    settings = dict(architecture)
    name = settings.get("name")
    if not isinstance(name, str):
        raise KdcliError(
            f"an architecture needs a name, but has {', '.join(settings) or 'nothing'}."
        )
    trusted = allowed is None or ":" not in name or name.startswith(OURS) or name in allowed
    if not trusted:
        raise KdcliError(
            f"the network '{name}' is code of its own, which is not run on a file's word; "
            f"if you trust it, name it: --model {name}"
        )
    for key, value in settings.items():
        if isinstance(value, dict) and "name" in value:
            settings[key] = from_architecture(value, allowed)
    network = build(**settings)
    network.architecture = architecture
    return network
