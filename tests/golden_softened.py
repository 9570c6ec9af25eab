"""How to run recorded cases of CTKD and MLKD, which soften logits at several temperatures."""

import re

import torch

from tests.golden_case import Case, Results


def ctkd(case: Case) -> Results:
    settings = {
        "start": case.number("t_start"),
        "scale": case.number("t_end"),
        "divergence": "dkd" if case.variant == "dkd" else "kd",
    }
    told = re.findall(r"(alpha|beta) (\d+)", str(case.meta.get("what", "")))
    settings |= {key: float(value) for key, value in told}
    loss = case.loss("ctkd", **settings)
    case.load(loss, {"theta": "module.global_T"})
    tau = loss.temperature(torch.tensor(case.number("lambda"), dtype=torch.float64))
    logits = case.features("student").logits, case.features("teacher").logits.detach()
    value = loss.distance(logits, case.batch().labels, tau)
    (slope,) = torch.autograd.grad(value, tau, retain_graph=True)
    return {"loss": value, "term.temp": tau, "term.grad_temp": slope, "term.grad_temp_fd": slope}


ADAPTERS = {"ctkd": ctkd}
