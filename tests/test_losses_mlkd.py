"""MLKD: two views, three levels, five temperatures; the code's reading and the paper's."""

import tomllib

import pytest
import torch

from kdcli import recipes
from kdcli.contracts import Features
from kdcli.errors import KdcliError
from kdcli.losses import Context, build
from kdcli.losses.kd import kl_divergence
from kdcli.losses.mlkd import below_median, divergences, masks, relations
from kdcli.settings import for_pair
from tests.loss_inputs import LABELS, POSITION, STUDENT, TEACHER, batch

STRONG = 2 * torch.sin(0.9 * POSITION - 0.4), 3 * torch.cos(0.6 * POSITION + 0.1)
WEAK = STUDENT, TEACHER
TABLE = recipes.folder() / "tables" / "lskd-logs.toml"


def two_views(side):
    return Features(WEAK[side], WEAK[side], others=(Features(STRONG[side], STRONG[side]),))


def made(name="mlkd", **settings):
    ctx = Context(two_views(0), two_views(1), None, 6, LABELS, 240)
    return build(name, ctx, **settings)


@pytest.mark.parametrize(
    ("settings", "weight", "kd", "cc", "bc"),
    [
        ({}, 0.9, 12.08026470, 0.01456192, 0.01767011),
        ({"temperature": 2.0, "standardize": True}, 9, 48.18972427, 0.23303408, 0.29610904),
    ],
)
def test_known_parts(settings, weight, kd, cc, bc):
    parts = made(**settings).reference(WEAK, STRONG)
    assert weight * (parts["kd_weak"] + parts["kd_strong"]).item() == pytest.approx(kd, abs=6e-9)
    assert weight * parts["cc_weak"].item() == pytest.approx(cc, abs=6e-9)
    assert weight * parts["bc_weak"].item() == pytest.approx(bc, abs=6e-9)


def test_the_whole_recipe_adds_the_cross_entropy_of_both_views():
    recipe, known = recipes.load("mlkd"), 0.50763158 + 12.08026470 + 0.01456192 + 0.01767011
    total = 0.0
    for term, weight in recipe.minimize.items():
        settings = dict(recipe.losses.get(term, {}))
        module = made(settings.pop("use", term), **settings)
        total += weight * module(two_views(0), two_views(1), batch(LABELS)).item()
        assert module.views <= 2
    assert total == pytest.approx(known, abs=2e-8)


def test_units_are_those_of_kd():
    assert divergences(*WEAK, 4.0).mean().item() == pytest.approx(
        kl_divergence(*WEAK, 4.0).item(), rel=1e-12
    )
    softened = [(z / 4).softmax(1) for z in WEAK]
    assert relations(*softened).mean().item() == pytest.approx(0.00245282, abs=6e-9)
    assert relations(*(p.T for p in softened)).mean().item() == pytest.approx(0.00227899, abs=6e-9)


def test_the_mask_keeps_the_lower_half_and_the_middle():
    assert below_median(torch.tensor([3.0, 1.0, 2.0])).tolist() == [0.0, 1.0, 1.0]
    assert below_median(torch.tensor([4.0, 1.0, 3.0, 2.0])).tolist() == [0.0, 1.0, 0.0, 1.0]
    rows, columns = masks(torch.tensor([[9.0, 0.0], [1.0, 0.0]]))
    assert (rows.tolist(), columns.tolist()) == ([0.0, 1.0], [0.0, 1.0])


def test_the_papers_form_masks_each_image_and_class_of_both_views():
    parts, (rows, columns) = made(form="paper").paper(WEAK, STRONG), masks(TEACHER)
    wanted = {"kd": 0.0, "cc": 0.0, "bc": 0.0}
    for tau in (4, 3, 5, 2, 6):
        one, two = ((z / tau).softmax(1) for z in STRONG)
        for i in range(4):
            if rows[i]:
                wanted["kd"] += tau**2 * (two[i] * (two[i].log() - one[i].log())).sum() / 4
                wanted["bc"] += sum((two[i] @ two[j] - one[i] @ one[j]) ** 2 for j in range(4)) / 4
        for c in range(6):
            if columns[c]:
                pairs = ((two[:, c] @ two[:, d] - one[:, c] @ one[:, d]) ** 2 for d in range(6))
                wanted["cc"] += sum(pairs) / 6
    for name, value in wanted.items():
        assert parts[f"{name}_strong"].item() == pytest.approx(value.item(), rel=1e-9)
    assert set(parts) == {f"{level}_{view}" for level in wanted for view in ("weak", "strong")}


def test_the_forms_differ_and_another_is_refused():
    values = [
        made(form=form)(two_views(0), two_views(1), batch(LABELS)).item()
        for form in ("reference", "paper")
    ]
    assert abs(values[0] - values[1]) > 0.1
    with pytest.raises(KdcliError, match="Known: reference, paper"):
        made(form="code")


def test_a_cross_entropy_reads_the_view_it_is_told():
    for view, logits in enumerate((STUDENT, STRONG[0])):
        found = made("ce", view=view)(two_views(0), None, batch(LABELS))
        assert found.item() == torch.nn.functional.cross_entropy(logits, LABELS).item()
    with pytest.raises(KdcliError, match="0 or 1, not 2"):
        made("ce", view=2)


def test_every_logged_pair_has_its_weight_and_epochs():
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    logged = zip(table["pairs"], table["base"]["lskd+mlkd"], strict=True)
    for pair, (temperature, weight) in ((pair, base) for pair, base in logged if base):
        recipe = for_pair(recipes.load("lskd+mlkd"), *pair.split("->"))
        assert recipe.losses["mlkd"]["temperature"] == temperature
        assert recipe.minimize["mlkd"] == weight
        assert recipe.epochs == (960 if pair == "resnet32x4->ShuffleV2" else 480)
