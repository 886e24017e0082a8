"""Results as pages: what `-o page.html` writes."""

from __future__ import annotations

import html
from typing import Any

import torch

from atlaskit import runs, show
from atlaskit.records import Estimate
from atlaskit.show.strip import Markup

LIMITS = {"dimension": (1.0, 2.0), "share": (0.0, 1.0), "likeness": (0.0, 1.0)}
"""What a quantity of this unit can be; of others, from 0 to the largest there is, or as far below."""


def analyzed(result: runs.Result) -> str:
    """One grid of heads for each quantity beside its first null, and the scaling of each layer."""
    grids, seen = [], set()
    for i, one in enumerate(result.labels["contrast"]):
        if one["quantity"] in seen or one["quantity"].startswith("level"):
            continue
        seen.add(one["quantity"])
        value = result["value"][i]
        largest = float(value.nan_to_num(0).abs().max()) or 1.0
        possible = (-largest if (value < 0).any() else 0.0, largest)
        grids.append(
            show.head_grid(
                value,
                title=one["quantity"].replace("_", " "),
                unit=one["unit"],
                limits=LIMITS.get(one["unit"], possible),
                null=result["null_value"][i],
                beats_null=result["differs"][i],
                caption=f"Mean over texts. Dot: differs from the null “{one['null']}” at false discovery 5 %.",
            )
        )
    return show.html(_heading(result), *_scaling(result), *grids, title=f"analyze {result.sources[0].model}")


def compared(result: runs.Result) -> str:
    """Intervals of the differences over all heads, a figure for each unit; then every head, where heads correspond."""
    figures: list[Any] = []
    named = list(enumerate(result.labels["quantity"]))
    for unit in dict.fromkeys(one["unit"] for _, one in named):
        estimates = {one["quantity"]: _estimate(result, k) for k, one in named if one["unit"] == unit}
        known = {name: one for name, one in estimates.items() if one.n}
        if known:
            caption = "First model minus second, mean over heads, between words. Grey: no difference."
            figures.append(show.intervals(known, title=f"Differences in {unit}", caption=caption))
    heads = [i for i, part in enumerate(result.labels["part"]) if "." in part]
    for k, one in named:
        apart = result["difference"][k, heads]
        if len(apart) and apart.isfinite().any():
            layers = len({result.labels["part"][i].split(".")[0] for i in heads})
            limit = float(apart.abs().nan_to_num(0).max()) or 1.0
            figures.append(
                show.head_grid(
                    apart.reshape(layers, -1),
                    title=f"{one['quantity'].replace('_', ' ')}, first minus second",
                    unit=one["unit"],
                    limits=(-limit, limit),
                    beats_null=result["differs"][k, heads].reshape(layers, -1),
                    caption="Mean over texts. Dot: the models differ at false discovery 5 %.",
                )
            )
    return show.html(_heading(result), *figures, title="compare")


def _estimate(result: runs.Result, quantity: int) -> Estimate:
    """The difference over all heads, beside none."""
    value, low, high, p = (float(result[name][quantity, 0]) for name in ("difference", "low", "high", "p"))
    unit = result.labels["quantity"][quantity]["unit"]
    return Estimate(value, low, high, 0.0, 0.0, unit, int(result["n_texts"][quantity, 0]), p)


def _scaling(result: runs.Result) -> list[Any]:
    """Box entropies of each layer's heads on average, for the order nearest to 1: the points behind a dimension."""
    orders = result.labels["q"]
    q = min(range(len(orders)), key=lambda k: abs(orders[k] - 1))
    points = result["box_entropy"][:, :, :, q]
    mean = points.nanmean((0, 2))
    if not mean.isfinite().any():
        return []
    shown = list(zip(result.labels["layer"], mean, strict=True))
    step = -(-len(shown) // 5)  # as many lines as a reader can tell apart
    series = {f"layer {layer}": line for layer, line in shown[::step]}
    octaves = torch.tensor(result.labels["octave"])
    title, label = f"Box entropy H_{orders[q]:g} against scale", "octaves (log2 of boxes a side)"
    caption = "Mean over heads and texts; the slope is the dimension. Few octaves: no proof of scaling."
    return [show.curve(octaves, series, title=title, x_label=label, y_label="bits", caption=caption)]


def _heading(result: runs.Result) -> Markup:
    models = ", ".join(f"{one.model} ({one.model_hash[:12]})" for one in result.sources)
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [f"{len(result.sources[0].texts)} texts", models, versions, *result.notes]
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return Markup(f"<section><h1>atlaskit {html.escape(result.command)}</h1><ul>{items}</ul></section>")
