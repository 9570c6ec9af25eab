"""The page of `kdcli bench`: what was measured, as tables and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdcli.cli.show.screen import duration, out, say, table

if TYPE_CHECKING:
    from kdcli.bench.comparison import Comparison
    from kdcli.bench.losses import Twin
    from kdcli.bench.ours import Setting


def answer(setting: Setting, compared: Comparison | None, twins: list[Twin]) -> dict[str, Any]:
    """Everything that was measured, and what it depends on."""
    from dataclasses import asdict

    from kdcli.engine.device import device_of, machine

    recipe = setting.recipe
    told = {
        "recipe": recipe.name,
        "teacher": setting.teacher,
        "student": setting.student,
        "batch": recipe.batch,
        "dataset": {"name": setting.dataset.name, "source": setting.dataset.source},
        "machine": machine(device_of(setting.device)),
        "losses_alone": [{**asdict(twin), "speed_up": twin.speed_up} for twin in twins],
    }
    if compared is not None:
        told |= {
            "variants": compared.rows(),
            "published_run": {"epochs": recipe.epochs, "steps": compared.steps},
            "rates": compared.rates._asdict(),
            "step": compared.step._asdict(),
            "teacher_in_step": compared.teacher._asdict(),
        }
    return told


def show(told: dict[str, Any]) -> None:
    """The tables, and what their numbers mean."""
    machine, threads = told["machine"], told["machine"]["threads"]
    where = f"{machine['device']} ({machine['device_name']}), {threads} CPU thread"
    where += f"{'s' if threads > 1 else ''}, torch {machine['torch']}"
    pair = f"{told['teacher']} -> {told['student']}" if told["teacher"] else told["student"]
    if "variants" in told:
        title = f"{told['recipe']}, {pair}, batch {told['batch']}, {told['dataset']['name']}"
        columns = ["", "images/s", "ms/step", "spread", "memory", "run", "speed-up", "floor"]
        out.print(table(f"{title}, {where}", columns, map(_row, told["variants"])))
        _explain(told)
    if told["losses_alone"]:
        title = f"The loss alone: {told['losses_alone'][0]['sizes']}, {where}"
        columns = ["", "", "literal, ms", "kdcli, ms", "speed-up"]
        out.print(table(title, columns, map(_part, told["losses_alone"])))


def _row(row: dict[str, Any]) -> list[str]:
    """A variant as the table has it."""
    memory, median = row["step_memory_bytes"], row["seconds_per_step"]
    return [
        row["name"],
        f"{row['images_per_second']:,.0f}",
        f"{median * 1e3:,.1f}",
        f"{(row['slowest'] - row['fastest']) / median:.0%}",
        "-" if memory is None else f"{memory / 1e6:,.0f} MB",
        duration(row["published_run_seconds"]),
        f"{row['speed_up']:.2f}x",
        f"{row['share_of_floor']:.0%}",
    ]


def _part(twin: dict[str, Any]) -> list[object]:
    """A part of a loss as the table has it."""
    times = [twin[side] * 1e3 for side in ("literal", "kdcli")]
    return [twin["loss"], twin["part"], *times, f"{twin['speed_up']:.1f}x"]


def _explain(told: dict[str, Any]) -> None:
    step, rates, run = told["step"], told["rates"], told["published_run"]
    lines = [f"{row['name']}: {row['what']}" for row in told["variants"]]
    lines += [
        f"{row['name']}: rows beforehand at {row['bank_images_per_second']:,.0f} images/s, not in "
        f"ms/step; every view of the dataset in {duration(row['bank_seconds'])}, once for all runs."
        for row in told["variants"]
        if "bank_seconds" in row
    ]
    lines += [
        "ms/step: median of the rounds, loading included; spread: slowest less fastest round.",
        "memory: the most that tensors hold in a step beyond what stood before it (activations, "
        "gradients, momentum).",
        f"run: the published {run['epochs']} epochs, {run['steps']:,} steps, without evaluation.",
        f"floor: its share of the step. {step['flops'] / 1e9:,.1f} GFLOP at the "
        f"{rates['flops'] / 1e9:,.0f} GFLOP/s of a matrix product here, or "
        f"{step['bytes'] / 1e9:,.2f} GB at the {rates['bytes'] / 1e9:,.0f} GB/s of a copy, "
        "whichever takes longer.",
    ]
    for line in lines:
        say(line, "dim")
