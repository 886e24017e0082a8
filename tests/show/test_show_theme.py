"""Colours that every reader can tell apart, in light and dark."""

import numpy as np
import pytest

from atlaskit.show import theme


def test_contrast_is_that_of_the_standard():
    assert theme.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert theme.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the standard's own example of AA


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_reaches_aa_and_marks_three_to_one(mode):
    paper = theme.PAPER[mode]
    assert theme.contrast(theme.INK[mode], paper) >= 4.5
    assert theme.contrast(theme.SOFT[mode], paper) >= 4.5
    for mark in (theme.LINE[mode], theme.NEUTRAL, *theme.SERIES):
        assert theme.contrast(mark, paper) >= 3


@pytest.mark.parametrize("palette", [theme.SEQUENTIAL, theme.DIVERGING], ids=["sequential", "diverging"])
def test_numbers_on_a_coloured_token_reach_aa(palette):
    assert min(theme.contrast(ground, theme.ink_on(ground)) for ground in palette) >= 4.5


def test_lightness_rises_evenly_along_the_sequential_palette():
    lightness = np.array([116 * np.cbrt(theme.luminance(colour)) - 16 for colour in theme.SEQUENTIAL])
    assert (np.diff(lightness[::4]) > 0).all()  # colours have eight bits: neighbours may tie
    # A straight line explains it: equal differences of weight look equal, also in grey.
    assert np.corrcoef(lightness, np.arange(256))[0, 1] > 0.999


def test_the_diverging_palette_is_lightest_at_zero_and_alike_on_both_sides():
    lightness = np.array([116 * np.cbrt(theme.luminance(colour)) - 16 for colour in theme.DIVERGING])
    assert abs(int(lightness.argmax()) - 127.5) < 2
    assert np.abs(lightness - lightness[::-1]).max() < 12
