"""CIFAR's python files are pickles, and a pickle can run anything: here it makes arrays alone."""

from __future__ import annotations

import io
import pickle

import numpy as np


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Python 3 writes bytes so in the old protocols; no other codec has any business here."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return text.encode("latin1")


_reconstruct = np.empty(0).__reduce__()[0]  # private in numpy, and it moves between releases
_frombuffer = np.empty(1).__reduce_ex__(5)[0]
ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class ArrayUnpickler(pickle.Unpickler):
    """Knows the constructors of numpy arrays; every other name is refused before it is called."""

    def find_class(self, module: str, name: str) -> object:
        """The constructor `module.name`, else UnpicklingError."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no dataset needs")
        return ALLOWED[module, name]


def load_arrays(content: bytes) -> object:
    """Containers, numbers, text and arrays from a pickle of Python 2 or 3.

    Python 2's text comes as bytes. Raises pickle.UnpicklingError for everything else, damage
    included, and runs nothing that the pickle names.
    """
    try:
        return ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise pickle.UnpicklingError(f"damaged pickle: {error}") from error
