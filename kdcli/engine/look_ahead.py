"""A frozen teacher that runs on the coming batches at once.

It is frozen and the plan is known, so nothing makes it wait for the student: sixteen batches in one
pass cost a sixteenth of the kernels, and large ones use a GPU better. This serves every loss,
feature maps included.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from kdcli.contracts import Batch, Features, mapped
from kdcli.data.loader import Loader
from kdcli.engine.teachers import Frozen
from kdcli.models.network import Network

STEPS = 16


class LookAhead(Frozen):
    """Answers from buffers that hold what the network shows of the next `steps` batches.

    Buffers stay where they are, and a step finds its rows through `offset`: it can be captured.
    They hold the fields of Features that losses read, as `Frozen` gives them: with `bf16` under
    autocast.
    """

    def __init__(
        self,
        network: Network,
        loader: Loader,
        reads: Collection[str],
        steps: int = STEPS,
        bf16: bool = False,
    ):
        super().__init__(network)
        self.loader, self.reads, self.steps, self.bf16 = loader, reads, steps, bf16
        self.shown: Features | None = None
        self.window: tuple[int, int, int] | None = None  # epoch, first step, step behind the last
        self.offset = torch.zeros((), dtype=torch.int64, device=loader.device)

    def ahead(self, epoch: int, step: int) -> None:
        """Run the network where a window begins, and say where the rows of `step` are.

        Windows begin at multiples of `steps`, so that a resumed epoch has those of a whole one.
        """
        if self.window is None or self.window[0] != epoch or step not in range(*self.window[1:]):
            self._look(epoch, step - step % self.steps)
        share = self.loader.rows.batch // self.loader.rows.world
        self.offset.fill_((step - self.window[1]) * share)

    def features(self, batch: Batch) -> Features:
        """The rows of the batch in the buffers."""
        rows = self.offset + torch.arange(len(batch.labels), device=self.offset.device)
        return mapped(lambda tensor: _taken(tensor, rows), self.shown)

    def _look(self, epoch: int, step: int) -> None:
        rows, end = self.loader.rows, min(step + self.steps, self.loader.steps)
        spans = [rows.of(number) for number in range(step, end)]
        device = self.loader.device  # made there: a copy from the host would wait for every step
        parts = [torch.arange(span.start, span.stop, device=device) for span in spans]
        batch = self.loader.gather(self.loader.plan(epoch), torch.cat(parts))
        with torch.autocast(device.type, torch.bfloat16, self.bf16, cache_enabled=False):
            shown = self._read(super().features(batch))
        if self.shown is None:
            room = self.steps * rows.batch // rows.world
            self.shown = mapped(lambda tensor: _room(tensor, room), shown)
        for buffer, fresh in zip(tree_leaves(self.shown), tree_leaves(shown), strict=True):
            if buffer is not None:
                buffer[: len(fresh)].copy_(fresh)
        self.window = epoch, step, end

    def _read(self, shown: Features) -> Features:
        """What losses read of it."""
        fields = {"logits": None, "pooled": None}
        fields |= {name: getattr(shown, name) for name in self.reads}
        return Features(**fields, others=tuple(map(self._read, shown.others)))


def _room(tensor: Tensor, rows: int) -> Tensor:
    """An empty buffer of so many rows, in the memory layout of `tensor`."""
    layout = torch.channels_last if _channels_last(tensor) else torch.contiguous_format
    shape = (rows, *tensor.shape[1:])
    return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device).contiguous(
        memory_format=layout
    )


def _taken(tensor: Tensor, rows: Tensor) -> Tensor:
    """Rows of a buffer in its own layout, which `index_select` would not keep."""
    if not _channels_last(tensor):
        return tensor.index_select(0, rows)
    return tensor.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def _channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
