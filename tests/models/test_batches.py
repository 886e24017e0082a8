"""Texts of like length in one padded pass: the same numbers as one by one."""

import families
import pytest
import torch

from atlaskit import measure, models
from atlaskit.models.documents import batches
from atlaskit.records import Tokens

SCORES = {
    "entropy": measure.entropy,
    "distance": measure.mean_distance,
    "previous": measure.mass_on(measure.previous_token),
    "own": measure.mass_on(measure.own_token),
}
LENGTHS = (23, 7, 2, 23, 11, 40)


def documents(model):
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(4, 96, (n,), generator=generator).tolist() for n in LENGTHS]
    return [(one, one[::-1][:9]) for one in ids] if model.is_encoder_decoder else ids


@pytest.mark.parametrize("rows", [10_000, 2], ids=["whole layers", "a few rows at a time"])
@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "mistral", "gemma2", "gpt_oss", "qwen3_moe", "bert", "roberta", "distilbert"]
)
def test_padded_texts_score_as_they_do_alone(family, rows, monkeypatch):
    monkeypatch.setattr("atlaskit.models.tiles.rows_at_a_time", lambda *_: rows)
    model = models.wrap(families.tiny(family), name=family)
    alone = models.survey(model, documents(model), SCORES, progress=False)
    together = models.survey(model, documents(model), SCORES, batch_tokens=100, progress=False)
    assert together.n_tokens.tolist() == list(LENGTHS)
    for name in SCORES:
        torch.testing.assert_close(together[name], alone[name], rtol=0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_padded_pairs_of_texts_score_as_they_do_alone(family, kind):
    model = models.wrap(families.tiny(family), name=family)
    scores = {"entropy": measure.entropy}
    alone = models.survey(model, documents(model), scores, kind=kind, progress=False)
    together = models.survey(model, documents(model), scores, kind=kind, batch_tokens=100, progress=False)
    torch.testing.assert_close(together["entropy"], alone["entropy"], rtol=0, atol=1e-5, equal_nan=True)


def test_a_forward_pass_serves_a_whole_batch():
    model = models.wrap(families.tiny("gpt2"))
    passes = []
    model.net.base_model.register_forward_pre_hook(lambda *_: passes.append(1))
    models.survey(model, documents(model), SCORES, batch_tokens=100, progress=False)
    assert len(passes) == len(batches([(text(n), text(n)) for n in LENGTHS], range(6), 100)) == 2


def text(n):
    return Tokens("a" * n, torch.zeros(n, dtype=torch.long), ("a",) * n, torch.zeros(n, 2, dtype=torch.long),
                  torch.zeros(n, dtype=torch.bool))  # fmt: skip


def test_batches_hold_like_lengths_and_no_more_than_asked():
    documents = [(text(n), text(n)) for n in LENGTHS]
    groups = batches(documents, range(6), 46)
    assert groups == [[2, 1, 4], [0, 3], [5]]  # 3 × 11, 2 × 23, 40
    assert batches(documents, range(6), 10)[-1] == [5]  # longer than asked: alone, never cut
    assert batches(documents, [4, 1], 0) == [[4], [1]]


def test_an_interrupt_says_which_texts_are_there():
    """Short texts go first, so what is done need not be what was given first."""
    model = models.wrap(families.tiny("gpt2"))
    looks = []

    def interrupting(pattern):
        looks.append(pattern.shape[-1])
        if 40 in looks:
            raise KeyboardInterrupt
        return pattern.amax(-1)

    survey = models.survey(model, documents(model), {"max": interrupting}, batch_tokens=46, progress=False)
    assert not survey.complete
    assert survey.places.tolist() == [0, 1, 2, 3, 4]
    assert survey.n_tokens.tolist() == list(LENGTHS[:5])
