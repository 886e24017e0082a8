"""Figures and explorers into files that need neither kernel nor network."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from bokeh.models import LayoutDOM

from atlaskit.show import browser, numbers
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
    return numbers.columns_of(what)


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
