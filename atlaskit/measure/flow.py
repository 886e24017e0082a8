"""What flows, not only where it looks: how much of a layer's output each token brought, and through layers.

A pattern is weighed by what the value vectors carry, taken after W_O; the residual stream and the norm after it take
part where they are given. `models.mixing` gives the tensors of a model's layers.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NAN = float("nan")


def value_norms(
    pattern: Float[Tensor, "head query key"], values: Float[Tensor, "head key d_model"]
) -> Float[Tensor, "head query key"]:
    """Length of what each head writes from each key: weight times the length of its value after W_O (Kobayashi 2020).

    A weight on a key whose value is nearly zero, as on many attention sinks, moves nothing.
    """
    return pattern * values.norm(dim=-1)[:, None]


def terms(
    pattern: Float[Tensor, "head query key"],
    values: Float[Tensor, "head key d_model"],
    *,
    residual: Float[Tensor, "query d_model"],
    scale: Float[Tensor, "query d_model"] | None = None,
    centred: bool = False,
) -> Float[Tensor, "query key d_model"]:
    """What each key brings to each query's output of the layer, all heads together: T_i(x_j) (Kobayashi 2021).

    The residual stream belongs to the query's own token. A layer norm after the sum is linear once its `scale` (weight
    over standard deviation) is known; `centred` says that it takes the mean away. Biases belong to no token.
    """
    moved = torch.einsum("hqk,hkm->qkm", pattern, values)
    own = torch.arange(len(residual), device=residual.device)
    moved[own, own] += residual
    if centred:
        moved = moved - moved.mean(-1, keepdim=True)
    return moved if scale is None else moved * scale[:, None]


def alti(brought: Float[Tensor, "query key d_model"]) -> Float[Tensor, "query key"]:
    """Contribution of each key by how near it brings the output, rows to one (ALTI, Ferrando et al. 2022).

    ‖y‖₁ − ‖y − T(x_j)‖₁ with y the sum of the `terms`, zero where a key leads away. A row in which every key leads away
    is nan.
    """
    whole = brought.sum(1, keepdim=True)
    near = (whole.abs().sum(-1) - (whole - brought).abs().sum(-1)).clamp(min=0)
    return near / near.sum(-1, keepdim=True)


def norm_shares(brought: Float[Tensor, "query key d_model"]) -> Float[Tensor, "query key"]:
    """Contribution of each key by the length of its term, rows to one; nan where nothing was brought."""
    lengths = brought.norm(dim=-1)
    return lengths / lengths.sum(-1, keepdim=True)


def mixing_ratio(brought: Float[Tensor, "query key d_model"]) -> Float[Tensor, " query"]:
    """Share of other tokens in each output, from 0 (all its own) to 1, by length (Kobayashi 2021)."""
    own = brought.diagonal(dim1=0, dim2=1).T
    kept, mixed = own.norm(dim=-1), (brought.sum(1) - own).norm(dim=-1)
    return mixed / (mixed + kept)


def with_residual(
    pattern: Float[Tensor, "head query key"],
    *,
    residual: Float[Tensor, "query d_model"],
    written: Float[Tensor, "query d_model"],
) -> Float[Tensor, "query key"]:
    """The mean pattern beside the residual stream, each with its true share by length, rows to one.

    Abnar & Zuidema (2020) take a half for both; `written` is what the heads really added to `residual`.
    """
    kept, added = residual.norm(dim=-1, keepdim=True), written.norm(dim=-1, keepdim=True)
    share = kept / (kept + added)
    return share * torch.eye(len(residual), device=residual.device) + (1 - share) * pattern.mean(0)


def rollout(mixing: Float[Tensor, "layer query key"]) -> Float[Tensor, "layer query key"]:
    """Shares of the input tokens in every layer's outputs: the product of the layers' mixing (Abnar & Zuidema 2020).

    Raises ValueError where a row does not sum to one, as the shares would not.
    """
    apart = (mixing.sum(-1) - 1).abs()
    if not (apart < 1e-4).all():  # also when it is nan
        layer, query = divmod(int(apart.nan_to_num(float("inf")).argmax()), mixing.shape[1])
        raise ValueError(
            f"row {query} of layer {layer} sums to {float(mixing[layer, query].sum()):.4g}, not to 1; give shares, as "
            "alti, norm_shares and with_residual do"
        )
    product, layers = torch.eye(mixing.shape[-1], device=mixing.device, dtype=mixing.dtype), []
    for layer in mixing:
        product = layer @ product
        layers.append(product)
    return torch.stack(layers)


def sentence_lift(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"], sentence: Int[Tensor, " key"]
) -> Float[Tensor, "head row column"]:
    """Attention of one sentence's tokens to another's, over what ignorant heads would give: 1 is chance.

    `sentence` numbers each token's sentence from zero, -1 for tokens of none. Without the division a long sentence
    receives more than a short one, and in a causal model an early one more than a late one. Pairs that the support does
    not allow are nan. Queries are the tokens themselves, as in self-attention.
    """
    inside = torch.stack([sentence == i for i in range(int(sentence.max()) + 1)]).float()
    known = support.float() / support.sum(-1, keepdim=True)
    mass = torch.einsum("aq,hqk,bk->hab", inside, pattern.float(), inside)
    chance = torch.einsum("aq,qk,bk->ab", inside, known, inside)
    return torch.where(chance > 0, mass / chance, NAN)
