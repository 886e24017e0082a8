"""Which keys a query reads: fractal sets, and the rivals they must beat.

Every pattern is causal: query i reads keys j <= i, itself among them. A pattern never depends on the length of the
text, so what a query reads stays the same while the text grows; position 0 is the first real token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from . import curves

Spec: TypeAlias = str | Mapping[str, Any]
"""A pattern as plain data: its name, or a mapping with "name" and its parameters."""


@dataclass(frozen=True)
class Pattern:
    """Which keys a query reads. Equal names and parameters make equal patterns.

    `lag_set` gives the distances below n where the pattern depends on the distance alone, else None. `rule` says for
    broadcast positions whether the key is read; its answers for key > query are ignored. `coarse` is the pattern over
    blocks of `block` tokens where the pattern is made of whole blocks, else None.
    """

    name: str
    parameters: tuple[tuple[str, Any], ...]
    rule: Callable[[Tensor, Tensor], Tensor] = field(compare=False, repr=False)
    lag_set: Callable[[int], Tensor] | None = field(default=None, compare=False, repr=False)
    coarse: Pattern | None = field(default=None, compare=False, repr=False)
    block: int = field(default=1, compare=False, repr=False)

    @property
    def spec(self) -> dict[str, Any]:
        """Plain data that `from_spec` turns back into this pattern; fit for JSON."""
        return {"name": self.name} | {key: _plain(value) for key, value in self.parameters}


def _plain(value: Any) -> Any:
    if isinstance(value, Pattern):
        return value.spec
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def from_spec(spec: Spec) -> Pattern:
    """The pattern that a spec names. Raises for a name nobody knows."""
    if isinstance(spec, str):
        spec = {"name": spec}
    if "name" not in spec:
        raise ValueError(f'a spec needs a "name"; got {dict(spec)}')
    name, parameters = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    if name not in PATTERNS:
        raise ValueError(f"no pattern is called {name!r}; known are {', '.join(sorted(PATTERNS))}")
    if name == "union":
        if set(parameters) != {"parts"}:
            raise ValueError(f'the spec of a union has "parts", a list of specs, and nothing else; got {parameters}')
        return union(*(from_spec(part) for part in parameters["parts"]))
    for key in ("pattern", "like"):
        if key in parameters:
            parameters[key] = from_spec(parameters[key])
    return PATTERNS[name](**parameters)


def _of_lags(name: str, lag_set: Callable[[int], Tensor], **parameters: Any) -> Pattern:
    def rule(query: Tensor, key: Tensor) -> Tensor:
        lag = query - key
        member = torch.zeros(max(int(query.max()), 0) + 1, dtype=torch.bool, device=lag.device)
        member[lag_set(len(member)).to(lag.device)] = True
        return member[lag.clamp(min=0)]

    return Pattern(name, tuple(parameters.items()), rule, lag_set)


def _require_positive(name: str, **values: int) -> None:
    for key, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: {key} is {value}; it must be at least 1")


def _distances(n: int, keep: Callable[[Tensor], Tensor]) -> Int[Tensor, " step"]:
    lag = torch.arange(n)
    return lag[keep(lag) | (lag == 0)]


def dense() -> Pattern:
    """Every earlier key: n/2 keys a query in the mean."""
    return _of_lags("dense", torch.arange)


def sliding(window: int) -> Pattern:
    """The last `window` keys, itself included."""
    _require_positive("sliding", window=window)
    return _of_lags("sliding", lambda n: torch.arange(min(n, window)), window=window)


def dilated(window: int, dilation: int) -> Pattern:
    """Every `dilation`-th of the last window * dilation keys. Alone it never leaves its residue class."""
    _require_positive("dilated", window=window, dilation=dilation)
    return _of_lags(
        "dilated", lambda n: torch.arange(0, min(n, window * dilation), dilation), window=window, dilation=dilation
    )


def strided(stride: int) -> Pattern:
    """The last `stride` keys and every stride-th before them (Child et al. 2019); two layers reach everything."""
    _require_positive("strided", stride=stride)
    return _of_lags("strided", lambda n: _distances(n, lambda lag: (lag < stride) | (lag % stride == 0)), stride=stride)


def log_lags() -> Pattern:
    """Distances that are powers of two (Li et al. 2019): log2 n keys a query, log2 n layers to reach everything."""
    return _of_lags("log_lags", lambda n: _distances(n, lambda lag: lag & (lag - 1) == 0))


def ternary_lags() -> Pattern:
    """Distances with one nonzero ternary digit, the Cantor levels: 2 log3 n keys a query."""
    return _of_lags("ternary_lags", lambda n: _distances(n, lambda lag: curves.nonzero_digits(lag, 3) == 1))


def cantor(depth: int = 40) -> Pattern:
    """Distances below 3^depth whose ternary digits are 0 or 1: n^0.63 keys a query, two layers reach everything.

    Two such distances add up, digit by digit and without a carry, to any number (Steinhaus 1917).
    """
    _require_positive("cantor", depth=depth)
    return _of_lags(
        "cantor", lambda n: _distances(min(n, 3**depth), lambda lag: curves.digits_within(lag, 3, (0, 1))), depth=depth
    )


def cantor_literal() -> Pattern:
    """Distances with ternary digits 0 or 2, the Cantor set as drawn. All are even: no depth reaches an odd distance."""
    return _of_lags("cantor_literal", lambda n: _distances(n, lambda lag: curves.digits_within(lag, 3, (0, 2))))


def koch() -> Pattern:
    """Distances with base-4 digits 0, 1 or 3: n^0.79 keys a query. `cantor` reaches as far with fewer."""
    return _of_lags("koch", lambda n: _distances(n, lambda lag: curves.digits_within(lag, 4, (0, 1, 3))))


def moser() -> Pattern:
    """Moser–de Bruijn distances (base-4 digits 0 or 1) and their doubles: 2 sqrt(n) keys, two layers reach everything.

    No set can do with fewer than sqrt(n) at two layers, so this one is optimal in order.
    """

    def keep(lag: Tensor) -> Tensor:
        return curves.digits_within(lag, 4, (0, 1)) | curves.digits_within(lag, 4, (0, 2))

    return _of_lags("moser", lambda n: _distances(n, keep))


def dragon_lags(folds: int = 40, *, signed: bool = False) -> Pattern:
    """Distances m 2^k with m < 8 and k < folds: 4 log2 n keys a query. `signed` keeps the left turns of the fold."""
    _require_positive("dragon_lags", folds=folds)

    def keep(lag: Tensor) -> Tensor:
        level = curves.fold_levels(lag)
        small = ((lag >> level) < 8) & (level < folds)
        return small & (curves.fold_signs(lag) == 1) if signed else small

    return _of_lags("dragon_lags", lambda n: _distances(n, keep), folds=folds, signed=signed)


def random_lags(like: Pattern, *, seed: int) -> Pattern:
    """As many distances in each octave as `like` has, drawn at random: what chance does with equal keys and scales."""
    if like.lag_set is None:
        raise ValueError(f"random_lags needs a pattern of distances to imitate; {like.name} is not one")
    lag_set = like.lag_set

    def draw(n: int) -> Tensor:
        drawn = [torch.zeros(1, dtype=torch.long)]
        for octave in range((n - 1).bit_length()):
            first = 1 << octave
            wanted = int((lag_set(2 * first) >= first).sum())
            generator = torch.Generator().manual_seed(seed * 64 + octave)
            drawn.append(first + torch.randperm(first, generator=generator)[:wanted])
        lag = torch.cat(drawn)
        return lag[lag < n].sort().values

    return _of_lags("random_lags", draw, like=like, seed=seed)


def _window_on(curve: str, radius: int) -> Callable[[Tensor, Tensor], Tensor]:
    def rule(query: Tensor, key: Tensor) -> Tensor:
        x, y = curves.curve_table(curve, int(max(query.max(), key.max()))).to(query.device).unbind(-1)
        return ((x[query] - x[key]).abs() <= radius) & ((y[query] - y[key]).abs() <= radius)

    return rule


def hilbert_window(radius: int = 3) -> Pattern:
    """Keys whose Hilbert cell lies within `radius` in both axes: about (2r+1)^2 / 2 keys, 0.4 sqrt(n) layers."""
    _require_positive("hilbert_window", radius=radius)
    return Pattern("hilbert_window", (("radius", radius),), _window_on("hilbert", radius))


def dragon_window(radius: int = 3) -> Pattern:
    """Keys whose vertex on the Heighway dragon lies within `radius` in both axes; about sqrt(n)/r layers."""
    _require_positive("dragon_window", radius=radius)
    return Pattern("dragon_window", (("radius", radius),), _window_on("dragon", radius))


def sierpinski(*, previous: bool = True) -> Pattern:
    """Keys whose bits are among the query's (C(i, j) odd, Pascal's triangle mod 2), and the key before it.

    n^0.58 keys in the mean, n at worst. Without `previous` the relation is transitive: depth adds nothing. With it
    three layers reach everything: clear low bits, step back by one, clear bits.
    """

    def rule(query: Tensor, key: Tensor) -> Tensor:
        inside = (query & key) == key
        return inside | (query - key == 1) if previous else inside

    return Pattern("sierpinski", (("previous", previous),), rule)


def sierpinski_disjoint() -> Pattern:
    """Keys that share no bit with the query, the key before it and itself. Few lie in the past: reach is poor."""
    return Pattern("sierpinski_disjoint", (), lambda query, key: ((query & key) == 0) | (query - key <= 1))


def bigbird(window: int = 9, *, anchors: int = 4, draws: int = 12, seed: int = 0) -> Pattern:
    """A window, the first tokens, and random keys of each query's own (after Zaheer et al. 2020)."""
    _require_positive("bigbird", window=window)

    def rule(query: Tensor, key: Tensor) -> Tensor:
        near = (query - key < window) | (key < anchors)
        for draw in range(draws):
            near = near | (_mixed(query * draws + draw, seed) % (query + 1) == key)
        return near

    return Pattern("bigbird", (("window", window), ("anchors", anchors), ("draws", draws), ("seed", seed)), rule)


