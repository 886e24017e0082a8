"""The explorer in process: what it answers, by token and by word, for one text and for two."""

import csv
import gc
import io
import itertools
import json
import math
import re
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np
import psutil
import pytest
import torch

from atlaskit import measure, show
from atlaskit.models import PLANTED, ablation_effects, capture, layer_effects, load, planted, wrap
from atlaskit.records import Capture, LayerAttention, Tokens
from atlaskit.show import still
from atlaskit.show.board import Single, reply, start
from atlaskit.show.explorer import read_all
from atlaskit.show.heads import captured, reader
from atlaskit.show.overview import Overview
from atlaskit.show.pair import aligned
from atlaskit.show.pictures import Pictures
from atlaskit.show.words import by_token, by_word

MEASURES = {
    "entropy": (measure.entropy, "bits"),
    "previous token": (measure.mass_on(measure.previous_token), "mass"),
}


def tokens_of(text, spans, special=()):
    flags = torch.zeros(len(spans), dtype=torch.bool)
    flags[list(special)] = True
    names = tuple(text[a:b] if a < b else f"[{i}]" for i, (a, b) in enumerate(spans))
    return Tokens(text, torch.arange(len(spans)), names, torch.tensor(spans), flags)


def capture_of(n=20, *, n_layer=2, n_head=3, seed=0, tokens=None, values=True):
    """A made-up decoder's capture: causal rows that sum to one, and value vectors."""
    generator = torch.Generator().manual_seed(seed)
    tokens = tokens or tokens_of("a " * n, [(2 * i, 2 * i + 1) for i in range(n)])
    support, layers = torch.ones(n, n, dtype=torch.bool).tril(), []
    for layer in range(n_layer):
        scores = torch.randn(n_head, n, n, generator=generator) * 2
        pattern = scores.masked_fill(~support, -math.inf).softmax(-1)
        v = torch.randn(n_head, n, 4, generator=generator) if values else None
        layers.append(LayerAttention(layer, "decoder", pattern, support, None, None, v, None, None, "", ""))
    return Capture("made up", tokens, tokens, tuple(layers))


def asked(explorer, **change):
    return explorer.state | change | {"need": {"pictures": True, "row": True, "tiles": True}, "number": 1}


@pytest.fixture(scope="module")
def explorer():
    return show.Explorer(capture_of(), measures=MEASURES)


def test_words_are_the_tokens_that_touch_the_same_word_of_the_text():
    text = "The unbelievable cat's nap."
    spans = [(0, 0), (0, 3), (4, 6), (6, 16), (16, 20), (20, 21), (21, 22), (22, 26), (26, 27), (0, 0)]
    units = by_word(tokens_of(text, spans, special=(0, 9)))
    assert units.names == ("[0]", "The", "unbelievable", " cat", "'", "s", " nap", ".", "[9]")
    assert units.starts.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert units.special.tolist() == [True] + [False] * 7 + [True]
    assert len(by_token(tokens_of(text, spans))) == len(spans)


def test_attention_between_words_sums_over_keys_and_means_over_queries_so_rows_still_sum_to_one():
    tokens = tokens_of("abcd ef gh", [(0, 2), (2, 4), (5, 6), (6, 7), (7, 10)])
    seen = capture_of(5, tokens=tokens)
    read = reader(captured(seen), words=True)
    assert read.rows.names == ("abcd", "ef", " gh")
    cells = read.cells(1, slice(0, 3))
    pattern = seen.layers[1].pattern
    blocks = [[0, 1], [2, 3], [4]]
    for i, rows in enumerate(blocks):
        for j, columns in enumerate(blocks):
            expected = pattern[:, rows][:, :, columns].sum(-1).mean(-1)
            torch.testing.assert_close(cells.weights[:, i, j], expected)
    torch.testing.assert_close(cells.weights.sum(-1), torch.ones(3, 3))


def test_without_sinks_rows_are_scaled_back_and_a_row_that_had_nothing_else_is_undefined():
    seen = capture_of(6, tokens=tokens_of("a b c d e f", [(2 * i, 2 * i + 1) for i in range(6)], special=(3,)))
    cells = reader(captured(seen), sinks=False).cells(0, slice(0, 6))
    assert not cells.defined[:, 0].any()  # the first query sees the first key alone
    assert not cells.defined[:, :, [0, 3]].any()
    torch.testing.assert_close(cells.weights[:, 1:].sum(-1), torch.ones(3, 5))
    rest = seen.layers[0].pattern[:, 5, [1, 2, 4, 5]]
    torch.testing.assert_close(cells.weights[:, 5, [1, 2, 4, 5]], rest / rest.sum(-1, keepdim=True))


