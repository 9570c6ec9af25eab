"""Numbers of papers, found by recipe, pair and dataset; those expected are typed off the papers."""

import pytest

from kdcli import tables


@pytest.mark.parametrize(
    ("row", "teacher", "student", "value", "table"),
    [
        ("crd", "resnet32x4", "resnet8x4", 75.51, "crd-1"),
        ("kd", "vgg13", "MobileNetV2", 67.37, "crd-2"),
        ("teacher", "ResNet50", "", 79.34, "crd-2"),
        ("student", "", "resnet20", 69.06, "crd-1"),
        ("crd+kd", "resnet110", "resnet32", 73.75, "dcd-1"),
    ],
)
def test_accuracies_on_cifar100(row, teacher, student, value, table):
    found = tables.find(row, "cifar100", teacher=teacher, student=student)
    assert (found.value, found.table) == (value, table)


@pytest.mark.parametrize(
    ("row", "teacher", "student", "target", "value"),
    [
        ("mcld", "resnet32x4", "resnet8x4", "stl10", 70.61),
        ("mcld", "resnet110", "resnet20", "tinyimagenet", 28.55),
        ("student", "", "resnet8x4", "stl10", 65.18),
        ("teacher", "wrn_40_2", "", "tinyimagenet", 31.5),
        ("crd", "wrn_40_2", "wrn_16_2", "stl10", 71.6),
    ],
)
def test_accuracies_of_probes(row, teacher, student, target, value):
    pair = {"teacher": teacher, "student": student}
    assert tables.find(row, "cifar100", **pair, probed=target).value == value


def test_the_table_of_the_recipes_own_paper_goes_first():
    pair = {"teacher": "resnet32x4", "student": "resnet8x4"}
    assert tables.find("kd", "cifar100", **pair).table == "crd-1"
    assert tables.find("kd", "cifar100", **pair, paper="arXiv:2403.01427").table == "lskd-1"


def test_what_no_paper_prints_is_none():
    assert tables.find("crd", "cifar100", teacher="resnet20", student="resnet8") is None
    assert tables.find("crd", "shapes", teacher="resnet32x4", student="resnet8x4") is None
    fsp = tables.find("fsp", "cifar100", teacher="wrn_40_2", student="wrn_40_1")
    assert fsp is None, "the table has nan"
    assert tables.find("crd", "cifar100", student="resnet8x4", probed="cifar10") is None
