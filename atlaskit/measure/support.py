"""Where attention may go, and the head that knows nothing else."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def full(n: int) -> Bool[Tensor, "query key"]:
    """Every query may attend to every one of `n` keys, as in an encoder."""
    return torch.ones(n, n, dtype=torch.bool)


def causal(n: int) -> Bool[Tensor, "query key"]:
    """A query may attend to itself and to earlier keys, as in a decoder."""
    return full(n).tril()


def sliding(n: int, window: int) -> Bool[Tensor, "query key"]:
    """A query may attend to itself and to the `window` - 1 keys before it, as in Mistral's local layers."""
    if window < 1:
        raise ValueError(f"a window of {window} keys leaves a query nothing to attend to; use 1 or more")
    return causal(n).triu(1 - window)


def uniform(support: Bool[Tensor, "query key"]) -> Float[Tensor, "1 query key"]:
    """The ignorant head: each query spreads its attention evenly over the keys it may see.

    The null of any pattern measure is that measure of this pattern. A row with no key at all is nan.
    """
    allowed = support.float()
    return (allowed / allowed.sum(-1, keepdim=True))[None]
