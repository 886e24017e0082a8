"""Law: the recipe trains on a small text, and a killed run ends in the bytes of one that was not."""

import dataclasses

import numpy as np
import pytest
import torch

from atlaskit.data.recipe import build, evaluate, ngrams
from atlaskit.data.recipe.plans import CONTEXT, Recipe
from atlaskit.training import Plan

WHO = ["the miller", "the old smith", "a young weaver", "the ferryman", "her sister", "his neighbour"]
DOES = ["mends", "carries", "finds", "counts", "paints", "forgets"]
WHAT = ["the wheel", "a basket", "the blue door", "seven stones", "the rope", "a letter"]
WHEN = ["at dawn", "in the rain", "before supper", "on market day", "by lamplight"]
PLAN = Plan(steps=16, learning_rate=1e-2, warmup=2, checkpoint_every=5)
DECODER = Recipe("small", "decoder", 1, 4, 32, PLAN)
ENCODER = Recipe("small", "encoder", 1, 4, 32, PLAN)


@pytest.fixture(scope="module")
def texts():
    draw = np.random.default_rng(3)

    def sentence():
        return " ".join(draw.choice(words) for words in (WHO, DOES, WHAT, WHEN)).capitalize() + "."

    def text(n):
        return [" ".join(sentence() for _ in range(40)) for _ in range(n)]

    return {"train": text(20), "validation": text(4), "test": text(4)}


@pytest.mark.parametrize("recipe", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_the_loss_falls(recipe, texts, tmp_path):
    _, curve = build.fit(recipe, build.corpus(texts, recipe.kind, tmp_path), tmp_path, compiled=False)
    assert np.mean(curve.loss[-3:]) < np.mean(curve.loss[:3]) - 1
    assert curve.held_out[16] < curve.loss[0] - 1


def test_a_killed_run_ends_in_the_same_bytes(texts, tmp_path, monkeypatch):
    corpus = build.corpus(texts, "decoder", tmp_path)
    build.fit(DECODER, corpus, tmp_path / "whole", compiled=False)

    whole_batches = build.batches

    def killed_at_eight(recipe, text):
        batch = whole_batches(recipe, text)

        def one(step):
            if step == 8:
                raise KeyboardInterrupt
            return batch(step)

        return one

    with monkeypatch.context() as patch:
        patch.setattr(build, "batches", killed_at_eight)
        with pytest.raises(KeyboardInterrupt):
            build.fit(DECODER, corpus, tmp_path / "parts", compiled=False)
    build.fit(DECODER, corpus, tmp_path / "parts", compiled=False)

    for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
        whole, parts = (tmp_path / run / "runs/small/checkpoint" / file for run in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), file


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_training_that_goes_on_finds_the_ids_it_began_with(texts, tmp_path, kind):
    first, again = (build.corpus(texts, kind, tmp_path) for _ in range(2))
    assert first.tokenizer.get_vocab() == again.tokenizer.get_vocab()
    assert torch.equal(first.train, again.train)


def test_the_untrained_model_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = DECODER.build().state_dict()
    torch.manual_seed(2)
    second = DECODER.build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@torch.no_grad()
@pytest.mark.parametrize("recipe", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_no_head_is_set_by_hand(recipe):
    # An untrained head looks everywhere about alike: on no place does it put even three times its even share.
    model = dataclasses.replace(recipe, layers=2, heads=4, width=128).build().eval()
    model.set_attn_implementation("eager")
    words = torch.randint(5, 300, (4, 100), generator=torch.Generator().manual_seed(0))
    for pattern in model(words, output_attentions=True).attentions:
        for offset in (0, -1, -2):
            even = sum(1 / (q + 1) for q in range(-offset, 100)) / (100 + offset) if recipe.kind == "decoder" else 0.01
            assert (pattern.diagonal(offset, 2, 3).mean((0, 2)) < 3 * even).all()


@pytest.mark.parametrize("recipe", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_comparison_counts_the_same_tokens_for_model_and_baselines(recipe, texts, tmp_path):
    corpus = build.corpus(texts, recipe.kind, tmp_path)
    model = recipe.build().eval()
    batches, rows = build.test_batches(recipe, corpus)
    baselines = evaluate.tables(corpus.train, vocabulary=model.config.vocab_size)
    scores, n = evaluate.compare(model, batches, rows, baselines=baselines)
    # An untrained model knows nothing, so it pays the logarithm of the vocabulary; a table of this text pays far less.
    assert scores["model"].loss == pytest.approx(np.log(model.config.vocab_size), abs=0.5)
    assert scores["trigram"].loss < scores["bigram"].loss < scores["unigram"].loss < scores["model"].loss
    # The unigram loss again, token by token, straight from the counts.
    wanted = [b["labels"] != -100 for b in batches]
    for w in wanted:
        w[:, :3] = False
    counted = torch.cat([row[w] for row, w in zip(rows, wanted, strict=True)]).numpy()
    table = ngrams.fit(corpus.train.numpy(), vocabulary=model.config.vocab_size, order=1)
    by_hand = -np.log(ngrams.probability(table, np.zeros((len(counted), 0), dtype=np.int64), counted)).mean()
    assert n == len(counted)
    assert scores["unigram"].loss == pytest.approx(by_hand, rel=1e-5)


def test_test_rows_cover_the_text_once(texts, tmp_path):
    corpus = build.corpus(texts, "decoder", tmp_path)
    _, rows = build.test_batches(DECODER, corpus)
    flat = torch.cat(rows).flatten()
    assert torch.equal(flat, corpus.test[: len(flat)])
    assert len(corpus.test) - len(flat) < CONTEXT


def test_plans_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DECODER.width = 3  # type: ignore[misc]
