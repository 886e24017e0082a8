"""Which quantities of earlier packages do not measure what their names say, why, and what does."""

import warnings
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class FlawedQuantity(UserWarning):
    """A number that does not measure what its name says."""


FAA: Mapping[str, tuple[str, str]] = {
    "compute_fractal_dimension": (
        "the median switches half of all cells on, so for a causal head the number depends on the token count alone",
        "measure.generalized_dimensions beside measure.surrogates",
    ),
    "fractal_interpolation_function": (
        "it adds each row to the next and scales the sum by 0.31; nothing is iterated or contracted in space",
        "measure.fractal_interpolation with measure.vertical_scaling",
    ),
    "multi_scale_analysis": ("its scales are multiples of one matrix", "measure.coarse_grain"),
    "compute_self_similarity": ("it correlates a matrix with itself, so it is 1", "measure.self_similarity"),
    "golden_ratio_partition": (
        "it drops both off-diagonal blocks, 30 % of an ignorant causal head's attention",
        "measure.mass on a selector",
    ),
    "golden_ratio_scoring": ("it weights queries by their place, not keys by importance", "measure.column_marginal"),
    "compute_sparsity": (
        "its threshold is absolute: uniform attention scores 0 at 100 tokens and 1 at 101, and masked cells count",
        "measure.effective_keys",
    ),
    "compute_concentration": (
        "ignorant causal attention scores 0.90 at 8 tokens and 0.05 at 512",
        "measure.mass beside measure.uniform(support)",
    ),
    "compute_uniformity": (
        "masked cells count, so no causal head of 8 tokens or more reaches 1/2",
        "measure.entropy beside measure.uniform(support)",
    ),
    "compute_entropy_reduction": ("its own transform can only raise the entropy, by concavity", "measure.divergence"),
    "compute_sparsity_improvement": ("it mostly sees that the transform scales by 0.31", "measure.effective_keys"),
    "compute_interpretability_score": (
        "fixed weights on four numbers that follow the token count",
        "each measure beside its null, as a measure.estimate",
    ),
    "compare_models": (
        "models that split a text into different numbers of tokens differ by that alone: one token moves it by 0.7",
        "measure.estimate of paired differences over texts",
    ),
}
"""fractal-attention-analysis 1.0: each flawed quantity, its flaw, and ours instead."""


def told_once(method: Callable[P, R]) -> Callable[P, R]:
    """Warn at the first call of a flawed quantity."""
    name = method.__name__
    reason, instead = FAA[name]

    @cache
    def warn() -> None:
        warnings.warn(f"{name}: {reason}. Use {instead}.", FlawedQuantity, stacklevel=3)

    @wraps(method)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        warn()
        return method(*args, **kwargs)

    return told
