"""Where heads write in the residual stream, and how alike two heads' writes are: all pairs at once.

A head's own d_head coordinates are arbitrary: W_V → W_V G, W_O → G⁻¹ W_O changes them and leaves the model
as it was. So everything here is of the write z W_O, though no matrix larger than d_head × d_model is made for
a head. Stack heads of any layers on the head axis; `output` may also be W_O followed by another linear map
(an unembedding, another head's read), for the same geometry as that reader sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .neighbours import Neighbours

_CELLS = 2**24  # numbers alive in one block of pairs


@dataclass(frozen=True, eq=False)
class Writes:
    """Principal axes of each head's writes (orthonormal, by falling variance) and the variances along all of them.

    Axes are nan where the head's writes span fewer dimensions than asked for.
    """

    axes: Float[Tensor, "head d_model rank"]
    variance: Float[Tensor, "head d_head"]


@dataclass(frozen=True, eq=False)
class PairKinds:
    """Which unordered pairs of heads (upper triangle) read one KV head, merely share a layer, or do neither."""

    shared_kv: Bool[Tensor, "head head"]
    within_layer: Bool[Tensor, "head head"]
    across_layers: Bool[Tensor, "head head"]


def pair_kinds(layer: Int[Tensor, " head"], kv_head: Int[Tensor, " head"]) -> PairKinds:
    """Sort pairs of heads by what they share; pairs on one KV head have one value space, and are a case apart."""
    upper = torch.ones(len(layer), len(layer), dtype=torch.bool, device=layer.device).triu(1)
    one_layer = layer[:, None] == layer
    one_kv = one_layer & (kv_head[:, None] == kv_head)
    return PairKinds(upper & one_kv, upper & one_layer & ~one_kv, upper & ~one_layer)


def write_coordinates(
    z: Float[Tensor, "head point d_head"], output: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "head point d_head"]:
    """The heads' writes to the residual stream in d_head coordinates that keep all distances and angles."""
    return z @ _frame(output)[1].mT.to(z.dtype)


def write_axes(
    covariance: Float[Tensor, "head d_head d_head"], output: Float[Tensor, "head d_head d_model"], *, rank: int
) -> Writes:
    """The `rank` main axes of each head's writes, from the covariance of its z. Accumulate that in float64.

    With the identity for a covariance and W_V transposed for `output`, these are the axes along which a head
    reads: at ``rank=d_head`` heads of one KV head then have overlap 1.
    """
    if not 1 <= rank <= min(output.shape[1:]):
        raise ValueError(
            f"{rank} axes asked of writes through {output.shape[1]} × {output.shape[2]} matrices; "
            f"ask for 1 to {min(output.shape[1:])}"
        )
    frame, triangle = _frame(output)
    values, vectors = torch.linalg.eigh(triangle @ covariance.double() @ triangle.mT)
    variance = values.flip(-1).clamp_min(0)  # below zero lies round-off
    axes = frame @ vectors.flip(-1)[..., :rank]
    round_off = variance[:, :1] * variance.shape[-1] * torch.finfo(covariance.dtype).eps
    return Writes(axes.masked_fill((variance[:, rank - 1 : rank] <= round_off)[..., None], torch.nan), variance)


def overlap(
    axes: Float[Tensor, "head d_model rank"], other: Float[Tensor, "twin d_model rank"] | None = None
) -> Float[Tensor, "head twin"]:
    """Mean squared cosine of the principal angles between all pairs of subspaces; chance is rank / d_model exactly."""
    other = axes if other is None else other
    rows = [squared.sum((-3, -1)) for squared in _squared_grams(axes, other)]
    return torch.cat(rows) / axes.shape[-1]


def overlap_curve(
    axes: Float[Tensor, "head d_model rank"], other: Float[Tensor, "twin d_model rank"] | None = None
) -> Float[Tensor, "head twin rank"]:
    """`overlap` of the leading k axes for every k up to the rank given: look at it before choosing a k."""
    other = axes if other is None else other
    size = torch.arange(1, axes.shape[-1] + 1, device=axes.device)
    rows = [squared.cumsum(-3).cumsum(-1).diagonal(dim1=-3, dim2=-1) for squared in _squared_grams(axes, other)]
    return torch.cat(rows) / size


