"""Do heads that are alike in one way go together in another? Pairs of heads, and what independent evidence they are."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.records import Estimate

from .agreement import jackknife, mean_ranks
from .estimate import permutation_p


def kv_blocks(between: Float[Tensor, "head head"], group: Int[Tensor, " head"]) -> Float[Tensor, "block block"]:
    """Mean over the pairs of heads of each two KV groups: heads on one KV head are one witness, not several.

    `group` numbers KV heads, through all layers. The diagonal is of different heads of one group, nan for a lone one.
    """
    member = torch.nn.functional.one_hot(group.unique(return_inverse=True)[1]).to(between)
    apart = between.masked_fill(torch.eye(len(group), dtype=torch.bool, device=between.device), 0)
    size = member.sum(0)
    pairs = size[:, None] * size - torch.diag(size)
    return torch.where(pairs > 0, (member.T @ apart @ member) / pairs, torch.nan)


def pair_agreement(
    alike: Float[Tensor, "head head"],
    together: Float[Tensor, "doc pair"],
    pairs: Bool[Tensor, "head head"],
    *,
    layer: Int[Tensor, " head"],
    draws: int,
    seed: int,
) -> Estimate:
    """Spearman's correlation over pairs of heads, ranked within each layer, of two things known of each pair.

    `together` holds, document by document, the second of the True cells of `pairs` in their order. The interval leaves
    out one document at a time. As pairs share heads, the null deals the heads of each layer out anew, not the pairs
    (Mantel 1967). Fewer than two documents raise ValueError.
    """
    first, second = pairs.nonzero().T
    if len(first) != together.shape[1]:
        raise ValueError(f"there are {len(first)} pairs of heads and {together.shape[1]} columns; give one for each")
    if len(together) < 2:
        raise ValueError(f"an interval over documents needs two of them, and there is {len(together)}")
    if not (layer[first] == layer[second]).all():
        raise ValueError("some pairs lie across layers; pairs are ranked within a layer, so both heads must lie in it")
    if alike.isnan().any() or together.isnan().any():
        raise ValueError("some pairs are nan; leave out the heads that have no subspace")
    layers = [(layer[first] == number).nonzero().flatten() for number in layer[first].unique()]
    heads = [(layer == number).nonzero().flatten() for number in layer.unique()]
    generator = torch.Generator().manual_seed(seed)

    def ranked(values: Tensor) -> Tensor:
        ranks = torch.empty(len(values), dtype=torch.float64)
        for own in layers:
            ranks[own] = mean_ranks(values[own]) - (len(own) + 1) / 2
        return ranks

    def agreement(dealt: Tensor, docs: Tensor) -> Tensor:
        one, other = ranked(alike[dealt[first], dealt[second]]), ranked(together[docs].mean(0))
        return (one @ other) / (one.norm() * other.norm())

    def deal() -> Tensor:
        dealt = torch.arange(len(layer))
        for own in heads:
            dealt[own] = own[torch.randperm(len(own), generator=generator)]
        return dealt

    as_is, everyone = torch.arange(len(layer)), torch.arange(len(together))
    without = torch.stack([agreement(as_is, everyone[everyone != one]) for one in everyone])
    null = torch.stack([agreement(deal(), everyone) for _ in range(draws)])
    found = agreement(as_is, everyone)
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = jackknife(found, without, tails).tolist()
    null_low, null_high = null.quantile(tails).tolist()
    p = float(permutation_p(found, null))
    return Estimate(float(found), low, high, null_low, null_high, unit="rank correlation", n=len(together), p=p)
