"""The page's script and style, as text; nothing is fetched."""

from pathlib import Path

from atlaskit.show import theme


def asset(name: str) -> str:
    """A file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


SCRIPT = asset("canvas.js") + asset("explorer.js")
STYLE = theme.palette_css(".ak-explorer") + asset("explorer.css")
