"""The definitions of the box dimensions once more: one head at a time, in NumPy, sharing no line with atlaskit."""

import numpy as np


def box_masses(pattern, size):
    """Shares of the weight in size × size boxes; a cell belongs to the box that holds its centre."""
    n_query, n_key = pattern.shape
    rows = np.floor((np.arange(n_query) + 0.5) * size / n_query)
    columns = np.floor((np.arange(n_key) + 0.5) * size / n_key)
    left = (rows == np.arange(size)[:, None]).astype(pattern.dtype)
    right = (columns == np.arange(size)[:, None]).astype(pattern.dtype)
    return left @ pattern @ right.T / pattern.sum()


def renyi_entropy(masses, order):
    """In bits, over the boxes that hold mass."""
    held = masses[masses > 0]
    if order == 1:
        return -(held * np.log2(held)).sum()
    return np.log2((held**order).sum()) / (1 - order)


def usable_sizes(pattern):
    """Powers of two up to a quarter of the tokens and the square root of the perplexity."""
    n = min(pattern.shape)
    perplexity = 2.0 ** renyi_entropy(pattern / pattern.sum(), 1)
    return [2**k for k in range(1, 20) if 2**k <= n / 4 and 2**k <= np.sqrt(perplexity) * (1 + 1e-5)]


def dimensions(pattern, orders, sizes):
    """Slopes of the entropies over the octaves, one per order."""
    grids = [box_masses(pattern, size) for size in sizes]
    return [np.polyfit(np.log2(sizes), [renyi_entropy(grid, order) for grid in grids], 1)[0] for order in orders]


def permuted_rows(pattern, support, rng):
    """Each row's weights dealt out anew among its allowed keys."""
    dealt = np.zeros_like(pattern)
    for row, allowed, target in zip(pattern, support, dealt, strict=True):
        target[allowed] = rng.permutation(row[allowed])
    return dealt


def dimensions_and_surrogates(patterns, support, *, orders, draws, seed):
    """The whole job, head by head: arrays [head order] and [draw head order]."""
    rng = np.random.default_rng(seed)
    observed = np.full((len(patterns), len(orders)), np.nan)
    null = np.full((draws, *observed.shape), np.nan)
    for head, pattern in enumerate(patterns):
        sizes = usable_sizes(pattern)
        if len(sizes) < 3:
            continue
        observed[head] = dimensions(pattern, orders, sizes)
        for draw in range(draws):
            null[draw, head] = dimensions(permuted_rows(pattern, support, rng), orders, sizes)
    return observed, null
