"""Where a test computes: what is not marked `gpu` sees no GPU, whatever the machine has."""

import subprocess
import sys

import torch

from kdcli.engine.device import device_of

SEEN = "import torch; print(torch.cuda.is_available())"


def test_auto_is_no_gpu_without_the_mark():
    assert device_of("auto").type != "cuda"
    assert torch.cuda.device_count() == 0


def test_nor_is_it_in_a_process_of_its_own():
    told = subprocess.run([sys.executable, "-c", SEEN], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