def principal_cosines(
    axes: Float[Tensor, "head d_model rank"], other: Float[Tensor, "twin d_model rank"] | None = None
) -> Float[Tensor, "head twin rank"]:
    """Cosines of the principal angles between all pairs of subspaces, largest first (Björck and Golub 1973)."""
    other = axes if other is None else other
    rows = []
    for gram in _grams(axes, other):
        square = gram.transpose(-3, -2)
        defined = square.isfinite().all(-1).all(-1)[..., None]
        cosines = torch.linalg.svdvals(square.nan_to_num(0)).clamp_max(1)  # above one lies round-off
        rows.append(cosines.masked_fill(~defined, torch.nan))
    return torch.cat(rows)


def geodesic_distance(cosines: Float[Tensor, "*pair rank"]) -> Float[Tensor, "*pair"]:
    """Length of the shortest path between two subspaces: the norm of the principal angles, in radians."""
    return cosines.arccos().norm(dim=-1)


def chordal_distance(cosines: Float[Tensor, "*pair rank"]) -> Float[Tensor, "*pair"]:
    """Norm of the sines of the principal angles: the distance between projectors, over √2 (Conway et al. 1996)."""
    return (1 - cosines.square()).sum(-1).sqrt()


def containment(writes: Writes, *, rank: int) -> Float[Tensor, "head twin"]:
    """Share of the first head's write variance inside the leading `rank` axes of the second; chance is rank / d_model.

    It is not symmetric: a narrow head may lie inside a wide one. `writes` must hold all d_head axes.
    """
    weighted = writes.axes * _all_variances(writes).sqrt()[:, None]
    rows = [squared.sum((-3, -1)) for squared in _squared_grams(weighted, writes.axes[..., :rank])]
    return torch.cat(rows) / writes.variance.sum(-1, keepdim=True)


def rv_coefficient(writes: Writes) -> Float[Tensor, "head twin"]:
    """tr(ΣᵢΣⱼ) / √(tr Σᵢ² tr Σⱼ²) of the write covariances (Escoufier 1973): an overlap that needs no rank.

    Under independent random rotations it is √(PRᵢ PRⱼ) / d_model, with PR the participation ratio. `writes`
    must hold all d_head axes.
    """
    strength = _all_variances(writes).norm(dim=-1)
    weighted = writes.axes * _all_variances(writes).sqrt()[:, None]
    # d_head² numbers a pair: float32 is enough for a sum of squares, and twice as fast
    rows = [squared.sum((-3, -1)) for squared in _squared_grams(weighted.float(), weighted.float())]
    return torch.cat(rows) / (strength[:, None] * strength)


def debiased_cka(cloud: Float[Tensor, "head point dim"]) -> Float[Tensor, "head head"]:
    """Linear centred kernel alignment between all pairs of heads on the same tokens; 0 where they are independent.

    The plain estimator grows with dim / point; this uses the unbiased one (Song et al. 2012; Nguyen et al. 2021)
    and may be slightly below zero. Give `write_coordinates`: it compares arrangements of tokens, not places.
    """
    n_head, n_point, _ = cloud.shape
    if n_point < 4:
        raise ValueError(f"the unbiased estimator needs at least 4 points; got {n_point}")
    centred = cloud - cloud.mean(1, keepdim=True)
    centred = centred / centred.square().mean((1, 2), keepdim=True).sqrt()  # its size cancels; float32 is spared
    sums = (centred @ centred.sum(1)[..., None]).squeeze(-1) - centred.square().sum(-1)
    row = sums / (n_point - 2)
    shift = sums.sum(-1) / ((n_point - 1) * (n_point - 2))
    products = torch.zeros(n_head, n_head, dtype=torch.float64, device=cloud.device)
    for rows in _steps(n_point, n_head * n_point):
        kernel = centred[:, rows] @ centred.mT
        kernel += shift[:, None, None] - row[:, rows, None] - row[:, None]
        kernel.diagonal(offset=rows.start, dim1=1, dim2=2).zero_()  # what debiases: no token is compared with itself
        flat = kernel.flatten(1)
        products += flat @ flat.T
    scale = products.diagonal().sqrt()
    return (products / (scale[:, None] * scale)).to(cloud.dtype)


