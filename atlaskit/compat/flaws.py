"""Which quantities of earlier packages do not measure what their names say, why, and what does."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class FlawedQuantity(UserWarning):
    """A number that does not measure what its name says."""


FAA: dict[str, tuple[str, str]] = {
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

ANALYZER: dict[str, tuple[str, str]] = {
    "analyze_pattern": (
        "the mean is one over the tokens and a causal minimum 0 for every head, and its labels came from a fixed "
        "standard deviation: from 99 tokens on even a one-hot head was 'uniform'; here nulls decide them",
        "measure.entropy and measure.mass beside measure.uniform(support), as a measure.estimate",
    ),
    "get_token_importance": (
        "it gave every token of an encoder its left neighbour's score, and favoured early tokens of a decoder; here a "
        "token keeps its own, over what an ignorant head would give it",
        "measure.key_preference",
    ),
    "get_attention_stats": (
        "the entropy is summed over rows, so it grows with the text, and the mean is one over the tokens",
        "measure.entropy beside measure.uniform(support)",
    ),
}
"""AttentionAnalyzer ("Attention Pattern Analysis"): each flawed quantity, its flaw, and ours instead."""

ATTENTION_ATLAS: dict[str, tuple[str, str]] = {
    "confidence_max": (
        "one cell decides it, and the second row of an ignorant decoder head gives 0.5 at every length",
        "measure.max_weight beside measure.uniform(support)",
    ),
    "confidence_avg": (
        "an ignorant encoder head scores 1/n, so short texts look confident",
        "measure.max_weight beside measure.uniform(support)",
    ),
    "focus": (
        "high is unfocused, and long rows outweigh short ones",
        "measure.entropy over that of measure.uniform(support), row by row",
    ),
    "sparsity": (
        "exactly even attention scores 0, and even attention with a rounding error scores about a half",
        "measure.effective_keys",
    ),
    "distribution": (
        "a decoder's masked zeros are half of the cells, so the median is one of the smallest weights",
        "measure.column_marginal, or measure.entropy beside measure.uniform(support)",
    ),
    "uniformity": (
        "high is not uniform, and the same sharpness scores less in a longer text",
        "measure.concentration beside measure.uniform(support)",
    ),
    "balance": ("ignorance scores 1/n, and other sinks are not counted", "measure.mass on a selector, beside chance"),
    "flow_change": (
        "two layers of random attention are already half of the scale apart",
        "measure.divergence beside measure.permuted_rows",
    ),
    "syntax": ("it is the share of function words in the text first", "measure.mass over its chance level"),
    "semantics": ("it is the share of content words in the text first", "measure.mass over its chance level"),
    "cls": ("ignorance scores 1/n, in a decoder more", "measure.mass on measure.first_token, beside chance"),
    "punctuation": ("it is the share of ASCII punctuation first", "measure.mass on measure.punctuation, beside chance"),
    "entities": ("it is the share of names in the text first", "measure.mass over its chance level"),
    "long_range": (
        "a mean weight and not a share, about 1/n for every head; a decoder's masked cells count",
        "measure.mean_distance over that of measure.uniform(support)",
    ),
    "self_attention": ("ignorance scores 1/n, in a decoder more", "measure.mass on measure.own_token, beside chance"),
    "radar": (
        "stretched within a layer on one sentence: some head is always 1 and some head always 0, in noise too",
        "measure.find_roles over a corpus",
    ),
}
"""Attention Atlas: each card and metric, its flaw, and ours instead."""

ATTENTION_ATLAS_BIAS: dict[str, tuple[str, str]] = {
    "bar": (
        "it divides by an even share, which is not what an ignorant causal head gives: at 20 tokens such a head has "
        "3.6 at the first token and 0.05 at the last",
        "measure.key_lift, and measure.matched beside it",
    ),
    "bsr": (
        "it divides by an even share too, and for one flagged token it is the number of tokens times the weight on "
        "itself: 20 at the first token of 20 for every causal head",
        "measure.mass beside measure.uniform(support)",
    ),
    "composite": (
        "it weighs counts by hand: one flagged word in five is called High whatever the model does with it",
        "models.pair_scores and measure.against_chance",
    ),
}
"""Attention Atlas on bias: each flawed quantity, its flaw, and ours instead."""


OF_MODULE = {
    "faa": FAA,
    "attention_analyzer": ANALYZER,
    "attention_atlas": ATTENTION_ATLAS,
    "attention_atlas_bias": ATTENTION_ATLAS_BIAS,
}
"""Which of our modules stands in for which package; two packages may use one name for two quantities."""

_TOLD: set[tuple[str, str]] = set()


def told_once(method: Callable[P, R]) -> Callable[P, R]:
    """Warn at the first call of a flawed quantity."""
    module, name = method.__module__.rpartition(".")[2], method.__name__
    reason, instead = OF_MODULE[module][name]

    @wraps(method)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        if (module, name) not in _TOLD:
            warnings.warn(f"{name}: {reason}. Use {instead}.", FlawedQuantity, stacklevel=2)
            _TOLD.add((module, name))
        return method(*args, **kwargs)

    return told
