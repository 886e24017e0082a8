"""Self-attention layers by the names that people look for.

`module(x)` maps [doc, query, d] to [doc, query, d]; `module(query, key, value, ...)` with one query is the tutorial's
call and gives [doc, d]. What each reads and costs among n tokens (keys a query; a layer; a decoded token), times d:

=====================  ==========================  ================  =====================  =================
module                 keys                        a query           a layer                a decoded token
=====================  ==========================  ================  =====================  =================
HilbertCurveAttention  7 x 7 cells on the curve    24 in the mean    24 n                   24, and n compares
CantorSetAttention     ternary digits 0 and 1      n^0.63            n^1.63                 n^0.63
DragonCurveAttention   distances m 2^k, m < 8      4 log2 n          4 n log2 n             4 log2 n
KochAttention          base-4 digits 0, 1, 3       n^0.79            n^1.79                 n^0.79
SierpinskiAttention    bits of the query, lag 1    n^0.58 in mean    n^1.58                 n^0.58, n compares
Julia, Mandelbrot      dragon distances            4 log2 n          4 n log2 n             4 log2 n
Unified                Hilbert to Julia, blended   the sum           the sum                the sum
=====================  ==========================  ================  =====================  =================

What changed from the tutorial:

=======================  ==========================================  ================================================
name                     in the tutorial                             here
=======================  ==========================================  ================================================
every layer              one query a call; no causality, no heads    every query at once; causal by default; heads,
                                                                     dropout, padding, a cache
a single query           `query_pos` for every document              stands at the end without `query_pos`; one
                                                                     `query_pos` serves a batch; keys after it are
                                                                     read only if `causal=False`
HilbertCurveAttention    tables in checkpoints, minutes to build     no tables in checkpoints; built when first
                                                                     needed
CantorSetAttention       the same keys for every query; `t` ignored  distances with ternary digits {0, 1}, as with
                                                                     {0, 2} no odd one is ever reached; `t` tilts the
                                                                     depths
DragonCurveAttention     weights by place; half of it mean pooling   the true paper-folding sequence, of distance; no
                                                                     mean pooling
JuliaSetAttention        escape time by place, steep slopes          the potential of the set, slopes bounded, over
                                                                     distance and place; on dragon distances
UnifiedFractalAttention  kept outputs, gave them to other batches    outputs are never kept; `cache_fractals` keeps a
                                                                     field only while its c is frozen
FractalConfig            examples set `cantor_num_scales`: error     `cantor_num_scales` exists; `use_cuda_kernels`,
                                                                     which nothing read, does not
NumericalStability       epsilons, dead gradients                    no epsilon; gradients live on, that of the
                                                                     temperature too
=======================  ==========================================  ================================================
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from . import patterns
from .bias import CantorDepthBias, DragonBias, KochBias, PotentialBias, PreparedBias
from .config import FractalConfig
from .layer import FractalSelfAttention, PatternAttention, TimedFractalSelfAttention


class HilbertCurveAttention(FractalSelfAttention):
    """Keys near the query on a Hilbert curve. Texts longer than 4^hilbert_order raise."""

    def __init__(self, config: FractalConfig) -> None:
        super().__init__(config, patterns.hilbert_window(config.hilbert_window_size // 2))

    @override
    def read(self, q: Tensor, k: Tensor, v: Tensor, **settings: Tensor | None) -> Tensor:
        self._refuse_longer(k.shape[2])
        return super().read(q, k, v, **settings)

    @override
    def read_at(self, place: int, q: Tensor, k: Tensor, v: Tensor, **settings: Tensor | None) -> Tensor:
        self._refuse_longer(place + 1)
        return super().read_at(place, q, k, v, **settings)

    def _refuse_longer(self, n: int) -> None:
        if n > 4**self.config.hilbert_order:
            order = math.ceil(math.log(n, 4))
            raise ValueError(
                f"{n} tokens on a Hilbert curve of order {self.config.hilbert_order}, which has "
                f"{4**self.config.hilbert_order} cells; set hilbert_order to {order}"
            )


class CantorSetAttention(TimedFractalSelfAttention):
    """Keys at distances in a Cantor set, weighed by the number of levels each crosses. `t` tilts those weights."""

    def __init__(self, config: FractalConfig) -> None:
        bias = CantorDepthBias(config.n_head, levels=config.cantor_num_scales or config.cantor_depth)
        pattern = patterns.cantor(config.cantor_depth)
        super().__init__(config, pattern, bias=bias, temperature=config.cantor_temperature)
        self.tilt = nn.Parameter(torch.zeros_like(bias.by_depth))

    @override
    def prepared_bias(self, t: Tensor | None) -> PreparedBias:
        prepared = cast(CantorDepthBias, self.bias).prepared()
        if t is None:
            return prepared
        return prepared._replace(tables=(prepared.tables[0] + t * self.tilt,))


class DragonCurveAttention(FractalSelfAttention):
    """Keys at distances m 2^k, weighed by fold level and by the turn of the paper-folding sequence there."""

    def __init__(self, config: FractalConfig) -> None:
        bias = DragonBias(config.n_head, folds=config.dragon_iterations, contrast=config.dragon_smoothing)
        super().__init__(config, patterns.dragon_lags(config.dragon_iterations), bias=bias)


class JuliaSetAttention(FractalSelfAttention):
    """Keys at dragon distances, weighed by the potential outside a Julia set whose c is learned."""

    def __init__(self, config: FractalConfig) -> None:
        bias = PotentialBias(
            config.n_head,
            c=config.julia_c,
            extent=config.longest,
            iterations=config.julia_iterations,
            escape_radius=config.julia_escape_radius,
            keep_frozen=config.cache_fractals,
        )
        super().__init__(config, patterns.dragon_lags(), bias=bias)


class MandelbrotAttention(FractalSelfAttention):
    """Keys at dragon distances, weighed by the potential outside the Mandelbrot set, seen through a learned window."""

    def __init__(self, config: FractalConfig) -> None:
        bias = PotentialBias(config.n_head, "mandelbrot", extent=config.longest, keep_frozen=config.cache_fractals)
        super().__init__(config, patterns.dragon_lags(), bias=bias)


class SierpinskiAttention(FractalSelfAttention):
    """Keys whose bits are among the query's, and the key before it; three layers reach everything."""

    def __init__(self, config: FractalConfig) -> None:
        super().__init__(config, patterns.sierpinski())


