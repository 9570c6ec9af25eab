"""What recipes change for pairs and datasets beside the first; expected values are typed off."""

import pytest

from kdcli import recipes
from kdcli.cli.show.published import published
from kdcli.settings import flatten, for_dataset, for_pair


@pytest.mark.parametrize(
    ("name", "dataset", "wanted"),
    [
        ("kd", "imagenet", {"minimize.ce": 0.5, "losses.kd.temperature": 1.0, "batch": 512}),
        ("crd", "imagenet", {"losses.crd.sampling": "replacement", "batch": 256, "lr": 0.1}),
        ("crd+kd", "imagenet", {"losses.crd.sampling": "replacement", "epochs": 100}),
        ("ctkd", "imagenet", {"minimize.ctkd": 1.0, "losses.ctkd.ramp": 5, "epochs": 120}),
        (
            "ctkd+dkd",
            "imagenet",
            {"losses.ctkd.ramp": 5, "losses.ctkd.beta": 2.0, "epochs": 120, "batch": 256},
        ),
        (
            "dot+dkd",
            "imagenet",
            {
                "losses.dkd.beta": 0.5,
                "losses.dkd.temperature": 1.0,
                "warmup.dkd": 0,
                "optimizer.delta": 0.09,
                "optimizer.weight_decay": 1e-4,
                "batch": 512,
                "lr": 0.2,
            },
        ),
        (
            "dot+kd",
            "tinyimagenet",
            {
                "minimize.kd": 0.9,
                "losses.kd.temperature": 4.0,
                "optimizer.delta": 0.075,
                "optimizer.weight_decay": 5e-4,
                "epochs": 200,
                "milestones": (60, 120, 160),
                "batch": 256,
                "lr": 0.2,
            },
        ),
        (
            "lskd+kd",
            "imagenet",
            {"minimize.ce": 1.0, "minimize.kd": 9.0, "losses.kd.temperature": 2.0, "batch": 512},
        ),
        (
            "lskd+dkd",
            "imagenet",
            {"losses.dkd.alpha": 9.0, "losses.dkd.beta": 4.5, "warmup.dkd": 0, "lr": 0.2},
        ),
        ("ofd", "imagenet", {"minimize.ofd": 1e-4, "optimizer.nesterov": True, "batch": 256}),
        ("reviewkd", "imagenet", {"losses.reviewkd.preacts": True, "warmup.reviewkd": 0}),
        ("wsld", "imagenet", {"minimize.wsld": 2.5, "losses.wsld.temperature": 2.0}),
    ],
)
def test_a_dataset_s_own_settings(name, dataset, wanted):
    found = flatten(for_dataset(recipes.load(name), dataset).to_dict())
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("pair", "epochs", "lr"),
    [
        ("resnet56->resnet20", 240, 0.025),
        ("vgg13->MobileNetV2", 480, 0.01),
        ("resnet32x4->ShuffleV2", 960, 0.01),
        ("resnet110->resnet20", 480, 0.025),
        ("resnet32x4->wrn_40_2", 480, 0.025),
        ("wrn_40_2->MobileNetV2", 480, 0.005),
    ],
)
def test_mlkd_trains_each_pair_as_long_and_at_the_rate_of_its_file(pair, epochs, lr):
    recipe = for_pair(recipes.load("mlkd"), *pair.split("->"))
    assert (recipe.epochs, recipe.lr) == (epochs, lr)
    assert recipe.milestones == (150, 180, 210), "however long"


def test_online_distillation_has_the_row_that_the_crd_paper_cites():
    (table,) = published("one", recipes.load("one").paper)
    assert table["table"] == "crd-imagenet"
    assert table["rows"]["one, cited"] == [29.45, 10.41]


def test_the_logs_of_lskd_say_what_is_reached_after_240_epochs_and_on_imagenet():
    tables = {t["table"]: t for t in published("lskd+mlkd", recipes.load("lskd+mlkd").paper)}
    logs = tables["lskd-logs"]
    early = dict(zip(logs["columns"], logs["rows"]["lskd+mlkd, epoch 240"], strict=True))
    assert early["resnet32x4->resnet8x4"] == 77.99 and early["ResNet50->MobileNetV2"] == 71.33
    assert early["resnet110->resnet32"] == 73.85 and early["resnet32x4->ShuffleV2"] == 78.11
    tables = {t["table"]: t for t in published("lskd+kd", recipes.load("lskd+kd").paper)}
    assert tables["lskd-imagenet"]["rows"]["lskd+kd"] == [71.45]


def test_class_attention_starts_a_vgg_s_classifier_as_a_vgg_s():
    pairs = ("vgg13->vgg8", "ResNet50->vgg8", "resnet32x4->vgg8", "resnet32x4->ShuffleV1")
    for pair in pairs:
        found = for_pair(recipes.load("catkd"), *pair.split("->"))
        assert found.losses["catkd"]["init"] == "default"
