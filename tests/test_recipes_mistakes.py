"""Mistakes in a recipe that was copied and edited: each is one sentence, none is passed over."""

import pytest

from kdcli import recipes
from kdcli.errors import KdcliError
from kdcli.settings import override, parse_settings
from tests.test_recipes import written

PAIR = '[pairs."resnet56->resnet20"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minimize = { ce = nan }", "the number of 'ce' is nan"),
        ("minimize = { ce = 0 }", "nothing is minimized: the weight of ce is 0"),
        ("minimize = { ce = 1 }\nwarmup.ce = -3", "the warm-up of 'ce' is -3 epochs"),
        ("minimize = { ce = 1 }\nwarmup.ce = 'slow'", "the number of 'ce' is 'slow'"),
        ("minimize = { ce = 1 }\nmilestones = ['late']", "milestones has 'late'"),
        ("minimize = { ce = 1 }\nlr = nan", "lr is nan"),
        ("minimize = { ce = 1 }\noptimizer.momentum = 'fast'", "optimizer.momentum is 'fast'"),
        ("minimize = { ce = 1 }\noptimizer.weight_decay = -1", "optimizer.weight_decay is -1"),
        ("minimize = { ce = 1 }\noptimizer.nesterov = 'no'", "optimizer.nesterov is 'no'"),
        ("minimize = { kd = 1 }\nlosses.kd.use = 4", "unknown loss '4'"),
        ("minimize = { kd = 1 }\nlosses.kd = 4", "losses.kd is 4, but must be a table"),
        ("minimize = { ce = 1 }\npretrain = [3]", "pretrain has 3"),
        ("minimize = { ce = 1 }\nfreeze = ['studen.top']", "Did you mean 'student'"),
        ("minimize = { ft = 1 }\nfreeze = ['losses.fft']", "Did you mean 'ft'"),
        ("minimize = { ce = 1 }\nfreeze = [1]", "freeze has 1"),
        ("minimize = { ce = 1 }\n[pairs.resnet56-resnet20]\nlr = 1", "must be written teacher->"),
        ('minimize = { ce = 1 }\n[pairs."resnet65->resnet20"]\nlr = 1', "mean 'resnet56'"),
        ('minimize = { ce = 1 }\n[pairs."WRN-40-2->resnet20"]\nlr = 1', "mean 'wrn_40_2'"),
        (f"minimize = {{ ce = 1 }}\n{PAIR}minimise.ce = 1", "Did you mean 'minimize.ce'"),
        (f"minimize = {{ ce = 1 }}\n{PAIR}epochs = 'many'", 'pairs."resnet56->resnet20": setting'),
        ("minimize = { ce = 1 }\n[datasets.imagenet]\nbatches = 3", "Did you mean 'batch'"),
        ("minimize = { ce = 1 }\n[datasets]\nimagenet = 3", "datasets.imagenet is 3"),
    ],
)
def test_an_edited_recipe_with_a_mistake_says_file_and_key(tmp_path, text, said):
    path = written(tmp_path, f'paper = "mine"\n{text}\n')
    with pytest.raises(KdcliError) as caught:
        recipes.load(str(path))
    assert said in str(caught.value) and str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("minimize.kd=nan", "the number of 'kd' is nan"),
        ("warmup.kd=-5", "-5 epochs"),
        ('milestones=["a"]', "milestones has 'a'"),
        ('freeze=["losses.dk"]', "unknown part of 'losses.dk' in freeze, 'dk'. Known: ce, kd"),
    ],
)
def test_so_does_a_setting(setting, said):
    with pytest.raises(KdcliError, match=said):
        override(recipes.load("kd"), parse_settings([setting]))


def test_a_network_of_others_may_stand_in_a_pair_and_a_wildcard_in_a_freeze_list(tmp_path):
    text = (
        'paper = "mine"\nminimize = { ce = 1.0 }\nfreeze = ["*.bn1", "student.layer?"]\n'
        '[pairs."torchvision:resnet34->torchvision:resnet18"]\nlr = 0.2\n'
    )
    assert recipes.read(written(tmp_path, text)).pairs


def test_nothing_but_one_part_may_weigh_0(tmp_path):
    with pytest.raises(KdcliError, match="nothing is minimized: the weight of ce, kd is 0"):
        override(recipes.load("kd"), {"minimize.ce": 0, "minimize.kd": 0})
    assert override(recipes.load("kd"), {"minimize.ce": 0}).minimize["ce"] == 0
