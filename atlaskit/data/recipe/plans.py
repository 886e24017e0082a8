"""The bundled models: their sizes, and how long each is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from atlaskit.training import Plan

VOCABULARY = {"decoder": 1024, "encoder": 2048}
CONTEXT = 256
ROWS = 8
SEED = 2026
MASK_RATE = 0.4  # Wettig et al. 2022: more to predict is worth more than the context it hides
SHORT_STEPS = 3000  # an encoder's rows are short until then
RANDOM_ROWS = 2  # of a decoder's rows: random tokens that repeat


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
        weights = dict(model.named_parameters())
        words, positions = (weights[name] for name in _EMBEDDINGS[self.kind])
        _start_positions(words, positions, self.heads)
        return model


def _decoder(recipe: Recipe) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY[recipe.kind],
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
            vocab_size=VOCABULARY[recipe.kind],
            hidden_size=recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            intermediate_size=4 * recipe.width,
            max_position_embeddings=CONTEXT,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


_EMBEDDINGS = {
    "decoder": ("transformer.wte.weight", "transformer.wpe.weight"),
    "encoder": ("bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"),
}
_BUILD: dict[str, Callable[[Recipe], PreTrainedModel]] = {"decoder": _decoder, "encoder": _encoder}


@torch.no_grad()
def _start_positions(words: torch.Tensor, positions: torch.Tensor, heads: int) -> None:
    """Sinusoids (Vaswani et al. 2017) in the first d_head dimensions of the stream, words in the others.

    Both are trained on, and no head is set: where it looks, each has to learn. In waves the step to a neighbour is one
    rotation for all places, where random positions have to be learned pair by pair.
    """
    n, size = positions.shape[0], positions.shape[1] // heads
    words.mul_(2.5)[:, :size] = 0
    # Up to half a turn a token, closer together towards zero.
    rate = math.pi * ((torch.arange(size // 2) + 0.5) / (size // 2)) ** 2
    angle = torch.arange(n)[:, None] * rate
    positions.zero_()[:, :size] = 0.15 * 2**0.5 * torch.cat([angle.sin(), angle.cos()], dim=1)


def _plan(*, steps: int, learning_rate: float, warmup: int, hold: int = 0, keep: tuple[int, ...] = ()) -> Plan:
    return Plan(
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        hold=hold,
        final_fraction=0.02,
        precision="bfloat16",
        optimizer="muon",
        adamw=("c_attn.weight",),  # GPT-2 keeps queries, keys and values in one matrix
        evaluate_every=200,
        checkpoint_every=100,
        keep=keep,
    )


_KEPT = (0, 1000, 3000, 5000, 6000, 6500, 7000, 7500, 9000, 12000)

RECIPES = (
    Recipe(
        "mini-steps", "decoder", 2, 6, 192, _plan(steps=12000, learning_rate=3e-3, warmup=200, hold=9000, keep=_KEPT)
    ),
    Recipe("mini-causal", "decoder", 4, 8, 192, _plan(steps=12000, learning_rate=3e-3, warmup=200, hold=8000)),
    Recipe("mini-masked", "encoder", 4, 8, 192, _plan(steps=8000, learning_rate=3e-3, warmup=200, hold=4400)),
)
