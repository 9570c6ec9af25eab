"""One thread, so that numbers repeat; no network; tests of a GPU skip where there is none."""

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


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