def _mixed(numbers: Int[Tensor, "*size"], seed: int) -> Int[Tensor, "*size"]:
    """Pseudo-random non-negative numbers that depend on each number alone, so a longer text changes no draw."""
    z = numbers + (seed + 1) * 0x1E3779B97F4A7C15
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (z ^ (z >> 31)) & 0x7FFFFFFFFFFFFFFF


def union(*patterns: Pattern) -> Pattern:
    """Keys that any of the patterns reads."""
    if not patterns:
        raise ValueError("union needs at least one pattern; it got none")

    def rule(query: Tensor, key: Tensor) -> Tensor:
        return torch.stack([pattern.rule(query, key) for pattern in patterns]).any(0)

    sets = [pattern.lag_set for pattern in patterns]
    if any(lag_set is None for lag_set in sets):
        return Pattern("union", (("parts", patterns),), rule)
    return _of_lags("union", lambda n: torch.cat([lag_set(n) for lag_set in sets if lag_set]).unique(), parts=patterns)


def blocked(pattern: Pattern, size: int = 64) -> Pattern:
    """The pattern drawn on blocks of `size` tokens instead of tokens, dense inside a block.

    Matrix units want whole blocks: a token-level fractal touches most of them, a block-level one few.
    """
    _require_positive("blocked", size=size)
    if pattern.coarse is not None:
        raise ValueError(f"{pattern.name} is already made of blocks of {pattern.block}; block the pattern inside it")

    def rule(query: Tensor, key: Tensor) -> Tensor:
        return pattern.rule(query // size, key // size) | (query // size == key // size)

    return Pattern("blocked", (("pattern", pattern), ("size", size)), rule, coarse=pattern, block=size)


PATTERNS: dict[str, Callable[..., Pattern]] = {
    "bigbird": bigbird, "blocked": blocked, "cantor": cantor, "cantor_literal": cantor_literal, "dense": dense,
    "dilated": dilated, "dragon_lags": dragon_lags, "dragon_window": dragon_window, "hilbert_window": hilbert_window,
    "koch": koch, "log_lags": log_lags, "moser": moser, "random_lags": random_lags, "sierpinski": sierpinski,
    "sierpinski_disjoint": sierpinski_disjoint, "sliding": sliding, "strided": strided, "ternary_lags": ternary_lags,
    "union": union,
}  # fmt: skip
"""Every pattern by name. Add your own, and specs, drop-ins and saved configs know it."""
