"""What the fractal attention modules are built from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FractalConfig:
    """Sizes of a layer and parameters of its fractals.

    Without `d_model` a module has no projections: heads split the width of what it is given, as in the tutorial.
    `block` draws the pattern on blocks of so many tokens. `longest` is the length that position-dependent biases are
    scaled to; longer texts read the border. The rest, by fractal: `hilbert_window_size` cells a side on a curve of
    4^`hilbert_order` positions; Cantor distances below 3^`cantor_depth`, `cantor_num_scales` depths told apart (all,
    if None); `dragon_iterations` folds, `dragon_smoothing` the first contrast between left and right; Julia's c, its
    iterations and escape radius. `cache_fractals` keeps a Julia field while its c is frozen.
    """

    d_model: int | None = None
    n_head: int = 1
    n_kv_head: int | None = None
    causal: bool = True
    dropout: float = 0.0
    block: int = 1
    longest: int = 4096
    hilbert_window_size: int = 7
    hilbert_order: int = 10
    cantor_depth: int = 8
    cantor_num_scales: int | None = None
    cantor_temperature: float = 1.0
    dragon_iterations: int = 12
    dragon_smoothing: float = 0.1
    julia_c: complex = -0.7 + 0.27j
    julia_iterations: int = 24
    julia_escape_radius: float = 100.0
    cache_fractals: bool = True
    blend_temperature: float = 1.0

    def __post_init__(self) -> None:
        kv = self.n_kv_head or self.n_head
        if self.n_head % kv:
            raise ValueError(f"{self.n_head} heads cannot share {kv} key heads evenly")
        if self.d_model is None and kv != self.n_head:
            raise ValueError("fewer key heads than heads need projections; give d_model")
        if self.d_model is not None and self.d_model % self.n_head:
            raise ValueError(f"width {self.d_model} does not divide into {self.n_head} heads")
        if self.hilbert_window_size % 2 == 0:
            raise ValueError(
                f"hilbert_window_size is {self.hilbert_window_size}; a window around a cell has an odd side"
            )
        for name in ("cantor_temperature", "blend_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a softmax needs a positive one")