class KochAttention(FractalSelfAttention):
    """Keys at distances with base-4 digits 0, 1, 3, faded by distance in the plane of a Koch curve."""

    def __init__(self, config: FractalConfig) -> None:
        super().__init__(config, patterns.koch(), bias=KochBias(config.n_head))


class UnifiedFractalAttention(TimedFractalSelfAttention):
    """Hilbert, Cantor, dragon and Julia attention over shared projections, blended by each head as it learns to.

    `t` moves the blend; weights are softmax((logit + t slope) / blend_temperature).
    """

    def __init__(self, config: FractalConfig) -> None:
        bare = replace(config, d_model=None, n_kv_head=None)  # the projections are shared
        fractals = (HilbertCurveAttention, CantorSetAttention, DragonCurveAttention, JuliaSetAttention)
        parts = [fractal(bare) for fractal in fractals]
        super().__init__(replace(config, block=1), patterns.union(*(part.pattern for part in parts)))
        self.parts = nn.ModuleList(parts)
        self.logits = nn.Parameter(torch.zeros(config.n_head, len(self.parts)))
        self.slopes = nn.Parameter(torch.zeros(config.n_head, len(self.parts)))

    def blend(self, t: Tensor | None = None) -> Float[Tensor, "head size"]:
        """How much of each head's answer comes from Hilbert, Cantor, dragon and Julia."""
        logits = self.logits if t is None else self.logits + t * self.slopes
        return (logits / self.config.blend_temperature).softmax(-1)

    @override
    def read(self, q: Tensor, k: Tensor, v: Tensor, **settings: Tensor | None) -> Tensor:
        answers = torch.stack([cast(PatternAttention, part).read(q, k, v, **settings) for part in self.parts])
        return einsum(answers, self.blend(settings.get("t")), "part doc head query d, head part -> doc head query d")

    @override
    def read_at(self, place: int, q: Tensor, k: Tensor, v: Tensor, **settings: Tensor | None) -> Tensor:
        answers = torch.stack([cast(PatternAttention, part).read_at(place, q, k, v, **settings) for part in self.parts])
        return einsum(answers, self.blend(settings.get("t")), "part doc head query d, head part -> doc head query d")
