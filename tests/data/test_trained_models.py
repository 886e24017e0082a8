"""What the bundled models were trained to do, on texts they never saw; their cards tell it of the held-out text."""

import pytest
import torch

from atlaskit import data, measure, models

CHECKPOINTS = sorted(int(name.split("/")[1]) for name in data.BUNDLED if name.startswith("mini-steps/"))


@pytest.fixture(scope="module")
def decoder():
    return models.load("mini-causal")


@pytest.fixture(scope="module")
def encoder():
    return models.load("mini-masked")


def plain_ids(model):
    marks = torch.ones(len(model.tokenizer), dtype=torch.bool)
    marks[model.tokenizer.all_special_ids] = False
    return marks.nonzero().flatten()


def repeats(model, *, half=64, documents=16):
    generator = torch.Generator().manual_seed(7)
    ids = plain_ids(model)
    once = ids[torch.randint(len(ids), (documents, half), generator=generator)]
    return torch.cat([once, once], dim=1)


def best_head(model, corpus, selector):
    """Mass of the head that is best on one half of the corpus, on the other half: head, mass, ignorant mass."""
    score = measure.mass_on(selector)
    seen = models.survey(model, corpus, {"mass": score, "chance": measure.ignorant(score)}, progress=False)
    place = seen["mass"][::2].nanmean(0)
    layer, head = divmod(int(place.argmax()), place.shape[1])
    return (layer, head), *(float(seen[name][1::2, layer, head].nanmean()) for name in ("mass", "chance"))


@torch.no_grad()
def costs(model, rows):
    logits = model.net(input_ids=rows).logits.float()
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), rows[:, 1:], reduction="none")


def best_unigram(ids, counted):
    """Loss of the best of all unigram models on the counted tokens: their own entropy, which no other can undercut."""
    share = torch.bincount(ids[counted]).double()
    share = share[share > 0] / share.sum()
    return float(-(share * share.log()).sum())


def test_a_decoder_head_keeps_most_of_its_attention_on_the_previous_token(decoder):
    _, mass, chance = best_head(decoder, data.texts(), measure.previous_token)
    assert mass > 0.5 > chance


def test_a_decoder_head_finds_what_followed_an_earlier_copy(decoder):
    _, mass, chance = best_head(decoder, repeats(decoder).tolist(), measure.induction)
    assert mass > 0.3 > chance


def test_the_decoder_copies_random_tokens_said_twice(decoder):
    cost = costs(decoder, repeats(decoder))
    assert cost[:, :63].mean() - cost[:, 64:].mean() > 1


def test_the_decoder_beats_every_unigram_model_on_texts_it_never_saw(decoder):
    rows = [decoder.tokens(text).ids[None, :256] for text in data.texts()]
    found = torch.cat([costs(decoder, row).flatten() for row in rows])
    words = torch.cat([row[0, 1:] for row in rows])
    assert found.mean() < best_unigram(words, torch.ones_like(words, dtype=torch.bool)) - 1


@torch.no_grad()
def test_the_encoder_fills_hidden_words_better_than_every_unigram_model(encoder):
    generator = torch.Generator().manual_seed(3)
    found, hidden = [], []
    for text in data.texts():
        tokens = encoder.tokens(text)
        ids = tokens.ids[:256]
        for _ in range(4):
            chosen = (torch.rand(len(ids), generator=generator) < 0.15) & ~tokens.special[:256]
            shown = ids.masked_fill(chosen, encoder.tokenizer.mask_token_id)[None]
            logits = encoder.net(input_ids=shown, attention_mask=torch.ones_like(shown)).logits[0].float()
            found.append(torch.nn.functional.cross_entropy(logits[chosen], ids[chosen], reduction="none"))
            hidden.append(ids[chosen])
    words = torch.cat(hidden)
    # Entropy of a small sample is below the source's own: this unigram model is better than any that could be had.
    assert torch.cat(found).mean() < best_unigram(words, torch.ones_like(words, dtype=torch.bool))


def test_an_encoder_head_keeps_most_of_its_attention_on_a_neighbour(encoder):
    best = max(best_head(encoder, data.texts(), one)[1:] for one in (measure.previous_token, measure.next_token))
    assert best[0] > 0.5 > best[1]


def test_the_checkpoints_begin_before_training_and_end_with_heads_that_chance_has_not():
    assert CHECKPOINTS[0] == 0
    assert 6 <= len(CHECKPOINTS) <= 10
    first, last = (models.load(f"mini-steps/{step}") for step in (CHECKPOINTS[0], CHECKPOINTS[-1]))
    for selector in (measure.previous_token, measure.induction):
        _, mass, chance = best_head(last, repeats(last).tolist(), selector)
        assert mass > 0.3 > chance
        untrained = best_head(first, repeats(first).tolist(), selector)
        assert untrained[1] < 2 * untrained[2]  # about what an ignorant head has
