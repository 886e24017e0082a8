"""Two sentences that differ in some words, token under token, and how much likelier each token is in the first."""

from __future__ import annotations

import html

import numpy as np

from atlaskit.records import Counterfactual
from atlaskit.show import theme
from atlaskit.show.labels import short, visible
from atlaskit.show.strip import Markup

CSS = """
.ak-swap { font: 14px/1.3 sans-serif; margin: 0.6em 0; color: var(--ak-ink); }
.ak-swap figcaption { margin-bottom: 0.4em; } .ak-swap figcaption span { font-size: 12px; }
.ak-swap ol { list-style: none; display: flex; flex-wrap: wrap; gap: 6px 3px; margin: 0; padding: 0; }
.ak-swap li { display: grid; grid-template-rows: repeat(3, auto); margin: 0; text-align: center; }
.ak-swap li > span { padding: 1px 4px; white-space: pre; min-width: 1em; }
.ak-swap li > span.ak-differs { font-weight: bold; text-decoration: underline; }
.ak-swap li > small { font-size: 11px; padding: 1px 4px; border-radius: 3px; }
"""


def swap(seen: Counterfactual, *, limit: float, title: str = "", caption: str = "") -> Markup:
    """Both sentences, token under token, and below each pair how many nats the upper token is likelier than the lower.

    What was exchanged is bold and underlined, – stands where one sentence has no token. Colours run from -`limit` to
    `limit`, as the caller states.
    """
    theme.checked((-limit, limit))
    items = []
    for places in seen.columns.tolist():
        cells, apart = [], 0.0
        for side, sign in ((0, 1), (1, -1)):
            cells.append(_cell(seen, side, places[side]))
            if places[side] >= 0:
                apart += sign * float(seen.log_probs[side][places[side]])
        share = np.clip((apart + limit) / (2 * limit), 0, 1)
        ground = theme.DIVERGING[round(float(share) * (len(theme.DIVERGING) - 1))]
        style = f"background-color:{ground};color:{theme.ink_on(ground)}"
        items.append(f'<li>{"".join(cells)}<small style="{style}">{_signed(apart)}</small></li>')
    said = f"<b>{html.escape(title or verdict(seen))}</b><br>"
    scores = " against ".join(f"{float(side.sum()):.1f}" for side in seen.log_probs)
    notes = [f"{seen.model}, rule {seen.rule}: {scores} nats. Number under a token: nats, upper less lower", caption]
    note = html.escape(". ".join(note for note in notes if note) + ".")
    return Markup(
        f"<style>{theme.palette_css('.ak-swap')}{CSS}</style>"
        f'<figure class="ak-swap"><figcaption>{said}<span>{note}</span></figcaption><ol>{"".join(items)}</ol></figure>'
    )


def verdict(seen: Counterfactual) -> str:
    """Which of the two the model finds likelier, and by how much."""
    upper, lower = (short(words or "nothing", 40) for words in seen.exchanged)
    return f"“{upper}” over “{lower}”: {_signed(seen.preference)} nats"


def _cell(seen: Counterfactual, side: int, place: int) -> str:
    if place < 0:
        return "<span>–</span>"
    marked = ' class="ak-differs"' if seen.differs[side][place] else ""
    return f"<span{marked}><bdi>{html.escape(short(visible(seen.strings[side][place]), 30))}</bdi></span>"


def _signed(nats: float) -> str:
    return f"{nats:+.2f}".replace("-", "−")
