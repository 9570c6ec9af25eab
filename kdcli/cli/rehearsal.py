"""`--dry-run`: everything built, a few steps timed, nothing trained or written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdcli.cli import screen
from kdcli.cli.screen import duration


def rehearse(
    config: Mapping[str, Any], path: Path, data_dir: Path, device: str, as_json: bool
) -> dict[str, Any]:
    """Shapes, parameters, FLOPs, memory, steps and a measured guess of the time."""
    from kdcli.analysis.cost import cost, training_bytes
    from kdcli.cli.progress import Screen
    from kdcli.engine.session import Session

    session = Session(config, data_dir, device, Screen(path.name))
    size, recipe = session.dataset.size, session.recipe
    networks = {"student": session.student, "teacher": session.teacher}
    costs = {name: cost(network, size) for name, network in networks.items() if network}
    extra = sum(p.numel() for p in session.objective.losses.parameters())
    memory = training_bytes(session.student, recipe.batch, size)
    epochs = sum(phase.epochs for phase in session.phases())
    steps = session.loader.steps
    trainer = session.trainer()
    step = trainer.seconds_per_step()
    told = {
        "run": str(path),
        "parameters": {name: one.parameters for name, one in costs.items()} | {"losses": extra},
        "flops_per_image": {name: one.flops_per_image for name, one in costs.items()},
        "training_bytes": memory,
        "epochs": epochs,
        "steps_per_epoch": steps,
        "seconds_per_step": step,
        "seconds": step * steps * epochs,
    }
    if as_json:
        screen.emit(told)
        return told
    rows = [
        [name, f"{one.parameters:,}", f"{one.flops_per_image / 1e9:.3f} GFLOP an image"]
        for name, one in costs.items()
    ]
    rows.append(["losses", f"{extra:,}", "side modules, dropped at deployment"])
    screen.out.print(screen.table("", ["", "parameters", "forward"], rows))
    screen.out.print(screen.table("", ["tensor", "student", "teacher"], _shapes(session)))
    screen.out.print(
        f"{epochs} epochs of {steps:,} steps, {recipe.batch} images each; about "
        f"{memory / 1e6:,.0f} MB for training; {step * 1e3:.0f} ms a step here on "
        f"{session.device}: about {duration(told['seconds'])}, evaluation not counted.\n"
        f"Would train into {path}. Nothing was written."
    )
    return told


def _shapes(session: Any) -> list[list[str]]:
    """Shapes of what each network shows of one image."""
    import torch

    seen = []
    for network in (session.student, session.teacher):
        if network is None:
            seen.append({})
            continue
        size = session.dataset.size
        with torch.no_grad():
            shown = network.eval().features(torch.zeros(2, 3, size, size, device=session.device))
        tensors = {f"stage {n}": stage for n, stage in enumerate(shown.stages)}
        tensors |= {"pooled": shown.pooled, "logits": shown.logits}
        seen.append({name: "x".join(map(str, t.shape[1:])) for name, t in tensors.items()})
    names = dict.fromkeys([*seen[0], *seen[1]])
    ordered = sorted(
        names, key=lambda name: (not name.startswith("stage"), list(names).index(name))
    )
    return [[name, seen[0].get(name, ""), seen[1].get(name, "")] for name in ordered]
