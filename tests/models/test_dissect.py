"""The deep dive, step by step: each number again from the network's own modules, asked by hand."""

import families
import pytest
import torch
from torch.nn.functional import cosine_similarity

from atlaskit import models

IDS = [5, 17, 9, 30, 5, 17, 80, 33, 21, 60, 5, 17]
FAMILIES = ["gpt2", "gpt_neox", "opt", "llama", "qwen3", "mixtral", "bert", "roberta", "distilbert", "modernbert"]


def wrapped(family):
    return models.wrap(families.tiny(family), name=family)


@pytest.fixture(scope="module")
def gpt2():
    return wrapped("gpt2")


@pytest.mark.parametrize("ids", [IDS, IDS[:2]], ids=["twelve", "two"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_heads_steps_are_those_of_a_capture(family, ids):
    model = wrapped(family)
    seen, told = models.capture(model, ids).layers[1], models.dissect(model, ids, 1, head=3, query=-2)
    head, own = told.attention, 3 * model.geometry.n_kv_head // 4
    assert told.query == len(ids) - 2
    torch.testing.assert_close(head.dots, seen.k[own] @ seen.q[3, -2])
    weights = torch.where(head.allowed, (head.scaled - head.scaled[head.allowed].max()).exp(), 0.0)
    torch.testing.assert_close(weights / weights.sum(), seen.pattern[3, -2], rtol=1e-4, atol=1e-6)
    assert torch.equal(head.allowed, seen.support[-2])
    torch.testing.assert_close(head.pattern @ head.v, seen.z[3, -2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.write, seen.result[3, -2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_predictions_and_the_last_lens_are_the_models_own(family):
    model = wrapped(family)
    with torch.no_grad():
        logits = model.net(torch.tensor([IDS])).logits[0, 4]
    told = models.dissect(model, IDS, 0, head=0, query=4, top=97)
    assert len(told.lens) == model.geometry.n_layer + 1
    for words in (told.predictions, told.lens[-1]):
        torch.testing.assert_close(words.values, logits.softmax(-1)[words.ids], rtol=1e-4, atol=1e-6)
        assert (words.values.diff() <= 0).all()
        assert float(words.values.sum()) == pytest.approx(1, abs=1e-5)


def test_the_lens_of_a_layer_is_the_final_norm_and_the_output_layer(gpt2):
    trunk, states = gpt2.net.transformer, []
    handle = trunk.h[0].register_forward_hook(lambda _, args, out: states.extend([args[0], out]))
    with torch.no_grad():
        gpt2.net(torch.tensor([IDS]))
        handle.remove()
        expected = [gpt2.net.lm_head(trunk.ln_f(state))[0, -1].softmax(-1) for state in states]
    for words, own in zip(models.dissect(gpt2, IDS, 0, head=0).lens, expected, strict=False):
        torch.testing.assert_close(words.values, own[words.ids], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_are_scales_and_shifts_of_what_they_read(family):
    told = models.dissect(wrapped(family), IDS, 1, head=0)
    assert len(told.norms) >= 2
    for norm in told.norms:
        torch.testing.assert_close(norm.scale * (norm.read - norm.mean) + norm.shift, norm.gave, rtol=1e-4, atol=1e-5)


def test_lengths_follow_the_residual_stream(gpt2):
    told = models.dissect(gpt2, IDS, 1, head=0)
    with torch.no_grad():
        states = gpt2.net(torch.tensor([IDS]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(told.lengths["read"], states[1][0].norm(dim=-1))
    assert list(told.lengths) == ["read", "attention", "middle", "feed-forward", "gave"]


def test_embeddings_are_rows_of_the_tables(gpt2):
    told = models.dissect(gpt2, IDS, 0, head=0)
    trunk = gpt2.net.transformer
    assert torch.equal(told.embeddings["transformer.wte"], trunk.wte.weight[IDS])
    assert torch.equal(told.embeddings["transformer.wpe"], trunk.wpe.weight[: len(IDS)])


def test_the_nearest_words_have_the_largest_cosines(gpt2):
    told = models.dissect(gpt2, IDS, 0, head=0, query=2, top=5).nearest
    table = gpt2.net.transformer.wte.weight.detach()
    every = sorted(
        ((float(cosine_similarity(table[i], table[9], dim=0)), i) for i in range(97) if i != 9), reverse=True
    )
    assert told.ids.tolist() == [i for _, i in every[:5]]
    assert told.strings == tuple(str(i) for _, i in every[:5])  # without a tokenizer a word is its number


@pytest.mark.parametrize(
    ("family", "last"), [("gpt2", "mlp.c_proj"), ("llama", "mlp.down_proj"), ("bert", "output.dense")]
)
def test_the_top_neurons_write_the_longest_rows(family, last):
    model = wrapped(family)
    block = next(m for m in model.net.modules() if isinstance(m, torch.nn.ModuleList))[1]
    module, heard = block.get_submodule(last), []
    handle = module.register_forward_pre_hook(lambda _, args: heard.append(args[0][0, -1]))
    with torch.no_grad():
        model.net(torch.tensor([IDS]))
    handle.remove()
    told = models.dissect(model, IDS, 1, head=0, top=4).neurons
    rows = module.weight.detach() if family == "gpt2" else module.weight.detach().T
    lengths = heard[0].abs() * rows.norm(dim=-1)
    assert told.ids.tolist() == lengths.argsort(descending=True)[:4].tolist()
    torch.testing.assert_close(told.activations, heard[0][told.ids])
    assert told.n_neuron == len(rows)


def test_a_mixture_of_experts_says_why_it_has_no_neurons():
    told = models.dissect(wrapped("mixtral"), IDS, 0, head=0)
    assert told.neurons is None
    assert told.neurons_missing == "no single linear module of mixtral writes its feed-forward's output"


def test_a_model_without_a_head_has_no_lens(gpt2):
    told = models.dissect(models.wrap(gpt2.net.transformer), IDS, 0, head=0)
    assert told.lens is told.predictions is None


def test_the_planted_copy_is_seen_at_every_step():
    """cat dog cat: the induction head attends to dog, and dog is what is predicted, but only after the last layer."""
    told = models.dissect(models.planted(), "cat dog cat", 1, head=0)
    assert int(told.attention.pattern.argmax()) == 1
    assert told.predictions.strings[0] == "dog"
    assert told.predictions.values[0] > 0.99
    torch.testing.assert_close(told.lens[1].values, torch.full((10,), 1 / 64))  # every word alike until then


@pytest.mark.parametrize(("family", "message"), [
    ("gemma2", r"the pattern of head 0 from q·k, .* \(it is given .*softcap.*\): the steps give other"),
    ("gpt_oss", r"the pattern of head 0 from q·k, scale, mask and softmax \(it is given .*s_aux.*\)"),
    ("bitnet", "z of head 0: the steps give other numbers than bitnet has"),
    ("t5", "t5 is an encoder–decoder"),
])  # fmt: skip
def test_models_of_other_steps_are_refused_by_name(family, message):
    with pytest.raises(TypeError, match=message):
        models.dissect(wrapped(family), IDS, 1, head=0)


@pytest.mark.parametrize("place", [{"layer": 2}, {"head": 4}, {"query": 12}, {"query": -13}, {"layer": -1}])
def test_what_is_not_there_cannot_be_dissected(gpt2, place):
    where = {"layer": 0, "head": 0, "query": 0} | place
    with pytest.raises(IndexError, match=r"gpt2 has layers 0 to 1 and heads 0 to 3, and the text has 12 tokens"):
        models.dissect(gpt2, IDS, where.pop("layer"), **where)
