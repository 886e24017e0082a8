"""How far a pattern reaches: supports, densities, hops, and the number of layers until everything is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .patterns import Pattern

TILE_CELLS = 1 << 22
"""Cells of a support that are looked at in one go; bounds the memory of everything here."""


def lags(pattern: Pattern, n: int, *, causal: bool = True) -> Int[Tensor, " step"]:
    """The distances query - key that the pattern reads among n tokens, negative ones too where it is not causal."""
    if pattern.lag_set is None:
        raise ValueError(f"{pattern.name} depends on more than the distance; it has no set of lags. Use `support`.")
    # up to the next power of two, kept: while decoding n grows by one at every token
    known = _lags_below(pattern, 1 << (n - 1).bit_length())
    back = known[: int(torch.searchsorted(known, n))]
    return back if causal else torch.cat([-back.flip(0)[:-1], back])


@lru_cache(maxsize=64)
def _lags_below(pattern: Pattern, n: int) -> Int[Tensor, " step"]:
    assert pattern.lag_set is not None
    return pattern.lag_set(n)


def reads(
    pattern: Pattern, queries: Int[Tensor, "#doc #query #key"], keys: Int[Tensor, "#doc #query #key"], *, causal: bool
) -> Bool[Tensor, "#doc #query #key"]:
    """Whether each query position reads each key position; a full pattern reads forwards what it reads backwards."""
    if causal:
        return pattern.rule(queries, keys) & (keys <= queries)
    return pattern.rule(torch.maximum(queries, keys), torch.minimum(queries, keys))


def support(pattern: Pattern, n: int, *, causal: bool = True) -> Bool[Tensor, "query key"]:
    """Every cell of n queries by n keys: n^2 bytes, for pictures and tests."""
    return torch.cat(list(_tiles(pattern, n, 0, causal)))


def _tiles(pattern: Pattern, n: int, first: int, causal: bool) -> Iterator[Bool[Tensor, "query key"]]:
    keys = torch.arange(n)
    for queries in keys[first:, None].split(max(1, TILE_CELLS // n)):
        yield reads(pattern, queries[None], keys[None, None], causal=causal)[0]


@lru_cache(maxsize=64)
def rows_of_keys(
    pattern: Pattern, n: int, *, first: int = 0, causal: bool = True
) -> tuple[Int[Tensor, " point"], Int[Tensor, " query"]]:
    """The keys of query `first`, then of the next, up to query n-1, with each query's count. Kept: read only."""
    if pattern.lag_set is not None:
        keys = torch.arange(first, n)[:, None] - lags(pattern, n, causal=causal).flip(0)
        inside = (keys >= 0) & (keys < n)
        return keys[inside], inside.sum(1)
    if pattern.coarse is not None and causal and first == n - 1:  # a decoded token: its blocks change every so often
        row = first // pattern.block
        read, _ = rows_of_keys(pattern.coarse, row + 1, first=row)
        keys = (read[:, None] * pattern.block + torch.arange(pattern.block)).flatten()
        keys = keys[keys < n]
        return keys, torch.tensor([len(keys)])
    found = [(rows.nonzero()[:, 1], rows.sum(1)) for rows in _tiles(pattern, n, first, causal)]
    return torch.cat([keys for keys, _ in found]), torch.cat([counts for _, counts in found])


def keys_per_query(pattern: Pattern, n: int, *, causal: bool = True) -> float:
    """Mean number of keys a query reads among n tokens."""
    if pattern.lag_set is not None:
        return float((n - lags(pattern, n, causal=causal).abs()).double().sum()) / n
    return sum(int(rows.sum()) for rows in _tiles(pattern, n, 0, causal)) / n


def density(pattern: Pattern, n: int, *, causal: bool = True) -> float:
    """Share of the cells a dense layer would read."""
    return keys_per_query(pattern, n, causal=causal) / ((n + 1) / 2 if causal else n)


