"""Nearest neighbours of every point of every head's cloud, exact and blocked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

_CELLS = 2**22  # floats in one block: 16 MiB, so that most of it is still in the cache when it is ranked
# oneDNN fills the vector units of any processor, MKL half of AMD's: 0.13 s of products for 144 heads, not 0.31 s
_ONEDNN: Callable[..., Tensor] | None = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)
_SPARE = 4  # the Gram trick ranks near-ties wrongly; a few spare candidates are ranked again by difference


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Each point's nearest neighbours, nearest first; nan and -1 where a point could not be measured."""

    distance: Float[Tensor, "head point rank"]
    index: Int[Tensor, "head point rank"]


def neighbours(
    cloud: Float[Tensor, "head point dim"],
    count: int,
    *,
    document: Int[Tensor, " point"] | None = None,
    position: Int[Tensor, " point"] | None = None,
    window: int = 0,
) -> Neighbours:
    """The `count` nearest neighbours of each point among the points of its own head.

    Points of one document at most `window` positions apart are not neighbours (Theiler 1986): successive
    tokens lie on a trajectory, whose dimension is not the cloud's. The neighbours may still lie together on
    another trajectory, which inflates ratios of near distances; `thinned` points are free of both. Later
    copies of a point are dropped, as are points whose nearest neighbour is closer than floating point can
    tell. All of this leaves nan, as does a point with fewer than `count` neighbours allowed. Distances must
    mean something: give heads in the residual stream (`write_coordinates`), never in their own coordinates.
    """
    n_head, n_point, dim = cloud.shape
    if not 1 <= count < n_point:
        raise ValueError(f"{count} neighbours asked of {n_point} points; ask for 1 to {n_point - 1}, or give more")
    if (document is None) != (position is None) or (window > 0 and document is None):
        raise ValueError("temporal exclusion needs both document and position; give both, or neither and window=0")
    exact = cloud if cloud.dtype == torch.float64 else cloud.float()
    distinct = first_copies(exact)
    resolution = 8 * torch.finfo(exact.dtype).eps * exact.norm(dim=-1)  # the last bits of a sum are noise
    centred = exact - exact.mean(1, keepdim=True)  # near the origin the Gram trick cancels least

    wanted = min(count + _SPARE, n_point - 1)
    width = max(n_point, wanted * dim)  # floats a row needs
    head_step = 1 if exact.device.type == "cpu" else max(1, _CELLS // (128 * width))
    row_step = max(1, _CELLS // (min(head_step, n_head) * width))
    distance = centred.new_empty(n_head, n_point, count)
    index = torch.empty(n_head, n_point, count, dtype=torch.long, device=cloud.device)
    for rows in _blocks(n_point, row_step):
        excluded = _too_close_in_time(document, position, rows, window)
        for heads in _blocks(n_head, head_step):
            points = centred[heads]
            # (x, 1) · (-2 y, |y|²) = |x - y|² - |x|² ranks the y; a dropped copy lies infinitely far from everyone
            square = points.square().sum(-1, keepdim=True).masked_fill(~distinct[heads, :, None], torch.inf)
            left = torch.cat([points[:, rows], torch.ones_like(square[:, rows])], -1)
            gap = _products(left, torch.cat([-2 * points, square], -1))
            if excluded is None:
                gap.diagonal(offset=rows.start, dim1=1, dim2=2).fill_(torch.inf)
            else:
                gap.masked_fill_(excluded, torch.inf)
            ranked, candidate = gap.topk(wanted, largest=False, sorted=False)
            first = torch.arange(len(points), device=cloud.device)[:, None, None] * n_point
            apart = points.flatten(0, 1).index_select(0, (candidate + first).flatten()).unflatten(0, candidate.shape)
            true = torch.linalg.vector_norm(apart.sub_(points[:, rows, None]), dim=-1)  # in place: five times as fast
            near, order = true.masked_fill(ranked.isinf(), torch.inf).sort(-1)
            distance[heads, rows] = near[..., :count]
            index[heads, rows] = candidate.gather(-1, order)[..., :count]

    unmeasured = ~distinct | (distance[..., 0] <= resolution) | distance[..., -1].isinf()
    return Neighbours(
        distance.masked_fill(unmeasured[..., None], torch.nan), index.masked_fill(unmeasured[..., None], -1)
    )


def first_copies(cloud: Float[Tensor, "head point dim"]) -> Bool[Tensor, "head point"]:
    """True for the first of several equal points of a head, and for every point without a copy."""
    even = pad(cloud, (0, cloud.shape[-1] % 2))
    words = (even + 0.0).contiguous().view(torch.int64)  # two float32 a word; -0.0 is 0.0
    # an integer fingerprint is exact whatever the order of summation; two points collide with chance 2^-64
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (words.shape[-1],), generator=generator).to(cloud.device) * 2 + 1
    fingerprint = (words * odd).sum(-1)
    ordered, order = fingerprint.sort(dim=-1, stable=True)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(fresh).scatter_(-1, order, fresh)


def thinned(
    document: Int[Tensor, " point"], position: Int[Tensor, " point"], *, window: int, seed: int
) -> Int[Tensor, " row"]:
    """Indices of points of which no two of one document lie within `window` positions: nearly independent points.

    Each document starts at a random position from 0 to `window`, so the first token, often a special one, is
    not in every selection.
    """
    offset = torch.randint(0, window + 1, (len(document),), generator=torch.Generator().manual_seed(seed)).tolist()
    points = sorted(zip(document.tolist(), position.tolist(), range(len(document)), strict=True))
    kept, free, current = [], 0, None
    for number, place, point in points:
        if number != current:
            current, free = number, place + offset[point]
        if place >= free:
            kept.append(point)
            free = place + window + 1
    return torch.tensor(sorted(kept), dtype=torch.long, device=document.device)


def _products(left: Float[Tensor, "head row dim"], right: Float[Tensor, "head point dim"]) -> Tensor:
    if _ONEDNN and len(left) == 1 and left.device.type == "cpu" and left.dtype == torch.float32:
        return _ONEDNN(left[0], right[0], None, "none", [], "")[None]
    return torch.bmm(left, right.mT)


def _too_close_in_time(
    document: Int[Tensor, " point"] | None, position: Int[Tensor, " point"] | None, rows: slice, window: int
) -> Bool[Tensor, "row point"] | None:
    if document is None or position is None or window == 0:
        return None
    same_document = document[rows, None] == document
    return same_document & ((position[rows, None] - position).abs() <= window)


def _blocks(total: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]
