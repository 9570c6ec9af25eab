"""How to run recorded cases of the contrastive losses."""

import torch

from kdcli.losses.crd import CRD, contrast_loss, scores, unit
from kdcli.losses.dcd import consistency, contrast
from tests.golden_case import Case, Results

SIDES = {"student": "embed_s", "teacher": "embed_t"}


def crd(case: Case) -> Results:
    images = case.whole("n_data")
    if case.variant == "contrast":
        return {"loss": contrast_loss(case["x"].squeeze(-1), images)}
    loss = _crd(case, images)
    student, teacher = case.features("student").pooled, case.features("teacher").pooled
    drawn = case["contrast_idx"]
    terms = loss.terms(student, teacher, case["index"], drawn)
    results = {"loss": sum(terms), "term.s_loss": terms[0], "term.t_loss": terms[1]}
    for side, pooled, memory, z in (
        ("student", student, loss.memory_teacher, loss.z_student),
        ("teacher", teacher, loss.memory_student, loss.z_teacher),
    ):
        name = SIDES[side]
        embedded = unit(getattr(loss, f"embed_{side}")(pooled))
        results[f"out.{name}"] = embedded
        results[f"out.out_{name[-1]}"] = scores(embedded, memory, drawn, loss.temperature) / z

    def after() -> Results:
        loss.after_step()
        numbers = [drawn.shape[1] - 1, loss.temperature, loss.z_student, loss.z_teacher]
        return {
            "buffer_after.contrast.memory_v1": loss.memory_student,
            "buffer_after.contrast.memory_v2": loss.memory_teacher,
            "buffer_after.contrast.params": torch.tensor([*numbers, loss.momentum]),
        }

    return results | {"after": after}


def _crd(case: Case, images: int) -> CRD:
    """The loss with the file's weights and memories; Z as stored, or 0 where it is not set yet."""
    _, temperature, z_student, z_teacher, momentum = case["buffer.contrast.params"].tolist()
    loss = case.loss(
        "crd",
        labels=torch.zeros(images, dtype=torch.int64),
        negatives=case["contrast_idx"].shape[1] - 1,
        temperature=temperature,
        momentum=momentum,
        dim=case.whole("feat_dim"),
        sampling="any",
    )
    names = {
        f"embed_{side}.{part}": f"module.{name}.linear.{part}"
        for side, name in SIDES.items()
        for part in ("weight", "bias")
    }
    when = "buffer_after" if case.variant.startswith("step") else "buffer"
    names["memory_student"] = f"{when}.contrast.memory_v1"
    names["memory_teacher"] = f"{when}.contrast.memory_v2"
    case.load(loss, names)
    if case.variant != "zinit":
        loss.z_student.fill_(max(z_student, 0))
        loss.z_teacher.fill_(max(z_teacher, 0))
    return loss


def dcd(case: Case) -> Results:
    learned = case.variant != "fixed"
    loss = case.loss(
        "dcd",
        alpha=case.number("alpha"),
        dim=case.whole("feat_dim"),
        max_scale=case.number("max_tau"),
        scale="learned" if learned else "multiply",
        temperature=None if learned else case.number("nce_t"),
    )
    names = {
        f"embed_{side}.{part}": f"module.{name}.{part}"
        for side, name in SIDES.items()
        for part in ("weight", "bias")
    }
    case.load(
        loss, names | ({"tau": "module.params.tau", "bias": "module.params.b"} if learned else {})
    )
    for own, key in (("tau", "tau"), ("bias", "b")):
        if learned and key in case.meta:  # a variant's value, given in its description alone
            with torch.no_grad():
                getattr(loss, own).fill_(case.number(key))
    student, teacher = case.features("student"), case.features("teacher")
    similarity = loss.similarity(student.pooled, teacher.pooled)
    return {
        "loss": loss(student, teacher, case.batch()),
        "term.contrastive": contrast(similarity),
        "term.invariance": consistency(similarity),
        "out.logits": similarity,
    }


def crd_queue(case: Case) -> Results:
    loss = case.loss(
        "crd_queue",
        queue=case.whole("nce_k"),
        temperature=case.number("nce_t"),
        dim=case.whole("feat_dim"),
    )
    names = {
        f"embed_{side}.{part}": f"module.memory.{name}.{part}"
        for side, name in SIDES.items()
        for part in ("weight", "bias")
    }
    names |= {"queue": "buffer.memory.queue", "pointer": "buffer.memory.queue_ptr"}
    case.load(loss, names)

    def after() -> Results:
        loss.after_step()
        return {
            "buffer_after.memory.queue": loss.queue,
            "buffer_after.memory.queue_ptr": loss.pointer,
        }

    value = loss(case.features("student"), case.features("teacher"), case.batch())
    return {"loss": value, "after": after}


ADAPTERS = {"crd": crd, "dcd": dcd, "crd.distillers": crd_queue}
