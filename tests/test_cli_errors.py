"""Whatever goes wrong is one line and the exit code of its kind."""

import pytest

from kdcli.cli.main import run


def raised(kind, text):
    def work():
        raise type(kind, (RuntimeError,), {})(text)

    return work


@pytest.mark.parametrize(
    ("kind", "code", "told"),
    [
        ("OutOfMemoryError", 6, "out of GPU memory (asked for 2 GiB); try a smaller --batch-size."),
        ("AcceleratorError", 6, "the GPU failed (asked for 2 GiB); what is saved is whole."),
        ("RuntimeError", 1, "This is a fault of kdcli; --debug shows where."),
    ],
)
def test_a_failure_of_the_machine_is_told_from_one_of_ours(capsys, kind, code, told):
    with pytest.raises(SystemExit) as left:
        run(raised(kind, "asked for 2 GiB\nsecond line"))
    assert left.value.code == code
    said = capsys.readouterr().err
    assert said.startswith("kdcli: ") and told in said


def test_memory_of_the_host_is_the_machines_too(capsys):
    def work():
        raise MemoryError

    with pytest.raises(SystemExit) as left:
        run(work)
    assert left.value.code == 6
    assert "out of memory" in capsys.readouterr().err
