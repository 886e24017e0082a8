"""What the model loses without each head, as a colour: given, or found on request while the page goes on answering."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

from atlaskit.show import levels, theme
from atlaskit.show.levels import Array

Cause: TypeAlias = Float[Array, "layer head"] | Callable[[], Iterable[Float[Array, " head"]]]
"""The loss without each head less the loss as is, in nats per token; or what finds it, a layer at a time."""

NAME, UNIT = "causal effect", "nats per token"
HOW = (
    "What the model loses without each head is not known here. Give it: "
    "show.Explorer(…, cause=lambda: models.layer_effects(model, text))"
)
REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError)


def colour(effects: Float[np.ndarray, "layer head"] | None, *, askable: bool) -> dict[str, Any]:
    """The entry in the choice of colours: a weight times what its head is worth, so that a row adds up to that."""
    top = limit(effects) if effects is not None else 1.0
    shares = (-1.0, -0.2, -0.02, 0.0, 0.02, 0.2, 1.0)
    entry: dict[str, Any] = {
        "name": "cause",
        "short": NAME,
        "label": f"weight × loss without the head ({UNIT})",
        "palette": "diverging",
        "scale": {"kind": "signed root", "top": top},
        "ticks": [[128 + 127 * math.copysign(abs(share) ** 0.5, share), theme.number(share * top)] for share in shares],
    }
    if effects is None:
        entry |= {"asks": True} if askable else {"how": HOW}
    return entry


def limit(effects: Float[np.ndarray, "layer head"]) -> float:
    """Where the colours end: at the largest effect of either sign."""
    known = np.abs(effects[np.isfinite(effects)])
    return float(known.max()) if known.size and known.max() > 0 else 1.0


def coloured(
    weights: UInt8[np.ndarray, "*axes"], effects: Float[np.ndarray, "*#axes"], top: float
) -> UInt8[np.ndarray, "*axes"]:
    """Levels of weights, even in the root, as levels of weight × effect, even in the root of either sign."""
    steps = (levels.COARSE - 1) / 2
    height = np.sign(effects) * np.sqrt(np.abs(effects) / top) * steps / (levels.COARSE - 1)
    moved = 1 + steps + np.rint((weights.astype(np.float32) - 1) * np.nan_to_num(height))
    return np.where((weights > 0) & np.isfinite(effects), moved, 0).astype(np.uint8)


class Finder:
    """Runs a search beside the notebook, tells how far it is after every layer, and can be stopped."""

    def __init__(self, search: Callable[[], Iterable[Float[Array, " head"]]], n_layer: int) -> None:
        self._search, self._n_layer = search, n_layer
        self._halt = threading.Event()
        self._work: threading.Thread | None = None

    def begin(
        self, tell: Callable[[str], None], found: Callable[[list[Array]], None], stopped: Callable[[str], None]
    ) -> threading.Thread:
        """Start, unless it is under way; the thread that does it, for those who want to wait."""
        if self._work is not None and self._work.is_alive():
            return self._work
        self._halt.clear()

        def run() -> None:
            layers: list[Array] = []
            try:
                tell(f"finding what the model loses without each head: 0 of {self._n_layer} layers")
                for layer in self._search():
                    layers.append(layer)
                    if self._halt.is_set():
                        stopped("")
                        return
                    tell(f"finding what the model loses without each head: {len(layers)} of {self._n_layer} layers")
                found(layers)
            except REFUSALS as error:
                stopped(str(error) or type(error).__name__)

        self._work = threading.Thread(target=run, daemon=True)
        self._work.start()
        return self._work

    def stop(self) -> None:
        """Stop after the layer that is under way."""
        self._halt.set()
