"""One thread, so that numbers repeat; no network; a GPU is seen by the tests of one alone."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Every test has run and data folders of its own, and no wish of the reader's environment."""
    for name in [key for key in os.environ if key.startswith("KDCLI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KDCLI_RUN_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("KDCLI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KDCLI_BANK_DIR", str(tmp_path / "banks"))


@pytest.fixture(autouse=True)
def on_the_cpu(request, monkeypatch):
    """What is not marked `gpu` finds none, here and in its processes: `auto` is the CPU."""
    if "gpu" not in request.keywords:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(autouse=True)
def numerics():
    """Switches of torch as a test found them."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, products.allow_tf32
    strict = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.utils.deterministic.fill_uninitialized_memory = fills
    cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, products.allow_tf32 = before
    torch.use_deterministic_algorithms(strict, warn_only=only_warn)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        torch.cuda.init()  # while it sees the device: see `on_the_cpu`
    else:
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
