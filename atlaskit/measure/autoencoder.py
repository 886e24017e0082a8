"""Is a head's cloud curved? A small autoencoder beside principal components, on documents that neither has seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Share of the held-out variance that is lost, by head; `last_best` is the step of the weights that were kept.

    `validation` is what was lost on the documents to stop by: where it still falls at its end, more steps are due.
    """

    pca: Float[Tensor, " head"]
    autoencoder: Float[Tensor, " head"]
    last_best: Int[Tensor, " head"]
    validation: Float[Tensor, "step head"]


def reconstruct(
    cloud: Float[Tensor, "head point dim"],
    document: Int[Tensor, " point"],
    *,
    rank: int,
    seed: int,
    steps: int = 1500,
    width: int = 64,
    every: int = 25,
) -> Reconstruction:
    """Squeeze every head's points through `rank` numbers: linearly, and by an autoencoder dim → width → rank and back.

    Documents are dealt into three fifths to fit, one to stop by and one to judge. Each head keeps the weights of the
    step at which it lost least on the documents to stop by, looked at `every` so many steps. Give `write_coordinates`:
    what is lost is then measured in the residual stream.
    """
    fit, stop, judge = _dealt(document, seed)
    if not 1 <= rank < cloud.shape[2]:
        raise ValueError(
            f"{rank} numbers to squeeze {cloud.shape[2]} dimensions through; give 1 to {cloud.shape[2] - 1}"
        )
    mean = cloud[:, fit].mean(1, keepdim=True)
    centred = cloud - mean
    axes = torch.linalg.eigh(centred[:, fit].mT.double() @ centred[:, fit].double()).eigenvectors
    kept = axes.flip(-1)[..., :rank].to(cloud)
    points = centred @ axes.flip(-1).to(cloud)
    # main axes first, and turned to where they are skew: the same numbers whatever coordinates the cloud came in
    points = points * points[:, fit].pow(3).sum(1, keepdim=True).sign()
    points = points / points[:, fit].square().sum(-1).mean(-1)[:, None, None].sqrt()
    net = _Net(len(cloud), cloud.shape[2], width=width, rank=rank, seed=seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    best = torch.full((len(cloud),), torch.inf)
    judged, last = torch.full((len(cloud),), torch.nan), torch.zeros(len(cloud), dtype=torch.long)
    seen = []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - (step - 1) / steps)
        # heads share no weight, so the sum of their losses trains each as if alone
        loss = _lost(net, points[:, fit]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % every == 0 or step == steps:
            with torch.no_grad():
                now = _lost(net, points[:, stop])
                better = now < best
                best = torch.where(better, now, best)
                judged = torch.where(better, _lost(net, points[:, judge]), judged)
            last[better] = step
            seen.append(now)
    held_out = centred[:, judge]
    whole = held_out.square().sum((1, 2))
    linear = (held_out - held_out @ kept @ kept.mT).square().sum((1, 2)) / whole
    return Reconstruction(linear, judged, last, torch.stack(seen))


class _Net(nn.Module):
    """As many little autoencoders as there are heads, side by side."""

    def __init__(self, n_head: int, dim: int, *, width: int, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [dim, width, rank, width, dim]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(n_head, a, b, generator=generator) / a**0.5) for a, b in pairwise(sizes)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n_head, 1, size)) for size in sizes[1:])

    def forward(self, points: Float[Tensor, "head point dim"]) -> Float[Tensor, "head point dim"]:
        first, code, second, last = self.weights
        b1, b2, b3, b4 = self.biases
        hidden = gelu(points @ first + b1) @ code + b2
        return gelu(hidden @ second + b3) @ last + b4


def _lost(net: nn.Module, points: Float[Tensor, "head point dim"]) -> Float[Tensor, " head"]:
    return (net(points) - points).square().sum((1, 2)) / points.square().sum((1, 2))


def _dealt(document: Int[Tensor, " point"], seed: int) -> tuple[Bool[Tensor, " point"], ...]:
    numbers = document.unique()
    if len(numbers) < 5:
        raise ValueError(f"{len(numbers)} documents; at least 5 are needed, three to fit, one to stop by, one to judge")
    order = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))]
    fifth = len(order) // 5
    judge, stop, fit = order[:fifth], order[fifth : 2 * fifth], order[2 * fifth :]
    return torch.isin(document, fit), torch.isin(document, stop), torch.isin(document, judge)
