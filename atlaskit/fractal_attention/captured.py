"""One row through a drop-in model, as the record that pictures are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from atlaskit.records import Capture, LayerAttention, Tokens

from .reach import support
from .registration import layer_patterns
from .watching import attention_weights

PARTS = "read through fractal attention, which shows patterns alone"


def capture(
    model: PreTrainedModel, ids: Int[Tensor, " token"], strings: Sequence[str] | None = None, *, name: str = "fractal"
) -> Capture:
    """What the heads of a drop-in model read in one row of tokens, as `models.capture` has it of other models.

    `strings` name the tokens; without, they go by their numbers. A layer's support is what any of its heads may read.
    """
    names = tuple(strings if strings is not None else map(str, ids.tolist()))
    if len(names) != len(ids):
        raise ValueError(f"{len(names)} strings for {len(ids)} tokens; give as many")
    ends = accumulate(map(len, names), initial=0)
    spans = torch.tensor(list(pairwise(ends)))
    tokens = Tokens("".join(names), ids, names, spans, torch.zeros(len(ids), dtype=torch.bool))
    layers = []
    for i, (weights, patterns) in enumerate(
        zip(attention_weights(model, input_ids=ids[None]), layer_patterns(model.config), strict=True)
    ):
        allowed = torch.stack([support(one, len(ids)) for one in patterns]).any(0)
        layers.append(LayerAttention(i, "decoder", weights[0].float(), allowed, *(None,) * 5, PARTS, PARTS))
    return Capture(name, tokens, tokens, tuple(layers))
