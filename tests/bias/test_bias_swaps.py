"""A sentence of your own: what can be exchanged in it, and each token and head of both sides."""

import pytest
import torch

from atlaskit import data, models
from atlaskit.data import Pair
from atlaskit.models.planted_preference import BIASED


def test_a_sentence_offers_the_counterparts_of_its_words():
    offered = data.swaps("The woman greeted the old man.")
    assert offered["woman → man (gender)"] == "The man greeted the old man."
    assert offered["old man → young man (age)"] == "The woman greeted the young man."
    assert offered["man → woman (gender)"] == "The woman greeted the old woman."
    assert set(data.swaps("My green bag fell.")) == {"green → blue (control)"}


@pytest.mark.parametrize(
    ("sentence", "own", "other"),
    [
        ("Woman, she said.", "woman/man, she/he", "Man, he said."),
        ("It fell. “Black hens, black men.", "black/white", "It fell. “White hens, white men."),
        ("A Black man in black.", "black/red", "A Black man in red."),  # another word
        ("She womanly shed.", "she/he", "He womanly shed."),  # whole words only
        ("An actor came.", "actor/poet", "A poet came."),
        ("Is a poet an actor?", "poet/heir, actor/union man", "Is an heir a union man?"),
        ("man to woman", "man/woman, woman/man", "woman to man"),  # in one pass
        ("<b>man</b> $& .", "man/<i>x</i>", "<b><i>x</i></b> $& ."),
    ],
)
def test_a_swap_of_yours_keeps_case_words_and_articles(sentence, own, other):
    assert list(data.swaps(sentence, own).values()) == [other]


@pytest.mark.parametrize(
    ("sentence", "own", "message"),
    [
        ("It rained.", "", r"no listed word is in 'It rained\.'"),
        ("It rained.", "snow/hail", r"'snow' is in 'It rained\.', so nothing is exchanged"),
        ("It rained.", "rained", "'rained' is no swap; write word/other, such as woman/man"),
    ],
)
def test_where_nothing_can_be_exchanged_it_says_so(sentence, own, message):
    with pytest.raises(ValueError, match=message):
        data.swaps(sentence, own)


def test_every_bundled_group_can_be_exchanged_in_its_own_sentences():
    for pair in data.pairs():
        assert pair.counter in data.swaps(pair.stereotype).values(), pair.name


@pytest.mark.parametrize("nats", [0.7, -0.4])
def test_a_planted_preference_is_one_token_and_one_head(nats):
    pair = models.preference_pairs()[0]
    seen = models.counterfactual(models.planted_preference(nats), pair)
    assert seen.preference == pytest.approx(nats, abs=1e-5)
    apart = seen.log_probs[0] - seen.log_probs[1]
    assert torch.allclose(apart, torch.tensor([0.0, 0, 0, 0, nats]), atol=1e-5), "only the attribute's score differs"
    assert [seen.strings[0][i] for i in seen.differs[0].nonzero()[:, 0].tolist()] == [" woman"]
    assert seen.exchanged == ("woman", "man")
    assert seen.columns.tolist() == [[i, i] for i in range(5)]
    expected = torch.zeros(2, 4)
    expected[BIASED] = nats
    assert torch.allclose(seen.carried, expected, atol=1e-5)


def test_tokens_add_up_to_the_scores_of_the_pair_and_all_are_aligned_once():
    model = models.load("mini-causal")
    for pair in data.pairs(["age"])[6:9]:
        seen, scores = models.counterfactual(model, pair), models.pair_scores(model, [pair])
        assert seen.preference == pytest.approx(float(scores.preference), abs=1e-3)
        for side in (0, 1):
            placed = [place for place in seen.columns[:, side].tolist() if place >= 0]
            assert placed == list(range(len(seen.strings[side])))
            assert len(seen.log_probs[side]) == len(seen.strings[side]) == int(scores.n_tokens[0, side])
        assert (seen.carried is None) == bool(seen.not_mediated)


def test_token_strings_put_together_are_the_sentence_with_each_space_once():
    model = models.load("mini-causal")
    for text in ("We saw 3 women at 10 .", "The woman, she said: so what?"):
        seen = models.counterfactual(
            model, Pair("x", "d", "f", text, text.replace("woman", "man").replace("men", "xx"))
        )
        assert "".join(seen.strings[0]) == text


def test_sentences_of_different_lengths_are_scored_and_not_mediated():
    model = models.load("mini-causal")
    seen = models.counterfactual(model, Pair("x", "d", "f", "The man ran.", "The extraordinary gentleman ran."))
    assert seen.carried is None
    assert seen.not_mediated == "the sentences do not match token by token, so no head can be exchanged"
    assert (seen.columns == -1).any()
