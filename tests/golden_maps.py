"""How to run recorded cases of the losses of whole feature maps."""

import re
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdcli import losses
from kdcli.contracts import Features
from kdcli.losses import Context, Loss
from kdcli.losses.ofd import margin
from kdcli.losses.reviewkd import hierarchical_distance
from kdcli.losses.simkd import Reused, map_distance
from tests.golden_case import Case, Results


def maps(case: Case, name: str) -> tuple[Tensor, ...]:
    """`<name>_0`, `<name>_1`, ... of the file, as many as it has; some files count from 1."""
    return tuple(case[f"{name}_{n}"] for n in range(9) if case.has(f"{name}_{n}"))


def built(
    case: Case, name: str, student: Features, teacher: Features, net: object = None, **arguments
) -> Loss:
    """The loss `name` over these features, in their precision."""
    ctx = Context(student, teacher, net, student.logits.shape[-1], torch.arange(2), 240)
    return losses.build(name, ctx, **arguments).double()


def stem(stages: tuple[Tensor, ...]) -> Features:
    """Features with these maps behind a stem that no loss reads."""
    first = stages[0].detach()
    stages = (first, *stages)
    return Features(first.mean((2, 3)), first.mean((2, 3)), stages, stages)


def moved(loss: nn.Module, names: dict[str, str]) -> Results:
    """Running statistics after the call, under the file's names."""
    buffers = dict(loss.named_buffers())
    return {
        stored.replace("buffer.", "buffer_after.", 1): buffers[own].clone()
        for own, stored in names.items()
        if stored.startswith("buffer.")
    }


def stored(case: Case, module: nn.Module, prefix: str, own: str, file: str) -> dict[str, str]:
    """Names of parameters and statistics under `prefix`, and the file's, `own` being `file`."""
    names = {}
    for kind, tensors in (
        ("module", module.named_parameters()),
        ("buffer", module.named_buffers()),
    ):
        for name, _ in tensors:
            if name.startswith(prefix) and not name.endswith("num_batches_tracked"):
                names[name] = f"{kind}.{name.replace(own, file, 1)}"
    return {name: key for name, key in names.items() if case.has(key)}


def ofd(case: Case) -> Results:
    student, teacher = (stem(maps(case, f"preact_feat_{side}")) for side in ("student", "teacher"))
    norms = [
        SimpleNamespace(weight=scale, bias=bias)
        for scale, bias in zip(
            maps(case, "teacher_bn_weight"), maps(case, "teacher_bn_bias"), strict=True
        )
    ]
    loss = built(case, "ofd", student, teacher, SimpleNamespace(norms=norms))
    for number, recorded in enumerate(maps(case, "margin")):
        mine = margin(norms[number].weight, norms[number].bias)
        assert torch.allclose(mine, recorded, rtol=1e-6, atol=0), f"margin {number + 1}"
    names = stored(case, loss, "connectors", "connectors", "connectors.connectors")
    case.load(loss, names | {f"margin{n}": f"margin_{n + 1}" for n in range(len(norms))})
    terms = loss.terms(student.preacts[1:], teacher.preacts[1:])
    results = {f"term.stage_{n}_unweighted": term for n, term in enumerate(terms, 1)}
    results |= moved(loss, names)
    results["out.connected_1"] = loss.connectors[0](student.preacts[1])
    return results | {"loss": loss(student, teacher, case.batch())}


def reviewkd(case: Case) -> Results:
    if case.variant == "hcl":
        pairs = zip(maps(case, "feat_student"), maps(case, "feat_teacher"), strict=True)
        distances = [hierarchical_distance(*pair) for pair in pairs]
        return {"loss": sum(distances)} | {f"term.{n}": term for n, term in enumerate(distances)}
    student = stem(maps(case, "feat_student"))._replace(pooled=case["pooled_student"])
    teacher = stem(maps(case, "preact_feat_teacher"))._replace(pooled=case["pooled_teacher"])
    loss = built(case, "reviewkd", student, teacher)
    parts = {"reduce": "conv1", "attention": "att_conv.0", "expand": "conv2"}
    names = {}
    for number in range(len(loss.fusions)):
        for own, file in parts.items():
            head = f"fusions.{number}.{own}"
            names |= stored(case, loss, f"{head}.", head, f"abfs.{number}.{file}")
    case.load(loss, names)
    targets = loss.levels(teacher)
    reviewed = loss.reviewed(loss.student_levels(student), targets)
    results, levels = moved(loss, names), len(reviewed)
    for number, (own, target) in enumerate(zip(reviewed, targets, strict=True)):
        results[f"out.abf_{levels - number}"] = own
        results[f"term.hcl_{levels - number}"] = hierarchical_distance(own, target)
    return results | {"loss": loss(student, teacher, case.batch())}


def simkd(case: Case) -> Results:
    (student,), (teacher,) = maps(case, "feat_student"), maps(case, "feat_teacher")
    classes, width = case["module.teacher_fc.weight"].shape
    body = nn.Sequential(nn.Linear(1, 1))  # stands for a student: only its classifier is taken off
    body.head_key, body.neck_keys = "0", ()
    sizes = {"inputs": student.shape[1], "width": width, "size": teacher.shape[2]}
    reused = Reused(classes, body, factor=case.whole("factor"), **sizes).double()
    names = stored(case, reused, "projector", "projector", "simkd.transfer")
    case.load(reused, names)
    with torch.no_grad():
        reused.classifier.weight.copy_(case["module.teacher_fc.weight"])
        reused.classifier.bias.copy_(case["module.teacher_fc.bias"])
    projected = reused.project(student)
    return moved(reused, names) | {
        "loss": map_distance(projected, teacher),
        "out.trans_feat_s": projected,
        "out.trans_feat_t": F.adaptive_avg_pool2d(teacher, projected.shape[2:]),
        "out.logits_student": reused.classifier(projected.mean((2, 3))),
    }


def catkd(case: Case) -> Results:
    (student,), (teacher,) = maps(case, "feat_student"), maps(case, "feat_teacher")
    net = SimpleNamespace(head=nn.Linear(1, 1))  # the file starts from class activation maps
    what = {
        "CAM_RESOLUTION": case.meta["CAM_RESOLUTION"],
        "IF_NORMALIZE": case.meta["IF_NORMALIZE"],
    }
    told = str(case.meta.get("what", ""))  # a variant says what differs in words
    what |= dict(re.findall(r"(CAM_RESOLUTION|IF_NORMALIZE) (\w+)", told))
    settings = {"resolution": int(what["CAM_RESOLUTION"])}
    settings["normalize"] = what["IF_NORMALIZE"].lower() == "true"
    settings["binarize"] = case.variant == "binarize"
    if case.variant.startswith("partial"):  # the number of maps that the reference then keeps
        lowest = case.whole("Strategy") == 1
        settings["classes"] = case.whole("CAMs_Nums") + (1 if lowest else -1)
        settings["keep"] = "lowest" if lowest else "highest"
        if not case.has("logits_teacher"):
            case.borrow("partial")
    shown = [
        Features(side.mean((2, 3)), side.mean((2, 3)), last=side) for side in (student, teacher)
    ]
    loss = built(case, "catkd", *shown, net, **settings)
    logits = case["logits_teacher"] if case.has("logits_teacher") else shown[1].logits
    return {"loss": loss.distance(student, teacher, logits)}


ADAPTERS = {"ofd": ofd, "reviewkd": reviewkd, "simkd": simkd, "catkd": catkd}
