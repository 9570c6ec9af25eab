"""A capture that fails says why, and what to do; CUDA's own last word is about its end alone."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from kdcli.engine.capture import Recorder
from kdcli.errors import ENVIRONMENT, KdcliError

INSIDE = "CUDA error: operation not permitted when stream is capturing\nCompile with ..."


@pytest.fixture
def recorder(monkeypatch):
    @contextmanager
    def graph(made, pool, stream):
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return Recorder(None)


def failing(error):
    def body():
        raise error

    return body


def test_what_cannot_be_captured_is_told_with_the_way_around(recorder):
    with pytest.raises(KdcliError, match=r"when stream is capturing.*--eager") as caught:
        recorder(failing(RuntimeError(INSIDE)))
    assert caught.value.code == ENVIRONMENT and "\n" not in str(caught.value)
    with pytest.raises(KdcliError, match="previous error"):
        recorder(lambda: None)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), KdcliError("stop")])
def test_what_has_a_name_of_its_own_keeps_it(recorder, error):
    with pytest.raises(type(error)) as caught:
        recorder(failing(error))
    assert caught.value is error
