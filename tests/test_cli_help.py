"""Asking costs nothing: help, completion and mistakes are answered without torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdcli.cli.main import COMMANDS
from kdcli.losses import names as loss_names
from kdcli.models import TABLE
from kdcli.recipes import names as recipe_names

HEAVY = {"torch", "torchvision", "numpy", "onnx", "onnxruntime", "PIL", "matplotlib", "sklearn"}
ROOT = Path(__file__).parents[1]
LOUD = ("FORCE_COLOR", "NO_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "CLICOLOR_FORCE")
ENTRY = "import sys; sys.argv[0] = 'kdcli'; from kdcli.cli.main import run; run()"

GROUPS = {"export": "onnx", "bank": "build"}


def environment(**more):
    kept = {key: value for key, value in os.environ.items() if key not in LOUD}
    return {**kept, "COLUMNS": "160", "TERM": "xterm-256color", "PYTHONUTF8": "1", **more}


def kdcli(*arguments, options=(), **more):
    """The command in a process of its own; its output, errors and exit code."""
    return subprocess.run(
        [sys.executable, *options, "-c", ENTRY, *arguments],
        capture_output=True, encoding="utf-8", cwd=ROOT, env=environment(**more), timeout=60,
    )  # fmt: skip


def imported(errors):
    """Top-level modules that `-X importtime` saw."""
    lines = (line for line in errors.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.fixture(scope="module")
def helps():
    """The help of every command, and what was imported for it."""
    asked = {"": ["--help"]} | {name: [name, "--help"] for name in COMMANDS}
    return {name: kdcli(*words, options=("-X", "importtime")) for name, words in asked.items()}


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_imports_nothing_heavy(helps, name):
    told = helps[name]
    assert told.returncode == 0 and "Usage" in told.stdout
    assert "typer" in imported(told.stderr)
    assert not imported(told.stderr) & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_summary_an_example_and_the_common_options(helps, name):
    told = helps[name].stdout
    if name in GROUPS:  # its parts have the examples
        told = kdcli(name, GROUPS[name], "--help").stdout
    assert f"Example: kdcli {name}" in told
    assert all(option in told for option in ("--json", "--quiet", "--debug"))
    summary = next(line for line in helps[""].stdout.splitlines() if line.startswith(f"│ {name} "))
    assert summary.rstrip(" │").endswith(".")


def test_every_command_that_help_or_readme_names_exists(helps):
    told = " ".join(process.stdout for process in helps.values())
    named = set(re.findall(r"kdcli ([a-z]+)", re.sub(r"\s*│\s*│?\s*", " ", told)))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named |= set(re.findall(r"(?:^|`)(?:\$ )?kdcli ([a-z]+)", readme, re.MULTILINE))
    assert "teach" in named
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("name", ["analyse", "compare", "eval", "export", "predict", "probe"])
def test_nothing_is_cut_off_on_a_narrow_terminal(name):
    told = kdcli(name, "--help", COLUMNS="80").stdout
    assert told and "…" not in told


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert kdcli("--version").stdout.strip() == version("kdcli")


def test_names_complete_without_torch():
    code = (
        "from kdcli.cli import complete; import sys\n"
        "print(complete.recipe('mcl'), complete.recipe('crd+k'), complete.model('RESNET8X'),"
        " complete.dataset('cifar'), complete.run(''))\n"
        f"assert not set(sys.modules) & {HEAVY}, set(sys.modules) & {HEAVY}"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert told.returncode == 0, told.stderr
    wanted = "['mcld'] ['crd+kd', 'crd+kdsvd'] ['resnet8x4'] ['cifar100', 'cifar10'] []"
    assert told.stdout.strip() == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("kdcli recipes mc", "mcld"),
        ("kdcli models resnet8x", "resnet8x4"),
        ("kdcli datasets sh", "shapes"),
        ("kdcli distill --recipe mc", "mcld"),
        ("kdcli doc", "doctor"),
    ],
)
def test_the_shell_completes_through_the_command_itself(line, wanted):
    words = line.split()
    told = kdcli(
        options=("-X", "importtime"), _KDCLI_COMPLETE="complete_bash", COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
    )  # fmt: skip
    assert told.stdout.split() == [wanted]
    assert not imported(told.stderr) & HEAVY


@pytest.mark.parametrize("words", [["recipes"], ["recipes", "kd"], ["models"], ["runs"]])
def test_looking_up_imports_nothing_heavy(words):
    told = kdcli(*words, options=("-X", "importtime"))
    assert told.returncode == 0, told.stderr
    assert not imported(told.stderr) & HEAVY


def test_datasets_are_found_without_torch():
    told = kdcli("datasets", options=("-X", "importtime"))
    assert told.returncode == 0 and not imported(told.stderr) & {"torch", "torchvision"}


@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}])
@pytest.mark.parametrize("words", [["--help"], ["recipes"], ["models"], ["recipes", "mcdl"]])
def test_output_that_no_terminal_reads_has_no_escape_codes(words, more):
    told = kdcli(*words, **more)
    assert told.stdout + told.stderr
    assert "\x1b" not in told.stdout + told.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["recipes", "mcdl"], "mcld"),
        (["recipes", "--group", "contrastiv"], "contrastive"),
        (["models", "resnet8x5"], "resnet8x4"),
        (["datasets", "cifar1000"], "cifar100"),
        (["teach", "resnet32x5"], "resnet32x4"),
        (["distill", "--recipe", "kdd", "--student", "vgg8"], "kd"),
        (["modles"], "models"),
        (["models", "--jsno"], "--json"),
    ],
)
def test_a_slip_of_the_pen_is_a_usage_error_that_names_what_was_meant(words, meant):
    told = kdcli(*words)
    assert told.returncode == 2
    asked = r"(?:Did you mean:?|Possible options:) '?"
    assert re.search(asked + re.escape(meant), told.stderr), told.stderr
    assert "Traceback" not in told.stderr and told.stdout == ""


@pytest.mark.parametrize(
    "words", [["recipes"], ["recipes", "kd"], ["models", "--json"], ["runs"], ["--help"]]
)
def test_a_reader_who_closes_the_pipe_is_no_error(words):
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, *words], cwd=ROOT, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    told = process.stderr.read().decode()
    process.wait(timeout=60)
    assert "Traceback" not in told and "BrokenPipe" not in told and "fault" not in told


def test_completion_knows_every_name():
    from kdcli.cli import complete

    assert complete.recipe("") == recipe_names()
    assert complete.model("") == list(TABLE)
    assert set(loss_names()) >= {"ce", "kd"}
