"""The explorer's page as a reader of it in a browser sees it: colours, words, controls."""

import numpy as np
import torch

from atlaskit import show
from atlaskit.records import Tokens

# A script, quotes, a line end, an emoji of two, right-to-left text, a combining mark, a direction mark.
HOSTILE = ["<script>alert(1)</script>", "\"'", "\n", "👩\u200d👧", "שלום", "e\u0301", "\u202eevil", "<img src=x>"]

# The colour of the large picture where a row and a column of cells cross, of so many rows and columns.
CELL = """([row, column, rows, columns]) => {
  const canvas = document.querySelector('.ak-main canvas'), sharp = canvas.width / canvas.clientWidth;
  const left = 92, top = 4, wide = canvas.clientWidth - 92 - 12, high = canvas.clientHeight - 4 - 86 - 48;
  const at = [left + (column + .5) * wide / columns, top + (row + .5) * high / rows].map(v => Math.floor(v * sharp));
  return '#' + [...canvas.getContext('2d').getImageData(...at, 1, 1).data].slice(0, 3)
    .map(v => v.toString(16).padStart(2, '0')).join('');
}"""
PICTURE = "() => document.querySelector('.ak-main canvas').toDataURL()"
SPOKEN = "text => [...document.querySelectorAll('.ak-unseen')].some(one => one.textContent.includes(text))"


def tokens_of(strings):
    """Tokens of a text that nobody had to write."""
    ends = np.cumsum([len(one) for one in strings])
    spans = torch.tensor([(end - len(one), end) for one, end in zip(strings, ends, strict=True)])
    n = len(strings)
    return Tokens("".join(strings), torch.arange(n), tuple(strings), spans, torch.zeros(n, dtype=torch.bool))


def shade(page, row, column, rows, columns):
    """The level 1 … 255 of the root of the weight that the large picture shows there."""
    colour = page.evaluate(CELL, [row, column, rows, columns])
    return [one.lower() for one in show.theme.SEQUENTIAL].index(colour)


def hear(dialog):
    """A dialog is an error, since only a token could open one; but JupyterLab may ask before unsaved changes go."""
    if dialog.type == "beforeunload":
        dialog.accept()
    else:
        dialog.page.errors.append(dialog.message)
        dialog.dismiss()


def until(page, script, arg=None):
    """Wait for a script to say true. Playwright's own waiting uses eval, which the page's security policy forbids."""
    for _ in range(300):
        if page.evaluate(script, arg):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never came true: {script} {arg}")


def changed(page, act):
    """Do something and wait until the large picture is another."""
    before = page.evaluate(PICTURE)
    act()
    until(page, f"before => ({PICTURE})() !== before", before)


def field(page, name):
    return page.locator(".ak-explorer").first.get_by_label(name, exact=True)
