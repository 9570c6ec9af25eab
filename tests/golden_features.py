"""How to run recorded cases of the losses that compare feature maps stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.losses.at import attention_loss, shrink
from kdcli.losses.fsp import flow, flow_losses
from kdcli.losses.ft import factor_loss
from kdcli.losses.kdsvd import SPARE, Leading, correlation_losses, matrices
from kdcli.losses.nst import selectivity_loss
from kdcli.losses.sp import similarity_loss
from tests.golden_case import Adapter, Case, Results
from tests.golden_maps import built, maps, moved, stem

SIDES = ("student", "teacher")
PARTS = ("weight", "bias")


def stages(case: Case, name: str = "feat") -> list[Features]:
    """Student's and teacher's maps behind stems; a variant is of one pair."""
    count = 1 if case.variant else None
    return [stem(maps(case, f"{name}_{side}")[:count]) for side in SIDES]


def loaded(case: Case, module: nn.Module, *renamed: tuple[str, str]) -> dict[str, str]:
    """Fill the module's own parameters and statistics from the file's; the names of both."""
    names = {}
    kinds = {"module": module.named_parameters(), "buffer": module.named_buffers()}
    for kind, tensors in kinds.items():
        for own, _ in tensors:
            file = f"{kind}.{own}"
            for old, new in renamed:
                file = file.replace(old, new)
            if case.has(file):
                names[own] = file
    case.load(module, names)
    return names


def listed(terms: Sequence[Tensor]) -> Results:
    """Terms by number, and their sum."""
    return {f"term.{n}": term for n, term in enumerate(terms)} | {"loss": sum(terms)}


def by_stage(function: Callable[..., Tensor], **settings: str) -> Adapter:
    """An adapter for a function of one stage of both networks; `settings`: its name, the file's."""

    def adapter(case: Case) -> Results:
        ours, theirs = (side.stages[1:] for side in stages(case))
        known = {own: case.whole(key) for own, key in settings.items()}
        return listed([function(*pair, **known) for pair in zip(ours, theirs, strict=True)])

    return adapter


def fitnet(case: Case) -> Results:
    student, teacher = stages(case)
    loss = built(case, "fitnet", student, teacher, layer=1)
    names = loaded(case, loss, ("regressor", "regress"), ("norm", "bn"))
    results = {"loss": loss(student, teacher, case.batch()), **moved(loss, names)}
    regressed = loss.regressor(student.stages[1])
    pooled = shrink(teacher.stages[1], regressed.shape[2])
    return results | {"out.regressed": regressed, "out.teacher_pooled": pooled}


def vid(case: Case) -> Results:
    student, teacher = stages(case)
    loss = built(case, "vid", student, teacher, variance=case.number("init_pred_var"))
    start = loss.stages[0].rho.detach()
    torch.testing.assert_close(start, torch.full_like(start, case.number("log_scale_default")))
    loaded(case, loss, ("stages.", ""), ("mean", "regressor"), ("rho", "log_scale"))
    pairs = zip(loss.stages, student.stages[1:], teacher.stages[1:], strict=True)
    return listed([stage(*maps) for stage, *maps in pairs]) | {
        "loss": loss(student, teacher, case.batch())
    }


def fsp(case: Case) -> Results:
    ours, theirs = (maps(case, f"feat_{side}") for side in SIDES)
    results = {
        f"out.fsp_{side}_0": flow(*x[:2]) for side, x in zip(SIDES, (ours, theirs), strict=True)
    }
    return results | listed(flow_losses(ours, theirs))


def ab(case: Case) -> Results:
    student, teacher = stages(case, "preact_feat")
    settings = {key: case.number(key) for key in ("margin", "scale")}
    loss = built(case, "ab", student, teacher, **settings)
    names = loaded(case, loss, ("connectors", "connector.connectors"), ("norm", "bn"))
    terms = loss.terms(student.preacts[1:], teacher.preacts[1:])
    return listed(terms) | moved(loss, names)


def ft(case: Case) -> Results:
    power = case.whole("p2")
    if case.variant in ("direct", "p2"):
        case.borrow("direct")
        return {"loss": factor_loss(*(case[f"feat_{side}_0"] for side in SIDES), power)}
    student, teacher = (stem(maps(case, f"feat_{side}")) for side in SIDES)
    loss = built(case, "ft", student, teacher, k=case.number("k"), power=power)
    loss.begin(main=case.variant != "init")
    names = loaded(case, loss, ("translator", "translator.encoder"))
    layers = [
        (half, n, part) for half in ("encoder", "decoder") for n in range(3) for part in PARTS
    ]
    case.load(  # the file leaves a place for batch norm in every layer
        loss.paraphraser,
        {
            f"{half}.{2 * n}.{part}": f"module.paraphraser.{half}.{3 * n}.{part}"
            for half, n, part in layers
        },
    )
    results = {"loss": loss(student, teacher, case.batch()), **moved(loss, names)}
    ours, theirs = student.stages[1], teacher.stages[1]
    return results | {
        "out.factor_s": loss.translator(ours),
        "out.factor_t": loss.paraphraser.encoder(theirs),
        "out.reconstruction": loss.paraphraser(theirs),
    }


def kdsvd(case: Case) -> Results:
    """Singular vectors have any sign: the file's are taken, for the loss depends on them."""
    matrix = "channels" if case.name.endswith("RepDistiller") else "rows"
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    results: Results = {}
    for side, count in zip(SIDES, (case.whole("k") + SPARE, case.whole("k")), strict=True):
        found[side] = []
        for number, x in enumerate(maps(case, f"feat_{side}")):
            values, vectors = Leading.apply(matrices(x.double(), matrix), count)
            name = f"out.{side}_v_{number}"
            turn = (vectors * case.every[name]).sum(1, keepdim=True).detach().sign()
            results[name] = vectors * turn
            found[side].append((values, results[name]))
    ours = [vectors for _, vectors in found["student"]]
    return results | listed(correlation_losses(ours, found["teacher"]))


ADAPTERS = {
    "ab": ab,
    "at": by_stage(attention_loss, p="p"),
    "fitnet": fitnet,
    "fitnet.SimKD": fitnet,
    "fsp": fsp,
    "ft": ft,
    "kdsvd.RepDistiller": kdsvd,
    "kdsvd.mdistiller": kdsvd,
    "nst": by_stage(selectivity_loss),
    "sp": by_stage(similarity_loss),
    "vid": vid,
}
