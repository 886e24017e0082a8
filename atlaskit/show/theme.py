"""One look for all figures: palettes, fonts, light and dark.

Colours of paper and ink are CSS variables: JupyterLab's and VS Code's where the page has them, else the reader's
system preference. Palettes do not follow the theme, so each must read on white and on near-black.
"""

from __future__ import annotations

import html
import textwrap
from math import nan

from bokeh.models import (
    BasicTicker,
    BoxAnnotation,
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    Legend,
    LegendItem,
    LinearColorMapper,
    Model,
    Title,
)
from bokeh.palettes import RdBu11, Viridis256, interp_palette
from bokeh.plotting import figure

from atlaskit.show.labels import plain

SEQUENTIAL = Viridis256  # even steps of lightness, also for colour-blind readers
DIVERGING = tuple(interp_palette(tuple(RdBu11), 256))  # blue below zero, red above
SERIES = ("#2485D0", "#D55E00", "#008A64", "#B8609A", "#767676")  # each at least 3:1 on white and on #111
NEUTRAL = "#808080"  # undefined cells, null bands
BLANK = "rgba(0, 0, 0, 0)"
UNDEFINED = "rgba(128, 128, 128, 0.35)"

HATCH = {
    "fill_color": None,
    "hatch_pattern": "right_diagonal_line",
    "hatch_color": NEUTRAL,
    "hatch_alpha": 0.5,
    "hatch_scale": 8,
    "hatch_weight": 1,
}

# (light, dark) where the page says nothing.
PAPER, INK, SOFT, LINE = ("#ffffff", "#111111"), ("#111111", "#f2f2f2"), ("#424242", "#c6c6c6"), ("#757575", "#8a8a8a")

VARIABLES = """
  --ak-paper: var(--jp-layout-color0, var(--vscode-editor-background, {paper}));
  --ak-ink: var(--jp-ui-font-color0, var(--vscode-editor-foreground, {ink}));
  --ak-soft: var(--jp-ui-font-color1, var(--vscode-editor-foreground, {soft}));
  --ak-line: {line};
"""


def _variables(theme: int) -> str:
    return VARIABLES.format(paper=PAPER[theme], ink=INK[theme], soft=SOFT[theme], line=LINE[theme])


def palette_css(selector: str) -> str:
    """The variables --ak-paper, --ak-ink, --ak-soft and --ak-line under a CSS selector, light and dark."""
    return f"{selector} {{{_variables(0)}}}\n@media (prefers-color-scheme: dark) {{ {selector} {{{_variables(1)}}} }}\n"


FIGURE_CSS = (
    palette_css(":host")
    + """:host {
  --bk-background-fill-color: var(--ak-paper); --bk-border-fill-color: var(--ak-paper);
  --bk-text-color: var(--ak-ink);
  --bk-axis-label-text-color: var(--ak-ink); --bk-major-label-text-color: var(--ak-soft);
  --bk-label-text-color: var(--ak-ink); --bk-title-text-color: var(--ak-ink);
  --bk-axis-line-color: var(--ak-line); --bk-major-tick-line-color: var(--ak-line);
  --bk-minor-tick-line-color: var(--ak-line); --bk-outline-line-color: var(--ak-line);
}"""
)

TOOLTIP_STYLE = (
    "margin: -5px; padding: 7px 10px; white-space: pre-line; font: 13px/1.45 sans-serif; max-width: 32em; "
    "overflow-wrap: anywhere; color: var(--ak-ink); background: var(--ak-paper); border: 1px solid var(--ak-line);"
)


def dress(fig: figure, *, title: str, caption: str) -> figure:
    """Title, caption, fonts and colours. The caption is wrapped to the figure's width."""
    fig.stylesheets.append(FIGURE_CSS)
    if caption:
        lines = textwrap.fill(plain(caption), width=max(30, int((fig.frame_width or 600) / 6.2)))
        fig.add_layout(
            Title(text=lines, text_font_size="12px", text_font_style="normal", text_font="sans-serif"), "above"
        )
    fig.title.text = plain(title)
    fig.title.text_font_size = "15px"
    fig.title.text_font = "sans-serif"
    for axis in fig.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "13px"
        axis.axis_label_text_font = axis.major_label_text_font = "sans-serif"
        axis.major_label_text_font_size = "12px"
    fig.grid.grid_line_color = NEUTRAL
    fig.grid.grid_line_alpha = 0.25
    fig.toolbar.logo = None
    fig.toolbar.autohide = True
    return fig


