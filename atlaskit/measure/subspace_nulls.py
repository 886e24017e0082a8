"""What overlap between heads' subspaces is by chance, by the weights alone, and by noise.

From weakest to strongest: random subspaces (`haar_overlap`), random subspaces with the stream's spectrum
(`spectrum_matched_cosines`), random inputs through the head's own weights (`weights_only_overlap`). An untrained
model and shuffled text are the same measure on another capture. A gauge must change nothing (`random_gauge`).
From above, a head's overlap with itself on other documents (`split_half`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .geometry import overlap

_CELLS = 2**24  # random numbers alive at once


@dataclass(frozen=True, eq=False)
class Chance:
    """Mean and standard deviation of a statistic under a null."""

    mean: Float[Tensor, "*pair"]
    sd: Float[Tensor, "*pair"]


@dataclass(frozen=True, eq=False)
class SplitHalf:
    """Overlaps between two halves of the documents, which share no noise.

    `ceiling` is a head with itself, `crossed` head i in one half with head j in the other (both ways, averaged).
    `effect` is `crossed` with chance taken out and divided by what the ceilings allow: 0 at chance, 1 where two
    heads are as alike as two halves of one; nan where a ceiling does not beat chance.
    """

    ceiling: Float[Tensor, " head"]
    crossed: Float[Tensor, "head head"]
    effect: Float[Tensor, "head head"]


def haar_overlap(dim: int, rank: int) -> Chance:
    """Mean squared cosine between two uniformly random `rank`-dimensional subspaces of R^dim, in closed form.

    The moments of the trace of a product of random projectors (Haar measure on the Grassmannian).
    """
    _check_rank(dim, rank)
    variance = 2 * (dim - rank) ** 2 / (dim**2 * (dim - 1) * (dim + 2)) if dim > 1 else 0.0
    return Chance(_number(rank / dim), _number(math.sqrt(variance)))


def haar_cosines(dim: int, rank: int, *, draws: int, seed: int) -> Float[Tensor, "draw rank"]:
    """Principal cosines between random subspaces of R^dim, sampled: for statistics without a closed form."""
    _check_rank(dim, rank)
    blocks = _normal(draws, dim, rank, seed=seed)
    # one of the two may stand still: the first `rank` axes
    return torch.cat([torch.linalg.svdvals(torch.linalg.qr(block).Q[:, :rank]) for block in blocks]).clamp_max(1)


def spectrum_matched_cosines(
    spectrum: Float[Tensor, " dim"], rank: int, *, draws: int, seed: int
) -> Float[Tensor, "draw rank"]:
    """Principal cosines between the spans of `rank` random vectors each, drawn with the residual stream's variances.

    Only the eigenvalues of the stream's covariance matter. Heads that write along the stream's main directions
    overlap this much without knowing of one another.
    """
    _check_rank(int((spectrum > 0).sum()), rank)
    scale = spectrum.double().sqrt()[:, None]
    blocks = _normal(2 * draws, len(spectrum), rank, seed=seed)
    axes = torch.cat([torch.linalg.qr(scale * block.to(scale.device)).Q for block in blocks])
    return torch.linalg.svdvals(axes[:draws].mT @ axes[draws:]).clamp_max(1)


def weights_only_overlap(
    value: Float[Tensor, "head d_model d_head"],
    output: Float[Tensor, "head d_head d_model"],
    *,
    rank: int,
    draws: int,
    seed: int,
) -> Chance:
    """Overlap of what the heads write for `rank` random inputs each: what W_V and W_O force without any text.

    Inputs are isotropic in the residual stream, so no gauge can move it. Repeat a shared KV head's `value` for each of
    its heads.
    """
    n_head, width, _ = value.shape
    _check_rank(min(output.shape[1:]), rank)
    if draws < 2:
        raise ValueError(f"a standard deviation needs at least 2 draws; got {draws}")
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(n_head, n_head, dtype=torch.float64, device=value.device)
    squares = torch.zeros_like(total)
    for _ in range(draws):
        stream = torch.randn(n_head, rank, width, generator=generator).to(value)
        drawn = overlap(torch.linalg.qr((stream @ value @ output).mT).Q).double()
        total += drawn
        squares += drawn.square()
    mean = total / draws
    return Chance(mean, (squares / draws - mean.square()).clamp_min(0).mul(draws / (draws - 1)).sqrt())


def over_pairs(null: Chance, pairs: int) -> Chance:
    """The null of a mean over `pairs` pairs of heads.

    Pairs that share a head are uncorrelated under `haar_overlap`: one subspace given, the overlap with the other
    has the same mean whichever it is. Under other nulls this interval is too narrow.
    """
    return Chance(null.mean, null.sd / math.sqrt(pairs))


def adjusted(observed: Float[Tensor, "*pair"], null: Chance) -> Float[Tensor, "*pair"]:
    """The part of the possible overlap that chance leaves open: (O − E₀) / (1 − E₀). 0 is chance, 1 is equality."""
    return (observed - null.mean) / (1 - null.mean)


def z_score(observed: Float[Tensor, "*pair"], null: Chance) -> Float[Tensor, "*pair"]:
    """Distance from chance in standard deviations of the null; nan where the null does not vary."""
    return torch.where(null.sd > 0, (observed - null.mean) / null.sd, torch.nan)


def split_half(first: Float[Tensor, "head d_model rank"], second: Float[Tensor, "head d_model rank"]) -> SplitHalf:
    """Ceilings and cross-fitted overlaps from the `write_axes` of two halves of the documents."""
    between = overlap(first, second)
    ceiling = between.diagonal()
    crossed = (between + between.T) / 2
    chance = haar_overlap(*first.shape[1:])
    room = adjusted(ceiling, chance).to(crossed)
    room = torch.where(room > 0, room, torch.nan).sqrt()
    return SplitHalf(ceiling, crossed, adjusted(crossed, chance).to(crossed) / (room[:, None] * room))


def reliable_rank(
    first: Float[Tensor, "head d_model rank"], second: Float[Tensor, "head d_model rank"], *, floor: float = 0.8
) -> Int[Tensor, " head"]:
    """How many leading axes two halves of the documents agree on: the last k before the overlap falls below `floor`."""
    squared = (first.mT @ second).square()
    size = torch.arange(1, first.shape[-1] + 1, device=first.device)
    curve = squared.cumsum(-2).cumsum(-1).diagonal(dim1=-2, dim2=-1) / size
    return (curve >= floor).long().cumprod(-1).sum(-1)


def random_gauge(n_head: int, d_head: int, *, seed: int, condition: float = 1.0) -> Float[Tensor, "head d_head d_head"]:
    """A random change of basis for each head: orthogonal, or general linear with this condition number.

    Two Haar rotations with singular values from 1 to `condition`, evenly spaced in their logarithm, between them.
    """
    if condition < 1:
        raise ValueError(f"a condition number is at least 1; got {condition}")
    left, right = next(_normal(2 * n_head, d_head, d_head, seed=seed, at_once=True)).chunk(2)
    singular = torch.logspace(0, math.log10(condition), d_head, dtype=torch.float64)
    return _haar(left) * singular @ _haar(right).mT


def regauged(
    value: Float[Tensor, "head size d_head"],
    output: Float[Tensor, "head d_head d_model"],
    gauge: Float[Tensor, "head d_head d_head"],
) -> tuple[Float[Tensor, "head size d_head"], Float[Tensor, "head d_head d_model"]]:
    """(W_V G, G⁻¹ W_O): other coordinates for each head's z, the same model. Give W_V its bias as one more row."""
    turned = torch.linalg.solve(gauge.double(), output.double())
    return (value.double() @ gauge.double()).to(value.dtype), turned.to(output.dtype)


