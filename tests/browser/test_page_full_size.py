"""The largest page that the explorer promises: 12 × 12 heads, 1,024 tokens, from disk, against the eager attentions."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from explorer_page import HOSTILE, SPOKEN, changed, field, hear, shade, tokens_of, until
from transformers import GPT2Config, GPT2Model

from atlaskit import measure, models, show

pytestmark = pytest.mark.browser

LAYERS = HEADS = 12
N = 1024
MEASURES = {
    "entropy": (measure.entropy, "bits"),
    "previous token": (measure.mass_on(measure.previous_token), "mass"),
}
STRINGS = [HOSTILE[i % 16] if i % 16 < len(HOSTILE) else f"t{i}" for i in range(N)]
MAP = "Map of a measure, layers down, heads across"

# Where a cell of the map lies on the page: the same squares that are painted.
SQUARE = """([layer, head]) => {
  const canvas = document.querySelectorAll('.ak-side canvas')[1], {x, y, cell} = canvas.size;
  const box = canvas.getBoundingClientRect();
  return [box.x + x + (head + .5) * cell, box.y + y + (layer + .5) * cell];
}"""


def visible(string):
    """What is not seen, or would turn its neighbours round, has a sign."""
    return string.replace(" ", "␣").replace("\n", "⏎").replace("\u202e", "⟨202E⟩")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The page, and what a plain eager forward says of some heads: {head: pattern}, {measure: [layer head]}."""
    config = GPT2Config(
        vocab_size=5000, n_embd=192, n_layer=LAYERS, n_head=HEADS, n_inner=64, bos_token_id=0, eos_token_id=0
    )
    config.initializer_range = 0.2  # heads far from uniform
    torch.manual_seed(0)
    net = GPT2Model(config).eval()
    ids = torch.randint(5000, (N,), generator=torch.Generator().manual_seed(1))
    text = models.reread(models.wrap(net, name="random 12 × 12"), ids.tolist())
    tokens = tokens_of(STRINGS)
    explorer = show.Explorer(replace(text, tokens=tokens, source=tokens), measures=MEASURES)
    explorer.choose(layer=7, head=5, token=1000)
    page = show.export(explorer, tmp_path_factory.mktemp("page") / "atlas.html", title=HOSTILE[0])

    patterns, found = {}, {name: np.empty((LAYERS, HEADS)) for name in MEASURES}

    def look(layer, pattern):
        found["entropy"][layer] = torch.special.entr(pattern).sum(-1).mean(-1).numpy() / np.log(2)
        found["previous token"][layer] = pattern.diagonal(-1, dim1=1, dim2=2).mean(-1).numpy()
        if layer in (2, 7):
            patterns.update({(layer, head): one.numpy() for head, one in enumerate(pattern)})

    net.set_attn_implementation("eager")
    for i, block in enumerate(net.h):
        block.attn.register_forward_hook(lambda _module, _in, out, i=i: look(i, out[1][0]))
    with torch.inference_mode():
        net(ids[None])
    return page, patterns, found


