"""A captured step is the eager one: same numbers, nothing asked of the device, nothing moved."""

from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from kdcli import losses, recipes
from kdcli.engine.capture import Captured, Eager
from kdcli.engine.device import device_of
from tests import tiny
from tests.ahead import looking_ahead

RECIPES = recipes.names()
# Reads of the device, shapes that depend on values, and numbers of the host made into tensors.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "lift_fresh"}


def capturable(name):
    recipe = recipes.load(name)
    terms = [*recipe.minimize, *(term for phase in recipe.pretrain for term in phase.minimize)]
    uses = {recipe.losses.get(term, {}).get("use", term) for term in terms}
    return all(losses.load(use).capturable for use in uses)


def again(body):
    """What a graph does, without one: the same kernels on the same tensors."""
    return body


def replayed(loader, step, before):
    return Captured(loader, step, before, record=again)


def final(trainer):
    history = trainer.fit()
    return tiny.snapshot(trainer.objective), [{**record, "seconds": 0} for record in history]


@pytest.mark.parametrize("name", ["kd", "crd", "mlkd", "ft", "dot+kd", "mcld"])
def test_steps_that_find_their_rows_on_the_device_train_as_eager_ones(name):
    recipe = recipes.load(name)
    eager = final(tiny.trainer(recipe, epochs=4))
    shown = final(tiny.trainer(recipe, epochs=4, runner=replayed))
    assert shown[1] == eager[1]
    assert tiny.same(shown[0], eager[0])


def test_each_length_of_a_batch_is_recorded_once_a_phase():
    recorded = []

    def record(body):
        recorded.append(body)
        return body

    trainer = tiny.trainer(
        recipes.load("kd"), epochs=6, runner=lambda *parts: Captured(*parts, record=record)
    )
    trainer.fit()  # 2 steps of 24 images and 1 of 16 an epoch
    assert len(recorded) == 2
    assert trainer.runner.eager == Counter({24: 3, 16: 3})


def test_a_step_is_timed_once_it_is_recorded():
    recorded = []

    def record(body):
        recorded.append(int(trainer.meters.steps))
        return body

    whole = recipes.load("ce")
    trainer = tiny.trainer(whole, batch=8, runner=lambda *parts: Captured(*parts, record=record))
    assert trainer.seconds_per_step() > 0
    assert recorded == [3], "before the last of the steps that are not timed"
    assert int(trainer.meters.steps) == Captured.warm + 4


class Operators(TorchDispatchMode):
    """Notes the name of every operator, below autograd too."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.add(operator.overloadpacket.__name__)
        if operator.overloadpacket.__name__ == "index":
            masks = (index for index in args[1] if index is not None and index.dtype == torch.bool)
            self.names |= {"nonzero" for _ in masks}
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [name for name in RECIPES if capturable(name)])
def test_a_step_asks_nothing_of_the_device(name):
    trainer = tiny.trainer(recipes.load(name))
    trainer.seconds_per_step(1, warm=3)  # what is made once, lazily, is made
    batch = next(trainer.loader.batches(0))
    with Operators() as seen:
        trainer._step(batch)
    assert "convolution_backward" in seen.names
    assert not seen.names & WAITING


def test_the_watch_over_the_step_sees_what_waits():
    tensor = torch.ones(2)
    with Operators() as seen:
        bool(tensor.sum() > 0), tensor[tensor > 0], torch.tensor(1.0)
    assert seen.names & WAITING == {"_local_scalar_dense", "nonzero", "lift_fresh"}


def on_cuda(tensor, mode):
    fake = mode.from_tensor(tensor)
    with mode:
        return fake.to("cuda")


def as_cuda(module, mode):
    """Put stand-ins on a CUDA device, which need none, in the place of parameters and buffers."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for key, value in table.items():
                if value is not None:
                    fake = on_cuda(value.detach(), mode)
                    asks = isinstance(value, torch.nn.Parameter)
                    table[key] = torch.nn.Parameter(fake, value.requires_grad) if asks else fake


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_on_a_gpu_touches_no_tensor_of_the_host(name):
    trainer = tiny.trainer(recipes.load(name))
    trainer._begin_epoch()
    batch = next(trainer.loader.batches(0))
    mode = FakeTensorMode()  # shapes and devices only: a mixture of devices is an error
    as_cuda(trainer.objective, mode)
    if trainer.objective.teacher:
        as_cuda(trainer.objective.teacher.network, mode)
    for table in (vars(trainer.meters), vars(trainer), trainer.objective.weights):
        for key, value in table.items():
            table[key] = on_cuda(value, mode) if isinstance(value, torch.Tensor) else value
    batch = tree_map(lambda tensor: on_cuda(tensor, mode), batch)
    with mode:
        logits, terms = trainer.objective(batch)
        trainer.objective.after_step()
        trainer.meters.add(logits, batch.labels, terms, torch.isfinite(sum(terms.values())))
    assert trainer.meters.hits.device.type == "cuda"
    assert trainer.meters.hits.shape == ()


def test_a_gpu_that_is_named_is_the_one_that_events_and_graphs_are_made_on(monkeypatch):
    current, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device: empty(*size))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cuda:1", "cuda", "cpu"):
        assert device_of(name) == torch.device(name)
    assert current == [torch.device("cuda:1")]


def test_an_epoch_begun_in_its_middle_runs_what_is_left():
    seen = []
    loader = tiny.trainer(recipes.load("ce")).loader
    for runner in (Eager, replayed):
        made = runner(loader, lambda batch: seen.append(batch.index.tolist()), lambda *_: None)
        list(made.run(1, 1))
    assert len(seen) == 4
    assert seen[:2] == seen[2:]


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in RECIPES if capturable(name)])
def test_a_graph_trains_as_the_eager_steps_do(name):
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True  # else rounding differs, and 60 steps magnify it
    runs = [
        tiny.trainer(recipes.load(name), epochs=20, runner=runner, device="cuda")
        for runner in (Eager, Captured)
    ]
    eager, graph = ([r["train"] for r in run.fit()] for run in runs)
    assert len(runs[1].runner.replays) == 2
    for one, other in zip(eager, graph, strict=True):
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=2e-2, abs=2e-2), key


@pytest.mark.gpu
@pytest.mark.parametrize("prepare", [lambda trainer: trainer, looking_ahead])
def test_no_step_of_a_graph_waits_for_the_device(prepare):
    made = tiny.trainer(recipes.load("crd+kd"), epochs=8, runner=Captured, device="cuda")
    trainer = prepare(made)
    trainer.seconds_per_step(1, warm=15)
    trainer.loader.plan(6)  # goes to the device once an epoch, before its steps
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(trainer.runner.run(6, 0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
