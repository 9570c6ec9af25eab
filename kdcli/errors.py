"""What a user can mend is a KdcliError: one sentence of what is wrong and what to do."""

import difflib
from collections.abc import Iterable

USAGE, DATA, CHECKPOINT, DIVERGED, ENVIRONMENT, STOPPED = 2, 3, 4, 5, 6, 75


class KdcliError(Exception):
    """A mistake the reader can mend.

    `code` is the process exit code: 2 usage, 3 data, 4 checkpoint or exported file, 5 diverged,
    6 environment (GPU, memory, disk), 75 stopped and resumable.
    """

    def __init__(self, message: str, code: int = USAGE):
        super().__init__(message)
        self.code = code


def unknown(
    kind: str, name: str, known: Iterable[str], hint: str = "", most: int = 40
) -> KdcliError:
    """The error for a name that is not there: the nearest match first, then `most` that are.

    >>> str(unknown("model", "resnet8x5", ["resnet8x4", "vgg8"]))
    "unknown model 'resnet8x5'. Did you mean 'resnet8x4'? Known: resnet8x4, vgg8."
    """
    known = list(known)
    folded = {item.lower(): item for item in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1)
    guess = f" Did you mean '{folded[near[0]]}'?" if near else ""
    shown = ", ".join(known[:most]) + (", ..." if len(known) > most else "")
    return KdcliError(
        f"unknown {kind} '{name}'.{guess} Known: {shown or 'none'}.{hint and ' ' + hint}"
    )
