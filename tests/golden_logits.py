"""How to run recorded cases of the losses of logits."""

from kdcli.losses.dkd import decoupled
from kdcli.losses.kd import standardize
from tests.golden_case import Case, Results


def kd(case: Case) -> Results:
    student, teacher, batch = case.features("student"), case.features("teacher"), case.batch()
    loss = case.loss("kd", temperature=case.number("temperature"))(student, teacher, batch)
    ce = case.loss("ce")(student, None, batch)
    total = case.number("ce_weight_gamma") * ce + case.number("kd_weight_alpha") * loss
    return {"loss": loss, "term.ce": ce, "term.weighted_total": total}


def dkd(case: Case) -> Results:
    return _dkd(case, standard=False)


def lskd(case: Case) -> Results:
    student, teacher = case.features("student"), case.features("teacher")
    module = case.loss("kd", temperature=case.number("temperature"), standardize=True)
    return {
        "loss": module(student, teacher, case.batch()),
        "out.standardised_student": standardize(student.logits),
        "out.standardised_teacher": standardize(teacher.logits),
    }


def lskd_dkd(case: Case) -> Results:
    return _dkd(case, standard=True)


def _dkd(case: Case, standard: bool) -> Results:
    student, teacher, batch = case.features("student"), case.features("teacher"), case.batch()
    settings = {key: case.number(key) for key in ("alpha", "beta", "temperature")}
    module = case.loss("dkd", standardize=standard, **settings)
    logits = [standardize(x.logits) if standard else x.logits for x in (student, teacher)]
    tckd, nckd = decoupled(*logits, batch.labels, settings["temperature"])
    return {"loss": module(student, teacher, batch), "term.tckd": tckd, "term.nckd": nckd}


ADAPTERS = {"kd": kd, "dkd": dkd, "lskd": lskd, "lskd_dkd": lskd_dkd}
