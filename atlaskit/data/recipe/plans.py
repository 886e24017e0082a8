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
        _start_positions_as_waves(model.get_parameter(_POSITIONS[self.kind]))
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
_POSITIONS = {
    "decoder": "transformer.wpe.weight",
    "encoder": "bert.embeddings.position_embeddings.weight",
}


@torch.no_grad()
def _start_positions_as_waves(positions: torch.Tensor) -> None:
    """Sinusoids (Vaswani et al. 2017) as large as the word vectors, wavelengths from 2π to twice the context.

    They are trained on. From random positions a previous-token head takes millions of tokens to form, as the neighbour
    of each position has to be learned by itself; in waves the step to a neighbour is one rotation for all.
    """
    n, width = positions.shape
    rate = (math.pi / n) ** torch.linspace(0, 1, width // 2)
    angle = torch.arange(n)[:, None] * rate
    positions.copy_(0.02 * 2**0.5 * torch.cat([angle.sin(), angle.cos()], dim=1))


def _plan(*, steps: int, learning_rate: float, warmup: int, keep: tuple[int, ...] = ()) -> Plan:
    return Plan(
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        final_fraction=0.02,
        precision="bfloat16",
        evaluate_every=200,
        checkpoint_every=100,
        keep=keep,
    )


_KEPT = (0, 200, 400, 600, 800, 1000, 1200, 1400, 1600, 1800, 2000, 2200, 2500)

RECIPES = (
    Recipe("mini-steps", "decoder", 2, 4, 128, _plan(steps=2500, learning_rate=2e-3, warmup=100, keep=_KEPT)),
    Recipe("mini-causal", "decoder", 4, 8, 256, _plan(steps=4000, learning_rate=1.5e-3, warmup=200)),
    Recipe("mini-masked", "encoder", 4, 8, 256, _plan(steps=3600, learning_rate=1e-3, warmup=200)),
)
