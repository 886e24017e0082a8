"""How unevenly attention fills its square, and how a head's reach fluctuates along the text."""

import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit.records import ScalingFit

from .scaling import FEWEST_SCALES, fit_lines


def lacunarity(pattern: Float[Tensor, "head query key"]) -> ScalingFit:
    """Gliding-box lacunarity: log2 of E[M²] / E[M]² over all r × r windows, against log2 r (Allain & Cloitre 1991).

    0 at every r for attention spread evenly over the whole square; high where gaps of that size are. For a
    self-similar head the slope is D_2 - 2. A causal triangle has a gap of its own: compare with `uniform(support)`.
    """
    n = min(pattern.shape[1:])
    sizes = tuple(1 << k for k in range(max(1, (n // 2).bit_length())))  # up to half the square
    weights = pattern if pattern.dtype == torch.float64 else pattern.float()
    total = weights.sum((1, 2), keepdim=True)
    windows = weights / total
    points = []
    for size in sizes:
        if size > 1:  # a window of 2r is four windows of r
            half = size // 2
            rows = windows[:, :-half] + windows[:, half:]
            windows = rows[:, :, :-half] + rows[:, :, half:]
        mean = windows.mean((1, 2))
        points.append((windows.square().mean((1, 2)) / mean.square()).log2())
    values = torch.stack(points, -1)
    usable = values.isfinite()
    reasons = tuple(_why_no_lacunarity(count, n) if count < FEWEST_SCALES else "" for count in usable.sum(-1).tolist())
    return fit_lines(_log2(sizes, values), values, usable, reasons=reasons)


def detrended_fluctuation(series: Float[Tensor, "head query"], *, degree: int = 2) -> ScalingFit:
    """Detrended fluctuation analysis: log2 of the fluctuation against log2 of the window (Peng et al. 1994).

    The slope is 0.5 for white noise and 1.5 for a long random walk. `degree` 2 also removes a straight trend in the
    series, as the distance of an ignorant causal head has. Each point is divided by what white noise gives in windows
    so short, in closed form (cf. Kantelhardt et al. 2001): without memory 0.5 is then unbiased at every length, while a
    random walk gives 1.41 at 128 queries and 1.47 at 1024.
    A series of distances is `mean_distance(pattern, support)` without the rows that have no choice.
    """
    if degree < 1:
        raise ValueError(f"degree {degree} leaves the drift of the profile in; use 1 or more")
    n = series.shape[1]
    shortest = 4 * (degree + 1)
    sizes = tuple(size for size in (round(shortest * 2 ** (k / 2)) for k in range(64)) if 4 * size <= n) or (shortest,)
    values = series.double()
    profile = (values - values.mean(-1, keepdim=True)).cumsum(-1)
    # what remains of a straight series is rounding, not fluctuation
    rounding = torch.finfo(series.dtype).eps * n * values.abs().amax(-1)
    points, usable = [], []
    for size in sizes:
        residual = _residual_maker(size, degree, values.device)
        count = n // size
        # windows from both ends, so that a remainder of n / size is not left out
        ends = torch.cat([profile[:, : count * size], profile[:, n - count * size :]], -1).reshape(
            len(series), -1, size
        )
        variance = (ends @ residual).square().mean((1, 2)) if count else torch.full_like(rounding, float("nan"))
        # white noise sums to a profile with covariance min(s, t) within a window
        steps = torch.arange(1, size + 1, dtype=values.dtype, device=values.device)
        white = (residual * torch.minimum(steps[:, None], steps)).sum() / size
        points.append((variance / white * size).log2() / 2)
        usable.append((4 * size <= n) & (variance.sqrt() > rounding))
    able = torch.stack(usable, -1)
    reasons = tuple(
        f"undefined, because {count} windows of {list(sizes)} queries hold a fluctuation of this series of {n} and a "
        f"line needs {FEWEST_SCALES}: the series is too short, has nan, or is a straight line"
        if count < FEWEST_SCALES
        else ""
        for count in able.sum(-1).tolist()
    )
    return fit_lines(_log2(sizes, values), torch.stack(points, -1), able, reasons=reasons)


def _residual_maker(size: int, degree: int, device: torch.device) -> Float[Tensor, "size size"]:
    """The projection that takes a polynomial trend out of a window."""
    grid = torch.linspace(-1, 1, size, dtype=torch.float64, device=device)
    basis, _ = torch.linalg.qr(torch.stack([grid**power for power in range(degree + 1)], -1))
    return torch.eye(size, dtype=torch.float64, device=device) - basis @ basis.T


def _why_no_lacunarity(count: int, n: int) -> str:
    return (
        f"undefined, because {count} window sizes up to half of {n} tokens hold attention that is a number, "
        f"and a line needs {FEWEST_SCALES}"
    )


def _log2(sizes: tuple[int, ...], like: Tensor) -> Float[Tensor, " size"]:
    return torch.tensor(sizes, dtype=like.dtype, device=like.device).log2()
