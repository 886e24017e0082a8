"""How each layer's attention mixes tokens: all it takes to say what every token brought, and to add it up again."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit.models.model import Model
from atlaskit.models.stream import StreamLayer, stream
from atlaskit.models.tokenize import Text


@dataclass(frozen=True, eq=False)
class Mixing:
    """One layer. ``measure.terms(pattern, values, residual=…, scale=…, centred=…)`` plus `rest` is `output`.

    `values` are what each head would write from each key at full weight, after W_O. `rest` belongs to no token (the
    biases); `scale` and `centred` describe the layer norm after the sum, None and False where there is none.
    """

    layer: int
    pattern: Float[Tensor, "head query key"]
    values: Float[Tensor, "head key d_model"]
    residual: Float[Tensor, "query d_model"]
    scale: Float[Tensor, "query d_model"] | None
    centred: bool
    rest: Float[Tensor, "query d_model"]
    output: Float[Tensor, "query d_model"]


def mixing(model: Model, text: Text, *, max_tokens: int | None = None) -> tuple[Mixing, ...]:
    """Every layer's mixing of one text, up to where its feed-forward begins, proved to add up to the model's own.

    Raises TypeError, with the reason, for models where what heads write is not their pattern times their values after
    W_O (gates, norms on writes), or whose residual stream cannot be followed.
    """
    seen = stream(model, text, max_tokens=max_tokens)
    return tuple(_mixing(model, number, layer) for number, layer in enumerate(seen.layers))


def _mixing(model: Model, number: int, layer: StreamLayer) -> Mixing:
    values = layer.values.repeat_interleave(len(layer.pattern) // len(layer.values), 0)
    if layer.on_write is not None or not torch.allclose(layer.pattern @ values, layer.spoken, rtol=1e-4, atol=1e-5):
        what = "a norm on what its heads write" if layer.on_write is not None else "something between its heads and W_O"
        raise TypeError(
            f"{model.name} has {what} in layer {number}, so that is not pattern times value and no token's share in it "
            "can be told exactly"
        )
    written = torch.einsum("hkv,hvm->hkm", values, layer.write_weights)
    norm = layer.after_attention
    bias = layer.bias.expand_as(layer.read)
    rest = bias if norm is None else norm.part(bias) + norm.shift
    scale, centred = (None, False) if norm is None else (norm.scale, norm.centred)
    return Mixing(number, layer.pattern, written, layer.read, scale, centred, rest, layer.middle)
