"""A text as a row of tokens, each with its number."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from atlaskit.records import Tokens
from atlaskit.show import levels, theme
from atlaskit.show.labels import short, strings, visible
from atlaskit.show.levels import Array

CSS = """
.ak-strip { font: 14px/1.3 sans-serif; margin: 0.6em 0; color: var(--ak-ink); }
.ak-strip figcaption { margin-bottom: 0.4em; } .ak-strip figcaption span { font-size: 12px; }
.ak-strip ol { list-style: none; display: flex; flex-wrap: wrap; gap: 3px; margin: 0; padding: 0; }
.ak-strip li { margin: 0; padding: 2px 5px; border-radius: 3px; text-align: center; border: 1px solid transparent; }
.ak-strip li small { display: block; font-size: 11px; }
.ak-strip li.ak-none { border: 1px dashed var(--ak-line); }
"""


class Markup(str):
    """HTML that a notebook shows as such."""

    def _repr_html_(self) -> str:
        return self


def token_strip(
    tokens: Tokens | Sequence[str],
    values: Float[Array, " token"],
    *,
    title: str,
    unit: str,
    limits: tuple[float, float],
    caption: str = "",
) -> Markup:
    """The tokens in reading order, coloured by value, the number under each; dashed where it is undefined.

    Text rather than a canvas: it wraps, can be read aloud, searched and copied, and is seen in a notebook that is not
    trusted. `limits` are the caller's, as in `head_grid`.
    """
    names, numbers = strings(tokens), levels.as_array(values)
    if len(names) != len(numbers):
        raise ValueError(f"{len(names)} tokens and {len(numbers)} values: pass one value for each token")
    low, high = theme.checked(limits)
    palette = theme.DIVERGING if low < 0 < high else theme.SEQUENTIAL
    items = []
    for name, number in zip(names, numbers, strict=True):
        label = f"<bdi>{html.escape(short(visible(name), 30))}</bdi>"
        if not np.isfinite(number):
            items.append(f'<li class="ak-none">{label}<small>–</small></li>')
            continue
        share = np.clip((number - low) / (high - low), 0, 1)
        ground = palette[round(float(share) * (len(palette) - 1))]
        figures = theme.number(number)
        items.append(
            f'<li style="background-color:{ground};color:{theme.ink_on(ground)}">{label}<small>{figures}</small></li>'
        )
    note = f"<br><span>{html.escape(caption)}</span>" if caption else ""
    scale = f"{html.escape(unit)}; colour from {theme.number(low)} to {theme.number(high)}"
    head = f"<b>{html.escape(title)}</b> ({scale}){note}"
    return Markup(
        f"<style>{theme.palette_css('.ak-strip')}{CSS}</style>"
        f'<figure class="ak-strip"><figcaption>{head}</figcaption><ol>{"".join(items)}</ol></figure>'
    )
