"""Two sentences token under token; and the controls that exchange words, in process."""

import pytest
import torch

from atlaskit import show
from atlaskit.records import Counterfactual


def seen(word="man", *, mediated=True):
    strings = (("The", "<b>", "ran"), ("The", word, "a", "ran"))
    return Counterfactual(
        "m&m", "sum", ("The <b> ran", f"The {word}a ran"), ("<b>", f"{word}a"), strings,
        (torch.tensor([-1.0, -2, -3]), torch.tensor([-1.0, -4, -1, -2.5])),
        (torch.tensor([False, True, False]), torch.tensor([False, True, True, False])),
        torch.tensor([[0, 0], [1, 1], [-1, 2], [2, 3]]),
        carried=torch.ones(2, 3) if mediated else None, not_mediated="" if mediated else "no match",
    )  # fmt: skip


def test_tokens_stand_under_one_another_with_what_sets_them_apart():
    page = show.swap(seen(), limit=2.0)
    columns = page.split("<li>")[1:]
    assert [column.split("</small>")[0].rsplit(">", 1)[1] for column in columns] == ["+0.00", "+2.00", "+1.00", "−0.50"]
    assert columns[2].startswith("<span>–</span>"), "the upper sentence has no such token"
    assert ["ak-differs" in column for column in columns] == [False, True, True, False]
    assert "“&lt;b&gt;” over “mana”: +2.50 nats" in page
    assert "-6.0 against -8.5 nats" in page


def test_nothing_typed_is_markup():
    page = show.swap(seen("<script>"), limit=2.0)
    assert "<b>m" not in page
    assert "<script>" not in page
    assert "m&amp;m" in page


def test_colours_end_where_the_caller_says():
    assert show.swap(seen(), limit=2.0) != show.swap(seen(), limit=4.0)
    with pytest.raises(ValueError, match="limits must rise"):
        show.swap(seen(), limit=0.0)


def offered(sentence, own):
    if "none" in sentence:
        raise ValueError(f"nothing to exchange in <{sentence}>")
    return {own: f"{sentence} {own}"} if own else {"man": f"{sentence} man", "hen": f"{sentence} hen"}


@pytest.fixture
def controls():
    asked = []

    def look(sentence, counterpart):
        asked.append((sentence, counterpart))
        return seen(counterpart.split()[-1], mediated="hen" not in counterpart)

    box = show.explore_swaps(look, offered, sentence="A", size=(2, 3), limit=2.0)
    return asked, *box.children


def test_each_change_is_looked_at_once(controls):
    asked, typed, choice, own, _, strip, _ = controls
    choice.value = "A hen"
    typed.value = "B"
    own.value = "cow"
    assert asked == [("A", "A man"), ("A", "A hen"), ("B", "B man"), ("B", "B cow")]
    assert "cowa" in strip.value


def test_what_cannot_be_exchanged_is_explained_and_the_last_picture_stays(controls):
    asked, typed, _, _, status, strip, _ = controls
    before = strip.value
    typed.value = "none"
    assert "nothing to exchange in &lt;none&gt;" in status.value
    assert strip.value == before
    assert len(asked) == 1


def test_heads_that_cannot_be_exchanged_are_hatched_and_it_says_why(controls):
    _, _, choice, _, status, _, grid = controls
    source = show.source(grid._model)
    assert source.data["score"].tolist() == [1] * 6
    choice.value = "A hen"
    assert source.data["void"].tolist() == [0, 0, 0, 1, 1, 1]
    assert "no match" in status.value
