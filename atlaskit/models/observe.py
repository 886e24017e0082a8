"""One forward pass of one text or a few, with a listener at every attention layer."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from atlaskit.models.hook import Call, eagerly, hooked
from atlaskit.models.model import Model
from atlaskit.models.projection import reading
from atlaskit.models.proof import Site, accepted
from atlaskit.models.report import Report, reporting
from atlaskit.records import Tokens


def observe(
    model: Model,
    documents: Sequence[tuple[Tokens, Tokens]],
    listener: Callable[[Site, Call | Report], Any],
    *,
    read: Callable[[int, Tensor], object] | None = None,
    stream: bool = False,
) -> Any:
    """Show `listener` each layer's attention, before it has happened where the hook works and after it elsewhere.

    Of each document come its tokens and what they are read from. More than one at a time are padded on the right.
    `read` is told what each layer's W_O reads, with the layer's place in ``model.sites``. The language-model head is
    left out: it costs a third of a small model and is not looked at. Returns what the trunk returns, with `stream` also
    the residual stream before every layer.
    """
    spoken = 0

    def listen(call: Call | Report) -> Any:
        nonlocal spoken
        site = model.sites[spoken]
        spoken += 1
        return listener(site, call)

    trunk = model.net.base_model
    inputs = accepted(trunk, model.padded(documents) | {"use_cache": False, "output_hidden_states": stream})
    with torch.inference_mode(), ExitStack() as stack:
        if model.proof.outside:
            stack.enter_context(eagerly(model.net))
            stack.enter_context(reporting(model.sites, listen))
            inputs["output_attentions"] = True
        else:
            stack.enter_context(hooked(model.net, listen, lazy=model.proof.lazy))
            if read is not None:
                stack.enter_context(reading([site.projection for site in model.sites], lambda: spoken, read))
        told = trunk(**inputs)
    if spoken != len(model.sites):
        raise RuntimeError(f"{model.name} attended {spoken} times on this text and {len(model.sites)} in its proof")
    return told
