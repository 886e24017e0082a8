"""How many dimensions a cloud of head outputs has: by neighbours, by scale, by variance.

One search for neighbours serves every estimator::

    near = neighbours(write_coordinates(z, output), 64, document=document, position=position, window=10)
    two_nn(near.distance), gride(near.distance), levina_bickel(near.distance[..., :20])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .neighbours import neighbours


@dataclass(frozen=True, eq=False)
class ScaleCurve:
    """Dimension against scale: `rank` is n1 (its partner is 2 n1), `radius` the mean distance to neighbour 2 n1."""

    rank: Int[Tensor, " size"]
    radius: Float[Tensor, "head size"]
    dimension: Float[Tensor, "head size"]


def two_nn(distance: Float[Tensor, "head point rank"], *, keep: float = 0.9) -> Float[Tensor, " head"]:
    """Intrinsic dimension from the ratio of second to first neighbour distances (Facco et al. 2017).

    The logarithm of that ratio is exponential with rate d. Its largest values are prone to outliers, so only
    the smallest share `keep` is trusted, and the rest count as "at least that large": type-II censoring, without
    bias. Dropping them outright would inflate the dimension by 1.344. `keep=1` is the maximum likelihood
    over all points. The standard error is about d / sqrt(keep points), if the points are independent.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is the share of ratios trusted, between 0 and 1; got {keep}")
    first, second = _ranks(distance, 2)[..., :2].double().unbind(-1)
    ratio = (second / first).log().nan_to_num(nan=torch.inf).sort(-1).values
    points = ratio.isfinite().sum(-1)
    trusted = (keep * points).long()
    sum_to = torch.where(ratio.isfinite(), ratio, 0).cumsum(-1)
    last = (trusted - 1).clamp_min(0)[:, None]
    exposure = (sum_to.gather(-1, last) + (points - trusted)[:, None] * ratio.gather(-1, last)).squeeze(-1)
    return torch.where(trusted >= 2, (trusted - 1) / exposure, torch.nan).to(distance.dtype)


def gride(distance: Float[Tensor, "head point rank"]) -> ScaleCurve:
    """Dimension by scale: maximum likelihood from neighbours n1 and 2 n1, n1 = 1, 2, 4, … (Denti et al. 2022).

    A plateau is a dimension; a slope says that the answer depends on the scale. The first entry is `two_nn`
    with ``keep=1``.
    """
    scales = [2**power for power in range(_ranks(distance, 2).shape[-1].bit_length() - 1)]
    curve = [_gride_at(distance, scale) for scale in scales]
    radius = [distance[..., 2 * scale - 1].nanmean(-1) for scale in scales]
    return ScaleCurve(torch.tensor(scales, device=distance.device), torch.stack(radius, -1), torch.stack(curve, -1))


def levina_bickel(distance: Float[Tensor, "head point rank"]) -> Float[Tensor, " head"]:
    """Intrinsic dimension by maximum likelihood over all the neighbours given (Levina and Bickel 2004).

    Local estimates are averaged as inverses (MacKay and Ghahramani 2005); their plain mean is biased upwards.
    """
    logs = _ranks(distance, 2).double().log()
    inverse = (logs[..., -1:] - logs[..., :-1]).mean(-1)
    return (1 / inverse.nanmean(-1)).to(distance.dtype)


def spectrum(cloud: Float[Tensor, "head point dim"]) -> Float[Tensor, "head rank"]:
    """Variances along the principal axes of each head's cloud, largest first."""
    centred = cloud.double() - cloud.double().mean(1, keepdim=True)
    covariance = centred.mT @ centred / (cloud.shape[1] - 1)
    # a covariance has no negative eigenvalue: what lies below zero is round-off
    return torch.linalg.eigvalsh(covariance).flip(-1).clamp_min(0).to(cloud.dtype)


def participation_ratio(spectrum: Float[Tensor, "head rank"]) -> Float[Tensor, " head"]:
    """(Σλ)² / Σλ²: the number of equal variances that would spread as these do. nan for a point."""
    return spectrum.sum(-1).square() / spectrum.square().sum(-1)


