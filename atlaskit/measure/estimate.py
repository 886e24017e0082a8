"""From scores per document to an Estimate: a value, its interval, and the interval of chance."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.records import Estimate

DRAWS = 2000


def estimate(
    values: Float[Tensor, " doc"],
    null: Float[Tensor, " doc"] | Float[Tensor, "draw doc"],
    *,
    unit: str,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Mean over documents with its bootstrap interval, beside the interval of the null (Efron 1979).

    `null` holds the same measure on ignorance, one per document (its interval is the bootstrap's, and there is
    no p-value), or draws of it (its interval is that of their means, and p is the two-sided permutation p).
    Documents where either is nan are left out; fewer than two left raises ValueError.
    """
    known = ~(values.isnan() | null.isnan().reshape(-1, null.shape[-1]).any(0))
    if int(known.sum()) < 2:
        raise ValueError(
            f"{int(known.sum())} of {len(values)} documents have a defined value and null; an interval over documents "
            "needs at least 2. Give more texts, or longer ones."
        )
    values, null = values[known].double(), null[..., known].double()
    # one set of resampled documents for both, as the null was measured on the same texts
    picks = torch.randint(len(values), (DRAWS, len(values)), generator=torch.Generator().manual_seed(seed))
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values.cpu()[picks].mean(-1).quantile(tails).tolist()
    drawn = null.cpu().mean(-1) if null.ndim == 2 else null.cpu()[picks].mean(-1)
    null_low, null_high = drawn.quantile(tails).tolist()
    value = float(values.mean())
    p = permutation_p(values.mean().cpu(), drawn) if null.ndim == 2 else float("nan")
    return Estimate(value, low, high, null_low, null_high, unit, len(values), float(p))


def permutation_p(observed: Float[Tensor, "*head"], draws: Float[Tensor, "draw *head"]) -> Float[Tensor, "*head"]:
    """Two-sided permutation p-value: how often a null draw lies as far out (Phipson & Smyth 2010).

    Never zero: the observed value counts as one of the draws, also for the centre from which distance is measured.
    """
    centre = (draws.sum(0) + observed) / (1 + len(draws))
    as_far = (draws - centre).abs() >= (observed - centre).abs()
    return (1 + as_far.sum(0)) / (1 + len(draws))


def paired_p(
    values: Float[Tensor, "doc *head"], null: Float[Tensor, "doc *head"], *, draws: int = DRAWS, seed: int = 0
) -> Float[Tensor, "*head"]:
    """Two-sided sign-flip p-value that values and null differ, document by document (Fisher 1935).

    If they do not, each document's difference is as likely to have the other sign. Documents where either is nan do
    not take part in that head's test; a head with none is nan. No p is below 1 / `draws`: with many heads under false
    discovery control, take more.
    """
    apart = (values - null).double()
    known = ~apart.isnan()
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (draws, len(apart)), generator=generator).to(apart) * 2 - 1
    apart = torch.where(known, apart, 0.0)
    flipped = torch.einsum("rd,d...->r...", signs, apart)
    as_far = flipped.abs() >= apart.sum(0).abs() * (1 - 1e-12)  # the sum in another order may differ in its last bit
    return torch.where(known.any(0), (1 + as_far.sum(0)) / (1 + draws), float("nan"))


def false_discovery(p: Float[Tensor, "*head"], rate: float = 0.05) -> Bool[Tensor, "*head"]:
    """Which p-values to believe so that at most `rate` of the believed are false (Benjamini & Hochberg 1995).

    nan marks a test that was not made; it is neither counted nor believed.
    """
    known = ~p.isnan()
    ordered, _ = p[known].sort()
    passes = ordered <= rate * torch.arange(1, len(ordered) + 1, device=p.device) / max(len(ordered), 1)
    if not passes.any():
        return torch.zeros_like(known)
    return known & (p <= ordered[passes.nonzero().max()])