def test_the_full_size_page_answers_by_mouse_and_keys_what_eager_attention_says(exported, page, tmp_path):
    path, patterns, found = exported
    assert path.stat().st_size <= 5_000_000
    page.on("dialog", hear)
    page.goto(path.as_uri())
    until(page, "Boolean(window.explorer?.ready())")
    note = page.locator(".ak-note").inner_text()
    assert note.startswith("1024 queries × 1024 keys, stored as ")
    high, wide, step, step_, shades = map(
        int, re.search(r"as (\d+) × (\d+) cells \(the largest of (\d+) × (\d+)\) in (\d+) shades", note).groups()
    )
    assert (high * step, wide * step_) == (N, N)
    rounding = 0.5 / (shades - 1) + 1 / 254  # of roots: to a stored shade, and from and to 255 of them

    def pooled(head):  # the largest of each block; nan where a block lies in the future
        cells = np.where(np.tri(N, dtype=bool), patterns[head], -1.0).reshape(high, step, wide, step_).max((1, 3))
        return np.where(cells < 0, np.nan, cells)

    def picture_is_of(head):
        expected = pooled(head)
        for row, column in ((20, 3), (100, 99), (140, 0), (200, 61), (255, 254)):
            seen = (shade(page, row, column, high, wide) - 1) / 254
            assert seen == pytest.approx(expected[row, column] ** 0.5, abs=rounding)

    picture_is_of((7, 5))
    # every cell, from the file of the picture's numbers
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    download.value.save_as(tmp_path / "cells.csv")
    cells = np.full((high, wide), np.nan)
    with (tmp_path / "cells.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cells[int(row["row"]) // step, int(row["key"]) // step_] = float(row["value"])
            assert row["row_name"] == f"{row['row']} “{visible(STRINGS[int(row['row'])])}”"
    np.testing.assert_allclose(np.sqrt(cells), np.sqrt(pooled((7, 5))), atol=rounding + 1e-4)

    def reads(head, token):
        """The strongest keys of a query are told in steps of 1/254 of the root, whatever the picture's resolution."""
        until(page, SPOKEN, f"Head {head[0]}.{head[1]}, token {token} ")
        rows = page.get_by_role("table", name="reads most").get_by_role("row").all()[1:]
        weights = patterns[head][token]
        expected = sorted(weights[: token + 1], reverse=True)
        assert len(rows) >= min(4, token + 1)
        for row, best in zip(rows, expected, strict=False):
            name, weight, ignorant = row.get_by_role("cell").all_inner_texts()
            assert float(weight) ** 0.5 == pytest.approx(best**0.5, abs=0.5 / 254 + 1e-3)
            assert float(weight) ** 0.5 == pytest.approx(weights[int(name.split()[0])] ** 0.5, abs=0.5 / 254 + 1e-3)
            assert float(ignorant) == pytest.approx(1 / (token + 1), rel=5e-3)

    def told(head):
        for name, values in found.items():
            row = page.get_by_role("table", name=f"head {head[0]}.{head[1]}").get_by_role("row", name=name)
            assert float(row.get_by_role("cell").nth(1).inner_text()) == pytest.approx(values[head], rel=5e-3)

    reads((7, 5), 1000)
    told((7, 5))
    # by mouse: a head in the map, a token in the picture, one in the strip, the other measure
    changed(page, lambda: page.mouse.click(*page.evaluate(SQUARE, [2, 9])))
    assert (field(page, "Layer").input_value(), field(page, "Head").input_value()) == ("2", "9")
    picture_is_of((2, 9))
    told((2, 9))
    box = page.locator(".ak-main canvas").bounding_box()
    changed(page, lambda: page.mouse.click(box["x"] + 92 + 5, box["y"] + 4 + (box["height"] - 4 - 86 - 48) * 0.5))
    token = int(field(page, "Token").input_value())
    assert abs(token - N / 2) <= 2  # half way down
    reads((2, 9), token)
    page.get_by_role("listbox").get_by_role("option").nth(3).click()
    token += 3 - 16  # the strip begins sixteen before the chosen one
    reads((2, 9), token)
    painted = "document.querySelectorAll('.ak-side canvas')[1].toDataURL()"
    before = page.evaluate(painted)
    field(page, "Map").select_option("previous token")
    assert page.evaluate(painted) != before
    # by keys: the same again
    maps, large, strip = page.get_by_label(MAP), page.locator(".ak-main canvas"), page.get_by_role("listbox")
    maps.focus()
    changed(page, lambda: maps.press("ArrowLeft"))
    reads((2, 8), token)
    picture_is_of((2, 8))
    large.focus()
    changed(page, lambda: large.press("ArrowDown"))
    strip.focus()
    changed(page, lambda: strip.press("PageDown"))
    reads((2, 8), token + 11)
    head = field(page, "Head")
    head.focus()
    changed(page, lambda: head.press("ArrowUp"))
    reads((2, 9), token + 11)
    layer = field(page, "Layer")
    layer.focus()
    layer.press("ControlOrMeta+a")
    changed(page, lambda: page.keyboard.type("7"))
    reads((7, 9), token + 11)
    told((7, 9))
    measures = field(page, "Map")
    measures.focus()
    measures.press("ArrowUp")
    assert page.evaluate(painted) != before  # another head is framed
    assert "entropy (bits)" in page.locator(".ak-side .ak-title").last.inner_text()
    # a token's row of every head
    changed(page, lambda: field(page, "Rows").select_option("token"))
    at = (token + 11) // step
    for head in ((7, 1), (2, 3)):
        seen = (shade(page, head[0] * HEADS + head[1], 20, LAYERS * HEADS, wide) - 1) / 254
        assert seen == pytest.approx(pooled(head)[at, 20] ** 0.5, abs=rounding)
    words = strip.evaluate("one => [...one.children].map(token => token.firstChild.textContent)")
    first = token + 11 - 16
    assert words == [visible(string) for string in STRINGS[first : first + 24]]
    assert set(map(visible, HOSTILE)) <= set(words)
    assert page.locator("main img, main script").count() == 0
    assert page.locator(".ak-explorer *").count() <= 300
    assert page.errors == page.outside == []
