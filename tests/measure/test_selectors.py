"""Selectors by hand on small texts; a tile of rows equals the rows of the whole."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from atlaskit import measure
from atlaskit.records import Tokens


def tokens_of(ids: list[int], *, text: str | None = None, special: tuple[int, ...] = ()) -> Tokens:
    text = text or "".join(chr(97 + i) for i in ids)
    spans = torch.tensor([[i, i + 1] for i in range(len(ids))])
    flags = torch.tensor([i in special for i in range(len(ids))])
    return Tokens(text, torch.tensor(ids), tuple(text[i] for i in range(len(ids))), spans, flags)


ABAB = tokens_of([0, 1, 2, 0, 1])
ALL = [
    measure.previous_token,
    measure.next_token,
    measure.own_token,
    measure.first_token,
    measure.same_token,
    measure.induction,
    measure.special,
    measure.punctuation,
    measure.keys(torch.tensor([True, False, True, False, False])),
    measure.pairs([(1, 0), (4, 2), (3, 3)]),
]


def cells(selector) -> set[tuple[int, int]]:
    return {tuple(cell) for cell in selector(ABAB).nonzero().tolist()}


def test_positions():
    assert cells(measure.previous_token) == {(1, 0), (2, 1), (3, 2), (4, 3)}
    assert cells(measure.next_token) == {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert cells(measure.own_token) == {(i, i) for i in range(5)}
    assert cells(measure.first_token) == {(i, 0) for i in range(5)}


def test_same_token_is_another_place_of_the_same_word():
    assert cells(measure.same_token) == {(0, 3), (3, 0), (1, 4), (4, 1)}


def test_induction_is_what_followed_the_word_before():
    assert cells(measure.induction) == {(3, 1), (4, 2)}


def test_induction_never_looks_at_or_past_the_query():
    doubled = tokens_of([0, 0, 0, 0])
    assert not measure.induction(doubled).triu().any()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_foretold_is_what_an_earlier_pair_said(ids):
    told = measure.foretold(tokens_of(ids)).tolist()
    for i, foretold in enumerate(told):
        assert foretold == any(ids[j - 1] == ids[i - 1] and ids[j] == ids[i] for j in range(1, i - 1))


def test_foretold_of_a_sequence_said_twice_is_the_second_saying_but_its_first_token():
    assert measure.foretold(tokens_of([3, 1, 4, 0, 5] * 2)).tolist() == [False] * 6 + [True] * 4


def test_punctuation_and_special_are_read_off_the_text():
    tokens = tokens_of([5, 6, 7, 8, 9], text="a,—b.", special=(4,))
    assert measure.punctuation(tokens)[0].tolist() == [False, True, True, False, False]
    assert measure.special(tokens)[0].tolist() == [False, False, False, False, True]


def test_pairs_are_the_cells_named():
    assert cells(measure.pairs([(1, 0), (4, 2)])) == {(1, 0), (4, 2)}
    assert cells(measure.pairs([])) == set()


@pytest.mark.parametrize("selector", ALL)
def test_a_tile_of_rows_is_the_rows_of_the_whole(selector):
    rows = torch.tensor([3, 4, 1])
    assert torch.equal(selector(ABAB, rows), selector(ABAB)[rows])


def test_a_key_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="key mask has 3 entries and the text 5 tokens"):
        measure.keys(torch.ones(3, dtype=torch.bool))(ABAB)


@pytest.mark.parametrize("bad", [[(0, 5)], [(-1, 2)]])
def test_pairs_outside_the_text_are_refused(bad):
    with pytest.raises(ValueError, match="the text has tokens 0 to 4"):
        measure.pairs(bad)(ABAB)