def pooled_covariance(
    count: Int[Tensor, " doc"],
    total: Float[Tensor, "doc head d_head"],
    moment: Float[Tensor, "doc head d_head d_head"],
) -> Float[Tensor, "head d_head d_head"]:
    """Covariance of each head's z over all documents, from sums as `bootstrap_covariances` takes them."""
    return _covariance(torch.ones(len(count), dtype=torch.float64, device=count.device), count, total, moment)


def bootstrap_covariances(
    count: Int[Tensor, " doc"],
    total: Float[Tensor, "doc head d_head"],
    moment: Float[Tensor, "doc head d_head d_head"],
    *,
    draws: int,
    seed: int,
) -> Iterator[Float[Tensor, "head d_head d_head"]]:
    """Covariances of z over documents drawn with replacement, one draw at a time: the noise of any overlap.

    Documents are drawn, never tokens or pairs of heads, as those are not independent. `total` is the sum of z over a
    document's points, `moment` that of z zᵀ.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        picks = torch.randint(len(count), (len(count),), generator=generator)
        weight = torch.bincount(picks, minlength=len(count)).to(count.device).double()
        yield _covariance(weight, count, total, moment)


def _covariance(
    weight: Float[Tensor, " doc"],
    count: Int[Tensor, " doc"],
    total: Float[Tensor, "doc head d_head"],
    moment: Float[Tensor, "doc head d_head d_head"],
) -> Float[Tensor, "head d_head d_head"]:
    points = (weight * count).sum()
    mean = torch.einsum("n,nhi->hi", weight, total.double()) / points
    second = torch.einsum("n,nhij->hij", weight, moment.double()) / points
    return second - mean[:, :, None] * mean[:, None]


def _haar(normal: Float[Tensor, "head d_head d_head"]) -> Float[Tensor, "head d_head d_head"]:
    """Uniformly random rotations from Gaussian matrices (Mezzadri 2007)."""
    orthogonal, triangle = torch.linalg.qr(normal)
    return orthogonal * triangle.diagonal(dim1=-2, dim2=-1).sign()[:, None]


def _normal(
    draws: int, rows: int, columns: int, *, seed: int, at_once: bool = False
) -> Iterator[Float[Tensor, "draw row column"]]:
    generator = torch.Generator().manual_seed(seed)
    step = draws if at_once else max(1, _CELLS // (rows * columns))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        yield torch.randn(size, rows, columns, generator=generator).double()


def _number(value: float) -> Float[Tensor, ""]:
    return torch.tensor(value, dtype=torch.float64)


def _check_rank(dim: int, rank: int) -> None:
    if not 1 <= rank <= dim:
        raise ValueError(f"a subspace of rank {rank} asked of {dim} dimensions; ask for 1 to {dim}")
