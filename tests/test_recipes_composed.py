"""Recipes joined by +: what adds up, whose value stands where they differ, and that it is said."""

import pytest

from kdcli import recipes
from kdcli.cli import recipes as recipes_command
from kdcli.errors import KdcliError
from kdcli.settings import for_dataset, for_pair
from tests.test_recipes import written


def test_composition_adds_weighted_losses_and_keeps_one_cross_entropy():
    both = recipes.load("dkd+mcld")
    assert both.minimize == {"ce": 1.0, "dkd": 1.0, "mcld": 1.0}
    assert both.losses["dkd"] == recipes.load("dkd").losses["dkd"]
    assert both.warmup == recipes.load("dkd").warmup


def test_a_file_named_like_a_composition_wins():
    assert recipes.load("crd+kd").minimize == {"ce": 1.0, "kd": 1.0, "crd": 0.8}


def test_composed_schedules_are_the_first_ones_and_the_conflict_is_said(tmp_path):
    path = written(tmp_path, 'paper = "mine"\nminimize = { ce = 1.0 }\nepochs = 100\n')
    kd, mine = recipes.load("kd"), recipes.read(path)
    both = recipes.compose("kd+mine", [kd, mine])
    assert both.epochs == 240
    assert recipes.conflicts([kd, mine]) == [
        "epochs: 240 of kd stands, not 100 of mine",
        "minimize.ce: 0.1 of kd stands, not 1.0 of mine",
    ]


def test_of_composed_recipes_the_first_one_says_the_schedule_on_a_dataset_too():
    first, second = (for_dataset(recipes.load(name), "imagenet") for name in ("crd+dkd", "dkd+crd"))
    assert (first.batch, second.batch) == (256, 512)
    assert first.losses["dkd"]["beta"] == second.losses["dkd"]["beta"] == 0.5


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("at+lskd+kd", ["at", "lskd+kd"]),
        ("crd+dot+kd", ["crd", "dot+kd"]),
        ("lskd+kd+at", ["lskd+kd", "at"]),
        ("at+kd+crd", ["at", "kd", "crd"]),
        ("lskd+kd", ["lskd+kd"]),
    ],
)
def test_the_longest_name_of_a_recipe_counts(name, parts):
    assert [part.name for part in recipes.parts(name)] == parts
    assert recipes.load(name).name == name


def test_a_file_of_one_s_own_composes_and_a_part_that_is_not_there_is_named(tmp_path):
    path = written(tmp_path, 'paper = "mine"\nminimize = { ce = 1.0 }\n')
    assert recipes.load(f"kd+{path}").name == recipes.load(f"kd+{path}").summary.replace(" ", "")
    assert recipes.load(f"{path}+kd").name == "mine+kd"
    with pytest.raises(KdcliError, match="unknown recipe 'lskd'"):
        recipes.load("lskd+at")
    with pytest.raises(KdcliError, match="unknown recipe ''"):
        recipes.load("kd+")


def test_a_term_of_two_parts_has_the_weights_of_both_and_the_settings_of_the_first():
    both = recipes.load("kd+lskd+kd")
    assert both.minimize == {"ce": 0.1, "kd": 0.9 + 9.0}
    assert both.losses["kd"] == {"temperature": 4.0}
    assert recipes.conflicts(recipes.parts("kd+lskd+kd")) == [
        "losses.kd: temperature = 4.0 of kd stands, "
        "not temperature = 2.0, standardize = True of lskd+kd"
    ]
    assert for_pair(both, "vgg13", "vgg8").losses["kd"] == {"temperature": 4.0}


def test_a_later_part_has_no_say_in_a_pair_s_schedule_and_cross_entropy():
    crd, both = recipes.load("crd"), recipes.load("crd+mlkd")
    for there in (for_pair(both, "ResNet50", "MobileNetV2"), for_dataset(both, "imagenet")):
        assert there.minimize["ce"] == 1.0
    there = for_pair(both, "ResNet50", "MobileNetV2")
    assert (there.epochs, there.lr, there.milestones) == (crd.epochs, crd.lr, crd.milestones)
    assert for_pair(recipes.load("kd+mcld"), "resnet56", "resnet20").minimize["ce"] == 0.1
    first = for_pair(recipes.load("mlkd+crd"), "ResNet50", "MobileNetV2")
    assert (first.epochs, first.lr) == (480, 0.01)
    assert "lr: the student's published rate of crd stands, not 0.025 of mlkd" in (
        recipes.conflicts(recipes.parts("crd+mlkd"))
    )


def test_the_teacher_is_the_first_that_is_named():
    assert recipes.load("ce+kd").teacher == "resnet32x4"


def test_a_composed_page_says_what_its_parts_do_not_agree_on(capsys):
    recipes_command.recipes(["at+kd"])
    assert "minimize.ce: 1.0 of at stands, not 0.1 of kd" in capsys.readouterr().out
