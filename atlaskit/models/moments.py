"""Moments of attention rows: exactly, from a pattern; or fast, from the fused kernel, which never forms one.

With a row's log-sum-exp at hand, entropy is that minus the mean score, the collision probability is a ratio of two
normalizers, and any mean over keys is attention with other values. The fused kernel gives all of these in memory that
grows with the length alone (Dao et al. 2022).
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from atlaskit.models.hook import Call
from atlaskit.records import Moments, Rows, Tokens

SAMPLE = 8
"""Rows of each layer that the model's own attention does too, to prove that the fused kernel says the same."""
TOLERANCE = 1e-4
"""Of the largest number that a row of those gives."""
STRIPE = 1024
"""Rows of the mask looked at together."""


def of_pattern(rows: Rows) -> Moments:
    """Exact moments of rows whose pattern is there; scores are then log weights, and the normalizer is zero."""
    weights = rows.pattern.float()
    return Moments(
        rows.layer,
        log_normalizer=torch.zeros(weights.shape[:2], device=weights.device),
        log_normalizer_doubled=weights.square().sum(-1).log(),
        mean_score=-torch.special.entr(weights).sum(-1),
        mean=lambda values: weights @ values.to(weights),
        choices=rows.support.sum(-1),
        count=lambda keys: (rows.support & keys.to(rows.support.device)).sum(-1),
        queries=rows.queries,
        tokens=rows.tokens,
    )


def of_call(layer: int, call: Call, tokens: Tokens) -> tuple[Float[Tensor, "1 query head d_value"], Moments] | None:
    """What the heads of a layer write, and the moments of all rows, by the fused kernel; or None where it cannot serve.

    It serves plain softmax over all keys or over the past, on a processor, and counts in float32 whatever the model's
    precision. That the model adds nothing else to its scores (soft cap, sinks, a bias) is not looked up but tried out:
    its own attention does `SAMPLE` of the rows too.
    """
    causal = _causal(call) if call.q.device.type == "cpu" and len(call.q) == 1 else None
    if causal is None:
        return None
    queries_per_key = call.q.shape[1] // call.k.shape[1]
    d_value, width = call.v.shape[-1], max(call.q.shape[-1], call.v.shape[-1])
    # the kernel takes one width for all; zeros add nothing to a score
    q, k, v = (pad(part.float(), (0, width - part.shape[-1])) for part in (call.q, call.k, call.v))
    k, v = (part.repeat_interleave(queries_per_key, dim=1) for part in (k, v))
    scale = float(call.extra.get("scaling") or call.q.shape[-1] ** -0.5)

    def attend(values: Tensor, *, times: float = 1.0) -> tuple[Tensor, Tensor]:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, values, 0.0, causal, scale=scale * times
        )

    def mean(values: Float[Tensor, "key size"]) -> Float[Tensor, "head query size"]:
        parts = []
        for columns in values.to(q).split(width, dim=1):
            wide = pad(columns, (0, width - columns.shape[1]))
            parts.append(attend(wide.expand(1, q.shape[1], -1, -1).contiguous())[0][0, :, :, : columns.shape[1]])
        return torch.cat(parts, dim=-1)

    output, log_normalizer = attend(v)
    output = output[..., :d_value].transpose(1, 2)
    if not _is_what_the_model_does(call, output):
        return None
    mean_score = (q * attend(k)[0]).sum(-1)[0] * scale
    places = torch.arange(call.n_query)
    choices = places + 1 if causal else torch.full_like(places, call.n_key)

    def count(keys: Bool[Tensor, " key"]) -> Int[Tensor, " query"]:
        return keys.cumsum(0)[choices - 1]

    doubled = attend(v, times=2.0)[1][0]
    moments = Moments(layer, log_normalizer[0], doubled, mean_score, mean, choices, count, places, tokens)
    return output.to(call.v.dtype), moments


def _is_what_the_model_does(call: Call, output: Float[Tensor, "1 query head d_value"]) -> bool:
    # in float32, too, so that rounding hides nothing that a half-precision model adds
    precise = replace(call, q=call.q.float(), k=call.k.float(), v=call.v.float())
    step = max(1, (call.n_query - 1) // (SAMPLE - 1))
    for row in {*range(0, call.n_query, step), call.n_query - 1}:
        theirs = precise.attend(slice(row, row + 1)).output[:, 0].float()
        # also when either is nan
        if not (output[:, row] - theirs).abs().max() <= TOLERANCE * theirs.abs().max():
            return False
    return True


def _causal(call: Call) -> bool | None:
    """Whether rows see the past (True) or everything (False); None for any other mask."""
    if call.mask is None:
        return False
    key = torch.arange(call.n_key)
    causal, everything = call.n_query == call.n_key, True
    for start in range(0, call.n_query, STRIPE):
        support = call.support(slice(start, min(start + STRIPE, call.n_query)))[0]
        queries = torch.arange(start, start + len(support))[:, None]
        causal = causal and bool((support == (key <= queries)).all())
        everything = everything and bool(support.all())
    return True if causal else False if everything else None