def test_a_picture_is_the_root_of_the_weight_in_255_steps_and_blank_where_attention_is_impossible(explorer):
    seen = capture_of()
    picture = explorer.board.views.head(1, 2)
    weights = np.where(picture.levels > 0, ((picture.levels.astype(float) - 1) / 254) ** 2, np.nan)
    np.testing.assert_array_equal(np.isnan(weights), ~seen.layers[1].support.numpy())
    expected = seen.layers[1].pattern[2].numpy()
    # half a step of the root
    assert np.nanmax(np.abs(np.sqrt(weights) - np.sqrt(expected))) <= 0.5 / 254 + 1e-6


def test_lift_is_the_binary_logarithm_of_weight_over_ignorance_with_zero_in_the_middle():
    seen = capture_of()
    picture = Pictures(captured(seen)).head(0, 0, "lift")
    limit = math.ceil(math.log2(20))
    pattern, choices = seen.layers[0].pattern[0], torch.arange(1, 21)[:, None]
    expected = 128 + 127 * (pattern * choices).log2().clamp(-limit, limit) / limit
    inside = seen.layers[0].support
    assert np.abs(picture.levels[inside] - expected[inside].numpy()).max() <= 0.5 + 1e-4
    assert picture.levels[0, 0] == 128  # one key alone: as ignorance has it


def test_value_weighting_multiplies_by_the_length_of_the_value_vector():
    seen = capture_of()
    picture = Pictures(captured(seen)).head(1, 1, "value")
    longest = max(layer.v.norm(dim=-1).max() for layer in seen.layers)
    expected = 1 + 254 * (seen.layers[1].pattern[1] * seen.layers[1].v[1].norm(dim=-1) / longest).sqrt()
    inside = seen.layers[1].support
    assert np.abs(picture.levels[inside] - expected[inside].numpy()).max() <= 0.5 + 1e-4


def test_without_value_vectors_weighting_by_them_is_refused_in_words():
    explorer = show.Explorer(capture_of(values=False))
    assert [one["name"] for one in explorer.meta["colours"]] == ["weight", "lift", "cause"]
    with pytest.raises(ValueError, match="does not tell its value vectors: colour by weight or by lift"):
        explorer.board.pictures(asked(explorer, colour="value"))


def test_a_long_text_is_pooled_to_512_cells_by_the_largest_and_refined_in_a_window():
    seen = capture_of(1100, n_layer=1, n_head=1)
    views = Pictures(captured(seen))
    whole = views.head(0, 0)
    assert whole.levels.shape == (367, 367)
    assert whole.steps == (3, 3)
    pattern = seen.layers[0].pattern[0]
    for row, column in ((366, 0), (200, 100), (5, 5)):
        largest = pattern[3 * row : 3 * row + 3, 3 * column : 3 * column + 3].max()
        assert abs(whole.levels[row, column] - (1 + 254 * largest.sqrt())) <= 0.5 + 1e-4
    part = views.head(0, 0, window=(300, 400, 20, 70))
    assert part.levels.shape == (100, 50)
    assert part.steps == (1, 1)
    expected = 1 + 254 * pattern[300:400, 20:70].sqrt()
    assert np.abs(part.levels - expected.numpy()).max() <= 0.5 + 1e-4


def test_tiles_of_queries_give_what_the_whole_gives(monkeypatch):
    seen = capture_of(700, n_layer=1, n_head=2)
    whole = Pictures(captured(seen)).layer(0, words=False, sinks=False)
    monkeypatch.setattr("atlaskit.show.heads.TILE", 4 * 2 * 700 * 37)  # 37 queries, blocks are of 2
    parts = Pictures(captured(seen)).layer(0, words=False, sinks=False)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.levels, other.levels)


