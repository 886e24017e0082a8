"""Fractal interpolation: curves through given points that are copies of themselves (Barnsley 1986).

Each interval between neighbouring knots carries an affine map w(x, y) = (a x + e, c x + d y + f) that squeezes the
whole curve into it; a, c, e and f follow from the knots, and the vertical scaling d, with |d| < 1, is free. The curve
is the one set that its maps leave unchanged. A head's profiles (attention by key, by distance, distance by query) are
read so.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

NAN = float("nan")


def fractal_interpolation(
    knots: Float[Tensor, "head knot"], scaling: Float[Tensor, "head interval"], *, depth: int
) -> Float[Tensor, "head point"]:
    """Exact values of the curve through equally spaced knots, at intervals ** depth + 1 equally spaced points.

    Depth 1 gives the knots back; each further depth puts every map's copy of the curve so far into its interval.
    """
    n_interval = scaling.shape[1]
    if knots.shape[1] != n_interval + 1:
        raise ValueError(f"{knots.shape[1]} knots have {knots.shape[1] - 1} intervals, not {n_interval} scalings")
    if (scaling.abs() >= 1).any():
        raise ValueError(
            f"vertical scalings reach {float(scaling.abs().max()):.3g}; the maps contract only below 1 in absolute "
            "value. A least-squares fit may exceed it: such a profile has no curve of this kind"
        )
    curve = torch.stack([knots[:, 0], knots[:, -1]], -1)
    for _ in range(depth):
        pieces = _lines(knots, scaling, curve.shape[1]) + scaling[..., None] * curve[:, None]
        # neighbouring pieces share the knot between them
        curve = torch.cat([pieces[..., :-1].flatten(1), pieces[:, -1, -1:]], -1)
    return curve


def vertical_scaling(profile: Float[Tensor, "head point"], *, intervals: int) -> Float[Tensor, "head interval"]:
    """The scalings d whose maps send the whole profile closest to each of its parts, by least squares.

    By the collage theorem the curve they define is then close to the profile (Barnsley 1986; Mazel & Hayes 1992). The
    number of steps between points must be a multiple of `intervals`. nan where the profile is a straight line, of
    which every d gives the same curve.
    """
    steps = profile.shape[1] - 1
    if intervals < 2 or steps < 2 * intervals or steps % intervals:
        raise ValueError(
            f"a profile of {profile.shape[1]} points has {steps} steps, which do not divide into {intervals} intervals "
            "of two steps or more; cut the profile or choose another number of intervals (at least 2)"
        )
    width = steps // intervals
    knots = profile[:, ::width]
    parts = profile[:, :-1].reshape(len(profile), intervals, width)
    whole = profile[:, ::intervals]  # the whole profile, sampled as densely as one part
    none = profile.new_zeros(len(profile), intervals)
    wanted = torch.cat([parts, knots[:, 1:, None]], -1) - _lines(knots, none, width + 1)
    # d multiplies what the whole curve adds to the chord between its ends
    chord = torch.lerp(whole[:, :1], whole[:, -1:], _unit(width + 1, profile))
    bump = (whole - chord)[:, None]
    power = bump.square().sum(-1)
    straight = power <= (torch.finfo(profile.dtype).eps * profile.abs().amax(-1, keepdim=True)).square() * width
    return torch.where(straight, NAN, (wanted * bump).sum(-1) / power)


def interpolation_dimension(scaling: Float[Tensor, "head interval"]) -> Float[Tensor, " head"]:
    """Box dimension of the curve: 1 + log Σ|d| / log N over N equal intervals where Σ|d| > 1, else 1.

    It holds for knots not on one line (Barnsley 1986). nan where some |d| is 1 or more or itself nan: no such curve.
    """
    total = scaling.abs().sum(-1)
    rough = 1 + total.clamp(min=1).log() / math.log(scaling.shape[1])
    return torch.where((scaling.abs() < 1).all(-1), rough, NAN)


def _lines(
    knots: Float[Tensor, "head knot"], scaling: Float[Tensor, "head interval"], points: int
) -> Float[Tensor, "head interval point"]:
    """c x + f on each interval: it takes the ends of the whole curve, once scaled by d, to the ends of the interval."""
    left = knots[:, :-1] - scaling * knots[:, :1]
    right = knots[:, 1:] - scaling * knots[:, -1:]
    return torch.lerp(left[..., None], right[..., None], _unit(points, knots))


def _unit(points: int, like: Tensor) -> Float[Tensor, " point"]:
    return torch.linspace(0, 1, points, dtype=like.dtype, device=like.device)
