"""Straight lines through log-log points, all series at once."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.records import ScalingFit

NAN = float("nan")
FEWEST_SCALES = 3  # two points always lie on a line, so a line through two says nothing about scaling


def fit_lines(
    log_size: Float[Tensor, " size"],
    log_value: Float[Tensor, "head *order size"],
    usable: Bool[Tensor, "head size"],
    *,
    reasons: tuple[str, ...],
) -> ScalingFit:
    """Least squares over each series' usable points; `reasons` has one entry per head, "" where a line is expected.

    There are no standard errors: grids that nest share their mass, so those of least squares are far too small.
    Intervals come from documents (`estimate`), chance levels from nulls.
    """
    spread = usable.reshape(len(usable), *[1] * (log_value.ndim - 2), -1).expand_as(log_value)
    count = spread.sum(-1, keepdim=True)
    x = log_size.to(log_value).expand_as(log_value)
    # masked means: unusable points weigh nothing, whatever they hold
    dx = torch.where(spread, x - torch.where(spread, x, 0).sum(-1, keepdim=True) / count, 0)
    dy = torch.where(spread, log_value - torch.where(spread, log_value, 0).sum(-1, keepdim=True) / count, 0)
    slope = (dx * dy).sum(-1) / (dx * dx).sum(-1)
    total = (dy * dy).sum(-1)
    residual = (dy - slope[..., None] * dx).square().sum(-1)
    enough = count[..., 0] >= FEWEST_SCALES
    points = torch.where(spread, log_value, NAN)
    return ScalingFit(
        log_size=log_size,
        log_value=points,
        slope=torch.where(enough, slope, NAN),
        local_slope=(points[..., 1:] - points[..., :-1]) / (x[..., 1:] - x[..., :-1]),
        r_squared=torch.where(enough & (total > 0), 1 - residual / total, NAN),
        reasons=reasons,
    )


def level(fit: ScalingFit) -> Float[Tensor, "*series"]:
    """Mean height of each series over its usable scales; nan where the fit is undefined.

    Beside the slope, because a head may lie far below its null at every scale and still rise as steeply.
    """
    return torch.where(fit.slope.isnan(), NAN, fit.log_value.nanmean(-1))
