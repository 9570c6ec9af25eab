"""`kdcli bank` as a person types it, and distillation that finds what it left."""

import json

from tests.command import call

SMALL = ("--dataset", "shapes", "--train-per-class", "4", "--epochs", "1", "--threads", "1")
DISTIL = ("distill", "--recipe", "kd", "--student", "tiny8", "--teacher", "tiny8")


def test_a_run_fills_a_bank_that_is_listed_and_deleted(capsys):
    call(capsys, "teach", "tiny8", *SMALL)
    distil = (*DISTIL, *SMALL, "--allow-weak-teacher")
    assert call(capsys, *distil).code == 0
    (bank,) = json.loads(call(capsys, "bank", "list", "--json").out)
    assert (bank["teacher"], bank["images"], bank["rows"]) == ("tiny8", 40, {"logits": 40})
    again = " ".join(call(capsys, *distil, "--seed", "1").err.split())
    assert f"{bank['name']} (0.617 % of all views are there)" in again
    assert "answers" not in call(capsys, *distil, "--seed", "2", "--bank", "off").err
    shown = call(capsys, "bank", "list").out
    assert "1.23 %" in shown or "1.22 %" in shown, "80 rows, of which a few may be the same view"
    assert "is deleted" in call(capsys, "bank", "rm", bank["name"]).err
    assert json.loads(call(capsys, "bank", "list", "--json").out) == []


def test_a_bank_of_a_part_of_the_images_is_the_one_that_training_on_that_part_finds(capsys):
    call(capsys, "teach", "tiny8", *SMALL)
    built = call(
        capsys, "bank", "build", "tiny8", "--train-per-class", "4", "--threads", "1", "--json"
    )
    told = json.loads(built.out)
    views = told["views"]
    assert views % 40 == 0 and views > 40, "of 4 images of each of 10 classes"
    answer = call(capsys, *DISTIL, *SMALL, "--allow-weak-teacher")
    assert "(100 % of all views are there)" in " ".join(answer.err.split())


def test_what_is_asked_wrongly_is_one_line(capsys):
    for words, told in (
        (("bank", "rm"), "--all"),
        (("bank", "rm", "x"), "unknown bank 'x'"),
        (("bank", "build", "tiny8", "--columns", "stages"), "unknown column 'stages'"),
        (("bank", "build", "tiny8"), "kdcli teach tiny8"),
        (("teach", "tiny8", "--precision", "fp8"), "unknown --precision 'fp8'"),
    ):
        answer = call(capsys, *words)
        assert answer.code == 2
        assert told in answer.err
