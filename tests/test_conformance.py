"""Networks, schedules and training steps agree with recorded numbers of public references."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdcli import models
from tests import conformance, golden_case, golden_models, golden_training
from tests.golden_fill import Hash, Sine, apply, uniform
from tests.golden_record import Found, checksums, error_of, read

FOLDER = Path(__file__).parent / "golden"
NETWORKS = [path for kind in golden_models.FOLDERS for path in sorted((FOLDER / kind).iterdir())]
RESNET8 = FOLDER / "models" / "resnet8.safetensors"
SUMS = ("sum", "sumsq")


def there(rows):
    """Rows of what the program has; a method that it lacks is not wrong."""
    rows = list(rows)
    assert rows
    return [row for row in rows if row.note not in conformance.NOT_THERE]


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_network_computes_what_the_reference_computed(path):
    rows = there(golden_models.check_file(path))
    assert len(rows) >= (20 if path.stem == "ResNet50" else 40)  # that one has the hash fill alone
    assert [row for row in rows if not row.ok] == []


def test_rates_warm_ups_and_steps_are_those_of_the_references():
    rows = there(golden_training.check(FOLDER))
    kinds = {row.name.partition(":")[0] for row in rows}
    assert {"schedules", "trajectory/kd_resnet8"} <= kinds
    assert [row for row in rows if not row.ok] == []


def test_the_formulas_give_the_numbers_worked_out_beside_them():
    assert uniform(3, 0, salt=0)[1:].tolist() == [0.3175988623406738, 0.19123476883396506]
    assert uniform(2, 1, salt=0).tolist() == [0.5733975800685585, 0.5883937727194279]
    assert uniform(1_000_001, 7, salt=0)[-1].item() == 0.9472156972624362
    sine = Sine(0.37, 0.11, 0.05, 0.0).signed(1_000_001, 6)[-1].item()
    assert sine == pytest.approx(-0.06517722742894518, rel=1e-12)


def test_a_fill_leaves_counters_out_and_keeps_variances_positive():
    network = models.build("tiny8", 10).double()
    apply(Hash(salt=3), network)
    norm = network.block0[1]
    assert norm.num_batches_tracked == 0
    # conv weight, then the norm's weight, bias, mean, variance: entries 0 to 4, streams 1 to 5
    assert torch.allclose(norm.running_var, 1 + 0.5 * uniform(8, 5, salt=3), atol=1e-15)
    assert norm.running_mean.abs().max() <= 0.1


def altered(path, folder, **changes):
    """A copy of a recorded file: an array multiplied, or an entry of the metadata set."""
    record = read(path)
    for name, change in changes.items():
        name = name.replace("__", ".")
        if name in record.arrays:
            record.arrays[name] = record.arrays[name] * change
        else:
            record.meta[name] = change
    copy = folder / path.parent.name / path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    save_file(record.arrays, copy, metadata=record.meta)
    return copy


@pytest.mark.parametrize("array", ["logits_eval", "hash__feat__sum", "hash__train__grad__sumsq"])
def test_a_number_that_is_off_in_the_eighth_digit_misses(tmp_path, array):
    copy = altered(RESNET8, tmp_path, **{array: 1 + 1e-7})
    missed = [row.name for row in golden_models.check_file(copy) if not row.ok]
    assert missed == [f"models/resnet8: {array.replace('__', '.')}"]


def test_a_network_with_another_fill_is_not_judged(tmp_path):
    copy = altered(RESNET8, tmp_path, hash_salt="1")
    rows = list(golden_models.check_file(copy))
    missed = {row.name.partition(": ")[2] for row in rows if not row.ok}
    assert missed == {f"hash.{kind}.{sum_}" for kind in ("fill", "input") for sum_ in SUMS}
    assert not any("hash.logits" in row.name for row in rows)


def test_an_array_that_nothing_computes_misses(tmp_path):
    record = read(RESNET8)
    record.arrays["hash.entropy"] = torch.zeros(3)
    save_file(record.arrays, tmp_path / "resnet8.safetensors", metadata=record.meta)
    (row,) = (
        row for row in golden_models.check_file(tmp_path / "resnet8.safetensors") if not row.ok
    )
    assert row.note == "not computed"


def test_norms_that_the_other_toolkit_runs_twice_are_left_out_and_no_other():
    path = FOLDER / "models_mdistiller" / "wrn_16_2.safetensors"
    record = read(path)
    twice = record.listed(golden_models.TWICE)
    network = models.build("wrn_16_2")
    kept = golden_models.statistics(record, network)["bn_after.sum"].keep
    running = [key for key, value in network.named_buffers() if value.is_floating_point()]
    assert [key for key, keep in zip(running, kept, strict=True) if not keep] == [
        key for key in twice if "running" in key
    ]
    counts = record.arrays["bn_after.num_batches_tracked"]
    assert (counts == 2).sum() == 3


def test_rounding_noise_is_measured_where_the_file_states_none(tmp_path):
    copy = altered(RESNET8, tmp_path)
    record = read(copy)
    network = models.build("resnet8").double()
    fill = Hash(0)
    apply(fill, network)
    found = golden_models.observe(record, network, fill.images(4))
    noise = golden_models.measured_noise(record, fill, network, found)
    assert 0 < noise["logits_train"] < 1e-13
    assert noise["bn_after.num_batches_tracked"] == 0


def test_errors_are_relative_to_the_largest_number_or_to_what_a_sum_can_be():
    assert error_of(Found(torch.tensor([1.0, 4.0])), torch.tensor([2.0, 4.0])) == 0.25
    sums = checksums("x", [torch.tensor([3.0, 4.0])])["x.sum"]
    assert error_of(sums, torch.tensor([8.0])) == pytest.approx(1 / (2 * 25) ** 0.5)
    assert error_of(Found(torch.ones(2)), torch.ones(3)) == float("inf")


def test_the_command_says_by_its_exit_code_what_it_found(tmp_path, capsys):
    assert conformance.main([str(tmp_path)]) == 2
    plan = {"name": "short", "base_lr": 0.1, "milestones": [1], "epochs": 2, "lr": [0.1, 0.01]}
    (tmp_path / "schedules.json").write_text(json.dumps({"schedules": [plan]}))
    assert conformance.main([str(tmp_path)]) == 0
    (tmp_path / "schedules.json").write_text(json.dumps({"schedules": [plan | {"lr": [0.1, 0.1]}]}))
    assert conformance.main([str(tmp_path)]) == 1
    assert "misses" in capsys.readouterr().out


def test_numbers_are_read_where_they_will_be_computed():
    with torch.device("meta"):
        arrays = read(RESNET8).arrays.values()
        case, expected = next(golden_case.read(FOLDER / "losses" / "kd.safetensors"))
    assert {tensor.device.type for tensor in arrays} == {"meta"}
    assert {tensor.device.type for tensor in (*expected.values(), *case.tensors.values())} == {
        "meta"
    }
    assert read(RESNET8).arrays["param_count"].device.type == "cpu"


@pytest.mark.gpu
def test_losses_agree_on_a_gpu_in_double_precision():
    rows = [row for row in conformance.check(FOLDER, "cuda") if row.note == "float64"]
    assert len(rows) > 100
    assert [row for row in rows if not row.ok] == []


def test_a_file_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    altered(RESNET8, tmp_path)
    (tmp_path / "models" / "broken.safetensors").write_bytes(b"no numbers")
    broken, *rest = conformance.check(tmp_path)
    assert not broken.ok
    assert broken.name == "models/broken"
    assert all(row.ok for row in rest)
    assert len(rest) >= 40
