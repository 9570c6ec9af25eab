"""The answers of a run to its test images: right, kept, and computed again where they must be."""

from __future__ import annotations

import pytest
import torch

from kdcli import data, models
from kdcli.analysis.answers import FILE, answers
from kdcli.engine.evaluate import evaluate
from kdcli.errors import KdcliError
from kdcli.models import weights
from kdcli.runs import Run
from tests.command import draw_folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return "folder:" + str(draw_folder(tmp_path_factory.mktemp("images")))


def make_run(path, dataset: str, seed: int = 0, **settings) -> Run:
    """A finished run of a network that nobody trained; `settings` go into its config."""
    torch.manual_seed(seed)
    run, network = Run(path), models.build("tiny8", classes=4)
    with torch.no_grad():
        network.train()(torch.randn(64, 3, 32, 32))
    run.begin({"kind": "distill", "recipe": {}, "student": "tiny8", "dataset": dataset, **settings})
    weights.save(network, run.model, {"mean": [0.5] * 3, "std": [0.25] * 3})
    run.finish({"top1": 25.0})
    return run


def test_they_are_the_networks_own_in_the_order_of_the_test_set(images, tmp_path):
    run = make_run(tmp_path / "one", images)
    given = answers(run, tmp_path)
    network, _ = weights.read(run.model)
    loaded = data.load(images, tmp_path)
    with torch.no_grad():
        features = network.features((loaded.test.images.float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(given.logits, features.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given.pooled, features.pooled, rtol=1e-4, atol=1e-5)
    assert torch.equal(given.labels, loaded.test.labels)
    scores = evaluate(network, loaded.test, (0.5,) * 3, (0.25,) * 3, "cpu")
    assert 100 * given.right.double().mean().item() == pytest.approx(scores.top1)


def test_a_second_time_no_network_is_asked(images, tmp_path, monkeypatch):
    run = make_run(tmp_path / "one", images)
    first = answers(run, tmp_path)
    monkeypatch.setattr(weights, "read", lambda *_, **__: pytest.fail("a network was read"))
    again = answers(run, tmp_path, dataset=data.load(images, tmp_path, train_per_class=1))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not list(run.path.glob(".tmp*"))


@pytest.mark.parametrize("how", ["cut", "flipped", "foreign", "other model", "other images"])
def test_what_does_not_fit_is_computed_again(images, tmp_path, how):
    run = make_run(tmp_path / "one", images)
    path, expected, dataset = run.path / FILE, answers(run, tmp_path), None
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif how == "foreign":
        path.write_bytes(b"not a file of ours")
    elif how == "other model":
        answers(make_run(tmp_path / "two", images, seed=1), tmp_path)
        path.write_bytes((tmp_path / "two" / FILE).read_bytes())
    else:
        loaded = data.load(images, tmp_path)
        half = data.Split(loaded.test.images[::2], loaded.test.labels[::2])
        dataset = data.Dataset(**{**vars(loaded), "test": half})
    found = answers(run, tmp_path, dataset=dataset)
    rows = slice(None, None, 2) if how == "other images" else slice(None)
    torch.testing.assert_close(found.logits, expected.logits[rows])
    assert torch.equal(found.labels, expected.labels[rows])
    if dataset is None:
        assert path.read_bytes() == content


def test_a_folder_that_takes_no_file_costs_only_the_copy(images, tmp_path):
    run = make_run(tmp_path / "one", images)
    (run.path / FILE).mkdir()
    assert len(answers(run, tmp_path).labels) == 32


def test_an_answer_that_is_no_number_is_not_right():
    from kdcli.analysis.answers import Answers

    logits = torch.tensor([[0.0, 1], [float("nan"), 0], [1, 0]])
    assert Answers(logits, logits, torch.tensor([1, 0, 1])).right.tolist() == [True, False, False]


def test_an_unfinished_run_and_one_of_other_classes_are_refused(images, tmp_path):
    run = make_run(tmp_path / "one", images)
    loaded = data.load(images, tmp_path)
    more = loaded.test._replace(labels=loaded.test.labels + 2)
    with pytest.raises(KdcliError, match="tells 4 classes apart"):
        answers(run, tmp_path, dataset=data.Dataset(**{**vars(loaded), "test": more}))
    (run.path / "result.json").unlink()
    with pytest.raises(KdcliError, match="unfinished; kdcli resume one"):
        answers(Run(run.path), tmp_path)
