"""The model card of an exported folder: what it is, how it was made, how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def _how(known: Mapping[str, Any]) -> str:
    """How the network was trained, as one sentence, from what the run wrote down."""
    said = [f"recipe `{known['recipe']}`"] if "recipe" in known else []
    said += [f"teacher `{known['teacher']}`"] if "teacher" in known else []
    said += [f"{known['epochs']} epochs"] if "epochs" in known else []
    said += [f"seed {known['seed']}"] if "seed" in known else []
    by = f" with kdcli {known['trained_with']}" if "trained_with" in known else ""
    return f"Trained{by}: {', '.join(said)}." if said else "How it was trained is not known."


def _accuracy(known: Mapping[str, Any]) -> str:
    if "top1" not in known:
        return "Not recorded."
    five = f", top-5 {known['top5']:.2f} %" if "top5" in known else ""
    return (
        f"Top-1 {known['top1']:.2f} %{five} on the test set after the last epoch, one run; "
        "the test set chose no epoch."
    )


def _keys(state: Mapping[str, Tensor]) -> str:
    """The first and last names with their shapes."""
    shown = [f"{name} {list(tensor.shape)}" for name, tensor in state.items() if tensor.dim()]
    middle = ["..."] if len(shown) > 5 else []
    return ", ".join([*shown[:2], *middle, *shown[2:][-3:]])


def card(
    known: Mapping[str, Any],
    state: Mapping[str, Tensor],
    classes: Sequence[str] | None,
    pixels: Mapping[str, Any],
    licence: str,
) -> str:
    """Markdown; `known`: provenance, `state`: the file's content, `pixels`: the timm-like block."""
    name, data = known["architecture"]["name"], known.get("dataset", "a dataset not recorded")
    # A student that a loss has wrapped goes by its own name.
    title = known["architecture"].get("student", known["architecture"])["name"]
    size = "x".join(map(str, pixels["input_size"][1:]))
    count = sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())
    listed = ", ".join(classes) if classes else "Not recorded."
    mean, std = tuple(pixels["mean"]), tuple(pixels["std"])
    front = ["---", "tags: [image-classification, knowledge-distillation, kdcli]"]
    front += [f"datasets: [{data}]"] if "dataset" in known and ":" not in data else []
    return (
        "\n".join([*front, "---"])
        + f"""

# {title} on {data}

{count:,} numbers, parameters and batch-norm statistics. It takes RGB images of {size} pixels in
[0, 1], normalised: minus {mean}, divided by {std}. Resize others with the
{pixels["interpolation"]} filter first.

- **Training.** {_how(known)}
- **Accuracy.** {_accuracy(known)}
- **Licence.** {licence}.
- **Weights.** SHA-256 `{known["sha_weights"]}` of names, types, shapes and values.

## Load it

With kdcli:

```python
from pathlib import Path
from kdcli.models import weights

network, info = weights.read(Path("."), model="{name}")  # [B, 3, H, W] -> logits [B, K]
```

With torch alone, into any module with the same names ({_keys(state)}):

```python
from safetensors.torch import load_file

network.load_state_dict(load_file("model.safetensors"))
```

`kdcli eval .` scores it; `kdcli export onnx --run .` makes it one file, normalisation inside.

## Classes

{listed}
"""
    )
