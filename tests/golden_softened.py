"""How to run recorded cases of CTKD and MLKD, which soften logits at several temperatures."""

import re

import torch
from torch.nn import functional as F

from kdcli.contracts import Features
from kdcli.losses.mlkd import masks
from tests.golden_case import Case, Results
from tests.golden_maps import built


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


def mlkd(case: Case) -> Results:
    weak, strong = (
        (case[f"logits_student_{view}"], case[f"logits_teacher_{view}"])
        for view in ("weak", "strong")
    )
    student, teacher = (
        Features(one, one, others=(Features(other, other),))
        for one, other in zip(weak, strong, strict=True)
    )
    standard = str(case.meta["logit_stand"]).lower() == "true"
    settings = {"temperature": case.number("temperature"), "standardize": standard}
    loss = built(case, "mlkd", student, teacher, **settings)
    scale, labels = case.number("kd_weight"), case.batch().labels
    ce = case.number("ce_weight") * sum(F.cross_entropy(z, labels) for z in (weak[0], strong[0]))
    value = scale * loss(student, teacher, case.batch())
    terms = {name: scale * term for name, term in loss.reference(weak, strong).items()}
    rows, columns = masks(weak[1])
    unused = zip(loss.classes(strong), loss.classes(weak), strict=True)
    mixed = [one if n < 3 else other for n, (one, other) in enumerate(unused)]
    terms["cc_strong"] = scale * sum(part.mean() for part in mixed)  # without its mask
    terms["bc_strong"] = scale * rows.mean() * sum(part.mean() for part in loss.batches(strong))
    results = {f"term.loss_{name}": term for name, term in terms.items()}
    results |= {"loss": value, "term.loss_ce": ce, "term.total_with_ce": value + ce}
    shares = weak[1].softmax(1)
    results["term.conf_thresh"] = shares.max(1).values.quantile(0.5)
    results["term.class_confidence_thresh"] = shares.sum(0).quantile(0.5)
    results |= {"out.mask": rows, "out.class_conf_mask": columns}
    for level, parts in (("kd", loss.instances), ("cc", loss.classes), ("bc", loss.batches)):
        for view, pair in (("weak", weak), ("strong", strong)):
            for tau, part in zip(loss.temperatures, parts(pair), strict=True):
                results[f"term.unit_{level}_{view}.T{tau:g}"] = part.mean()
    return results


ADAPTERS = {"ctkd": ctkd, "mlkd": mlkd}
