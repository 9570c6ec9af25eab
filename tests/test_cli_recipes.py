"""kdcli recipes: what ships, who chose each setting, what papers print, and copies of one's own."""

import importlib
import inspect
import json
import math

import pytest

from kdcli import losses, recipe, recipes
from kdcli.cli import recipes as recipes_command
from kdcli.cli.show import published, recipe_list, recipe_page
from kdcli.errors import ENVIRONMENT, USAGE, KdcliError
from kdcli.settings import override


def printed(capsys):
    """What a command wrote as JSON; NaN and Infinity are not JSON."""
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A recipe folder of the test's own."""
    (tmp_path / "tables").mkdir()
    for module in (recipe, recipes):
        monkeypatch.setattr(module, "folder", lambda: tmp_path)
    return tmp_path


def test_the_list_has_every_shipped_recipe_once_and_its_groups_in_order(capsys):
    recipes_command.recipes(json=True)
    found = printed(capsys)
    assert sorted(line["name"] for line in found) == recipes.names()
    groups = list(dict.fromkeys(line["group"] for line in found))
    assert groups == [group for group in recipe_list.GROUPS if group in groups]
    assert all(line["summary"] and line["year"] for line in found)
    assert {line["name"] for line in found if not line["cost"]} == {"probe"}


def test_a_group_narrows_the_list_and_an_unknown_one_is_answered_with_its_neighbour(capsys):
    recipes_command.recipes(group="logit", json=True)
    assert {line["group"] for line in printed(capsys)} == {"logit"}
    with pytest.raises(KdcliError, match="Did you mean 'logit'") as caught:
        recipes_command.recipes(group="logits")
    assert caught.value.code == USAGE


@pytest.mark.parametrize("loss", losses.names())
def test_the_defaults_read_from_a_loss_s_source_are_those_of_its_constructor(loss):
    known = losses.hyperparameters(loss)
    wanted = {key: value for key, value in known.items() if value is not inspect.Parameter.empty}
    module = importlib.import_module(f"kdcli.losses.{loss}")
    read = recipe_page.defaults(loss)
    assert wanted == {  # a constant of the module is told by its name
        key: getattr(module, value, value) if isinstance(value, str) else value
        for key, value in read.items()
    }


@pytest.mark.parametrize("name", recipes.names())
def test_every_setting_on_a_recipe_s_page_is_one_that_set_takes(name):
    recipe = recipes.load(name)
    for row in recipe_page.settings(recipe):
        assert override(recipe, {row["key"]: row["value"]}), row


def test_the_settings_of_a_phase_before_the_main_one_are_on_the_page():
    rows = {row["key"]: row for row in recipe_page.settings(recipes.load("ab"))}
    assert rows["pretrain.1.epochs"] == {"key": "pretrain.1.epochs", "value": 30, "from": "recipe"}
    assert rows["pretrain.1.freeze"]["value"] == ("student.top",)
    assert rows["pretrain.1.lr"] == {"key": "pretrain.1.lr", "value": None, "from": "protocol"}
    assert rows["losses.ab.margin"]["value"] == 1.0


def test_a_setting_says_who_chose_it(folder):
    (folder / "mine.toml").write_text(
        'paper = "We: Ours. 2026"\nminimize = { kd = 2.0 }\nepochs = 20\n'
        "losses.kd = { temperature = 3.0 }\n"
    )
    rows = {row["key"]: row for row in recipe_page.settings(recipes.load("mine"))}
    assert rows["losses.kd.temperature"] == {
        "key": "losses.kd.temperature", "value": 3.0, "from": "recipe",
    }  # fmt: skip
    assert rows["losses.kd.standardize"]["from"] == "loss"
    assert (rows["epochs"]["from"], rows["batch"]["from"]) == ("recipe", "protocol")


def test_published_rows_stand_beside_teacher_and_student_and_what_is_missing_is_null(folder):
    (folder / "tables" / "b-2.toml").write_text(
        'title = "Late"\nsource = "arXiv:1111.22222v2, Table 2"\ndataset = "d"\nmetric = "m"\n'
        'pairs = ["t->s", "u->s"]\n[rows]\nteacher = [9.0, 8.0]\nstudent = [1.0, 1.5]\n'
        'other = [5.0, 5.0]\nmine = [3.25, nan]\n"mine, twice" = [4.0, 4.0]\n'
        "[top5]\nmine = [6.0, 7.0]\n[base]\nmine = [[1], [2]]\n"
    )
    (folder / "tables" / "a-10.toml").write_text(
        'title = "t"\nsource = "arXiv:3333.44444"\ndataset = "d"\nmetric = "m"\n'
        'pair = "t->s"\ncolumns = ["stl10"]\n[rows]\nmine = [1.5]\n'
    )
    (folder / "tables" / "a-9.toml").write_text(
        'title = "t"\nsource = "x"\ndataset = "d"\nmetric = "m"\npairs = ["t->s"]\n'
        "[rows]\nmine = [1.0]\n"
    )
    found = published.published("mine", "We: Ours. 2026, arXiv:1111.22222, Eq. 3")
    assert [table["table"] for table in found] == ["b-2", "a-9", "a-10"]  # its own paper first
    assert found[0]["rows"] == {
        "teacher": [9.0, 8.0],
        "student": [1.0, 1.5],
        "mine": [3.25, None],
        "mine, twice": [4.0, 4.0],
        "mine, top5": [6.0, 7.0],
    }
    assert found[2]["columns"] == ["stl10"] and found[2]["pair"] == "t->s"
    assert published.published("absent", "") == []


@pytest.mark.parametrize("name", recipes.names())
def test_every_shipped_recipe_has_a_page_and_valid_json(name, capsys):
    recipes_command.recipes([name])
    assert recipes.load(name).paper in capsys.readouterr().out
    recipes_command.recipes([name], json=True)
    assert printed(capsys)["recipe"]["minimize"] == recipes.load(name).minimize


def test_shipped_tables_hold_as_many_numbers_a_row_as_columns():
    found = [table for name in recipes.names() for table in published.published(name, "")]
    assert any(table["table"] == "crd-1" for table in found)
    for table in found:
        for row, values in table["rows"].items():
            assert len(values) == len(table["columns"]), (table["table"], row)
            assert all(value is None or math.isfinite(value) for value in values)


def test_a_copy_has_the_same_bytes_and_nothing_is_overwritten(tmp_path, capsys):
    file = tmp_path / "my.toml"
    recipes_command.recipes(["copy", "kd", str(file)])
    assert file.read_bytes() == (recipes.folder() / "kd.toml").read_bytes()
    assert f"kdcli distill --recipe {file} --student" in capsys.readouterr().err
    file.write_text("mine")
    with pytest.raises(KdcliError, match="exists and is left as it is") as caught:
        recipes_command.recipes(["copy", "kd", str(file)])
    assert caught.value.code == USAGE and file.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["copy", "kd"], "a recipe and a new file", USAGE),
        (["copy", "kdd", "x.toml"], "Did you mean 'kd'", USAGE),
        (["copy", "kd", "x.txt"], "ends in .toml", USAGE),
        (["copy", "kd", "no/such/folder/x.toml"], "cannot write", ENVIRONMENT),
        (["kd", "crd"], r"kd\+crd", USAGE),
        (["mcdl"], "Did you mean 'mcld'", USAGE),
    ],
)
def test_what_recipes_cannot_do_is_one_sentence(words, said, code):
    with pytest.raises(KdcliError, match=said) as caught:
        recipes_command.recipes(words)
    assert caught.value.code == code
