"""What answers `features(batch)` and is never trained."""

from __future__ import annotations

import torch

from kdcli.contracts import Batch, Features
from kdcli.models.network import Network


class Frozen:
    """A trained network in evaluation mode, without gradient; its statistics never move."""

    def __init__(self, network: Network):
        self.network = network.eval()

    @torch.no_grad()
    def features(self, batch: Batch) -> Features:
        """Features of the batch, and of its further views in `others`."""
        others = tuple(self.network.features(images) for images in batch.others)
        return self.network.features(batch.images)._replace(others=others)