def pca_rank(spectrum: Float[Tensor, "head rank"], *, share: float = 0.9) -> Float[Tensor, " head"]:
    """The number of principal axes that hold `share` of the variance. nan for a point.

    A rank above the intrinsic dimension proves no curvature alone: compare with `gaussian_surrogate`.
    """
    total = spectrum.sum(-1)
    short = spectrum.cumsum(-1) < share * total[:, None]
    return torch.where(total > 0, short.sum(-1) + 1.0, torch.nan)


def gaussian_surrogate(cloud: Float[Tensor, "head point dim"], *, seed: int) -> Float[Tensor, "head point dim"]:
    """A Gaussian cloud with each head's mean and covariance: what a flat, linear cloud would measure."""
    mean = cloud.double().mean(1, keepdim=True)
    centred = cloud.double() - mean
    variance, axes = torch.linalg.eigh(centred.mT @ centred / (cloud.shape[1] - 1))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(cloud.shape, generator=generator, dtype=torch.float64).to(cloud.device)
    scaled = noise * variance.clamp_min(0).sqrt()[:, None, :]  # below zero lies round-off
    return (mean + scaled @ axes.mT).to(cloud.dtype)


def decimation_curve(
    cloud: Float[Tensor, "head point dim"],
    sizes: Sequence[int],
    *,
    seed: int,
    keep: float = 0.9,
    document: Int[Tensor, " point"] | None = None,
    position: Int[Tensor, " point"] | None = None,
    window: int = 0,
) -> Float[Tensor, "head size"]:
    """TwoNN against the number of points: the mean over disjoint random parts of each size.

    Fewer points look at a larger scale. A dimension that moves along this curve may be compared between
    clouds of one size only.
    """
    n_point = cloud.shape[1]
    if not all(3 <= size <= n_point for size in sizes):
        raise ValueError(f"sizes {list(sizes)} must lie between 3 and the {n_point} points of the cloud")
    shuffled = torch.randperm(n_point, generator=torch.Generator().manual_seed(seed)).to(cloud.device)

    def estimate(part: Tensor) -> Tensor:
        near = neighbours(
            cloud[:, part],
            2,
            document=None if document is None else document[part],
            position=None if position is None else position[part],
            window=window,
        )
        return two_nn(near.distance, keep=keep)

    def mean_over_parts(size: int) -> Tensor:
        parts = shuffled[: n_point // size * size].split(size)
        return torch.stack([estimate(part) for part in parts]).nanmean(0)

    return torch.stack([mean_over_parts(size) for size in sizes], -1)


def _gride_at(distance: Float[Tensor, "head point rank"], near: int) -> Float[Tensor, " head"]:
    """The root of the likelihood's score for neighbours `near` and ``2 * near``."""
    ratio = (distance[..., 2 * near - 1].double() / distance[..., near - 1].double()).log()
    valid = ratio > 0  # also False for nan; a tie has no density
    points = valid.sum(-1)
    total = torch.where(valid, ratio, 0).sum(-1)
    between = near - 1  # neighbours strictly between the two
    # The score times d, (points - 1) + Σ between·x/(1 - e^-x) - (2 near - 1)·x with x = d·log ratio, falls and is
    # convex in d, so Newton's steps from a point left of its root climb to the root without overshooting.
    dimension = ((points - 1) + between * points) / ((near + between / 2) * total)
    for _ in range(20):
        x = torch.where(valid, dimension[:, None] * ratio, 1.0)
        rise = -torch.expm1(-x)
        score = (points - 1) - (2 * near - 1) * dimension * total
        slope = -(2 * near - 1) * total
        if between:
            score = score + between * torch.where(valid, x / rise, 0).sum(-1)
            pull = ratio * (rise - x * (1 - rise)) / rise.square()
            slope = slope + between * torch.where(valid, pull, 0).sum(-1)
        dimension = dimension - score / slope
    return torch.where(points >= 2, dimension, torch.nan).to(distance.dtype)


def _ranks(distance: Float[Tensor, "head point rank"], least: int) -> Float[Tensor, "head point rank"]:
    if distance.shape[-1] < least:
        raise ValueError(f"{distance.shape[-1]} neighbour distances a point given, at least {least} needed")
    return distance
