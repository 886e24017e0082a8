"""What `fractal-attention-analysis` 1.0 computes, under its own names, so that its users can come over and see both.

Numbers equal that package's to 1e-6. What does not measure what its name says warns once, with the reason and the name
of the quantity that does; `flaws.FAA` is the whole list. Two things are not reproduced: an attention matrix made up
when the model returns none (here an error), and a layer index silently clamped to the last (here an IndexError).
"""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from atlaskit import models

from .flaws import told_once

Matrix = Float[np.ndarray, "query key"]
Block = Float[np.ndarray, "_ _"]

TINY = 1e-10  # that package's own constant; it is part of its numbers


class FractalTransforms:
    """Golden-ratio transforms and a box count of the cells above the median."""

    PHI = (1 + 5**0.5) / 2
    D_SIERPINSKI = float(np.log2(3))
    D_KOCH = float(np.log(4) / np.log(3))
    D_DRAGON = 2.0
    D_NEURAL = PHI**2 / 2

    def __init__(self, phi: float | None = None) -> None:
        self.phi = phi or self.PHI
        self.phi_inv = 1 / self.phi

    @told_once
    def golden_ratio_partition(self, attention_matrix: Matrix) -> tuple[Block, Block]:
        """The two diagonal blocks left and right of n / φ."""
        cut = int(len(attention_matrix) / self.phi)
        return attention_matrix[:cut, :cut], attention_matrix[cut:, cut:]

    @told_once
    def fractal_interpolation_function(self, attention_weights: Matrix, scale_factor: float = 0.5) -> Matrix:
        """Each row blended with the one above it; the first with the last."""
        return self._blend(attention_weights, scale_factor)

    @told_once
    def compute_fractal_dimension(self, attention_matrix: Matrix, scales: Sequence[int] | None = None) -> float:
        """Minus the slope of log count on log side, over boxes of 2 to 32 cells with a cell above the median.

        φ² / 2 = 1.309 where fewer than two sides count anything, as with constants, nan or three tokens.
        """
        above = attention_matrix > np.median(attention_matrix)
        counted = [(side, count) for side in scales or (2, 4, 8, 16, 32) if (count := _occupied(above, side))]
        if len(counted) < 2:
            return self.D_NEURAL
        sides, counts = np.log(counted).T
        return float(-np.polyfit(sides, counts, 1)[0])

    @told_once
    def multi_scale_analysis(self, attention_matrix: Matrix, num_scales: int = 5) -> list[tuple[float, Matrix]]:
        """The blend, divided by powers of φ."""
        powers = [self.phi**power for power in range(num_scales)]
        return [(power, self._blend(attention_matrix, 1 / power)) for power in powers]

    @told_once
    def compute_self_similarity(self, attention_matrix: Matrix, scale_factor: int = 2) -> float:
        """Correlation of every second cell with itself; nan for constants, 1 below four tokens."""
        if len(attention_matrix) < 2 * scale_factor:
            return 1.0
        kept = attention_matrix[::scale_factor, ::scale_factor].ravel()
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(abs(np.corrcoef(kept, kept)[0, 1]))

    @told_once
    def golden_ratio_scoring(self, attention_weights: Matrix) -> Matrix:
        """Rows times weights that fall by φ from the first query to the last and sum to one."""
        n = len(attention_weights)
        weights = self.phi ** -(np.arange(n) / n)
        return attention_weights * (weights / weights.sum())[:, None]

    def _blend(self, matrix: Matrix, scale: float) -> Matrix:
        # in that package's order of operations: a threshold applied to the result sees the last bit
        scaled = matrix * self.phi_inv
        return scale * self.phi_inv * scaled + scale * (1 - self.phi_inv) * np.roll(scaled, 1, axis=0)


class AttentionMetrics:
    """Numbers of one matrix, masked cells included, with logarithms in nats."""

    def compute_entropy(self, attention_weights: Matrix) -> float:
        """Entropy of all cells together: ln n plus the mean entropy of the rows, so mostly the token count."""
        return _entropy(attention_weights)

    @told_once
    def compute_sparsity(self, attention_weights: Matrix, threshold: float = 0.01) -> float:
        """Share of cells below the threshold."""
        return float((attention_weights < threshold).mean())

    @told_once
    def compute_concentration(self, attention_weights: Matrix, top_k: int = 5) -> float:
        """Share of attention on the keys that receive most; 0 where there is none."""
        received = np.sort(attention_weights.mean(axis=0))
        return float(received[-top_k:].sum() / received.sum()) if received.sum() != 0 else 0.0

    @told_once
    def compute_uniformity(self, attention_weights: Matrix) -> float:
        """Perplexity of all cells over their number."""
        shares = attention_weights / (attention_weights.sum() + TINY)
        return float(np.exp(_entropy(shares)) / shares.size)

    @told_once
    def compute_entropy_reduction(self, original_attention: Matrix, transformed_attention: Matrix) -> float:
        """Entropy before less entropy after."""
        return _entropy(original_attention) - _entropy(transformed_attention)

    @told_once
    def compute_sparsity_improvement(
        self, original_attention: Matrix, transformed_attention: Matrix, threshold: float = 0.01
    ) -> float:
        """Sparsity after less sparsity before."""
        return float((transformed_attention < threshold).mean() - (original_attention < threshold).mean())

    @told_once
    def compute_interpretability_score(self, attention_weights: Matrix, fractal_dimension: float) -> float:
        """0.3 sparsity, 0.3 concentration, 0.2 (1 - uniformity), and 0.2 for a dimension near two."""
        near_two = np.clip(1 - abs(fractal_dimension - 2) / 2, 0, 1)
        return float(
            0.3 * (self.compute_sparsity(attention_weights) + self.compute_concentration(attention_weights))
            + 0.2 * (1 - self.compute_uniformity(attention_weights) + near_two)
        )

    def compute_attention_flow(self, attention_weights: Matrix) -> dict[str, float]:
        """Shares of attention on later keys, earlier keys and the own token; 0 where there is none."""
        total = attention_weights.sum()
        parts = {
            "forward_flow": np.triu(attention_weights, 1).sum(),
            "backward_flow": np.tril(attention_weights, -1).sum(),
            "self_attention": np.trace(attention_weights),
        }
        return {name: float(part / total) if total != 0 else 0.0 for name, part in parts.items()}

    def compute_all_metrics(
        self, attention_weights: Matrix, fractal_dimension: float | None = None
    ) -> dict[str, float]:
        """All of the above of one matrix, and the score where a dimension is given."""
        found = {
            "entropy": self.compute_entropy(attention_weights),
            "sparsity": self.compute_sparsity(attention_weights),
            "concentration": self.compute_concentration(attention_weights),
            "uniformity": self.compute_uniformity(attention_weights),
            **self.compute_attention_flow(attention_weights),
        }
        if fractal_dimension is not None:
            found["fractal_dimension"] = fractal_dimension
            found["interpretability_score"] = self.compute_interpretability_score(attention_weights, fractal_dimension)
        return found