def test_one_query_of_every_head_is_that_row_of_each_picture(explorer):
    across = explorer.board.views.across(13)
    assert across.levels.shape == (6, 20)
    for i in range(6):
        np.testing.assert_array_equal(across.levels[i], explorer.board.views.head(i // 3, i % 3).levels[13])


def test_a_row_is_exact_and_stands_beside_the_ignorant_head(explorer):
    weights, ignorant = explorer.board.row(asked(explorer, layer=1, head=0, token=4))
    np.testing.assert_array_equal(weights[:5], capture_of().layers[1].pattern[0, 4, :5].numpy())
    np.testing.assert_allclose(ignorant[:5], 0.2, rtol=1e-6)
    assert np.isnan(weights[5:]).all()
    assert np.isnan(ignorant[5:]).all()


def test_the_planted_heads_are_where_the_map_says_and_the_page_opens_there():
    seen = capture(planted(), "ash bay cat dew elm ash bay cat dew elm")
    explorer = show.Explorer(seen, measures={"previous token": MEASURES["previous token"]})
    values = explorer.board.overview.values[0]
    assert values[0, 0] == pytest.approx(1)
    assert (explorer.state["layer"], explorer.state["head"]) == (0, 0)
    # 1/(i + 1) of the ignorant head's weight lies on the token before, averaged over queries that have a choice of both
    expected = np.mean([1 / (i + 1) for i in range(1, 10)])
    np.testing.assert_allclose(explorer.board.overview.chance[0], expected, rtol=1e-6)
    np.testing.assert_allclose(values[1, 1:], expected, rtol=1e-5)  # planted uniform heads


def test_numbers_found_elsewhere_are_a_map_without_a_null_and_must_fit():
    effects = np.arange(6.0).reshape(2, 3)
    explorer = show.Explorer(capture_of(), measures=MEASURES, effects={"ablation": effects})
    np.testing.assert_array_equal(explorer.board.overview.values[2], effects)
    assert explorer.meta["measures"][2] == {"name": "ablation", "unit": "given", "signed": True, "has_null": False}
    with pytest.raises(ValueError, match="'ablation' is 3 layers × 2 heads; this text was read by 2 × 3"):
        show.Explorer(capture_of(), effects={"ablation": effects.T})


EFFECTS = np.array([[0.5, -0.125, 0.0], [np.nan, 0.02, -2.0]])


@pytest.mark.parametrize("rows", ["head", "token"])
def test_by_cause_a_cell_is_the_weight_times_what_the_head_is_worth_so_that_a_row_adds_up_to_that(rows):
    seen = capture_of()
    explorer = show.Explorer(seen, measures=MEASURES, cause=EFFECTS)
    (entry,) = [one for one in explorer.meta["colours"] if one["name"] == "cause"]
    assert entry["label"] == "weight × loss without the head (nats per token)"
    assert (entry["scale"], entry["ticks"][0], entry["ticks"][-1]) == (
        {"kind": "signed root", "top": 2.0}, [1, "−2"], [255, "2"]
    )  # fmt: skip
    place = [one["name"] for one in explorer.meta["measures"]].index("causal effect")
    np.testing.assert_array_equal(explorer.board.overview.values[place], EFFECTS.astype(np.float32))
    for layer, head in np.ndindex(2, 3):
        question = asked(explorer, colour="cause", layer=layer, head=head, rows=rows, token=13)
        (picture,) = explorer.board.pictures(question)
        shown = picture.levels if rows == "head" else picture.levels[None, 3 * layer + head]
        pattern, inside = seen.layers[layer].pattern[head].numpy(), seen.layers[layer].support.numpy()
        if rows == "token":
            pattern, inside = pattern[[13]], inside[[13]]
        if np.isnan(EFFECTS[layer, head]):
            assert not shown.any()
            continue
        np.testing.assert_array_equal(shown > 0, inside)
        share = (shown.astype(float) - 128) / 127
        expected = EFFECTS[layer, head] * pattern / 2
        error = np.abs(share - np.sign(expected) * np.sqrt(np.abs(expected)))[inside]
        assert error.max() <= 0.5 / 127 + 0.5 / 254 + 1e-6  # half a step, and half of the weights' own
    tiles = explorer.board.tiles(asked(explorer, colour="cause"))
    assert tiles[1, 2][tiles[1, 2] > 0].max() <= 128 <= tiles[0, 0][tiles[0, 0] > 0].min()
    assert set(np.unique(tiles[0, 2])) == {0, 128}


def test_small_pictures_take_the_colour_that_was_chosen_too():
    explorer = show.Explorer(capture_of())
    for colour in ("lift", "value"):
        tiles = explorer.board.tiles(asked(explorer, colour=colour))
        np.testing.assert_array_equal(tiles[1, 2], explorer.board.views.head(1, 2, colour).levels)
    assert explorer.board.tiles(asked(explorer)) is explorer.board.overview.tiles


def told_by(explorer, monkeypatch):
    sent = []
    monkeypatch.setattr(explorer, "send", lambda content, buffers=None: sent.append(content))
    return sent


def test_causal_effects_are_found_on_request_a_layer_at_a_time(monkeypatch):
    model = planted()
    explorer = show.Explorer(capture(model, TWICE), measures=MEASURES, cause=lambda: layer_effects(model, TWICE))
    sent = told_by(explorer, monkeypatch)
    with pytest.raises(ValueError, match="causal effects are not known yet: find_causes"):
        explorer.choose(colour="cause")
    assert "causal effect" not in explorer.page()  # nobody asked
    explorer._handle_custom_msg({"find": True}, [])
    explorer.find_causes().join(60)  # the search that is under way
    assert [one["finding"] for one in sent if one.get("finding")] == [
        f"finding what the model loses without each head: {i} of 2 layers" for i in range(3)
    ]
    assert [one for one in sent if one.get("overview")]
    assert sent[-1]["colour"]["scale"]["top"] > 0
    assert "asks" not in sent[-1]["colour"]
    effects = explorer.board.overview.values[-1]
    np.testing.assert_allclose(effects, ablation_effects(model, [TWICE])["effect"][0], atol=1e-6)
    assert divmod(int(effects.argmax()), 5) in (PLANTED["induction"], PLANTED["previous_token"])  # all that it knows
    explorer.choose(colour="cause")
    assert still.png(explorer.board, explorer.state)
    assert '"causal effect"' in explorer.page()


def test_a_search_stops_after_the_layer_under_way_and_a_refusal_is_told(monkeypatch):
    at_work, stopped = threading.Event(), threading.Event()

    def slowly():
        yield np.zeros(3)
        at_work.set()
        assert stopped.wait(60)
        yield np.zeros(3)

    explorer = show.Explorer(capture_of(), cause=slowly)
    sent, work = told_by(explorer, monkeypatch), explorer.find_causes()
    assert at_work.wait(60)
    explorer._handle_custom_msg({"halt": True}, [])
    stopped.set()
    work.join(60)
    assert explorer.board.causes is None
    assert sent[-1] == {"finding": "", "failure": ""}

    def refused():
        raise TypeError("tiny gives no logits")
        yield

    other = show.Explorer(capture_of(), cause=refused)
    sent = told_by(other, monkeypatch)
    other.find_causes().join(60)
    assert sent[-1]["failure"] == "tiny gives no logits"
    wrong = show.Explorer(capture_of(), cause=lambda: iter([np.zeros(3)]))
    sent = told_by(wrong, monkeypatch)
    wrong.find_causes().join(60)
    assert "the causal effects are 1 × 3; this text was read by 2 × 3 layers × heads" in sent[-1]["failure"]


def test_without_a_way_to_find_causes_the_choice_says_how_to_give_one():
    explorer = show.Explorer(capture_of())
    (entry,) = [one for one in explorer.meta["colours"] if one["name"] == "cause"]
    assert "cause=lambda: models.layer_effects(model, text)" in entry["how"]
    with pytest.raises(ValueError, match="is not known here"):
        explorer.find_causes()


def test_a_head_that_is_not_there_has_blank_pictures():
    narrow, wide = capture_of(n_layer=1, n_head=1), capture_of(n_layer=2)
    both = Capture("hybrid", wide.tokens, wide.tokens, (narrow.layers[0], wide.layers[1]))
    explorer = show.Explorer(both, measures=MEASURES)
    assert np.isnan(explorer.board.overview.values[:, 0, 1:]).all()
    assert not explorer.board.overview.tiles[0, 1:].any()
    assert not explorer.board.views.across(5).levels[1:3].any()
    assert not explorer.board.pictures(asked(explorer, layer=0, head=2))[0].levels.any()
    assert np.isnan(explorer.board.row(asked(explorer, layer=0, head=2))).all()


def test_choosing_what_does_not_exist_is_refused_with_what_there_is(explorer):
    explorer.choose(layer=1, head=2)
    assert (explorer.state["layer"], explorer.state["head"]) == (1, 2)
    with pytest.raises(ValueError, match="there is no lyaer to choose; there are layer, head, token"):
        explorer.choose(lyaer=1)


def test_a_capture_without_that_kind_of_attention_says_which_it_has():
    with pytest.raises(ValueError, match="made up has no cross attention in this capture; it has decoder"):
        show.Explorer(capture_of(), kind="cross")


def test_an_answer_never_carries_more_than_half_a_megabyte():
    explorer = show.Explorer(capture_of(2100, n_layer=1, n_head=1))
    for rows in ("head", "token"):
        question = asked(explorer, rows=rows) | {"need": {"pictures": True, "row": True}}
        answer, buffers = reply(explorer.board, question)
        assert len(json.dumps(answer)) + sum(one.nbytes for one in buffers) < 500_000
    assert explorer.board.overview.tiles.nbytes < 1_000_000


def test_hostile_tokens_reach_the_page_as_text_and_cannot_end_its_script():
    hostile = "</script><script>alert(1)</script>"
    tokens = tokens_of(hostile + "\n'\"", [(0, 34), (34, 35), (35, 36), (36, 37)])
    explorer = show.Explorer(capture_of(4, tokens=tokens))
    page = explorer.page(title=hostile)
    assert hostile not in page
    assert page.count("<script>") == 1
    assert explorer.meta["units"]["tokens"]["rows"] == ["</script><script>alert(1)</script>", "⏎", "'", '"']


def test_a_page_says_its_resolution_and_stays_small():
    explorer = show.Explorer(capture_of(600, n_layer=3, n_head=4), measures=MEASURES)
    page = explorer.page()
    said = re.search(r"600 queries × 600 keys, stored as (\d+) × (\d+) cells .* in (\d+) shades", page)
    assert said
    assert len(page) < 5_000_000


def test_a_page_that_would_not_fit_is_refused_with_the_sizes(monkeypatch):
    monkeypatch.setattr("atlaskit.show.offline.LARGEST_PAGE", 50_000)
    with pytest.raises(ValueError, match=r"the page would take .* MB, the limit is 0 MB: 20 tokens × 6 heads"):
        show.Explorer(capture_of()).page()


def test_the_table_of_a_head_holds_its_exact_weights(explorer, tmp_path):
    explorer.choose(layer=1, head=0)
    path = show.export(explorer, tmp_path / "head.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 * 21 // 2
    weights = capture_of().layers[1].pattern[0]
    for row in rows[::17]:
        assert float(row["weight"]) == float(weights[int(row["query"]), int(row["key"])])
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(show.export(explorer, tmp_path / "head.parquet"))
    assert table.column("weight").to_pylist() == [float(row["weight"]) for row in rows]


def test_a_figures_table_is_its_columns_and_an_images_its_cells(tmp_path):
    grid = show.head_grid(np.eye(2), title="T", unit="bits", limits=(0.0, 1.0))
    lines = show.export(grid, tmp_path / "grid.csv").read_text().splitlines()
    assert lines[0].startswith("layer,head,score")
    assert len(lines) == 5
    heat = show.heatmap(np.eye(3, dtype=np.float32), ["a", "b", "c"], np.ones((3, 3), bool), title="T")
    assert len(show.export(heat, tmp_path / "heat.csv").read_text().splitlines()) == 10


def test_what_cannot_be_exported_is_refused_in_words(explorer, tmp_path):
    with pytest.raises(ValueError, match=r"atlas\.gif: a file may end in \.html, \.png, \.svg, \.csv, \.parquet"):
        show.export(explorer, tmp_path / "atlas.gif")
    strip = show.token_strip(["a"], np.ones(1), title="T", unit="bits", limits=(0.0, 1.0))
    with pytest.raises(ValueError, match="a token strip is its own table"):
        show.export(strip, tmp_path / "strip.csv")


def test_drawing_without_a_browser_says_what_to_do(explorer, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(RuntimeError, match="no Chromium or Chrome on this machine to draw with: install one"):
        show.export(explorer, tmp_path / "head.png")


def test_a_text_compared_with_itself_has_not_changed():
    same = show.Compare(capture_of(), capture_of(), measures=MEASURES)
    np.testing.assert_array_equal(same.board.overview.values, 0)
    before, after, difference = same.board.pictures(asked(same))
    np.testing.assert_array_equal(before.levels, after.levels)
    assert set(np.unique(difference.levels)) == {0, 128}


def test_attention_that_moved_is_half_the_absolute_difference_averaged_over_queries():
    one, other = capture_of(seed=0), capture_of(seed=1)
    compared = show.Compare(one, other, names=("a", "b"))
    for layer in range(2):
        moved = (other.layers[layer].pattern - one.layers[layer].pattern).abs().sum(-1)[:, 1:].mean(-1) / 2
        np.testing.assert_allclose(compared.board.overview.values[0, layer], moved.numpy(), rtol=1e-5)
    difference = compared.board.pictures(asked(compared, layer=1, head=2))[2].levels.astype(float)
    expected = (other.layers[1].pattern - one.layers[1].pattern)[2].numpy()
    shown = np.sign(difference - 128) * ((difference - 128) / 127) ** 2
    inside = one.layers[1].support.numpy()
    assert np.abs(np.sqrt(np.abs(shown)) - np.sqrt(np.abs(expected)))[inside].max() <= 0.5 / 127 + 1e-6
    table = compared.table()
    assert set(table) == {"query", "key", "query_token", "key_token", "before", "after", "difference"}


def ranked(compared, name):
    """The heads, most changed first in that map, as the page ranks them; and the map."""
    place = [one["name"] for one in compared.meta["measures"]].index(name)
    values = compared.board.overview.values[place]
    order = np.argsort(-np.abs(values), axis=None)
    return [divmod(int(i), values.shape[1]) for i in order], values


TWICE = "ash bay cat dew elm fig gum hay ash bay cat dew elm fig gum hay"


def test_an_ablated_head_is_found_by_what_it_writes_and_who_read_it_by_where_it_looks():
    model = planted()
    whole, cut = capture(model, TWICE), capture(model, TWICE, without=[PLANTED["previous_token"]])
    compared = show.Compare(whole, cut, names=("whole", "without 0.0"), measures=MEASURES)
    order, moved = ranked(compared, "attention moved")
    assert order[0] == PLANTED["induction"]  # it looks for what the ablated head wrote
    np.testing.assert_array_equal(moved[0], 0)  # heads of the ablated layer had read before it fell silent
    assert moved[PLANTED["induction"]] > 0.3 > 1e-4 > sorted(moved.ravel())[-2]
    order, written = ranked(compared, "writing moved")
    assert order[0] == PLANTED["previous_token"]
    assert [tuple(one) for one in np.argwhere(written > 1e-4)] == [PLANTED["previous_token"], PLANTED["induction"]]
    # in closed form: it wrote a word each time, and now the mean of all
    words = torch.nn.functional.one_hot(torch.tensor([0, *range(8), *range(8)])[:16]).double()
    expected = (words - words.mean(0)).norm(dim=-1).mean()
    assert written[PLANTED["previous_token"]] == pytest.approx(float(expected), rel=1e-4)
    page = compared.page()
    assert '"writing moved"' in page


def test_of_two_checkpoints_the_head_that_was_changed_between_them_ranks_first():
    earlier, later = planted(), planted()
    with torch.no_grad():  # the induction head has not been born: its query asks for nothing
        earlier.net.transformer.h[1].attn.c_attn.weight[:, :64] = 0
    earlier, later = (replace(one, name=name) for one, name in ((earlier, "step 1"), (later, "step 2")))
    compared = show.Compare(*(capture(one, TWICE) for one in (earlier, later)), measures=MEASURES)
    assert [panel["name"] for panel in compared.meta["panels"]] == ["step 1", "step 2", "step 2 − step 1"]
    order, moved = ranked(compared, "attention moved")
    assert order[0] == PLANTED["induction"]
    assert np.flatnonzero(moved).tolist() == [5]
    # two models' streams are not one: lengths between them are not offered
    assert "writing moved" not in [one["name"] for one in compared.meta["measures"]]


def test_between_two_bundled_checkpoints_the_head_that_was_born_ranks_first():
    ids = measure.random_repeats(torch.arange(10, 200), documents=1, seed=3)[0]
    before, after = (capture(load(f"mini-steps/{step}"), ids) for step in (6500, 7000))
    asked_for = {"induction": (measure.mass_on(measure.induction), "mass")}
    compared = show.Compare(before, after, measures=asked_for)
    order, gained = ranked(compared, "change in induction")
    own = [torch.stack([measure.mass(one.pattern, one.support, measure.induction(seen.tokens)).nanmean(-1)
                        for one in seen.layers]) for seen in (before, after)]  # fmt: skip
    np.testing.assert_allclose(gained, (own[1] - own[0]).numpy(), atol=1e-5)
    assert order[0] == divmod(int(own[1].argmax()), own[1].shape[1])  # it is the induction head of the later one
    assert gained[order[0]] > 0.1


def test_two_texts_are_aligned_by_words_and_a_replaced_name_stands_for_the_other():
    one = by_word(tokens_of("The cat sat down", [(0, 3), (4, 7), (8, 11), (12, 16)]))
    other = by_word(tokens_of("Then the big dog sat down", [(0, 4), (5, 8), (9, 12), (13, 16), (17, 20), (21, 25)]))
    assert aligned(one, other).tolist() == [[2, 4], [3, 5]]
    third = by_word(tokens_of("The dog sat down", [(0, 3), (4, 7), (8, 9), (9, 11), (12, 16)]))
    assert aligned(one, third).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    spans = [(0, 3), (4, 7), (8, 11), (12, 16)]
    seen = [capture_of(4, tokens=tokens_of(text, spans)) for text in ("The cat sat down", "The dog sat down")]
    assert show.Compare(*seen).meta["units"]["tokens"]["rows"] == ["The", "cat/dog", "sat", "down"]


def test_texts_with_nothing_in_common_and_models_of_other_sizes_are_refused_with_the_sizes():
    short = capture_of(4, tokens=tokens_of("a b c d", [(0, 1), (2, 3), (4, 5), (6, 7)]))
    other = capture_of(3, tokens=tokens_of("x y z", [(0, 1), (2, 3), (4, 5)]))
    with pytest.raises(ValueError, match="the texts share 0 places of 4 and 3 words; a comparison needs at least 2"):
        show.Compare(short, other)
    with pytest.raises(ValueError, match="made up has 2 layers × 3 heads and made up 1 × 3: heads are compared one"):
        show.Compare(capture_of(), capture_of(n_layer=1))


def test_an_untrained_encoder_is_shown_too():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    model = wrap(BertModel(config).eval(), name="tiny")
    explorer = show.Explorer(capture(model, list(range(5, 20))), measures={"entropy": MEASURES["entropy"]})
    assert explorer.meta["layers"] == [0, 1]
    assert explorer.board.pictures(asked(explorer))[0].levels.min() >= 1  # all cells are possible


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr("atlaskit.show.pictures.KEPT", 3 * 400)
    views = Pictures(captured(capture_of()))
    for layer in range(2):
        for head in range(3):
            views.head(layer, head)
    assert len(views.kept) == 3
    assert (1, 2, "weight", False, True) in views.kept


def test_nothing_measured_opens_at_the_first_head():
    board = Single(captured(capture_of()), {}, {})
    assert isinstance(board.overview, Overview)
    assert (start(board)["layer"], start(board)["head"], start(board)["token"]) == (0, 0, 19)


def test_a_linked_figure_and_the_explorer_choose_together():
    explorer = show.Explorer(capture_of(), measures=MEASURES)
    fig = show.head_grid(np.zeros((2, 3)), title="T", unit="bits", limits=(0.0, 1.0))
    explorer.link(fig)
    chosen = show.source(fig).selected
    explorer.choose(layer=1, head=2)
    assert chosen.indices == [5]
    chosen.indices = [1]
    assert (explorer.state["layer"], explorer.state["head"]) == (0, 1)
    chosen.indices = []  # a tap beside the cells
    assert (explorer.state["layer"], explorer.state["head"]) == (0, 1)
    curve = show.curve(np.arange(3.0), {"a": np.arange(3.0)}, title="T", x_label="x", y_label="y")
    with pytest.raises(ValueError, match="the figure's rows are not this explorer's heads, so it cannot be linked"):
        explorer.link(curve)


def test_a_map_of_heads_is_linked_by_their_names():
    explorer = show.Explorer(capture_of(), measures=MEASURES)
    names = ["1.2", "0.1", "1.0"]
    fig = show.points(np.eye(3)[:, :2], names, groups=["a", "b", "a"], title="T")
    explorer.link(fig)
    show.source(fig).selected.indices = [0]
    assert (explorer.state["layer"], explorer.state["head"]) == (1, 2)
    explorer.choose(layer=0, head=1)
    assert show.source(fig).selected.indices == [1]
    explorer.choose(layer=0, head=0)  # which the map does not show
    assert show.source(fig).selected.indices == []
    with pytest.raises(ValueError, match="are not this explorer's heads"):
        explorer.link(show.points(np.eye(3)[:, :2], ["1.2", "0.1", "7.7"], groups=list("aba"), title="T"))


def test_a_figure_follows_the_chosen_head_and_its_own_controls():
    explorer = show.Explorer(capture_of(), measures=MEASURES)
    asked_for = []

    def columns(layer, head, power):
        asked_for.append((layer, head, power))
        return show.head_columns(np.full((2, 3), (3.0 * layer + head) ** power)) | {"title": f"of {layer}.{head}"}

    fig = show.head_grid(np.zeros((2, 3)), title="T", unit="bits", limits=(0.0, 25.0))
    power = widgets.IntSlider(value=1)
    view = explorer.follow(fig, columns, power=power)
    explorer.choose(layer=1, head=2)
    assert (show.source(fig).data["score"] == 5).all()
    power.value = 2
    assert (show.source(fig).data["score"] == 25).all()
    assert fig.title.text == "of 1.2"
    assert 'aria-live="polite"' in view.children[1].value
    assert show.source(fig).selected.indices == [5]
    show.source(fig).selected.indices = [1]  # its rows are heads: a tap chooses
    assert (show.source(fig).data["score"] == 1).all()
    n = len(asked_for)
    explorer.choose(token=3)  # another token is no other head
    assert len(asked_for) == n


def test_a_figure_outlives_the_explorer_that_it_followed_and_does_not_keep_it():
    explorer = show.Explorer(capture_of(), measures=MEASURES)
    board = weakref.ref(explorer.board)

    def columns(layer, head, power):
        return show.head_columns(np.full((2, 3), (3.0 * layer + head) ** power))

    fig, power = show.head_grid(np.zeros((2, 3)), title="T", unit="bits", limits=(0.0, 25.0)), widgets.IntSlider(1)
    view = explorer.follow(fig, columns, power=power)
    explorer.choose(layer=1, head=2)
    explorer.close()
    del explorer
    gc.collect()
    assert board() is None
    power.value = 2  # its own control still answers, for the head that was chosen last
    assert (show.source(fig).data["score"] == 25).all()
    assert view.children[0] is power


def test_the_picture_for_readers_without_a_kernel_shows_the_chosen_head():
    from PIL import Image

    explorer = show.Explorer(capture_of())
    seen = []
    for head in (0, 1):
        explorer.choose(head=head)
        image = np.asarray(Image.open(io.BytesIO(still.png(explorer.board, explorer.state))))
        large = image[48 + 10 : 48 + 400 : 20, -416 + 10 : -16 : 20]  # the middle of each of 20 × 20 cells
        levels = explorer.board.views.head(0, head).levels
        colours = np.array([[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in show.theme.SEQUENTIAL])
        inside = levels > 0
        np.testing.assert_array_equal(large[inside, :3], colours[levels[inside]])
        np.testing.assert_array_equal(large[..., 3], np.where(inside, 255, 0))
        seen.append(image)
    # on a page light or dark: nothing is painted around the pictures, and words lie on a ground of their own
    assert not image[[0, -1]].any()
    assert not image[:, [0, -1]].any()
    assert show.theme.contrast(still.PLATE, still.WRITING) > 7
    assert (seen[0] != seen[1]).any()
    assert still.caption(explorer.board, explorer.state).endswith("head 0.1, queries down, keys across")


def test_an_interrupt_keeps_the_layers_that_were_read(monkeypatch, capsys):
    def stopped(board):
        yield from itertools.islice(Single.fill(board), 1)
        raise KeyboardInterrupt

    board = Single(captured(capture_of()), MEASURES, {})
    monkeypatch.setattr(board, "fill", lambda: stopped(board))
    assert not read_all(board)
    assert "layers that were not read are blank" in capsys.readouterr().out
    assert np.isfinite(board.overview.values[:, 0]).all()
    assert np.isnan(board.overview.values[:, 1]).all()


def test_a_question_is_answered_with_its_number_and_a_refusal_in_words(explorer, monkeypatch):
    sent = []
    monkeypatch.setattr(explorer, "send", lambda content, buffers=None: sent.append((content, buffers)))
    explorer._handle_custom_msg({"overview": True}, [])
    assert sent[-1][0]["shape"] == explorer.board.overview.tiles.shape
    explorer._handle_custom_msg(asked(explorer, layer=0, head=1) | {"number": 7}, [])
    answer, (picture, weights, ignorant, tiles) = sent[-1]
    assert answer["number"] == 7
    np.testing.assert_array_equal(np.asarray(picture), explorer.board.views.head(0, 1).levels)
    assert (len(weights), len(ignorant)) == (20, 20)
    assert np.asarray(tiles).shape == tuple(answer["shape"])
    blind = show.Explorer(capture_of(values=False))
    monkeypatch.setattr(blind, "send", lambda content, buffers=None: sent.append((content, buffers)))
    blind._handle_custom_msg(asked(blind, colour="value"), [])
    assert "colour by weight or by lift" in sent[-1][0]["failure"]


def test_a_cell_that_is_run_again_keeps_no_text_of_its_last_run(monkeypatch):
    shell = SimpleNamespace(parent_header={})
    monkeypatch.setattr("atlaskit.show.explorer.get_ipython", lambda: shell)
    monkeypatch.setattr("atlaskit.show.explorer.display", lambda *_, **__: None)

    def run(cell, number, atlas):
        shell.parent_header = {"metadata": {"cellId": cell}, "header": {"msg_id": number}}
        atlas._ipython_display_()

    first, other = (show.Explorer(capture_of(), measures=MEASURES) for _ in range(2))
    first.link(show.head_grid(np.eye(3)[:2], title="T", unit="bits", limits=(0.0, 1.0)))
    run("a", "1", first)
    run("a", "1", other)  # two in one cell
    run("b", "2", other)
    assert None not in (first.comm, other.comm)
    board = weakref.ref(first.board)
    run("a", "3", show.Explorer(capture_of(), measures=MEASURES))
    assert first.comm is None
    assert other.comm is not None, "another cell shows it"
    assert first.layout.comm is None
    run("c", "4", first)  # it is wanted again
    assert None not in (first.comm, first.layout.comm)
    assert "application/vnd.jupyter.widget-view+json" in first._repr_mimebundle_()[0]
    run("c", "5", other)
    del first
    gc.collect()
    assert board() is None
    board = weakref.ref(other.board)
    other.close()  # by hand, and its cells are not run again
    del other
    gc.collect()
    assert board() is None


def test_two_hundred_captures_and_updates_leave_the_memory_where_it_was():
    """A capture holds 0.15 MB of patterns, the whole process some 500: of 200 that were kept, 1 % is every sixth."""
    model, words = planted(), "ash bay cat dew elm " * 12
    process = psutil.Process()

    def look(i):
        explorer = show.Explorer(capture(model, words), measures=MEASURES)
        explorer.choose(layer=i % 2, head=i % 5, token=i % 60)
        reply(explorer.board, asked(explorer))
        explorer.close()

    def looked(n):
        for i in range(n):
            look(i)
        gc.collect()
        return process.memory_info().rss

    warm = looked(60)
    assert looked(200) < 1.01 * warm
