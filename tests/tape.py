"""A CUDA graph on paper: the operators of a body are written down once and then done again.

As with a graph, Python does not run a second time: a number that it counted, or a tensor that it
bound anew, stays what it was when the body was recorded.
"""

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdcli.engine.capture import Captured


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Tape(TorchDispatchMode):
    """Writes down every operator below autograd with the tensors it reads and makes."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        self.calls.append((operator, args, kwargs or {}, made))
        return made

    @torch.no_grad()
    def replay(self):
        """The same operators on the same memory, in the same order."""
        for operator, args, kwargs, made in self.calls:
            again = operator(*args, **kwargs)
            read = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
            for place, value in zip(tensors(made), tensors(again), strict=True):
                if place.untyped_storage().data_ptr() not in read:  # neither a view nor in place
                    place.copy_(value)


def taped(make: Callable):
    """The trainer that `make(runner)` gives, its steps recorded on tapes.

    A capture runs no kernel and draws no number, so what the recorded body did is undone.
    """

    def record(body):
        parts = (trainer.objective.state_dict(), trainer.update.state(), trainer.meters.state())
        kept = [(tensor, tensor.clone()) for tensor in tensors(parts)]
        drawn, tape = torch.get_rng_state(), Tape()
        with tape:
            body()
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)
        torch.set_rng_state(drawn)
        return tape.replay

    trainer = make(lambda *parts: Captured(*parts, record=record))
    return trainer
