"""The losses compute the numbers that the authors' own code computed for the same inputs."""

from pathlib import Path

import pytest
import torch

from kdcli import losses
from tests.golden_case import compare, read
from tests.golden_losses import ADAPTERS, check

FOLDER = Path(__file__).parent / "golden"
FILES = sorted((FOLDER / "losses").glob("*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded_numbers_agree(path):
    rows = [
        row for case, wanted in read(path) for row in compare(case, wanted, ADAPTERS[path.stem])
    ]
    assert rows
    assert [row for row in rows if not row.ok] == []


def test_a_wrong_number_is_found():
    case, wanted = next(read(FOLDER / "losses" / "kd.safetensors"))
    off = {"loss": wanted["loss"] * (1 + 1e-8)}
    (row,) = compare(case, off, ADAPTERS["kd"])
    assert not row.ok
    assert row.error == pytest.approx(1e-8 * wanted["loss"].item(), rel=1e-3)


def test_a_loss_that_is_not_there_is_reported(tmp_path):
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "alchemy.safetensors").write_bytes(b"")
    (row,) = check(tmp_path)
    assert (row.name, row.ok, row.note) == ("alchemy", False, "no such loss")


def test_single_precision_is_close_to_double():
    case, wanted = next(read(FOLDER / "losses" / "dkd.safetensors"))
    student, teacher = (case.features(side) for side in ("student", "teacher"))
    student, teacher = (x._replace(logits=x.logits.float()) for x in (student, teacher))
    module = losses.build("dkd", losses.Context(student, teacher, None, 100, torch.arange(9), 240))
    found = module(student, teacher, case.batch())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(wanted["loss"].item(), rel=1e-5)
