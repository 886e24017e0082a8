"""A language model small enough to be trained in seconds."""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from .tasks import Task


def small_decoder(task: Task, *, layers: int = 2, heads: int = 2, width: int = 32, seed: int = 0) -> GPT2LMHeadModel:
    """A GPT-2 of the task's vocabulary and length, without dropout, in training mode.

    Its weights start at a spread of width^-1/2: GPT-2's own 0.02 is meant for a width of 768, and in a narrow model
    leaves attention's share of the residual stream so small that relays over two layers are hardly ever found.
    """
    config = GPT2Config(
        vocab_size=task.vocab, n_positions=task.length, n_embd=width, n_inner=2 * width, n_layer=layers, n_head=heads,
        activation_function="relu", initializer_range=width**-0.5, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config).train()
    model.loss_type = "ForCausalLM"  # what the library settles on anyway, with a warning
    return model
