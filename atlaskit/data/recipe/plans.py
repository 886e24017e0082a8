"""The bundled models: their sizes, and how long each is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from atlaskit.training import Plan

VOCABULARY = 4096
CONTEXT = 256
ROWS = 8
SEED = 2026
MASK_RATE = 0.2
SHARPNESS = 0.07  # of queries and keys at the start, where everything else has a standard deviation of 0.02
LOUDNESS = 0.08  # of positions: about what token vectors grow to


@dataclass(frozen=True)
class Recipe:
    """One model: what it is, how it is made, how it is trained."""

    name: str
    kind: Literal["decoder", "encoder"]
    layers: int
    heads: int
    width: int
    plan: Plan

    def build(self) -> PreTrainedModel:
        """The untrained model, its weights drawn from the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = _BUILD[self.kind](self)
        _mimic(model, self.kind)
        return model


def _decoder(recipe: Recipe) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=CONTEXT,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def _encoder(recipe: Recipe) -> PreTrainedModel:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            intermediate_size=4 * recipe.width,
            max_position_embeddings=CONTEXT,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


_BUILD: dict[str, Callable[[Recipe], PreTrainedModel]] = {"decoder": _decoder, "encoder": _encoder}


@torch.no_grad()
def _mimic(model: PreTrainedModel, kind: str) -> None:
    """Start where small trained transformers end up, so that a short training suffices (Trockman & Kolter 2023).

    Positions start as sinusoids that token vectors do not drown; keys start equal to queries, so heads look near
    themselves; and a head's output matrix is its value matrix turned round, so heads hand on what they look at. From
    GPT-2's own start 5 million tokens left every head of the two-layer decoder without any sense of place.
    """
    if kind == "decoder":
        _waves(model.transformer.wpe.weight)
        for block in model.transformer.h:
            query, key, value = block.attn.c_attn.weight.chunk(3, dim=1)
            key.copy_(query.mul_(SHARPNESS / 0.02))
            block.attn.c_proj.weight.copy_(value.T)
    else:
        _waves(model.bert.embeddings.position_embeddings.weight)
        for block in model.bert.encoder.layer:
            attention = block.attention
            attention.self.key.weight.copy_(attention.self.query.weight.mul_(SHARPNESS / 0.02))
            attention.output.dense.weight.copy_(attention.self.value.weight.T)


def _waves(positions: torch.Tensor) -> None:
    """Sinusoids (Vaswani et al. 2017) of wavelengths from three tokens to twice the context."""
    n, width = positions.shape
    rate = 2 * (math.pi / (2 * n)) ** torch.linspace(0, 1, width // 2)
    angle = torch.arange(n)[:, None] * rate
    positions.copy_(LOUDNESS * 2**0.5 * torch.cat([angle.sin(), angle.cos()], dim=1))


def _plan(*, steps: int, learning_rate: float, warmup: int, hold: int = 0, keep: tuple[int, ...] = ()) -> Plan:
    return Plan(
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        hold=hold,
        final_fraction=0.02,
        precision="bfloat16",
        evaluate_every=200,
        checkpoint_every=100,
        keep=keep,
    )


_KEPT = (0, 50, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 1200, 1600, 2000)

RECIPES = (
    Recipe("mini-steps", "decoder", 2, 4, 128, _plan(steps=2000, learning_rate=2e-3, warmup=100, keep=_KEPT)),
    Recipe("mini-causal", "decoder", 5, 8, 192, _plan(steps=6000, learning_rate=2.5e-3, warmup=150, hold=5000)),
    Recipe("mini-masked", "encoder", 5, 8, 192, _plan(steps=6000, learning_rate=1.2e-3, warmup=200, hold=5000)),
)
