"""Direct logit attribution: what each head, feed-forward and embedding adds to a logit past all other layers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from atlaskit.models.model import Model
from atlaskit.models.norms import Linearised, linearise
from atlaskit.models.stream import Stream, stream
from atlaskit.models.tokenize import Text


@dataclass(frozen=True, eq=False)
class LogitAttribution:
    """Parts of one logit, or of the difference of two, in logits: their sum is `total`, the model's own.

    `bias` is what no input causes: biases of W_O, of the final norm and of the output layer. A model that caps or
    scales its logits in the end (Gemma 2, Granite) is attributed before that.
    """

    heads: Float[Tensor, "layer head"]
    feed_forward: Float[Tensor, " layer"]
    embedding: float
    bias: float
    total: float


def direct_logit_attribution(
    model: Model, text: Text, target: int | str, *, against: int | str | None = None, query: int = -1
) -> LogitAttribution:
    """Each part's direct addition to the logit of `target` at a token, or to its lead over `against` (Elhage 2021).

    ``(z W_O)(W_U[target] − W_U[against])`` over the scale of the final norm, which is held fixed. What a head does
    through later layers is not in it: `ablation_effects` and `patching_effects` tell that. Targets are token ids, or
    text that is one token. Raises TypeError, with the reason, for models that normalise after adding, as BERT does.
    """
    seen = stream(model, text)
    if not -len(seen.tokens) <= query < len(seen.tokens):
        raise IndexError(f"there is no token {query}; the text has {len(seen.tokens)}")
    if any(layer.after_attention is not None for layer in seen.layers):
        raise TypeError(f"{model.name} normalises after adding, so no part reaches the logits by itself")
    head, norm, final = final_norm(model, seen)
    ids = [token_id(model, target)] if against is None else [token_id(model, target), token_id(model, against)]

    def logits(x: Tensor) -> Tensor:
        with torch.no_grad():
            both = head(x.to(model.net.dtype)).float()[..., ids]
        return both[..., 0] if against is None else both[..., 0] - both[..., 1]

    none = torch.zeros_like(final[:1])
    start = float(logits(none)[0])

    def reached(part: Tensor) -> Tensor:
        return logits(norm.part(part)[..., query, :]) - start

    heads, feed_forward, bias = [], [], float(logits(norm.shift[None])[0])
    for layer in seen.layers:
        write: Callable[[Tensor], Tensor] = layer.on_write.part if layer.on_write else lambda x: x
        heads.append(reached(write(layer.result)))
        feed_forward.append(reached(layer.feed_forward))
        bias += float(reached(write(layer.bias.expand_as(final))))
        if layer.on_write:
            bias += float(reached(layer.on_write.shift.expand_as(final)))
    return LogitAttribution(
        torch.stack(heads), torch.stack(feed_forward), float(reached(seen.layers[0].read)), bias,
        float(logits(norm.part(final) + norm.shift)[query]),
    )  # fmt: skip


def final_norm(model: Model, seen: Stream) -> tuple[nn.Module, Linearised, Float[Tensor, "query d_model"]]:
    """The output layer, the norm before it at this text, and what that read: the last layer's output.

    Raises TypeError where something else stands between the last layer and the output layer.
    """
    head = model.net.get_output_embeddings()
    if head is None:
        raise TypeError(f"{model.name} ({type(model.net).__name__}) has no language-model head, so it has no logits")
    last = seen.layers[-1].gave
    for step in seen.steps:
        if seen.decoded is not None and step.read is not None and torch.equal(step.read, last):
            norm = linearise(step.module, last) if torch.equal(step.gave, seen.decoded) else None
            if norm is not None:
                return head, norm, last
    raise TypeError(f"something other than a norm stands between the last layer of {model.name} and its output layer")


def token_id(model: Model, token: int | str) -> int:
    """The id of a token given as such or as text. Raises ValueError for text that is not one token."""
    if isinstance(token, int):
        return token
    if model.tokenizer is None:
        raise ValueError(f"{model.name} came without a tokenizer; give the id of {token!r}")
    ids = model.tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(
            f"{token!r} is {len(ids)} tokens of {model.name}; give text of one token (is a space missing?)"
        )
    return int(ids[0])
