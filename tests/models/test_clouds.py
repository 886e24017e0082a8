"""Clouds: the same numbers as captures give, drawn fairly, and sums that covariances come out of."""

import sys

import families
import pytest
import torch

from atlaskit import measure, models

TEXTS = [torch.randint(4, 96, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (30, 5, 21, 40)]


@pytest.fixture(scope="module", params=["gpt2", "llama", "bert"])
def model(request):
    return models.wrap(families.tiny(request.param), name=request.param)


def test_points_are_what_captures_hold(model):
    found = models.clouds(model, TEXTS, points=30, progress=False)
    assert found.z.shape[2] == found.stream.shape[1] == len(found.document) == 30
    for i, text in enumerate(TEXTS):
        capture = models.capture(model, text)
        with torch.inference_mode():
            told = model.net.base_model(input_ids=torch.tensor([text]), output_hidden_states=True)
        here = found.document == i
        places = found.position[here]
        for layer, own in enumerate(capture.layers):
            torch.testing.assert_close(found.z[layer][:, here], own.z[:, places], rtol=0, atol=1e-5)
            torch.testing.assert_close(
                found.stream[layer][here], told.hidden_states[own.layer][0, places], rtol=0, atol=1e-4
            )


def test_every_document_gives_as_much_as_it_can(model):
    """Five tokens, of which the first is left out, give four; the rest is shared."""
    found = models.clouds(model, TEXTS, points=34, progress=False)
    assert torch.bincount(found.document).tolist() == [10, 4, 10, 10]
    assert (found.position > 0).all()
    everything = models.clouds(model, TEXTS, points=10_000, progress=False)
    assert torch.bincount(everything.document).tolist() == [29, 4, 20, 39]


def test_the_draw_depends_on_its_seed_alone(model):
    first, again, other = (models.clouds(model, TEXTS, points=20, seed=s, progress=False) for s in (0, 0, 1))
    assert torch.equal(first.z, again.z)
    assert not torch.equal(first.position, other.position)


def test_sums_are_over_all_tokens_however_few_are_drawn(model, monkeypatch):
    monkeypatch.setattr(sys.modules["atlaskit.models.clouds"], "BLOCKS", 3)
    found = models.clouds(model, TEXTS, points=8, progress=False)
    everything = models.clouds(model, TEXTS, points=10_000, progress=False).z
    assert found.n.tolist() == [29 + 39, 4, 20]  # dealt round: documents 0 and 3, 1, 2
    n = int(found.n.sum())
    mean = found.total.sum(0) / n
    covariance = found.moment.sum(0) / n - mean[..., None] * mean[..., None, :]
    for layer, heads in enumerate(everything):
        expected = torch.stack([head.T.double().cov(correction=0) for head in heads])
        torch.testing.assert_close(covariance[layer], expected, rtol=1e-6, atol=1e-9)


def test_documents_can_be_drawn_anew_from_the_sums(model):
    found = models.clouds(model, TEXTS, points=8, progress=False)
    draws = list(measure.bootstrap_covariances(found.n, found.total[:, 0], found.moment[:, 0], draws=3, seed=0))
    assert len(draws) == 3
    assert all(torch.linalg.eigvalsh(one).min() > -1e-9 for one in draws)


def test_models_without_one_stream_or_z_are_refused():
    with pytest.raises(TypeError, match=r"t5 has no clouds: it is an encoder–decoder"):
        models.clouds(models.wrap(families.tiny("t5"), name="t5"), TEXTS)
    with pytest.raises(TypeError, match=r"bloom has no clouds: BloomForCausalLM does not look its attention up"):
        models.clouds(models.wrap(families.tiny("bloom"), name="bloom"), TEXTS)


def test_two_tokens_give_one_point():
    model = models.wrap(families.tiny("gpt2"))
    assert models.clouds(model, [[5, 6]], progress=False).position.tolist() == [1]


def test_of_a_long_text_only_points_and_sums_are_kept():
    """Five hundred tokens, ten points: what is held is as large as the points, not as the text."""
    model = models.wrap(families.tiny("gpt2"))
    found = models.clouds(model, [(list(range(4, 96)) * 2)[:120]] * 3, points=9, progress=False)
    assert found.z.untyped_storage().nbytes() == found.z.numel() * 4
    assert found.stream.untyped_storage().nbytes() == found.stream.numel() * 4
    assert found.n.sum() == 3 * 119