class FractalAttentionAnalyzer:
    """One head of one text at a time; `models.capture` sees all heads in the one forward pass this takes."""

    def __init__(self, model_name: str | models.Model, **model_kwargs: Any) -> None:
        """Load by name with the options of `models.load`, or take a Model that is loaded already."""
        self.model = models.load(model_name, **model_kwargs) if isinstance(model_name, str) else model_name
        self.model_name = self.model.name
        self.fractal_transforms = FractalTransforms()
        self.metrics = AttentionMetrics()

    def __repr__(self) -> str:
        return f"FractalAttentionAnalyzer(model='{self.model_name}')"

    def analyze(self, text: str, layer_idx: int = -1, head_idx: int = 0) -> dict[str, Any]:
        """Dimension, transforms and metrics of one head, with the keys of the original. Its figures are in `show`."""
        started = time.perf_counter()
        seen = models.capture(self.model, text)
        shape = (len(seen.layers), len(seen.layers[0].pattern))
        if not (-shape[0] <= layer_idx < shape[0] and -shape[1] <= head_idx < shape[1]):
            raise IndexError(f"{self.model_name} has {shape[0]} layers of {shape[1]} heads; no {layer_idx}.{head_idx}")
        attention = seen.layers[layer_idx].pattern[head_idx].numpy()
        dimension = self.fractal_transforms.compute_fractal_dimension(attention)
        tokenizer = self.model.tokenizer
        return {
            "fractal_dimension": dimension,
            "transformed_attention": self.fractal_transforms.fractal_interpolation_function(attention),
            "golden_ratio_scored": self.fractal_transforms.golden_ratio_scoring(attention),
            "metrics": self.metrics.compute_all_metrics(attention, fractal_dimension=dimension),
            "tokens": [tokenizer.decode([token]) for token in seen.tokens.ids.tolist()]
            if tokenizer
            else list(seen.tokens.strings),
            "analysis_time": time.perf_counter() - started,
            "model_name": self.model_name,
            "layer_idx": layer_idx,
            "head_idx": head_idx,
        }

    def analyze_batch(self, texts: Sequence[str], **kwargs: Any) -> list[dict[str, Any]]:
        """Each text analysed on its own."""
        return [self.analyze(text, **kwargs) for text in texts]

    @told_once
    def compare_models(self, other_model_name: str | models.Model, text: str, **kwargs: Any) -> dict[str, Any]:
        """Dimensions and metrics of one head in each of two models, and how far the dimensions lie apart."""
        sides = [analyzer.analyze(text, **kwargs) for analyzer in (self, FractalAttentionAnalyzer(other_model_name))]
        first, second = (
            {"name": side["model_name"], **{key: side[key] for key in ("fractal_dimension", "metrics")}}
            for side in sides
        )
        gap = abs(first["fractal_dimension"] - second["fractal_dimension"])
        return {"model_1": first, "model_2": second, "dimension_difference": gap}

    def export_results(self, results: Mapping[str, Any], output_path: str | Path, format: str = "json") -> None:
        """One result as json (numbers and tokens), csv (one row of numbers) or npz (the two matrices)."""
        path = Path(output_path)
        if format not in ("json", "csv", "npz"):
            raise ValueError(f"Unsupported format: {format}; choose json, csv or npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        matrices = {key: results[key] for key in ("transformed_attention", "golden_ratio_scored")}
        if format == "json":
            plain = {key: value for key, value in results.items() if key not in matrices}
            path.write_text(json.dumps(plain, indent=2), encoding="utf-8")
        elif format == "csv":
            row = {key: results[key] for key in ("model_name", "fractal_dimension", "analysis_time")}
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, {**row, **results["metrics"]})
                writer.writeheader()
                writer.writerow({**row, **results["metrics"]})
        else:
            np.savez(path, fractal_dimension=results["fractal_dimension"], **matrices)


def _occupied(above: np.ndarray, side: int) -> int:
    """How many whole boxes of the given side hold a cell; cells beyond the last whole box are left out."""
    rows, columns = (length // side for length in above.shape)
    boxes = above[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return int(boxes.any(axis=(1, 3)).sum())


def _entropy(weights: np.ndarray) -> float:
    shares = weights.ravel() + TINY
    for _ in range(2):  # that package normalises, and then SciPy does; in single precision one can tell
        shares = shares / shares.sum()
    terms = -np.log(shares, dtype=np.float64) * shares  # SciPy, too, rounds each term only once
    return float(terms.astype(shares.dtype).sum())
