"""Softmax attention as a Boltzmann distribution: one number per head and query, from the scores.

Energies are minus the scores as softmax sees them (scaled, after the layer's own normalisation, with every bias), in
nats. Adding a constant to a row changes no weight (a key bias does just that), so energy has no natural
zero: here it is the mean score over the row's support, and each measure ignores such shifts. A row with one
key is nan. The number of keys in play, e to the entropy, is `effective_keys`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def free_energy(
    scores: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """−log Σ exp(s − s̄), in nats: −log n for an ignorant row of n keys, and lower as the best keys stand out."""
    return -_centred(scores, support).logsumexp(-1)


def mean_energy(
    scores: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """−Σ a (s − s̄), in nats: 0 for an ignorant row; the free energy is this less the entropy."""
    centred = _centred(scores, support)
    return -(centred.softmax(-1) * centred.masked_fill(~support, 0)).sum(-1)


def heat_capacity(
    scores: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """Variance of the score under the row's own weights, in nats²: how fast the entropy answers to temperature.

    0 for an ignorant row and for a row frozen on one key; it peaks between.
    """
    centred = _centred(scores, support)
    weights, energy = centred.softmax(-1), centred.masked_fill(~support, 0)
    return (weights * (energy - (weights * energy).sum(-1, keepdim=True)).square()).sum(-1)


def effective_temperature(
    scores: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """1 / standard deviation of the scores over the support: the temperature at which standardised scores give the row.

    Infinite for an ignorant row. Beside it belongs `freezing_temperature`.
    """
    energy = _centred(scores, support).masked_fill(~support, 0)
    return (energy.square().sum(-1) / support.sum(-1)).rsqrt()


def freezing_temperature(support: Bool[Tensor, "query key"]) -> Float[Tensor, " query"]:
    """1 / √(2 ln n): below this temperature n random scores freeze, a few keys taking all the weight (Derrida 1981).

    A row below it needs no structure to be sharp. The limit of many keys; at tens of keys the change is gradual.
    """
    keys = support.sum(-1).float()
    return torch.where(keys >= 2, (2 * keys.log()).rsqrt(), torch.nan)


def runner_up_ratio(
    scores: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """R = p₂ / p₁, the second weight over the first: 1 for an ignorant row, 0 for a frozen one."""
    if scores.shape[-1] < 2:
        return torch.full(scores.shape[:2], torch.nan, device=scores.device)
    best = _centred(scores, support).topk(2).values
    return (best[..., 1] - best[..., 0]).exp()


def crystallization_depth(
    ratio: Float[Tensor, "doc layer"], thresholds: Float[Tensor, " size"]
) -> Float[Tensor, "doc size"]:
    """First layer from which every layer's mean `runner_up_ratio` stays below each threshold; nan if the last does not.

    Give many thresholds: a depth that moves with them is a property of the threshold.
    """
    below = ratio[:, None] < thresholds[:, None]
    settled = below.flip(-1).long().cumprod(-1).sum(-1)  # layers at the end of the stack that stay below
    depth = ratio.shape[-1] - settled
    return torch.where(settled > 0, depth.to(ratio), torch.nan)


def purity(
    pattern: Float[Tensor, "head query key"], values: Float[Tensor, "head key dim"]
) -> Float[Tensor, "head query"]:
    """Tr ρ² of the density ρ = Σ a v̂ v̂ᵀ: 1 where all weight lies along one direction, 1/dim where it is spread evenly.

    `values` in the residual stream (`write_coordinates`): angles in a head's own coordinates mean nothing. nan
    where a value without length has weight.
    """
    unit, undefined = _directions(pattern, values)
    overlap = (unit @ unit.mT).square()
    return torch.where(undefined, torch.nan, ((pattern.to(overlap) @ overlap) * pattern).sum(-1))


def von_neumann_entropy(
    pattern: Float[Tensor, "head query key"], values: Float[Tensor, "head key dim"]
) -> Float[Tensor, "head query"]:
    """−Tr ρ log₂ ρ, in bits, of the density that `purity` describes; never above the row's entropy.

    Holds query × dim² numbers a head: give it a tile of queries.
    """
    unit, undefined = _directions(pattern, values)
    density = pattern.new_zeros(*pattern.shape[:2], unit.shape[-1] ** 2, dtype=unit.dtype)
    for start in range(0, unit.shape[1], 64):  # key × dim² numbers a head would be too many
        part = unit[:, start : start + 64]
        outer = (part[..., :, None] * part[..., None, :]).flatten(2)
        density += pattern[..., start : start + 64].to(outer) @ outer
    eigenvalues = torch.linalg.eigvalsh(density.unflatten(-1, (unit.shape[-1], -1))).clamp_min(0)  # below is round-off
    bits = torch.special.entr(eigenvalues).sum(-1) / torch.log(torch.tensor(2.0))
    return torch.where(undefined, torch.nan, bits)


def _centred(
    scores: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query key"]:
    """Scores from their mean over the support, −inf outside; rows without a choice are nan."""
    inside = scores.float().masked_fill(~support, 0)
    keys = support.sum(-1, keepdim=True)
    centred = (inside - inside.sum(-1, keepdim=True) / keys).masked_fill(~support, -torch.inf)
    return centred.masked_fill(keys < 2, torch.nan)


def _directions(
    pattern: Float[Tensor, "head query key"], values: Float[Tensor, "head key dim"]
) -> tuple[Float[Tensor, "head key dim"], Bool[Tensor, "head query"]]:
    """Unit values, and the rows that give weight to a value without a direction."""
    size = values.float().norm(dim=-1, keepdim=True)
    unit = torch.where(size > 0, values.float() / size, 0)
    return unit, ((size.squeeze(-1) == 0)[:, None] & (pattern > 0)).any(-1)
