"""How to run recorded cases of the losses that relate the images of a batch."""

from kdcli.losses.cc import neighbour_loss
from kdcli.losses.rkd import differences, distances, relations
from tests.golden_case import Case, Results


def cc(case: Case) -> Results:
    if case.variant == "direct":
        return {"loss": neighbour_loss(case["feat_student"], case["feat_teacher"])}
    loss = case.loss("cc", dim=case.whole("feat_dim"))
    sides = {"student": "embed_s", "teacher": "embed_t"}
    names = {
        f"embed_{side}.{part}": f"module.{name}.linear.{part}"
        for side, name in sides.items()
        for part in ("weight", "bias")
    }
    case.load(loss, names)
    student, teacher = case.features("student"), case.features("teacher")
    return {
        "loss": loss(student, teacher, case.batch()),
        "out.embed_s": loss.embed_student(student.pooled),
        "out.embed_t": loss.embed_teacher(teacher.pooled),
    }


def rkd(case: Case) -> Results:
    student, teacher = case.features("student"), case.features("teacher")
    weights = {key: case.number(f"{key}_weight") for key in ("distance", "angle")}
    distance, angle = relations(student.pooled, teacher.pooled)
    results = {"term.distance": distance, "term.angle": angle}
    for side, rows in (("student", student.pooled), ("teacher", teacher.pooled)):
        results[f"out.dist_{side}"] = distances(differences(rows))
    return results | {"loss": case.loss("rkd", **weights)(student, teacher, case.batch())}


def pkt(case: Case) -> Results:
    student, teacher = case.features("student"), case.features("teacher")
    return {"loss": case.loss("pkt")(student, teacher, case.batch())}


ADAPTERS = {"cc": cc, "pkt": pkt, "rkd": rkd}
