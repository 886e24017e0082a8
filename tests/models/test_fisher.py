"""Fisher information against autograd's own gradients, and moments against what the matrices were seen to read."""

import math

import families
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from atlaskit import models

TEXTS = [torch.randint(4, 96, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (12, 7, 20)]


def own_gradients(model, ids, names):
    """Gradients of the loss that transformers computes, [row column]."""
    model.net.zero_grad()
    model.net(input_ids=torch.tensor([ids]), labels=torch.tensor([ids]), use_cache=False).loss.backward()
    modules = dict(model.net.named_modules())
    found = {}
    for name in names:
        gradient = modules[name].weight.grad
        found[name] = gradient.T if isinstance(modules[name], Conv1D) else gradient
    return {name: gradient.clone() for name, gradient in found.items()}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_diagonal_holds_the_squares_of_each_documents_gradient(family):
    model = models.wrap(families.tiny(family), name=family)
    found = models.fisher(model, TEXTS)
    assert all(weight.grad is None for weight in model.net.parameters())
    gradients = [own_gradients(model, ids, found) for ids in TEXTS]
    model.net.zero_grad()
    assert len(found) > 4
    for name, one in found.items():
        stacked = torch.stack([gradient[name] for gradient in gradients])
        scale = float(stacked.square().max())
        torch.testing.assert_close(one.diagonal, stacked.square().mean(0), rtol=1e-3, atol=1e-5 * scale)
        block = torch.einsum("nij,nik->jk", stacked, stacked) / 3
        torch.testing.assert_close(one.gradient, block, rtol=1e-3, atol=1e-5 * float(block.abs().max()))


def test_moments_are_means_over_tokens_whatever_the_lengths_of_texts():
    """No padding is read: a short text counts by its tokens, not by the length of its neighbour."""
    model = models.wrap(families.tiny("llama"))
    together, alone = models.fisher(model, TEXTS), [models.fisher(model, [ids]) for ids in TEXTS]
    n = torch.tensor([len(ids) for ids in TEXTS]).float()
    for name, one in together.items():
        parts = torch.stack([part[name].moment for part in alone])
        torch.testing.assert_close(one.moment, torch.einsum("n,nij->ij", n / n.sum(), parts), rtol=1e-4, atol=1e-5)
    few, other = (models.fisher(model, TEXTS, points=6, seed=seed) for seed in (0, 1))
    everything = models.fisher(model, TEXTS, points=10_000)
    for name, one in everything.items():
        torch.testing.assert_close(one.read.mT @ one.read / len(one.read), one.moment, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.read.mean(0), one.mean, rtol=1e-4, atol=1e-5)
        assert len(few[name].read) == 6
        assert not torch.equal(few[name].read, other[name].read)  # drawn, and not the beginning of each text


def test_signals_dealt_out_anew_forget_which_token_read_what():
    """The mean over all deals in closed form: own pairs weigh mean |s|², others the mean of s·s' over s' ≠ s."""
    model = models.wrap(families.tiny("gpt2"))
    module = model.net.transformer.h[1].mlp.c_fc
    kept = {}
    forward = module.register_forward_hook(lambda _module, args, _output: kept.update(read=args[0][0].detach()))
    backward = module.register_full_backward_hook(lambda _module, _into, out: kept.update(signal=out[0][0]))
    own_gradients(model, TEXTS[0], [])
    model.net.zero_grad()
    forward.remove()
    backward.remove()
    read, signal = kept["read"], kept["signal"]
    n, gram = len(read), signal @ signal.T
    same, other = gram.trace() / n, (gram.sum() - gram.trace()) / (n * (n - 1))
    whole = read.sum(0)
    expected = (same - other) * read.T @ read + other * whole[:, None] * whole
    dealt = [models.fisher(model, TEXTS[:1], seed=seed)["transformer.h.1.mlp.c_fc"] for seed in range(40)]
    column = torch.randn(32, generator=torch.Generator().manual_seed(0))
    for probe in (torch.eye(32), column[:, None] * column):  # the trace, one direction
        drawn = torch.stack([(one.unpaired * probe).sum() for one in dealt])
        assert abs(drawn.mean() - (expected * probe).sum()) < 3 * drawn.std() / math.sqrt(40)


def test_weights_are_put_in_and_taken_out_again():
    model = models.wrap(families.tiny("gpt2"))
    ids = torch.tensor([TEXTS[0]])
    before = model.net(input_ids=ids).logits
    found = models.fisher(model, TEXTS[:1])
    assert isinstance(model.net.transformer.h[0].attn.c_attn, Conv1D)
    with models.with_weights(model, {name: one.weight for name, one in found.items()}):
        assert torch.equal(model.net(input_ids=ids).logits, before)

    def fail_within():
        with models.with_weights(model, {"transformer.h.0.attn.c_attn": torch.zeros(96, 32)}):
            assert not torch.allclose(model.net(input_ids=ids).logits, before)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail_within()
    assert torch.equal(model.net(input_ids=ids).logits, before)
    with (
        pytest.raises(KeyError, match="has no matrix 'nowhere'"),
        models.with_weights(model, {"nowhere": torch.zeros(2, 2)}),
    ):
        pass


def test_embeddings_and_the_head_are_no_matrices():
    model = models.wrap(families.tiny("llama"))
    names = set(models.fisher(model, TEXTS[:1]))
    linear = {name for name, module in model.net.named_modules() if isinstance(module, nn.Linear)}
    assert names == linear - {"lm_head"}


def test_without_a_language_model_head_there_is_no_loss():
    model = models.load("all-minilm-l6-v2")
    with pytest.raises(TypeError, match="has no language-model head"):
        models.fisher(model, ["The cat sat on the mat."])
