"""Tiny random networks of many families, for tests; seeded, offline, a few milliseconds each."""

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
BERT = {**SMALL, "max_position_embeddings": 128}

CAUSAL = {
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": {**BERT},
    "opt": {**SMALL, "ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 32},
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 5},
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma2": {**GROUPED, "sliding_window": 5, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {**GROUPED, "sliding_window": 5, "query_pre_attn_scalar": 8},
    "gpt_oss": {**GROUPED, "sliding_window": 5, "num_local_experts": 2, "num_experts_per_tok": 1},
    "phi3": {**GROUPED, "pad_token_id": 0},
    "olmo2": GROUPED,
}
MASKED = {
    "bert": BERT,
    "roberta": {**BERT, "pad_token_id": 1},
    "distilbert": {
        "vocab_size": 97,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 128,
    },
    "albert": {**BERT, "embedding_size": 16},
    "modernbert": {**BERT, "pad_token_id": 0, "local_attention": 6},
}
PAIRED = {
    "t5": {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
           "decoder_start_token_id": 0},
    "bart": {
        "vocab_size": 97, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 128,
    },
}  # fmt: skip
ALL = (*CAUSAL, *MASKED, *PAIRED)


def tiny(family: str, *, seed: int = 0) -> PreTrainedModel:
    """A network of the family in eval mode, its weights drawn wide enough that attention is far from uniform."""
    table, maker = next(
        (table, maker)
        for table, maker in (
            (CAUSAL, AutoModelForCausalLM),
            (MASKED, AutoModelForMaskedLM),
            (PAIRED, AutoModelForSeq2SeqLM),
        )
        if family in table
    )
    torch.manual_seed(seed)
    # ids past the small vocabulary would index nothing
    config = CONFIG_MAPPING[family](**{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0} | table[family])
    net = maker.from_config(config)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.ndim >= 2 or "sinks" in name:
                weight.normal_(std=0.3)
    return net.eval()
