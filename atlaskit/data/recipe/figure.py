"""The loss curve of a card, as a small SVG that needs nothing to be seen."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from atlaskit.training import Curve

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 50, 130, 16, 40
BINS = 120
INK, FAINT, TRAIN, HELD_OUT = "#333333", "#dddddd", "#7a9cc6", "#b3452c"


def loss_curve(curve: Curve, baselines: Mapping[str, float]) -> str:
    """Training loss (averaged over a 120th of the run), held-out loss, and a line for each baseline."""
    steps = len(curve.loss)
    size = max(1, steps // BINS)
    train = [(i + size / 2, sum(curve.loss[i : i + size]) / size) for i in range(0, steps - size + 1, size)]
    held_out = [(float(step), loss) for step, loss in sorted(curve.held_out.items())]
    values = [loss for _, loss in train + held_out] + list(baselines.values())
    low, high = int(min(values)), int(max(values)) + 1

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / steps

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)

    def path(points: list[tuple[float, float]]) -> str:
        return " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in points)

    def label(at_x: float, at_y: float, text: str, *, anchor: str = "start", colour: str = INK) -> str:
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'

    end = WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f"<title>Loss over {steps:,} training steps, beside n-gram baselines</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for grid in range(low, high + 1):
        parts.append(f'<line x1="{LEFT}" x2="{end}" y1="{y(grid):.1f}" y2="{y(grid):.1f}" stroke="{FAINT}"/>')
        parts.append(label(LEFT - 8, y(grid) + 4, str(grid), anchor="end"))
    for name, loss in baselines.items():
        line = f'y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="{INK}" stroke-dasharray="4 4"'
        parts += [f'<line x1="{LEFT}" x2="{end}" {line}/>', label(end + 6, y(loss) + 4, f"{name} {loss:.2f}")]
    parts.append(f'<polyline points="{path(train)}" fill="none" stroke="{TRAIN}" stroke-width="1.5"/>')
    parts.append(f'<polyline points="{path(held_out)}" fill="none" stroke="{HELD_OUT}" stroke-width="2"/>')
    parts += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="2.5" fill="{HELD_OUT}"/>' for s, v in held_out]
    # Named in a corner that a falling curve leaves empty.
    names = ((TRAIN, "training mixture"), (HELD_OUT, f"held-out text {held_out[-1][1]:.2f}"))
    parts += [label(end - 8, TOP + 16 + 16 * i, name, anchor="end", colour=c) for i, (c, name) in enumerate(names)]
    for step in (0, steps // 2, steps):
        parts.append(label(x(step), HEIGHT - BOTTOM + 18, f"{step:,}", anchor="middle"))
    parts.append(label((LEFT + end) / 2, HEIGHT - 6, "optimizer step", anchor="middle"))
    parts.append(
        f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})" text-anchor="middle" fill="{INK}">'
    )
    return "\n".join([*parts, "nats per token</text>", "</svg>", ""])
