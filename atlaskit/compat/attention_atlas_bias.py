"""What Attention Atlas calls attention to bias, under its own names, each beside the same number of the ignorant head.

That tool flags tokens by a detector, divides the attention they receive by an even share, and calls heads above fixed
thresholds specialised. For a causal head an even share is not what ignorance gives: early keys are seen by more
queries than late ones. So the ratio follows the place of the word, and `BAR_THRESHOLDS` are crossed by a head that
knows nothing.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.measure.subspace_nulls import Chance
from atlaskit.measure.support import uniform

from .atlas import Legacy
from .flaws import told_once

BAR_THRESHOLDS = {"specialised": 2.5, "highly specialised": 5.3, "GEN": 4.0, "UNFAIR": 3.3, "STEREO": 2.2}
"""Above which that tool calls a head specialised: at its 5 %, its 1 %, and for its three categories."""

COMPOSITE_WEIGHTS = {"density": 0.30, "GEN": 0.20, "UNFAIR": 0.25, "STEREO": 0.25}
"""Its weights of a text's level of bias; below 0.15 is "Low", below 0.40 "Moderate", else "High"."""


@told_once
def bar(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"], flagged: Bool[Tensor, " key"]
) -> Legacy:
    """Bias attribution ratio: mean attention to flagged tokens over their share of the tokens."""
    _check(flagged)
    return _beside(_bar, pattern, support, flagged)


@told_once
def bsr(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"], flagged: Bool[Tensor, " key"]
) -> Legacy:
    """Bias self-reinforcement: the same among the flagged tokens; for one token it is n times its own weight."""
    _check(flagged)
    return _beside(_bsr, pattern, support, flagged)


@told_once
def composite(*, words: int, flagged: int, counts: dict[str, int]) -> float:
    """That tool's level of bias of a text, 0 to 1, from counts of flagged words; its "High" begins at 0.40."""
    kinds = {name: min(5 * counts.get(name, 0) / words, 1) for name in ("GEN", "UNFAIR", "STEREO")}
    shares = {"density": flagged / words} | kinds
    return sum(COMPOSITE_WEIGHTS[name] * share for name, share in shares.items())


def _bar(pattern: Tensor, flagged: Tensor) -> Float[Tensor, " head"]:
    return pattern.float()[..., flagged].sum(-1).mean(-1) / flagged.float().mean()


def _bsr(pattern: Tensor, flagged: Tensor) -> Float[Tensor, " head"]:
    return pattern.float()[:, flagged][..., flagged].sum(-1).mean(-1) / flagged.float().mean()


def _beside(ratio: Callable[[Tensor, Tensor], Tensor], pattern: Tensor, support: Tensor, flagged: Tensor) -> Legacy:
    ignorant = ratio(uniform(support).to(pattern.device), flagged)
    return Legacy(ratio(pattern, flagged), Chance(ignorant, torch.zeros_like(ignorant)))


def _check(flagged: Bool[Tensor, " key"]) -> None:
    if not flagged.any():
        raise ValueError(f"none of the {len(flagged)} tokens is flagged, so there is no ratio")
