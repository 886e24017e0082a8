"""Figures and explorers into files that need neither kernel nor network."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import LayoutDOM

from atlaskit.show import browser, theme
from atlaskit.show.explorer import Atlas
from atlaskit.show.page import html
from atlaskit.show.strip import Markup

KINDS = (".html", ".png", ".svg", ".csv", ".parquet")


def export(what: Atlas | LayoutDOM | Markup, path: str | Path, *, title: str = "") -> Path:
    """Write an explorer or a figure to a file: .html, which still answers; .png, .svg; its numbers as .csv, .parquet.

    Pictures are drawn by the Chromium or Chrome of this machine, as a reader would see them; RuntimeError without one.
    """
    path = Path(path)
    if path.suffix not in KINDS:
        raise ValueError(f"{path.name}: a file may end in {', '.join(KINDS)}")
    if path.suffix == ".csv":
        _write_csv(path, table(what))
        return path
    if path.suffix == ".parquet":
        _write_parquet(path, table(what))
        return path
    page = what.page(title=title) if isinstance(what, Atlas) else html(what, title=title or "atlaskit")
    if path.suffix == ".html":
        path.write_text(page, encoding="utf-8")
    else:
        path.write_bytes(browser.picture(page, path.suffix.removeprefix(".")))
    return path


def table(what: Atlas | LayoutDOM | Markup) -> dict[str, list[Any]]:
    """The numbers behind a figure, column by column; of an explorer, the head that it shows."""
    if isinstance(what, Markup):
        raise ValueError("a token strip is its own table: its numbers are in its text")
    if isinstance(what, Atlas):
        return what.table()
    data = theme.source(what).data
    sizes = {name: len(values) for name, values in data.items()}
    if max(sizes.values()) > 1 or not any(np.ndim(values[0]) for values in data.values()):
        return {name: list(values) for name, values in data.items()}
    # an image is one row: its cells, by row and column of the picture
    image = np.asarray(data["image"][0])
    rows, columns = np.indices(image.shape)
    return {"row": rows.ravel().tolist(), "column": columns.ravel().tolist(), "level": image.ravel().tolist()}


def _write_csv(path: Path, columns: dict[str, list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeError(f"{path.name} needs pyarrow: pip install 'atlaskit[parquet]', or write a .csv") from error
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
