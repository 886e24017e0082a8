"""Roles: planted heads get their labels and no other head gets one; noise gets none beyond the stated rate."""

import pytest
import torch

from atlaskit import measure, models
from atlaskit.measure.roles import ENDS, FAR, NEAR
from atlaskit.models.planted import WORDS
from atlaskit.records import Survey, Tokens

# The planted model knows words and no marks, so its texts have no sentences and the role `block` is undefined.
TEXTS = [" ".join(WORDS[(7 * i + 3 * j) % 64] for j in range(40)) for i in range(16)]


def look(model):
    vocabulary = torch.arange(64)
    repeats = measure.random_repeats(vocabulary, documents=16, seed=1)
    on_repeats = models.survey(model, repeats, measure.role_scores(measure.REPEAT_ROLES), progress=False)
    on_text = models.survey(model, TEXTS, measure.role_scores(measure.TEXT_ROLES), progress=False)
    return measure.find_roles(on_repeats, on_text)


@pytest.fixture(scope="module")
def planted():
    return look(models.planted())


@pytest.mark.parametrize("name", models.PLANTED)
def test_a_planted_head_gets_its_label_and_no_other_head_does(planted, name):
    assert planted.heads(name) == [models.PLANTED[name]]
    assert planted.of(*models.PLANTED[name]) == (name,)


def test_no_other_label_is_given_to_any_head(planted):
    assert int(planted.filled.sum()) == len(models.PLANTED)
    assert all(planted.of(*head) == () for head in models.UNIFORM)


def test_what_a_causal_head_cannot_reach_is_undefined_and_no_role(planted):
    role = planted.names.index("next_token")
    assert planted.mass[role].isnan().all()
    assert planted.heads("next_token") == []


@pytest.mark.parametrize("seed", range(3))
def test_of_the_heads_of_untrained_models_of_the_same_shape_no_more_have_a_label_than_stated(seed):
    found = look(models.untrained(models.planted(), seed=seed))
    assert float(found.filled.any(0).float().mean()) <= 0.05  # of ten heads this is none, whatever the role


def noise(mean, *, documents=20, layers=6, heads=12, seed=0):
    """A survey of heads whose mass scatters around `mean`, alike on both sides, where chance is 0.1."""
    generator = torch.Generator().manual_seed(seed)
    mass = mean + 0.05 * torch.randn(documents, layers, heads, generator=generator)
    return Survey("noise", {"r": mass, "chance of r": torch.full_like(mass, 0.1)}, torch.full((documents,), 9), True)


def test_heads_on_the_border_are_believed_no_more_often_than_the_rate():
    """The hardest null: every head exceeds chance by the margin exactly. Any belief is then a false one."""
    surveys = [noise(0.1 + 0.2, layers=1, seed=seed) for seed in range(60)]
    wrong = sum(bool(measure.find_roles(one).filled.any()) for one in surveys)
    assert wrong <= 6  # 1.5 are expected, as half of the false ones lie below; 7 or more come once in 700 times


def test_a_head_far_below_chance_fills_no_role():
    survey = noise(0.0)
    assert not measure.find_roles(survey, margin=0.0).filled.any()


def test_a_lone_head_among_two_hundred_is_found():
    survey = noise(0.1, layers=10, heads=20)
    survey.scores["r"][:, 7, 11] += 0.5
    assert measure.find_roles(survey).heads("r") == [(7, 11)]


def test_too_few_documents_are_refused_with_how_many_it_takes():
    with pytest.raises(ValueError, match=r"10 documents are too few .* one head of 72 .* give at least 14"):
        measure.find_roles(noise(0.3, documents=10))


def test_heads_of_a_role_come_with_the_heaviest_first():
    survey = noise(0.1)
    survey.scores["r"][:, 2, 3] += 0.4
    survey.scores["r"][:, 1, 1] += 0.6
    assert measure.find_roles(survey).heads("r") == [(1, 1), (2, 3)]


def tokens(text):
    """One token a word; brackets make a token special."""
    strings = text.split()
    ends = torch.tensor([len(" ".join(strings[: i + 1])) for i in range(len(strings))])
    spans = torch.stack([ends - torch.tensor([len(s) for s in strings]), ends], -1)
    ids = torch.tensor([sorted(set(strings)).index(s) for s in strings])
    return Tokens(text, ids, tuple(strings), spans, torch.tensor([s.startswith("[") for s in strings]))


def test_a_sentence_selects_its_own_tokens_but_neighbours_specials_and_the_first():
    one = tokens("[CLS] a b c . d e f g ! [SEP]")
    chosen = measure.same_sentence(one)
    assert chosen[1].nonzero().flatten().tolist() == [3, 4]
    assert chosen[6].nonzero().flatten().tolist() == [8, 9]
    assert chosen[9].nonzero().flatten().tolist() == [5, 6, 7]
    assert torch.equal(measure.same_sentence(one, torch.tensor([6, 9])), chosen[[6, 9]])


def test_the_control_moves_the_boundary_to_the_middle_of_the_sentence():
    one = tokens("z a b c . d e f g !")  # the sentence ends after five tokens; its middle lies after two
    chosen = measure.same_stretch(one)
    assert chosen[1].nonzero().flatten().tolist() == []
    assert chosen[2].nonzero().flatten().tolist() == [4, 5, 6, 7, 8, 9]


def test_one_sentence_has_no_outside_and_selects_nothing():
    assert not measure.same_sentence(tokens("a b c d .")).any()


def test_a_head_that_keeps_to_its_sentence_is_told_from_one_that_keeps_near():
    words = "z " + "a b c d e f g h i j k . " * 6
    one = tokens(words.strip())
    n = len(one)
    sentence = torch.tensor([0, *(i // 12 for i in range(n - 1))])
    keeps = (sentence[:, None] == sentence).float()
    near = torch.exp(-(torch.arange(n)[:, None] - torch.arange(n)).abs() / 4.0)
    pattern = torch.stack([keeps, near])
    pattern = pattern / pattern.sum(-1, keepdim=True)
    mass, chance = (
        measure.mass(pattern, measure.full(n), which(one)).nanmean(-1)
        for which in (measure.same_sentence, measure.same_stretch)
    )
    assert mass[0] - chance[0] > 0.3
    assert abs(mass[1] - chance[1]) < 0.05


def test_nearby_is_a_window_without_the_neighbours():
    chosen = measure.nearby(tokens("a b c d e f g h i j k l"), torch.tensor([0]))[0]
    assert chosen.nonzero().flatten().tolist() == list(range(NEAR, FAR + 1))
    assert "." in ENDS


def test_random_repeats_say_each_sequence_twice_and_no_token_twice_in_it():
    made = measure.random_repeats(torch.arange(5, 70), documents=12, seed=3)
    for one in made:
        half = len(one) // 2
        assert one[:half] == one[half:]
        assert len(set(one)) == half
    assert [len(one) // 2 for one in made][:: len(made) - 1] == [10, 31]
    assert len({len(one) for one in made}) == 12


def test_random_repeats_need_as_many_kinds_as_they_are_long():
    with pytest.raises(ValueError, match="10 to 31 different tokens asked of 20 kinds"):
        measure.random_repeats(torch.arange(20), documents=3, seed=0)
