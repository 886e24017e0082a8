"""The doubt that one text has by itself: grids that begin elsewhere, and fits without one of their scales."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from .boxes import Boxes, pyramid


def grid_shifts(
    measure: Callable[[Boxes], Float[Tensor, "head *order"]], boxes: Boxes, ignorant: Boxes
) -> Float[Tensor, "step head *order"]:
    """A measure of boxes for every place, in steps of the finest box, where the grids can begin; the first is theirs.

    Both axes move together, so the diagonal stays on the diagonal, and boxes at the edges hold what is left. That alone
    moves a slope, so from each is taken what the same move does to `ignorant`, the boxes of even attention over the
    support: ignorance has no doubt about itself. For measures that look at each box alone, such as the slopes of
    `generalized_dimensions`, not for those that know its children.
    """
    return _moved(measure, boxes) - (_moved(measure, ignorant) - measure(ignorant))


def without_each_scale(
    measure: Callable[[Boxes], Float[Tensor, "head *order"]], boxes: Boxes
) -> Float[Tensor, "size head *order"]:
    """A measure of boxes with each scale left out in turn; nan for heads that are left with fewer than three."""
    kept = ~torch.eye(len(boxes.sizes), dtype=torch.bool, device=boxes.usable.device)
    return torch.stack([measure(replace(boxes, usable=boxes.usable & keep)) for keep in kept])


def _moved(measure: Callable[[Boxes], Float[Tensor, "head *order"]], boxes: Boxes) -> Float[Tensor, "step head *order"]:
    finest, step = boxes.masses[-1], boxes.sizes[-1] // boxes.sizes[0]
    grown = tuple(size + size // boxes.sizes[0] for size in boxes.sizes)  # one more box a side at the coarsest grid
    moved = [torch.nn.functional.pad(finest, (k, step - k, k, step - k)) for k in range(step)]
    return torch.stack([measure(replace(boxes, masses=pyramid(one, grown))) for one in moved])
