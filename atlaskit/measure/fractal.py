"""Finite-scale dimensions of a head's attention, read as a measure on the unit square.

A pattern of n tokens offers three to six octaves, so these are slopes over the scales there are, not claims about a
limit. Every row carries the same mass, hence for q >= 0 every dimension tends to something between 1 (points, lines)
and 2 (spread at all scales). Chance is what the same estimator gives on a null, which is seldom 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.records import ScalingFit

from .boxes import Boxes, coarse_grain
from .scaling import FEWEST_SCALES, fit_lines
from .support import uniform

NAN = float("nan")
NOTHING = float("-inf")  # the logarithm of no mass


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A multifractal spectrum: for each head and order q, the singularity strength α(q) and its dimension f(α(q))."""

    alpha: ScalingFit
    f: ScalingFit


def generalized_dimensions(boxes: Boxes, orders: Sequence[float]) -> ScalingFit:
    """Generalised (Rényi) dimensions D_q per head and order: slopes of the box entropies H_q, in bits per octave.

    q = 0 counts boxes, 1 is the information dimension, 2 the correlation dimension (Hentschel & Procaccia 1983). Large
    q follow the heaviest boxes. Sums run over boxes with mass, so q < 0 is allowed but lives on the lightest of them.
    """
    points = torch.stack([_entropies(mass, orders) for mass in boxes.masses], -1)
    return fit_lines(boxes.log_size, points, boxes.usable, reasons=boxes.reasons)


def relative_dimensions(boxes: Boxes, support: Bool[Tensor, "query key"], orders: Sequence[float]) -> ScalingFit:
    """Dimensions free of finite-size bias: 2 minus the slopes of the divergence from the ignorant head.

    Exactly 2 for attention spread evenly over `support`, at every n, where D_q itself is pulled down by the corner and
    the edge of a causal triangle. 2 therefore means "as spread as allowed". The points are 2 log2 m less the Rényi
    divergence in bits (Rényi 1961), so that their slopes are the dimensions.
    """
    ignorant = coarse_grain(uniform(support).to(boxes.masses[0]), sizes=boxes.sizes)
    points = []
    for size, mass, chance in zip(boxes.sizes, boxes.masses, ignorant.masses, strict=True):
        if ((mass > 0) & (chance == 0)).any():
            raise ValueError(
                f"some attention lies in boxes of the {size} × {size} grid that this {tuple(support.shape)} support "
                "forbids; its divergence is infinite. Pass the support that the pattern was made with."
            )
        points.append(2 * math.log2(size) - _divergences(mass, chance, orders))
    return fit_lines(boxes.log_size, torch.stack(points, -1), boxes.usable, reasons=boxes.reasons)


def multifractal_spectrum(boxes: Boxes, orders: Sequence[float]) -> Spectrum:
    """The spectrum f(α), without a Legendre transform of noisy slopes (Chhabra & Jensen 1989).

    At each q the boxes are reweighted by their masses to the power q; α and f are slopes of the mean logarithm of
    the mass and of the weights' own entropy. f(α(0)) is D_0; f(α(1)) and α(1) are both D_1.
    """
    strength, dimension = [], []
    for mass in boxes.masses:
        logs = torch.where(mass > 0, mass, 1).log2()
        tilted = [torch.where(mass > 0, order * logs, NOTHING).flatten(1) * math.log(2) for order in orders]
        mean_log = torch.stack([(tilt.softmax(1) * logs.flatten(1)).sum(1) for tilt in tilted], -1)
        log_sum = torch.stack([tilt.logsumexp(1) for tilt in tilted], -1) / math.log(2)
        strength.append(-mean_log)
        dimension.append(log_sum - torch.tensor(orders).to(mass) * mean_log)
    return Spectrum(
        *(
            fit_lines(boxes.log_size, torch.stack(points, -1), boxes.usable, reasons=boxes.reasons)
            for points in (strength, dimension)
        )
    )


def self_similarity(boxes: Boxes) -> Float[Tensor, " head"]:
    """How far the parts of a head look like the whole: 1 where every box splits its mass as the whole square does.

    One minus the Jensen–Shannon divergence in bits (Lin 1991) between the shares of a box's children and the shares
    of the square's, averaged by mass over boxes and then over the usable grids. Exact cascades give 1. nan where fewer
    than three grids are usable.
    """
    step = boxes.sizes[0]
    if any(fine != step * coarse for coarse, fine in zip(boxes.sizes, boxes.sizes[1:], strict=False)):
        raise ValueError(f"sizes {boxes.sizes} do not grow by one factor; parts cannot be compared with the whole")
    whole = boxes.masses[0].flatten(1)[:, None]
    usable = boxes.usable[:, 1:]
    likeness = torch.zeros_like(whole[:, 0, 0])
    pairs = zip(boxes.sizes, boxes.masses, boxes.masses[1:], usable.unbind(-1), strict=False)
    for size, parents, children, able in pairs:
        families = children.reshape(-1, size, step, size, step).transpose(2, 3).reshape(len(children), size * size, -1)
        weight = parents.flatten(1)
        shares = families / torch.where(weight > 0, weight, 1)[..., None]
        mixed = torch.special.entr((shares + whole) / 2).sum(-1)
        own = (torch.special.entr(shares).sum(-1) + torch.special.entr(whole).sum(-1)) / 2
        likeness += torch.where(able, 1 - (weight * (mixed - own)).sum(-1) / math.log(2), 0)
    return torch.where(boxes.usable.sum(-1) >= FEWEST_SCALES, likeness / usable.sum(-1), NAN)


def _entropies(mass: Float[Tensor, "head box box"], orders: Sequence[float]) -> Float[Tensor, "head order"]:
    cells = mass.flatten(1)
    cells = cells[:, (cells != 0).any(0)]  # no head has mass in the boxes of a causal head's future
    columns = [
        torch.special.entr(cells).sum(1) if order == 1 else _log_power_sum(cells, order) / (1 - order)
        for order in orders
    ]
    return torch.stack(columns, -1) / math.log(2)


def _log_power_sum(cells: Float[Tensor, "head box"], order: float) -> Float[Tensor, " head"]:
    """The logarithm of the sum of P ** q over boxes with mass, relative to its largest term so that none overflows."""
    if order == 0:
        return cells.sign().sum(1).log()
    held = cells if order > 0 else torch.where(cells == 0, math.inf, cells)
    anchor = held.amax(1) if order > 0 else held.amin(1)
    return (held / anchor[:, None]).pow(order).sum(1).log() + order * anchor.log()


def _divergences(
    mass: Float[Tensor, "head box box"], chance: Float[Tensor, "1 box box"], orders: Sequence[float]
) -> Float[Tensor, "head order"]:
    held = mass > 0
    ratio = torch.where(held, mass / torch.where(chance > 0, chance, 1), 1).log()
    # the sum of P (P / P0) ** (q - 1), in logarithms
    logs = torch.where(held, mass, 1).log()
    columns = [
        (mass * ratio).sum((1, 2))
        if order == 1
        else torch.where(held, logs + (order - 1) * ratio, NOTHING).logsumexp((1, 2)) / (order - 1)
        for order in orders
    ]
    return torch.stack(columns, -1) / math.log(2)