def svcca(cloud: Float[Tensor, "head point dim"], *, rank: int) -> Float[Tensor, "head head"]:
    """Mean canonical correlation between the `rank` main components of all pairs of heads (Raghu et al. 2017).

    On the same tokens. Independent heads do not give 0: their chance level is that of random subspaces, with
    the points for dimensions, ``haar_cosines(point - 1, rank)``.
    """
    if not 1 <= rank <= min(cloud.shape[1] - 1, cloud.shape[2]):
        raise ValueError(f"{rank} components asked of {cloud.shape[1]} points in {cloud.shape[2]} dimensions")
    centred = cloud.double() - cloud.double().mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred.mT @ centred)
    scores = centred @ vectors.flip(-1)[..., :rank]
    round_off = values[:, -1:] * values.shape[-1] * torch.finfo(cloud.dtype).eps
    missing = (values.flip(-1)[:, rank - 1 : rank] <= round_off)[..., None]
    axes = torch.nn.functional.normalize(scores, dim=1).masked_fill(missing, torch.nan)
    return principal_cosines(axes).mean(-1).to(cloud.dtype)


def mutual_neighbours(near: Neighbours) -> Float[Tensor, "head head"]:
    """Mean share of a token's nearest neighbours in one head that are its neighbours in another (Huh et al. 2024).

    Averaged over the tokens measured in both heads. Chance is about count / (point - 1).
    """
    n_head, n_point, count = near.index.shape
    measured = near.index[..., 0] >= 0
    common = torch.zeros(n_head, n_head, device=near.index.device)
    for rows in _steps(n_point, n_head * n_point):
        index = near.index[:, rows]
        member = torch.zeros(n_head, index.shape[1], n_point, device=index.device)
        # an unmeasured token has no neighbours; 0 is written at 0 for it
        member.scatter_(-1, index.clamp_min(0), (index >= 0).float())
        flat = member.flatten(1)
        common += flat @ flat.T
    both = measured.float() @ measured.float().T
    return common / (both * count)


def _frame(
    output: Float[Tensor, "head d_head d_model"],
) -> tuple[Float[Tensor, "head d_model rank"], Float[Tensor, "head rank d_head"]]:
    """Orthonormal axes Q of each head's write space and the matrix R that takes z there: W_Oᵀ = Q R."""
    frame, triangle = torch.linalg.qr(output.mT.double())
    return frame, triangle


def _all_variances(writes: Writes) -> Float[Tensor, "head d_head"]:
    held, wanted = writes.axes.shape[-1], writes.variance.shape[-1]
    if held != wanted:
        raise ValueError(f"writes hold {held} of {wanted} axes; make them with write_axes(..., rank={wanted})")
    return writes.variance


def _grams(
    axes: Float[Tensor, "head d_model rank"], other: Float[Tensor, "twin d_model size"]
) -> Iterator[Float[Tensor, "block rank twin size"]]:
    """Inner products of all axes of all pairs, a block of heads at a time."""
    twin, width, size = other.shape
    right = other.transpose(0, 1).reshape(width, twin * size)
    for rows in _steps(axes.shape[0], axes.shape[-1] * twin * size):
        block = axes[rows]
        flat = block.mT.reshape(-1, width) @ right
        yield flat.reshape(block.shape[0], axes.shape[-1], twin, size)


def _squared_grams(
    axes: Float[Tensor, "head d_model rank"], other: Float[Tensor, "twin d_model size"]
) -> Iterator[Float[Tensor, "block rank twin size"]]:
    return (gram.square_() for gram in _grams(axes, other))


def _steps(total: int, width: int) -> list[slice]:
    step = max(1, _CELLS // width)
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]