def blocks(pattern: Pattern, n: int, *, size: int = 64, causal: bool = True) -> Bool[Tensor, "query key"]:
    """Which blocks of size x size cells the pattern touches: what a block kernel would have to compute."""
    count = math.ceil(n / size)
    if pattern.coarse is not None and pattern.block == size:
        own = torch.eye(count, dtype=torch.bool)
        return support(pattern.coarse, count, causal=causal) | own
    touched = torch.zeros(count, count, dtype=torch.bool)
    keys, counts = rows_of_keys(pattern, n, causal=causal)
    queries = torch.repeat_interleave(torch.arange(n), counts)
    touched[queries // size, keys // size] = True
    return touched


def block_density(pattern: Pattern, n: int, *, size: int = 64, causal: bool = True) -> float:
    """Share of the blocks that a dense layer would compute."""
    touched = blocks(pattern, n, size=size, causal=causal)
    count = len(touched)
    return int(touched.sum()) / (count * (count + 1) / 2 if causal else count * count)


def coverage(pattern: Pattern, n: int, *, hops: int, causal: bool = True) -> Float[Tensor, " step"]:
    """Share of all pairs (query, key) joined by at most 1, 2 ... `hops` layers."""
    pairs = n * (n + 1) / 2 if causal else n * n
    reached = _reached(pattern, n, causal)
    return torch.tensor([next(reached) / pairs for _ in range(hops)], dtype=torch.float64)


def diameter(pattern: Pattern, n: int, *, causal: bool = True) -> float:
    """Layers until every query can read every key it may; infinite where no number of layers is enough.

    Necessary for a task that needs those reads, never sufficient: the relay has to be learned.
    """
    pairs = n * (n + 1) // 2 if causal else n * n
    before = 0
    for hop, reached in enumerate(_reached(pattern, n, causal), start=1):
        if reached == pairs:
            return hop if n > 1 else 0
        if reached == before:
            return math.inf
        before = reached
    raise AssertionError("unreachable: the number of pairs reached is bounded")


def hops_needed(pattern: Pattern, n: int) -> Int[Tensor, " step"]:
    """For each distance 0 ... n-1 the layers needed to read it; -1 where none suffices. For patterns of distances."""
    needed = torch.full((n,), -1)
    for hop, sums in enumerate(_sums(lags(pattern, n), n)):
        new = sums & (needed < 0)
        if not new.any():
            return needed
        needed[new] = hop
    raise AssertionError("unreachable: there are only n distances")


def _sums(lag: Int[Tensor, " step"], n: int) -> Iterator[Bool[Tensor, " step"]]:
    """Distances that are sums of at most 0, 1, 2 ... lags."""
    sums = torch.zeros(n, dtype=torch.bool)
    sums[0] = True
    while True:
        yield sums
        further = sums.clone()
        for step in lag.tolist():
            further[step:] |= sums[: n - step]
        sums = further


def _reached(pattern: Pattern, n: int, causal: bool) -> Iterator[int]:
    """Number of pairs joined by at most 1, 2 ... layers."""
    if causal and pattern.lag_set is not None:
        distances = _sums(lags(pattern, n), n)
        next(distances)
        per_distance = n - torch.arange(n)
        for sums in distances:
            yield int(per_distance[sums].sum())
    yield from _reached_by_search(*rows_of_keys(pattern, n, causal=causal))


def _reached_by_search(keys: Int[Tensor, " point"], counts: Int[Tensor, " query"]) -> Iterator[int]:
    """Breadth-first search from all queries at once; a query's set is one row of bits, eight keys to the byte."""
    n = len(counts)
    bit = torch.tensor([1 << place for place in range(8)], dtype=torch.uint8)
    population = torch.tensor([value.bit_count() for value in range(256)])
    lengths, by_length = counts.sort(descending=True)  # longest first: who has a slot is then a prefix of the rows
    place = by_length.argsort()
    starts = (counts.cumsum(0) - counts)[by_length]
    prefixes = [int((lengths > slot).sum()) for slot in range(int(lengths[0]))]
    slots = [place[keys[starts[:prefix] + slot]] for slot, prefix in enumerate(prefixes)]
    row = torch.zeros(n, math.ceil(n / 8), dtype=torch.uint8)
    row[place, torch.arange(n) // 8] = bit[torch.arange(n) % 8]
    while True:
        further = torch.zeros_like(row)
        for prefix, slot in zip(prefixes, slots, strict=True):
            further[:prefix] |= row.index_select(0, slot)
        row = further
        yield int(population[row.int()].sum())
