"""How `kdcli probe` has each network judged by each solver, its features computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kdcli.errors import KdcliError

if TYPE_CHECKING:
    import torch

    from kdcli.cli.show.probe_table import Probed
    from kdcli.cli.work.pick import Picked
    from kdcli.data import Dataset
    from kdcli.recipe import Recipe


class Plan(NamedTuple):
    """What each network is judged by."""

    solvers: tuple[str, ...]
    recipe: Recipe  # of sgd
    neighbours: int  # of knn
    seed: int
    device: torch.device


def judge_all(
    networks: list[tuple[Picked, Any, dict]], loaded: Dataset, plan: Plan
) -> list[Probed]:
    """The scores of every network; one that fails is told, and passed over if others do not."""
    from rich.markup import escape

    from kdcli.cli.show import screen

    found, failed = [], None
    for picked, network, told in networks:
        try:
            found.append(_judged(picked, network, told, loaded, plan))
        except KdcliError as error:
            if len(networks) > 1:
                screen.console.print(f"[red]{escape(f'{picked.path}: {error}')}[/red]")
            failed = error
    if failed and not found:
        raise failed
    return found


def _judged(
    picked: Picked, network: Any, told: dict[str, Any], loaded: Dataset, plan: Plan
) -> Probed:
    """One network by each solver, its progress on the screen; what came out is kept in its run."""
    from rich.markup import escape
    from rich.progress import Progress

    from kdcli.cli.show import screen
    from kdcli.cli.show.probe_table import Probed
    from kdcli.transfer import features, kept

    live = screen.console.is_terminal and not screen.console.quiet
    name = escape(picked.run.name if picked.run else picked.path.name)
    with Progress(console=screen.console, disable=not live, transient=True) as bars:
        task = bars.add_task(f"{name}: features", total=None)

        def report(done: int, total: int, text: str) -> None:
            bars.update(task, completed=done, total=total, description=f"{name}: {text}")

        frozen = features.freeze(network, loaded, plan.device)
        results = {}
        for solver in plan.solvers:
            bars.reset(task, description=f"{name}: {solver}")
            results[solver] = _solved(solver, frozen, plan, report)
            screen.say(f"{name}: {solver} {results[solver].top1:.2f} %", "dim")
    if picked.run:
        try:
            kept.keep(picked.run, loaded, results)
        except KdcliError as error:
            screen.note(f"not kept: {error}")
    return Probed(picked, network.architecture["name"], told.get("dataset"), results)


def _solved(solver: str, frozen: Any, plan: Plan, report: Any) -> Any:
    if solver == "lbfgs":
        from kdcli.transfer.logistic import logistic

        return logistic(frozen, seed=plan.seed, report=report)
    if solver == "knn":
        from kdcli.transfer.neighbours import nearest

        return nearest(frozen, plan.neighbours)
    from kdcli.transfer.probe import probe as train_classifier

    recipe = plan.recipe
    return train_classifier(
        frozen,
        epochs=recipe.epochs,
        lr=recipe.lr,
        milestones=recipe.milestones,
        batch=recipe.batch,
        momentum=recipe.optimizer["momentum"],
        weight_decay=recipe.optimizer["weight_decay"],
        seed=plan.seed,
        report=report,
    )
