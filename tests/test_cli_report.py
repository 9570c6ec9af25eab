"""`kdcli report`: one page that needs nothing else, true to the runs, for phone and desk."""

import html.parser
import itertools
import json
import re
import shlex
import shutil
import subprocess
from collections import Counter
from dataclasses import replace

import pytest
import torch

from kdcli import data, recipes
from kdcli.analysis import page
from kdcli.analysis.answers import Answers
from kdcli.analysis.confusion import Confusion, confusions, disagreements
from kdcli.analysis.repeat import command
from kdcli.analysis.report import examples
from kdcli.analysis.study import Study, Subject
from kdcli.analysis.teachers import Teacher
from kdcli.cli.work.flags import adjusted
from kdcli.data import Split
from kdcli.data.pictures import Pictures
from kdcli.runs import Run
from kdcli.settings import for_dataset, for_pair, override
from tests.command import call, draw_folder
from tests.made_runs import store

VOID = {"meta", "br", "img", "link", "hr"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Reader(html.parser.HTMLParser):
    """What is in a page: tags in balance, ids, links, pictures and words."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.sources = [], Counter(), [], []
        self.words, self.unnamed = [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids.update([told["id"]] if "id" in told else [])
        links = [told[key] for key in ("href", "src", "xlink:href") if key in told]
        self.links += [link for link in links if link.startswith("#")]
        self.sources += [link for link in links if not link.startswith("#")]
        named = told.get("alt") if tag == "img" else told.get("aria-label")
        self.unnamed += tag in ("img", "svg") and not named

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run folder, its student's name being no good HTML; and a page of two of its runs."""
    folder = tmp_path_factory.mktemp("runs")
    images = "folder:" + str(draw_folder(tmp_path_factory.mktemp("my <b> & own"), 3, test=12))
    store(folder, images)
    config = json.loads((folder / "student" / "config.json").read_text())
    config["recipe"]["name"] = "kd<script>&"
    (folder / "student" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def text(made, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return written(made, tmp_path_factory.mktemp("page") / "report.html", patch)


def written(folder, place, patch) -> str:
    from kdcli.cli import main

    patch.setattr("sys.argv", ["kdcli", "report", "student", "alone", "--run-dir", str(folder),
                               "--output", str(place), "--quiet"])  # fmt: skip
    main.app(standalone_mode=False)
    return place.read_text(encoding="utf-8")


def test_the_page_is_whole_alone_and_escaped(text):
    read = Reader(text)
    assert not read.open and not read.unnamed
    assert [name for name, count in read.ids.items() if count > 1] == []
    assert {link[1:] for link in read.links} <= set(read.ids)
    assert all(source.startswith("data:image/png;base64,") for source in read.sources)
    assert not re.search(r"https?://|@import|<script|<link", text)
    assert "kd<script>&" in "".join(read.words) and "<b>" not in text


def test_it_says_what_the_runs_reached_and_how_to_repeat_them(text, made):
    words = " ".join(Reader(text).words)
    for name in ("student", "alone"):
        assert f"{Run(made / name).result['top1']:.2f}" in words
    assert command(Run(made / "alone")) in words
    assert "has no command" in words  # a recipe that is not shipped
    assert "recipe.minimize.kd" in words and "recipe.datasets" not in words


def test_no_path_of_this_machine_is_in_it(text, made):
    assert str(made.parent) not in text


def test_nor_where_a_teacher_was_that_is_gone(made, tmp_path, monkeypatch):
    monkeypatch.setattr("kdcli.analysis.figures.KINDS", {"agreement": "agreement"})
    folder = tmp_path / "elsewhere"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("teacher"))
    config = json.loads((folder / "student" / "config.json").read_text())
    config["teacher"]["path"] = str(folder / "teacher" / "model.safetensors")
    (folder / "student" / "config.json").write_text(json.dumps(config))
    text = written(folder, tmp_path / "page.html", monkeypatch)
    assert "weights model.safetensors are gone" in text and str(tmp_path) not in text


def test_images_that_are_streamed_are_shown_as_those_in_memory_are(tmp_path):
    folder = draw_folder(tmp_path, classes=3)
    loaded = data.load(f"folder:{folder}", tmp_path)
    names = [f"class{label}/{number}.png" for label in range(3) for number in range(8)]
    streamed = Pictures(folder / "test", names, 32, "stretch")
    labels = loaded.test.labels
    right = Answers(torch.eye(3)[labels], torch.zeros(24, 1), labels)
    wrong = Answers(torch.eye(3)[(labels + 1) % 3], torch.zeros(24, 1), labels)
    subject = Subject("kd", Run(tmp_path), wrong, Teacher("t", (), (), right), "", None)
    pages = [
        examples(Study((subject,), replace(loaded, test=Split(images, labels)), "cpu"))
        for images in (loaded.test.images, streamed)
    ]
    assert pages[0] == pages[1] and pages[0].count("<img") == 6


def test_a_second_time_gives_the_same_bytes(text, made, tmp_path, monkeypatch):
    assert written(made, tmp_path / "again.html", monkeypatch) == text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
@pytest.mark.parametrize(("width", "dark"), [(375, True), (375, False), (1280, True)])
def test_a_browser_has_no_complaint_and_nothing_sticks_out(text, tmp_path, width, dark):
    inside = json.dumps(text).replace("</", "<\\/")
    (tmp_path / "frame.html").write_text(
        f'<!doctype html><iframe id="frame" style="width:{width}px;height:800px"></iframe><script>'
        f"const frame = document.getElementById('frame'); frame.srcdoc = {inside};"
        "frame.onload = () => { const page = frame.contentDocument.documentElement;"
        "console.log('measured', page.scrollWidth - page.clientWidth,"
        "getComputedStyle(frame.contentDocument.body).backgroundColor) }</script>"
    )
    quiet = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update")  # fmt: skip
    answer = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={tmp_path}/user",
         "--enable-logging=stderr", "--v=0",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}",
         f"--screenshot={tmp_path}/shot.png", "--window-size=1400,900",
         f"file://{tmp_path}/frame.html"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said = [line for line in answer.stderr.splitlines() if ":CONSOLE" in line]
    colour = "rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)"
    assert len(said) == 1 and f'"measured 0 {colour}"' in said[0], said


def test_a_folder_is_no_file_and_said_at_once(made, tmp_path, capsys):
    answer = call(capsys, "report", "student", "--run-dir", made, "--output", tmp_path)
    assert answer.code == 2 and "is a folder" in answer.err and "answers of" not in answer.err


def test_one_run_is_written_into_its_folder(made, capsys, monkeypatch):
    monkeypatch.setattr("kdcli.analysis.figures.KINDS", {"time": "timing"})
    answer = call(capsys, "report", "teacher", "--run-dir", made, "--json", "--quiet")
    told = json.loads(answer.out)
    assert told["file"] == str(made / "teacher" / "report.html")
    assert "Settings that differ" not in (made / "teacher" / "report.html").read_text()


def test_confusions_are_counted_and_ranked():
    said = torch.tensor([0, 1, 1, 2, 1, 0])
    answers = Answers(torch.eye(3)[said], torch.zeros(6, 1), torch.tensor([0, 0, 0, 0, 1, 2]))
    expected = [Confusion(0, 1, 2, 50.0), Confusion(0, 2, 1, 25.0), Confusion(2, 0, 1, 100.0)]
    assert confusions(answers, 9) == expected
    assert confusions(answers, 1) == expected[:1]


def test_disagreements_are_one_sided_and_the_surest_first():
    labels = torch.zeros(4, dtype=torch.int64)
    teacher = Answers(torch.tensor([[2.0, 0], [9, 0], [9, 0], [0, 1]]), torch.zeros(4, 1), labels)
    student = Answers(torch.tensor([[0.0, 2], [0, 3], [9, 0], [1, 0]]), torch.zeros(4, 1), labels)
    found = disagreements(teacher, student, each=5)
    assert [(each.image, each.teacher, each.student) for each in found] == [
        (1, 0, 1), (0, 0, 1), (3, 1, 0),
    ]  # fmt: skip
    assert found[0].sureness == pytest.approx((99.99, 95.26), abs=0.01)


@pytest.mark.parametrize("settings", [[], ["minimize.ce=0.5", "losses.kd.temperature=2.5"]])
def test_a_command_gives_the_recipe_again(tmp_path, settings):
    recipe = adjusted(recipes.load("kd"), 7, 32, 0.02, settings)
    run = Run(tmp_path / "mine")
    run.begin({"kind": "distill", "student": "resnet8", "dataset": "cifar100", "seed": 4,
               "teacher": {"model": "resnet20", "path": "/x/t.pth", "run": "t"},
               "recipe": json.loads(json.dumps(recipe.to_dict()))})  # fmt: skip
    words = shlex.split(command(run))
    options = list(itertools.pairwise(words))
    told = dict(options)
    assert (told["--teacher"], told["--seed"], told["--name"]) == ("t", "4", "mine")
    said = [value for key, value in options if key == "--set"]
    again = adjusted(recipes.load(told["--recipe"]), int(told["--epochs"]), None, None, said)
    assert again == recipe


def begun(folder, dataset="cifar100", teachers=(), **settings) -> Run:
    """A run of kd as `kdcli distill` begins it."""
    models = {told["model"] for told in teachers}
    base = for_pair(for_dataset(recipes.load("kd"), dataset), "".join(models), "resnet8x4")
    told = [{"path": "/x/t.pth", "run": "t", **told} for told in teachers]
    run = Run(folder / "mine")
    run.begin({"kind": "distill", "student": "resnet8x4", "dataset": dataset, "seed": 0,
               "teacher": {"model": "2xresnet32x4", "members": told} if told[1:] else told[0],
               "recipe": json.loads(json.dumps(override(base, settings).to_dict()))})  # fmt: skip
    return run


def test_a_command_says_what_is_set_over_the_schedule_of_its_dataset(tmp_path):
    plain, one = recipes.load("kd"), [{"model": "resnet32x4"}]
    assert "--set" not in command(begun(tmp_path, "imagenet", one))
    assert plain.optimizer["weight_decay"] != 1e-4  # ImageNet's, which nobody has to set
    said = command(begun(tmp_path, "imagenet", one, **{"optimizer.weight_decay": 5e-4}))
    assert "--set optimizer.weight_decay=0.0005" in said
    assert "--set data.size=48" in command(begun(tmp_path, "cifar100", one, **{"data.size": 48}))


def test_a_command_names_the_architecture_of_a_teacher_that_is_a_file(tmp_path):
    words = shlex.split(command(begun(tmp_path, teachers=[{"model": "resnet32x4", "run": ""}])))
    assert words[words.index("--teacher") + 1 :][:3] == ["t.pth", "--teacher-model", "resnet32x4"]
    both = [{"model": "resnet32x4"}, {"model": "resnet32x4", "run": "u"}]
    said = command(begun(tmp_path, teachers=both))
    assert "--teacher t --teacher u" in said and "--teacher-model" not in said


def test_a_table_shows_numbers_to_the_right_and_nothing_as_a_dash():
    made = page.table(["a<", "b"], [["x", 1234], ["y", None], ["z", 0.5]])
    assert '<th scope="col" class="number">b</th>' in made and "a&lt;" in made
    assert re.findall(r'<td class="number">(.*?)</td>', made) == ["1,234", "–", "0.50"]