def colour_bar(fig: figure, mapper: LinearColorMapper, *, unit: str, ticks: dict[float, str] | None = None) -> None:
    """A colour bar at the right. `ticks` names mapped values in the unit readers think in; without, they are plain."""
    bar = ColorBar(
        color_mapper=mapper,
        ticker=BasicTicker(desired_num_ticks=6) if ticks is None else FixedTicker(ticks=list(ticks)),
        major_label_overrides=ticks or {},
        title=plain(unit),
        width=14,
        padding=6,
        title_text_font="sans-serif",
        title_text_font_size="12px",
        title_text_font_style="normal",
        major_label_text_font="sans-serif",
        major_label_text_font_size="12px",
        # The inner axis of a bar is outside the reach of CSS variables until page.js attaches it; readable on both.
        major_label_text_color=SERIES[-1],
        title_text_color=SERIES[-1],
        bar_line_color=None,
        major_tick_line_color=None,
        background_fill_color=None,
    )
    fig.add_layout(bar, "right")


def checked(limits: tuple[float, float]) -> tuple[float, float]:
    """The limits of a colour scale, refused unless they rise and, around zero, are symmetric."""
    low, high = limits
    if not low < high:
        raise ValueError(f"limits must rise; here they are {low:g} … {high:g}")
    if low < 0 < high and low != -high:
        widest = max(-low, high)
        raise ValueError(
            f"limits around zero must be symmetric, so that zero is neutral; {low:g} … {high:g} is not. "
            f"Use ({-widest:g}, {widest:g})."
        )
    return low, high


def number(value: float) -> str:
    """Three significant figures, with a real minus sign."""
    return f"{value:.3g}".replace("-", "−")


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 … 21 (WCAG 2.2). Text needs 4.5, marks need 3."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(ground: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, ground))


def hatch(fig: figure) -> None:
    """Faint hatching behind the cells: what stays uncovered is undefined or impossible, never merely small."""
    fig.add_layout(BoxAnnotation(line_color=None, level="underlay", **HATCH))


def key(fig: figure, entries: dict[str, tuple[str, str]]) -> None:
    """A legend under the figure from {text: (mark, colour)}; the mark is a scatter marker, or "dash" for a line."""
    items = []
    for text, (mark, colour) in entries.items():
        if mark == "dash":
            sample = fig.line([nan, nan], [nan, nan], line_color=colour, line_width=3)
        else:
            edge = SERIES[0] if colour == BLANK else colour
            sample = fig.scatter([nan], [nan], marker=mark, size=11, fill_color=colour, line_color=edge, line_width=2)
        items.append(LegendItem(label={"value": plain(text)}, renderers=[sample]))
    fig.add_layout(legend(items), "below")


def legend(items: list[LegendItem]) -> Legend:
    """A legend without a box, in two columns."""
    return Legend(
        items=items,
        ncols=2,
        border_line_color=None,
        background_fill_alpha=0,
        label_text_font="sans-serif",
        label_text_font_size="12px",
        label_width=150,
        location="top_left",
        # The legend is HTML, coloured before it is on the page, where CSS variables are not known yet.
        stylesheets=[".bk-label { color: var(--ak-ink) !important; }"],
    )


def tooltip(*lines: str) -> str:
    """Lines of a hover box. Bokeh escapes what it puts in for @{column}; the rest is ours."""
    return f'<div style="{TOOLTIP_STYLE}">' + "\n".join(lines) + "</div>"


def hover_text(text: str) -> str:
    """Text of a caller inside a hover box: neither HTML nor a placeholder."""
    return html.escape(text).replace("@", "&#64;").replace("$", "&#36;")


def source(fig: Model) -> ColumnDataSource:
    """The columns behind a figure: what `bind` refills."""
    found = fig.select_one({"name": "atlaskit"})
    if found is None:
        raise ValueError("this figure has no source named 'atlaskit': it was not drawn by atlaskit.show")
    return found
