"""Giakoumoglou, Stathaki: Invariant Consistency for Knowledge Distillation. arXiv:2407.11802v1.

The first version of the paper that became DCD, under another name: the same loss, the same
settings, mostly the same runs. Equation, shapes and options: `kdcli.losses.dcd`.

    L = InfoNCE of students over teachers + alpha · KL(teacher's view || student's view)   (Eq. 3-6)

The paper's text gives the temperature as 0.07; its code learns one that starts at 1/e and cannot
fall below 0.1. The code is followed; `scale = "divide"` follows the text.
"""

from kdcli.losses.dcd import DCD


class ICD(DCD):
    """Contrast and invariant consistency inside the batch: DCD by its first name."""
