"""A text read again gives what its capture gives, in memory that grows with its length alone."""

import pytest
import torch
from transformers import BertConfig, BertModel, BloomConfig, BloomModel, LlamaConfig, LlamaModel, T5Config, T5Model

from atlaskit import models

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 16}


def made(net, config):
    torch.manual_seed(0)
    return models.wrap(net(config).eval(), name="tiny")


@pytest.mark.parametrize(
    ("net", "config"),
    [(LlamaModel, LlamaConfig(**SMALL, num_key_value_heads=2)), (BertModel, BertConfig(**SMALL))],
    ids=["decoder", "encoder"],
)
def test_rows_are_those_of_the_capture(net, config):
    model, text = made(net, config), list(range(4, 24))
    seen, again = models.capture(model, text), models.reread(model, text)
    assert again.layers == tuple(one.layer for one in seen.layers)
    for one in seen.layers:
        for rows in (slice(0, 20), slice(7, 9), slice(19, 20)):
            pattern, support = again.rows(one.layer, rows)
            torch.testing.assert_close(pattern, one.pattern[:, rows], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(support, one.support[rows])
        norms = one.v.norm(dim=-1).repeat_interleave(4 // len(one.v), dim=0)
        torch.testing.assert_close(again.norms(one.layer), norms)


def test_each_kind_of_an_encoder_decoder_can_be_read_again():
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=16, num_layers=2, num_heads=4, decoder_start_token_id=0)
    model = made(T5Model, config)
    seen = models.capture(model, [5, 6, 7], source=[8, 9, 10, 11])
    for kind in ("encoder", "decoder", "cross"):
        again = models.reread(model, [5, 6, 7], source=[8, 9, 10, 11], kind=kind)
        for one in (layer for layer in seen.layers if layer.kind == kind):
            assert one.pattern.shape[1:] == (len(again.tokens), len(again.source))
            torch.testing.assert_close(
                again.rows(one.layer, slice(0, len(again.tokens)))[0], one.pattern, rtol=1e-5, atol=1e-6
            )


def test_a_model_without_q_and_k_is_sent_to_capture():
    model = made(BloomModel, BloomConfig(vocab_size=64, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(TypeError, match=r"tiny shows whole patterns only .*: use capture"):
        models.reread(model, [1, 2, 3])


def test_a_kind_that_the_model_does_not_have_is_named():
    with pytest.raises(ValueError, match=r"tiny has no cross attention; it has \['encoder'\]"):
        models.reread(made(BertModel, BertConfig(**SMALL)), [1, 2, 3], kind="cross")
