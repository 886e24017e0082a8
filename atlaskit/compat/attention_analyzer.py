"""The AttentionAnalyzer toolkit ("Attention Pattern Analysis") under its own names, for people who come from it.

What it computed wrongly is right here, and the first call says what differs: tokens keep their own scores, and labels
are decided by nulls instead of by fixed standard deviations. Written afresh from the toolkit's description.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bokeh.models import LayoutDOM
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit import measure, models, show
from atlaskit.records import Capture

from .flaws import told_once

DRAWS = 199


class AttentionAnalyzer:
    """All heads of one text at a time, from one forward pass."""

    def __init__(self, model_name: str | models.Model = "bert-base-uncased", **options: Any) -> None:
        """Load by name with the options of `models.load`, or take a Model that is loaded already."""
        self.model = models.load(model_name, **options) if isinstance(model_name, str) else model_name
        self.model_name = self.model.name

    def get_attention_patterns(self, text: str) -> tuple[Float[Tensor, "1 head query key"], ...]:
        """One tensor a layer, as transformers gives them; an error where a model has none to give."""
        return tuple(layer.pattern[None] for layer in self._see(text).layers)

    @told_once
    def analyze_pattern(
        self,
        attention_matrix: Float[Tensor, "query key"],
        *,
        support: Bool[Tensor, "query key"] | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Mean, maximum, minimum, standard deviation, and labels with the evidence for each.

        "strong" or "weak self-attention" is attention on the own token beyond what the same rows give when they are
        dealt out anew; "highly focused" or "uniform" is a mean row entropy beyond that of rows cut at random places
        (every row of weights equally likely: MacArthur 1957), below or above. Beyond: in the outer 5 % of the null's
        draws. Without `support` a matrix with nothing above its diagonal is taken for causal.
        """
        weights = torch.as_tensor(attention_matrix).float()
        allowed = _support_of(weights) if support is None else support
        evidence = _evidence(weights[None], allowed, seed)
        names = {
            "self-attention": ("weak self-attention", "strong self-attention"),
            "entropy": ("highly focused", "uniform"),
        }
        return {
            "mean": float(weights.mean()),
            "max": float(weights.max()),
            "min": float(weights.min()),
            "std": float(weights.std(correction=0)),
            "labels": [names[name][one["value"] > one["null"]] for name, one in evidence.items() if one["p"] <= 0.05],
            "evidence": evidence,
        }

    @told_once
    def get_token_importance(
        self, text: str, layer: int | None = None, head: int | None = None
    ) -> list[tuple[str, float]]:
        """How much each token of the text is preferred, in all layers and heads or in those given; sums to one.

        A token's score is its weight over what the ignorant head would give it, averaged over the queries that may see
        it: an ignorant head finds all tokens equally important. Tokens that the tokenizer added take no part.
        """
        seen = self._see(text)
        chosen = [one for one in seen.layers if layer in (None, one.layer)]
        if not chosen:
            raise IndexError(f"{self.model_name} has no layer {layer}; it has layers 0 to {len(seen.layers) - 1}")
        if head is not None and not all(0 <= head < len(one.pattern) for one in chosen):
            raise IndexError(f"{self.model_name} has no head {head}; it has heads 0 to {len(chosen[0].pattern) - 1}")
        heads = slice(None) if head is None else slice(head, head + 1)
        preferred = torch.cat([measure.key_preference(one.pattern[heads], one.support) for one in chosen]).mean(0)
        own = ~seen.source.special
        scores = (preferred[own] / preferred[own].sum()).tolist()
        return list(zip([one for one, mine in zip(seen.source.strings, own, strict=True) if mine], scores, strict=True))

    def analyze(self, text: str) -> dict[str, Any]:
        """Every layer's attention [head query key] with its tokens, and the support that it may use."""
        seen = self._see(text)
        tokens = list(seen.tokens.strings)
        patterns = [
            {"layer": one.layer, "attention": one.pattern, "tokens": tokens, "support": one.support}
            for one in seen.layers
        ]
        heads = len(seen.layers[0].pattern)
        return {"patterns": patterns, "text": text, "num_layers": len(patterns), "num_heads": heads}

    @told_once
    def get_attention_stats(self, attention_data: Mapping[str, Any]) -> list[dict[str, Any]]:
        """For each layer of `analyze` its heads' mean, maximum, and entropy in bits summed over all rows."""
        return [
            {
                "layer": one["layer"],
                "mean": one["attention"].mean((1, 2)),
                "max": one["attention"].amax((1, 2)),
                "entropy": torch.special.entr(one["attention"]).sum((1, 2)) / torch.tensor(2.0).log(),
            }
            for one in attention_data["patterns"]
        ]

    def visualize(
        self,
        attention_data: Mapping[str, Any],
        layer: int | None = None,
        head: int | None = None,
        *,
        save_path: str | Path | None = None,
    ) -> LayoutDOM:
        """One head with its tokens, or all heads of a layer or of all layers as one picture; a page if a path is given.

        Draw it in a notebook with `show.draw`.
        """
        chosen = [one for one in attention_data["patterns"] if layer in (None, one["layer"])]
        if not chosen or (head is not None and not 0 <= head < len(chosen[0]["attention"])):
            raise IndexError(
                f"there is no head {layer}.{head}; there are {attention_data['num_layers']} layers of "
                f"{attention_data['num_heads']} heads"
            )
        if layer is not None and head is not None:
            (one,) = chosen
            figure = show.heatmap(one["attention"][head], one["tokens"], one["support"], title=f"Head {layer}.{head}")
        else:
            heads = slice(None) if head is None else slice(head, head + 1)
            title = "All heads" if layer is None else f"Layer {layer}"
            figure = show.mosaic([one["attention"][heads] for one in chosen], chosen[0]["support"], title=title)
        if save_path is not None:
            path = Path(save_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(show.html(figure, title=str(attention_data["text"])[:60]), encoding="utf-8")
        return figure

    def _see(self, text: str) -> Capture:
        return models.capture(self.model, text)


def _support_of(weights: Float[Tensor, "query key"]) -> Bool[Tensor, "query key"]:
    n_query, n_key = weights.shape
    if n_query == n_key and not weights.triu(1).any():
        return measure.causal(n_query)
    return torch.ones_like(weights, dtype=torch.bool)


def _evidence(
    pattern: Float[Tensor, "1 query key"], support: Bool[Tensor, "query key"], seed: int
) -> dict[str, dict[str, float]]:
    """Each quantity that a label speaks of, beside draws of its null."""
    own = torch.eye(*support.shape, dtype=torch.bool)

    def on_itself(of: Tensor) -> Tensor:
        return measure.mass(of, support, own).nanmean(-1)

    def mean_entropy(of: Tensor) -> Tensor:
        return measure.entropy(of, support).nanmean(-1)

    generator = torch.Generator().manual_seed(seed)
    # a stick of length one broken at random places: exponential lengths, scaled to their sum
    sticks = -torch.rand(DRAWS, *support.shape, generator=generator).log() * support
    dealt = torch.cat([measure.permuted_rows(pattern, support, seed=seed + i) for i in range(DRAWS)])
    nulls = {
        "self-attention": (on_itself, dealt),
        "entropy": (mean_entropy, sticks / sticks.sum(-1, keepdim=True)),
    }
    found = {}
    for name, (quantity, null) in nulls.items():
        value, drawn = quantity(pattern), quantity(null)
        p = measure.permutation_p(value, drawn[:, None])
        found[name] = {"value": float(value), "null": float(drawn.mean()), "p": float(p)}
    return found
