"""Truth: cleaning, splitting, rows and baselines do what they say."""

import math

import numpy as np
import pytest
import torch

from atlaskit.data.recipe import ngrams
from atlaskit.data.recipe.corpus import part_of, stream
from atlaskit.data.recipe.prose import is_prose, plain, prose_of_rst
from atlaskit.data.recipe.rows import decoder_rows, encoder_rows, pasted, random_repeats
from atlaskit.data.recipe.vocabulary import END, byte_pairs, word_pieces

SENTENCES = [
    "The keeper of the north gate walks along the wall at dusk.",
    "A lamp burns in the window of the keeper's house.",
    "When the wind turns, the keeper closes the north gate and sleeps.",
]


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_typographic_signs_become_plain_ones():
    assert plain("“Naïve”  –  it’s\n an ‘é’…") == "\"Naive\" - it's an 'e'..."


def test_code_and_headings_are_not_prose():
    assert is_prose("The function returns the first element of the list.")
    assert not is_prose("x = [f(i) for i in range(10)]; print(x[0], x[1]);")
    assert not is_prose("A heading of many words that has no full stop")
    assert not is_prose("Too short.")


def test_markup_leaves_its_words():
    text = """
.. function:: cmp(a, b)

   Use :func:`~functools.cmp` or ``sorted`` with the `key <address>`_ of **your** own free choice.

       >>> cmp(1, 2)
"""
    assert prose_of_rst(text) == "Use functools.cmp or sorted with the key of your own free choice."


def test_a_document_keeps_its_part_and_the_parts_have_their_shares():
    names = [f"document/{i}" for i in range(20_000)]
    parts = [part_of(name) for name in names]
    assert parts == [part_of(name) for name in names]
    # Five standard deviations of a share of 20,000 draws.
    for part, share in (("train", 0.94), ("validation", 0.03), ("test", 0.03)):
        assert abs(parts.count(part) / 20_000 - share) < 5 * math.sqrt(share * (1 - share) / 20_000)


def test_byte_pairs_write_any_text_and_know_where_words_lie():
    tokenizer = byte_pairs(SENTENCES * 20, size=300, context=64)
    text = "The gate, naïve ☂"
    coded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(coded["input_ids"]) == text
    assert END not in tokenizer.convert_ids_to_tokens(coded["input_ids"])
    pieces = [text[a:b] for a, b in coded["offset_mapping"]]
    assert not any(piece != piece.strip() for piece in pieces)
    assert tokenizer.model_max_length == 64


def test_word_pieces_stand_between_cls_and_sep():
    tokenizer = word_pieces(SENTENCES * 20, size=120, context=64)
    text = "The KEEPER sleeps."
    coded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    tokens = tokenizer.convert_ids_to_tokens(coded["input_ids"])
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert coded["special_tokens_mask"] == [1] + [0] * (len(tokens) - 2) + [1]
    assert "".join(text[a:b] for a, b in coded["offset_mapping"]) == "TheKEEPERsleeps."


def test_a_stream_ends_each_text():
    tokenizer = byte_pairs(SENTENCES * 20, size=300, context=64)
    ids = stream(SENTENCES, tokenizer, end=0).tolist()
    assert ids.count(0) == 3
    assert tokenizer.decode([i for i in ids if i]) == "".join(SENTENCES)


def test_pasted_rows_hold_a_passage_twice():
    rows = torch.arange(6 * 64).view(6, 64)
    after = pasted(rows, generator=_generator())
    assert torch.equal(rows, torch.arange(6 * 64).view(6, 64))
    for row, now in zip(rows, after, strict=True):
        changed = (row != now).nonzero().squeeze(-1)
        size = len(changed)
        assert 8 <= size < 32
        # The ids rise by one, so a copy from `lag` places back is the row minus that lag: one lag, no gap, no overlap.
        lag = (row - now)[changed]
        assert (changed.diff() == 1).all()
        assert (lag == lag[0]).all()
        assert lag[0] >= size


def test_random_repeats_come_round_and_only_the_first_round_is_unforeseen():
    rows, unforeseen = random_repeats(torch.arange(10_000), rows=5, length=64, generator=_generator())
    for row, new in zip(rows, unforeseen, strict=True):
        period = int(new.sum())
        assert 6 <= period <= 16
        assert new[:period].all()
        assert torch.equal(row[period:], row[:-period])


def test_alphabets_of_random_rows_are_small_and_large():
    rows, unforeseen = random_repeats(torch.arange(1024), rows=200, length=256, generator=_generator())
    # The share of distinct tokens in a row's first round: low in a small alphabet, near one in a large one.
    fresh = torch.tensor([len(set(r[u].tolist())) / int(u.sum()) for r, u in zip(rows, unforeseen, strict=True)])
    assert (fresh < 0.4).float().mean() > 0.15
    assert (fresh > 0.9).float().mean() > 0.15


def test_the_rows_of_a_step_are_mixed_as_the_card_says():
    text = torch.arange(5000)
    ids = torch.arange(7000, 9000)
    rows, skip = decoder_rows(text, ids, rows=8, random_rows=3, length=64, generator=_generator())
    kinds = [(row.diff() == 1).all().item() for row in rows]
    assert kinds == [False] + [True] * 4 + [False] * 3
    assert (rows[-3:] >= 7000).all()
    assert not skip[:-3].any()


def test_encoder_rows_stand_between_their_ends():
    rows = encoder_rows(torch.arange(10, 500), rows=8, length=32, ends=(2, 3), generator=_generator())
    assert (rows[:, 0] == 2).all()
    assert (rows[:, -1] == 3).all()
    assert (rows[:, 1:-1] >= 10).all()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_probabilities_of_all_words_add_up_to_one(order):
    text = np.random.default_rng(0).integers(0, 12, 400)
    model = ngrams.fit(text, vocabulary=12, order=order)
    for context in ([3, 5], [11, 0], [7, 7]):
        before = np.tile(context, (12, 1))
        assert ngrams.probability(model, before, np.arange(12)).sum() == pytest.approx(1.0)


def test_kneser_ney_by_hand():
    # a b a b a c: bigrams ab 2, ba 2, ac 1. One of three kinds came once and two twice: discount 1 / (1 + 2 * 2) = 0.2.
    model = ngrams.fit(np.array([0, 1, 0, 1, 0, 2]), vocabulary=3, order=2)
    # Each word follows one kind of word, so each continuation count is 1, all came once, and the discount is 1:
    # the lower order gives (0 + 1 * 3 * 1/3) / 3 = 1/3 to every word.
    expected = [(2 - 0.2) / 3 + 0.2 * 2 / 3 / 3, (1 - 0.2) / 3 + 0.2 * 2 / 3 / 3]
    assert ngrams.probability(model, np.array([[0], [0]]), np.array([1, 2])) == pytest.approx(expected)
