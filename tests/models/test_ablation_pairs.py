"""Two heads broken at once: its twins are runs by `ablation_effect`."""

import families
import pytest
import torch

from atlaskit import measure, models

TEXTS = [torch.randint(4, 96, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (12, 7)]
PAIRS = [((0, 0), (0, 3)), ((0, 2), (1, 1)), ((1, 0), (1, 1)), ((1, 2), (0, 2))]


@pytest.mark.parametrize("kind", ["mean", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_pair_costs_what_its_two_heads_cost_ablated_together(family, kind, monkeypatch):
    model = models.wrap(families.tiny(family), name=family)
    monkeypatch.setattr("atlaskit.models.suffix.BUDGET", 1)  # one pair at a time
    alone = models.pair_ablation_effects(model, TEXTS, PAIRS, kind=kind, progress=False)
    monkeypatch.undo()
    found = models.pair_ablation_effects(model, TEXTS, PAIRS, kind=kind, progress=False)
    for place, pair in enumerate(PAIRS):
        expected = models.ablation_effect(model, TEXTS, pair, kind=kind, progress=False)
        torch.testing.assert_close(found[:, place], expected, rtol=1e-3, atol=2e-6)
    torch.testing.assert_close(alone, found, rtol=1e-3, atol=2e-6)


def test_a_head_with_itself_costs_what_it_costs_alone():
    model = models.wrap(families.tiny("gpt2"))
    single = models.ablation_effects(model, TEXTS, progress=False)["effect"]
    found = models.pair_ablation_effects(model, TEXTS, [((1, 2), (1, 2))], progress=False)
    torch.testing.assert_close(found[:, 0], single[:, 1, 2], rtol=1e-3, atol=2e-6)


def test_heads_that_are_not_there_are_refused():
    model = models.wrap(families.tiny("gpt2"), name="gpt2")
    with pytest.raises(IndexError, match=r"gpt2 has no head 0.9"):
        models.pair_ablation_effects(model, TEXTS, [((0, 0), (0, 9))], progress=False)
    with pytest.raises(ValueError, match="there are no heads to ablate"):
        models.pair_ablation_effects(model, TEXTS, [], progress=False)


GROUPS = [slice(0, 16), slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 64)]  # of words, a head of layer 1 each


def shared_work():
    """The planted model, its induction head dealt out to five heads: three have words of their own, two share theirs.

    Each of those two writes half of what is due, in coordinates of its own. Together the five do what it did.
    """
    model = models.planted()
    attention = model.net.transformer.h[1].attn
    width = attention.embed_dim
    q_k_v, out = attention.c_attn.weight, attention.c_proj.weight
    head = [slice(64 * n, 64 * n + 64) for n in range(5)]
    whole = [q_k_v[:, part * width :][:, head[0]].clone() for part in range(3)]
    written, gauges = out[head[0]].clone(), measure.random_gauge(5, 64, seed=0).float()
    with torch.no_grad():
        for n, words in enumerate(GROUPS):
            kept = torch.zeros(64, 64)
            kept[words, words] = torch.eye(16) * (0.5 if n < 2 else 1.0)
            for part in (0, 1):
                q_k_v[:, part * width :][:, head[n]] = whole[part]
            q_k_v[:, 2 * width :][:, head[n]] = whole[2] @ kept @ gauges[n]
            out[head[n]] = gauges[n].T @ written
    return model


def test_heads_that_share_their_work_are_found_by_what_they_write_and_by_what_is_lost_without_them():
    model = shared_work()
    orders = [torch.randperm(64, generator=torch.Generator().manual_seed(n))[:30].tolist() for n in range(8)]
    texts = [order + order for order in orders]  # what comes after a word's first time is foreseen at its second
    ids = torch.tensor(texts)
    with torch.inference_mode():
        torch.testing.assert_close(model.net(ids).logits, models.planted().net(ids).logits, rtol=0, atol=1e-4)

    cloud = models.clouds(model, texts, points=400, progress=False, seed=0)
    out = models.write_weights(model.sites[1].projection, 5)
    covariance = measure.pooled_covariance(cloud.n, cloud.total[:, 1], cloud.moment[:, 1])
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    alike = measure.overlap(measure.write_axes(covariance, out, rank=16).axes)
    assert [alike[pair].item() for pair in pairs] == pytest.approx([1] + 9 * [0], abs=1e-4)

    alone = models.ablation_effects(model, texts, kind="zero", progress=False)["effect"][:, 1]
    both = models.pair_ablation_effects(
        model, texts, [((1, i), (1, j)) for i, j in pairs], kind="zero", progress=False
    )  # fmt: skip
    beyond = torch.stack([both[:, n] - alone[:, i] - alone[:, j] for n, (i, j) in enumerate(pairs)]).mean(1)

    def foreseen(share):
        """Loss where the word is known, by `share` of the prediction: four entries through the last norm."""
        entries = torch.tensor([1.0, 1, 1, share] + 316 * [0.0])
        return (1 + 63 * (-share / entries.std(correction=0)).exp()).log()

    shared = [sum(word < 16 for word in order[1:]) / 59 for order in orders]  # of 59 predictions
    expected = (foreseen(0.0) + foreseen(1.0) - 2 * foreseen(0.5)) * sum(shared) / len(shared)
    # before a word comes again nothing is foreseen: heads spread over all keys, and move a loss of log 64 by little
    assert beyond[0].item() == pytest.approx(expected.item(), rel=0.1)
    assert beyond[1:].abs().max() < 0.1 * expected
