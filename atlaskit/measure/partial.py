"""Does one quantity go with another beyond what a third explains? Correlations of tokens, intervals over documents."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlaskit.records import Estimate

from .estimate import permutation_p


def partial_correlation(
    values: Float[Tensor, "head point"], outcome: Float[Tensor, " point"], given: Float[Tensor, "point quantity"]
) -> Float[Tensor, " head"]:
    """Pearson's correlation of what is left of both when the best linear guess from `given` is taken away.

    nan where either side is then constant.
    """
    known = torch.cat([torch.ones(len(given), 1).to(given), given], dim=1).double()
    basis = torch.linalg.qr(known).Q
    both = torch.cat([values, outcome[None].to(values)]).double()
    left = both - (both @ basis) @ basis.T
    size = left.norm(dim=-1)
    # what the guess explains to the last digit has nothing left to go with anything
    size = torch.where(size > 1e-9 * both.norm(dim=-1), size, torch.nan)
    return ((left[:-1] @ left[-1]) / (size[:-1] * size[-1])).to(values.dtype)


def correlation_at_equal_position(
    values: Float[Tensor, "head point"],
    outcome: Float[Tensor, " point"],
    *,
    document: Int[Tensor, " point"],
    position: Int[Tensor, " point"],
    draws: int,
    seed: int,
) -> list[Estimate]:
    """One Estimate a head: `partial_correlation` of tokens, given their position and its logarithm.

    The interval draws documents anew, as tokens of one text are not independent. The null gives each document the
    outcome of another at the same positions: whatever goes with position or with the rhythm of a text survives there.
    """
    numbers = document.unique()
    if len(numbers) < 3:
        raise ValueError(f"{len(numbers)} documents; an interval over documents and a null need at least 3")
    place = position.double()
    given = torch.stack([place, (place + 1).log()], dim=1)
    rows = [(document == number).nonzero().flatten() for number in numbers]
    generator = torch.Generator().manual_seed(seed)

    def of(picked: Tensor, heard: Tensor) -> Tensor:
        return partial_correlation(values[:, picked], heard, given[picked])

    found = of(torch.cat(rows), outcome[torch.cat(rows)])
    resampled, null = [], []
    for _ in range(draws):
        picked = torch.cat([rows[i] for i in torch.randint(len(rows), (len(rows),), generator=generator)])
        resampled.append(of(picked, outcome[picked]))
        null.append(of(*_exchanged(rows, position, outcome, generator)))
    tails = torch.tensor([0.025, 0.975])
    low, high = torch.stack(resampled).float().nanquantile(tails, dim=0).tolist()
    null_low, null_high = torch.stack(null).float().nanquantile(tails, dim=0).tolist()
    p = permutation_p(found, torch.stack(null)).tolist()
    return [
        Estimate(float(one), low[i], high[i], null_low[i], null_high[i], "partial correlation", len(rows), p[i])
        for i, one in enumerate(found)
    ]


def _exchanged(
    rows: list[Tensor], position: Tensor, outcome: Tensor, generator: torch.Generator
) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
    """Points, and at each the outcome of its position in another document; positions that the other lacks fall out."""
    order = torch.randperm(len(rows), generator=generator).tolist()
    kept, heard = [], []
    for one, other in zip(order, [*order[1:], order[0]], strict=True):  # a single cycle: nobody keeps its own
        same = position[rows[one]][:, None] == position[rows[other]]
        own, theirs = same.nonzero().T
        kept.append(rows[one][own])
        heard.append(outcome[rows[other][theirs]])
    return torch.cat(kept), torch.cat(heard)
