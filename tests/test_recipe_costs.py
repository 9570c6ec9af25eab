"""What recipes are said to cost is what they cost now, and the list says it at once."""

import subprocess
import sys
from dataclasses import asdict

import pytest

from kdcli import models, recipes
from kdcli.analysis.cost import cost
from kdcli.analysis.recipe_cost import PROBE, STUDENT, TEACHER, assembled, carried, weigh
from kdcli.cli.show import recipe_costs, recipe_list, recipe_page
from kdcli.recipe_values import from_dict

NAMES = [name for name in recipes.names() if name != PROBE]
WRITTEN = recipe_costs.written()
STALE = "recipes/costs.json is stale: python -m kdcli.analysis.recipe_cost"


def test_the_file_has_every_recipe_that_is_distilled():
    assert sorted(WRITTEN["recipes"]) == NAMES, STALE
    assert (WRITTEN["teacher"], WRITTEN["student"]) == (TEACHER, STUDENT)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_reads_trains_and_keeps_what_is_written_down(name):
    reads, parameters, memory = carried(*assembled(recipes.load(name)))
    told = WRITTEN["recipes"][name]
    assert (list(reads), parameters, memory) == (
        told["reads"], told["parameters"], told["memory_bytes"],
    ), STALE  # fmt: skip


@pytest.mark.parametrize("name", ["ce", "crd+kd", "fsp", "lskd+mlkd", "mcld", "simkd", "vid"])
def test_a_recipe_works_as_hard_as_is_written_down(name):
    told = asdict(weigh(recipes.load(name)))
    assert {**told, "reads": list(told["reads"])} == WRITTEN["recipes"][name], STALE


def test_costs_are_those_that_can_be_done_by_hand():
    told, forward = WRITTEN["recipes"], {}
    for name in (STUDENT, TEACHER):
        forward[name] = cost(models.build(name, 100)).flops_per_image
    assert told["crd"]["parameters"] == 2 * (256 * 128 + 128)  # two linear layers with biases
    tables = 3 * 8 * 50_000 - 8 * 50_000 + 2 * 8 * 100 + 2 * 4  # labels, order, counts, ends, Z
    assert told["crd"]["memory_bytes"] == 2 * 4 * 50_000 * 128 + tables
    scores = 2 * 2 * (2 * 128 * 50_000)  # two directions, there and back, against 50,000 rows
    embeds = 2 * 2 * (2 * 256 * 128)  # two layers, there and the weights' gradient
    back = 2 * 256 * 128  # the gradient of the student's features alone
    assert told["crd"]["loss_flops"] == scores + embeds + back
    assert told["kd"]["student_flops"] == told["ce"]["student_flops"] == 3 * forward[STUDENT]
    assert told["kd"]["teacher_flops"] == forward[TEACHER]
    assert told["mlkd"]["teacher_flops"] == 2 * forward[TEACHER], "two views"
    assert told["one"]["teacher_flops"] == 0
    assert told["ab"]["teacher_flops"] == round(forward[TEACHER] * 30 / 270), "30 epochs of 270"


def test_a_recipe_of_one_s_own_is_counted_when_its_page_is_asked_for(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('paper = "We: Ours. 2026"\nminimize = { ce = 1.0, dcd = 2.0 }\n')
    told = recipe_page.describe(recipes.read(file), file)["cost"]
    assert told == WRITTEN["recipes"]["dcd"]
    misfit = from_dict({"name": "mine", "paper": "x", "minimize": {"simkd": 1.0, "one": 1.0}})
    assert recipe_costs.of(misfit, shipped=False) is None


def test_the_list_does_not_wait_for_torch():
    code = (
        "import sys; from kdcli.cli.show import recipe_list as r; r.show(r.listing()); "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "52.0MB  3.09" in done.stdout


def test_what_a_recipe_costs_stands_on_one_line_of_80_columns():
    for line in recipe_list.listing():
        cells = (line["short"], *recipe_list._cost(line["cost"]))
        assert len(recipe_list._aligned(*cells)) <= 67, "80 columns less the name and a gap"
