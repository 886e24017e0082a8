"""What Attention Atlas shows, by closed forms of its definitions; for an ignorant head each twin is at chance."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from atlaskit import measure, models
from atlaskit.compat import attention_atlas as atlas
from atlaskit.compat import flaws
from atlaskit.records import Capture, LayerAttention, Tokens

pytestmark = pytest.mark.filterwarnings("ignore::atlaskit.compat.flaws.FlawedQuantity")

GOLD = models.gold_words()
SUPPORTS = {"encoder": measure.full, "decoder": measure.causal}
BOTH = pytest.mark.parametrize("kind", SUPPORTS)
MATRIX = [atlas.confidence_max, atlas.confidence_avg, atlas.focus, atlas.sparsity, atlas.distribution, atlas.uniformity]


def even(kind, n, heads=1):
    support = SUPPORTS[kind](n)
    return measure.uniform(support).expand(heads, -1, -1), support


def sharp(kind, n, *, heads=3, seed=0):
    support = SUPPORTS[kind](n)
    scores = 2 * torch.randn(heads, n, n, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~support, float("-inf")).softmax(-1), support


def captured(words, kind="encoder", *, ignorant=True, layers=2):
    n = len(words)
    tokens = Tokens(words.text, torch.arange(n), words.strings, words.spans, torch.zeros(n, dtype=torch.bool))
    made = [(even if ignorant else sharp)(kind, n, heads=2) for _ in range(layers)]
    parts = [LayerAttention(i, kind, *one, None, None, None, None, None, "made") for i, one in enumerate(made)]
    return Capture("made", tokens, tokens, tuple(parts))


@pytest.mark.parametrize("n", [4, 20, 50])
def test_values_of_an_ignorant_head_by_closed_form(n):
    full, causal = even("encoder", n), even("decoder", n)
    rows = torch.arange(1, n + 1, dtype=torch.float64)
    expected = {
        atlas.confidence_max: (1 / n, 0.5),
        atlas.confidence_avg: (1 / n, float((1 / rows[1:]).mean())),
        atlas.focus: (1.0, 1.0),
        atlas.distribution: (1 / n, 0.0 if n > 4 else None),  # just under half of a decoder's cells are masked
        atlas.uniformity: (0.0, None),
        atlas.long_range: (0.0 if n < 6 else 1 / n, None),
    }
    for card, (encoder, decoder) in expected.items():
        assert float(card(*full).value[0]) == pytest.approx(encoder, abs=1e-6)
        if decoder is not None and card is not atlas.distribution:
            assert float(card(*causal).value[0]) == pytest.approx(decoder, abs=1e-6)
    # the median of a decoder's cells lies among the smallest weights: the last rows'
    assert float(atlas.distribution(*causal).value[0]) <= 1 / (n - 1)


def test_long_range_of_an_ignorant_decoder_counts_masked_cells():
    """By hand: cells five or more back hold 15 − 5 (H20 − H5) of the mass, over 240 cells."""
    harmonic = sum(1 / i for i in range(6, 21))
    assert float(atlas.long_range(*even("decoder", 20)).value[0]) == pytest.approx((15 - 5 * harmonic) / 240, rel=1e-5)


def test_even_attention_is_not_sparse_until_it_is_rounded():
    pattern, support = even("encoder", 64)
    assert atlas.sparsity(pattern, support).value == 0
    jitter = 1e-6 * torch.randn(pattern.shape, generator=torch.Generator().manual_seed(0))
    assert float(atlas.sparsity(pattern + jitter, support).value[0]) == pytest.approx(0.5, abs=0.05)


def test_uniformity_is_a_collision_probability_in_disguise():
    """Its square is the mean squared cell less 1/n², as rows sum to one."""
    pattern, support = sharp("encoder", 17)
    found = atlas.uniformity(pattern, support)
    torch.testing.assert_close(found.value**2, pattern.square().mean((-2, -1)) - 1 / 17**2)
    torch.testing.assert_close(found.value**2, (found.twin / 17) - 1 / 17**2)


def test_focus_is_the_entropy_of_the_definition():
    pattern, support = sharp("decoder", 12)
    cells = pattern.double().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(cells * np.log(cells), (-2, -1))
    np.testing.assert_allclose(atlas.focus(pattern, support).value, entropy / math.lgamma(13), rtol=1e-5)


@BOTH
def test_flow_change_is_scipys_distance_of_the_flattened_means(kind):
    first, support = sharp(kind, 15)
    last, _ = sharp(kind, 15, seed=1)
    flat = [one.mean(0).double().flatten().clamp_min(1e-10).numpy() for one in (first, last)]
    found = atlas.flow_change(first, last, support)
    assert float(found.value[0]) == pytest.approx(jensenshannon(*flat), rel=1e-4)
    assert found.ignorant == 0


def test_random_layers_are_already_far_apart_on_the_flow_card():
    found = atlas.flow_change(sharp("encoder", 60)[0], sharp("encoder", 60, seed=1)[0], measure.full(60))
    assert float(found.value[0]) > 0.25  # that tool's band for "high"
    assert float(found.twin[0]) == pytest.approx(float(found.chance[0]), rel=0.1)


@BOTH
@pytest.mark.parametrize("card", MATRIX, ids=lambda card: card.__name__)
def test_an_ignorant_head_scores_what_ignorance_scores_and_so_does_its_twin(card, kind):
    found = card(*even(kind, 23, heads=2))
    torch.testing.assert_close(found.value, found.ignorant)
    torch.testing.assert_close(found.twin, found.chance)


@BOTH
def test_classes_of_an_ignorant_head_are_at_lift_one_and_its_value_is_the_share_of_the_class(kind):
    for words in GOLD[:4]:
        seen = captured(words, kind)
        found = atlas.specialization(seen, words, layer=1)
        assert set(found) == set("syntax semantics cls punctuation entities long_range self_attention".split())
        for card in found.values():
            torch.testing.assert_close(card.twin, torch.ones(2))
        if kind == "encoder":
            share = sum(tag in atlas.FUNCTION for tag in words.upos) / len(words)
            torch.testing.assert_close(found["syntax"].value, torch.full((2,), share))
            torch.testing.assert_close(found["cls"].value, torch.full((2,), 1 / len(words)))


def test_punctuation_is_ascii_there_and_unicode_here():
    words = next(one for one in GOLD if "“" in one.strings)
    seen = captured(words)
    card = atlas.punctuation(seen.layers[0].pattern, seen.layers[0].support, seen.tokens)
    ascii_only = sum(form in ".,?!" for form in words.strings) / len(words)
    assert float(card.value[0]) == pytest.approx(ascii_only, rel=1e-5)
    assert ascii_only < sum(tag == "PUNCT" for tag in words.upos) / len(words)
    torch.testing.assert_close(card.twin, torch.ones(2))


def test_a_head_on_function_words_has_the_lift_of_their_rarity():
    words = GOLD[0]
    n = len(words)
    function = torch.tensor([tag in atlas.FUNCTION for tag in words.upos])
    pattern = (function.float() / function.sum()).expand(1, n, n)
    seen = captured(words)
    card = atlas.syntax(pattern, measure.full(n), seen.tokens, words)
    torch.testing.assert_close(card.value, torch.ones(1))
    torch.testing.assert_close(card.twin, torch.tensor([n / int(function.sum())]))


def test_balance_is_undefined_for_a_decoder_and_its_twin_is_not():
    seen = captured(GOLD[0], "decoder")
    found = atlas.cards(seen, layer=0)
    assert len(found) == 8
    assert found["balance"].value.isnan().all()
    torch.testing.assert_close(found["balance"].twin, torch.ones(2))


def test_the_radar_finds_a_first_and_a_last_head_in_noise():
    drawn = atlas.radar(torch.randn(3, 12, generator=torch.Generator().manual_seed(0)))
    assert drawn.amax(-1).tolist() == [1, 1, 1]
    assert drawn.amin(-1).tolist() == [0, 0, 0]
    assert atlas.radar(torch.ones(1, 4)).isnan().all()


def test_values_over_a_corpus_are_those_of_each_card():
    words = GOLD[:3]
    seen = [captured(one, "decoder", ignorant=False) for one in words]
    told = atlas.values(seen, words)
    assert len(told) == 14
    assert all(value.shape == (3, 2, 2) for value in told.values())
    torch.testing.assert_close(told["focus"][2, 1], atlas.cards(seen[2], layer=1)["focus"].value)
    torch.testing.assert_close(told["syntax"][1, 0], atlas.specialization(seen[1], words[1], layer=0)["syntax"].value)


def test_the_table_of_an_ignorant_head_puts_every_twin_on_its_chance():
    told = atlas.table([captured(words) for words in GOLD[:5]], GOLD[:5], layer=0, head=1)
    assert len(told) == 15
    for value, ignorant, found in told.values():
        assert value == pytest.approx(ignorant, abs=1e-6)
        assert found.n >= 2
        if found.unit == "times chance":
            assert (found.value, found.low) == (pytest.approx(1), pytest.approx(1))


def test_a_window_is_no_attention_that_this_tool_knows():
    with pytest.raises(ValueError, match="knows full and causal attention; this support is neither"):
        atlas.confidence_max(torch.eye(5)[None], measure.sliding(5, 2))


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(IndexError, match="no encoder layer 7"):
        atlas.cards(captured(GOLD[0]), layer=7)


def test_each_flaw_is_told_once(monkeypatch):
    monkeypatch.setattr(flaws, "_TOLD", set())
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(2):
            seen = captured(GOLD[0])
            atlas.cards(seen, layer=0)
            atlas.specialization(seen, GOLD[0], layer=0)
            atlas.radar(torch.rand(2, 3))
    told = sorted(str(one.message) for one in heard)
    assert told == sorted(f"{name}: {why}. Use {use}." for name, (why, use) in flaws.ATTENTION_ATLAS.items())
    assert all(issubclass(one.category, flaws.FlawedQuantity) for one in heard)


def test_every_flaw_points_to_something_public():
    text = " ".join(instead for _, instead in flaws.ATTENTION_ATLAS.values())
    named = {word.strip(",").split("(")[0] for word in text.split() if word.startswith("measure.")}
    assert len(named) > 5
    for word in named:
        assert hasattr(measure, word.removeprefix("measure.")), word
