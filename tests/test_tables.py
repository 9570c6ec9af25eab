"""The published tables: readable, rectangular, about the same networks and recipes as we are."""

import math
import tomllib

import pytest

from kdcli import models, recipes

FILES = sorted((recipes.folder() / "tables").glob("*.toml"))
CIFAR = [path for path in FILES if 'dataset = "cifar100"\n' in path.read_text(encoding="utf-8")]


def read(path):
    return tomllib.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_has_a_number_for_every_column(path):
    table = read(path)
    assert table["title"] and table["source"] and table["metric"] and table["dataset"]
    columns = table.get("pairs") or table["columns"]
    blocks = [table["rows"], *(table[key] for key in ("top5", "base") if key in table)]
    for rows in blocks:
        assert {len(values) for values in rows.values()} == {len(columns)}
    for name, values in table["rows"].items():
        known = [value for value in values if not math.isnan(value)]
        low = -10 if name.startswith("printed") else 5
        assert all(low < value < 100 for value in known)


@pytest.mark.parametrize("path", CIFAR, ids=lambda path: path.stem)
def test_pairs_are_of_networks_that_we_have(path):
    for pair in read(path).get("pairs", []):
        teacher, student = pair.split("->")
        assert teacher in models.TABLE
        assert student in models.TABLE or student == "ShuffleV2 x1.5"


def test_the_same_run_has_the_same_number_wherever_it_is_quoted():
    crd, mcld = (
        read(recipes.folder() / "tables/crd-1.toml"),
        read(recipes.folder() / "tables/mcld-2.toml"),
    )
    for name in ("teacher", "student", "kd", "fitnet", "rkd", "crd"):
        mine = dict(zip(crd["pairs"], crd["rows"][name], strict=True))
        theirs = dict(zip(mcld["pairs"], mcld["rows"][name], strict=True))
        assert {pair: mine[pair] for pair in theirs} == theirs
