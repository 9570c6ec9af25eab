"""The table of several runs: where each stands, what fits on the terminal, when all are over."""

from pathlib import Path

from rich.console import Console

from kdcli.cli.show import board
from kdcli.cli.show.board import DONE, FAILED, RUNNING, Board, Job
from kdcli.runs import Run


def drawn(made, width, height, monkeypatch):
    """The table as lines of plain text."""
    console = Console(width=width, height=height)
    monkeypatch.setattr(board, "console", console)
    with console.capture() as captured:
        console.print(Board(made)._shown())
    return [line.rstrip() for line in captured.get().splitlines()]


def record(epoch, top1):
    return {"epoch": epoch, "lr": 0.1, "train": {"ce": 1.0, "top1": 30.0}, "test": {"top1": top1},
            "seconds": 2.0}  # fmt: skip


def some(count):
    return [Job(None, Run(Path(f"kd-a-b-s{number}"))) for number in range(count)]


def test_the_table_says_of_each_run_where_it_stands(monkeypatch):
    made = some(4)
    made[1].state, made[2].state, made[3].state = RUNNING, DONE, FAILED
    made[1].take("expect", 10, 20, 5)
    made[1].take("epoch", record(1, 40.0))
    made[1].take("epoch", record(2, 38.0))
    title, _, waiting, running, _, _, total = drawn(made, 100, 40, monkeypatch)
    assert title == "kd-a-b", "what all names begin with is said once"
    assert waiting.split() == ["s0", "waiting"]
    # 20 steps of 5 images in 2 s; 160 steps left at 10 a second
    assert " ".join(running.split()) == "s1 running 2/10 0% 50 16 s 30.0 38.00 40.00"
    assert total == "1 running, 1 failed, 1 waiting, 1 done; about 36 s left for all"
    narrow = drawn(made, 40, 40, monkeypatch)
    assert all(len(line) <= 40 for line in narrow) and len(narrow) == 8, "the sum takes two lines"
    assert " ".join(narrow[3].split()) == "s1 running 2/10 16 s 38.00 40.00"


def test_more_runs_than_lines_are_counted_and_those_at_work_are_shown(monkeypatch):
    made = some(50)
    made[40].state = RUNNING
    for job in made[:40]:
        job.state = DONE
    shown = drawn(made, 100, 12, monkeypatch)
    assert len(shown) <= 12 and any(line.startswith("s40  starting") for line in shown)
    assert shown[-1] == "1 running, 9 waiting, 40 done"


def test_an_epoch_done_again_after_a_resume_stands_there_once():
    (job,) = some(1)
    job.log = [record(1, 10.0), record(2, 60.0)]
    job.take("expect", 3, 20, 5)
    job.take("epoch", record(2, 20.0))
    assert [told["epoch"] for told in job.log] == [1, 2] and job.best == 20.0
