"""The head apart from its trunk: what many texts lose, without ever holding their logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.utils import ModelOutput

from atlaskit.models.loss import IGNORED
from atlaskit.models.model import Model
from atlaskit.models.proof import accepted

LOGITS = 24_000_000
"""Bytes of logits made at a time: few enough to stay in cache, and for the allocator to use the same ones again."""


def loss_of_rows(
    model: Model,
    handed_on: type[ModelOutput],
    hidden: Float[Tensor, "batch token d_model"],
    targets: Int[Tensor, " token"],
) -> Float[Tensor, " batch"]:
    """`loss` of what the trunk hands on; the head sees only the rows of which something is asked, some at a time."""
    asked = targets != IGNORED
    rows, wanted = hidden[:, asked].flatten(0, 1), targets[asked].repeat(len(hidden))
    step = max(1, LOGITS // (4 * model.net.config.get_text_config().vocab_size))
    parts = [
        cross_entropy(head(model, handed_on, some).float(), right, reduction="none")
        for some, right in zip(rows.split(step), wanted.split(step), strict=True)
    ]
    return torch.cat(parts).unflatten(0, (len(hidden), -1)).mean(-1)


def head(model: Model, handed_on: type[ModelOutput], rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """Logits of rows of any texts, by the net's own code from its trunk on."""
    trunk = model.net.base_model
    blank = {"input_ids": torch.zeros(1, len(rows), dtype=torch.long, device=rows.device), "use_cache": False}
    with answering(trunk, handed_on(last_hidden_state=rows[None])):
        logits: Tensor = model.net(**accepted(model.net, blank)).logits[0]
    return logits


def find_head(model: Model, inputs: dict[str, Any]) -> type[ModelOutput] | None:
    """What the trunk hands to the head, where the head does for rows alone what it does for whole texts; else None."""
    trunk = model.net.base_model
    if trunk is model.net:
        return None
    with torch.no_grad():
        whole = model.net(**inputs).logits.float()
        try:
            output = trunk(**accepted(trunk, inputs))
            # one row fewer, and backwards: a head that reads across rows, or minds their places, gives itself away
            some = torch.arange(whole.shape[1]).flip(0)[: max(1, whole.shape[1] - 1)].to(whole.device)
            apart = head(model, type(output), output.last_hidden_state[0, some]).float()
        except Exception:  # whatever a stranger's forward raises when its trunk says less than it is used to
            return None
    tolerance = 1e-5 if model.net.dtype in (torch.float32, torch.float64) else 1e-2
    limit = tolerance * float(whole.abs().max())
    same = apart.shape == whole[0, some].shape and torch.allclose(apart, whole[0, some], rtol=tolerance, atol=limit)
    return type(output) if same else None


@contextmanager
def answering(module: nn.Module, output: Any) -> Iterator[None]:
    """Let a module hand on `output`, whatever it is asked, without any work."""
    forward: Callable[..., Any] | None = vars(module).get("forward")

    def answer(*_: Any, **__: Any) -> Any:
        return output

    module.forward = answer
    try:
        yield
    finally:
        if forward is None:
            del module.forward
        else:
            module.forward = forward
