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
MASK_RATE = 0.2
COPYING_FIRST = 800  # steps in which a decoder that has to find copying itself sees three such rows of eight, not one


@dataclass(frozen=True)
class Recipe:
    """One model: what it is, how it is made, how it is trained."""

    name: str
    kind: Literal["decoder", "encoder"]
    layers: int
    heads: int
    width: int
    plan: Plan
    induction: bool = False

    def build(self) -> PreTrainedModel:
        """The untrained model, its weights drawn from the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = _BUILD[self.kind](self)
        _place(model, self.kind, induction=self.induction)
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


_BUILD: dict[str, Callable[[Recipe], PreTrainedModel]] = {"decoder": _decoder, "encoder": _encoder}


@torch.no_grad()
def _place(model: PreTrainedModel, kind: str, *, induction: bool) -> None:
    """Start with heads that look at a neighbour, and where asked with induction heads on top of them.

    From the usual start 5 million tokens left the heads without any sense of place, and copying did not begin. So
    positions start as sinusoids in the first dimensions of the stream, words in the last ones, and in between there is
    room for the word before. All of it is trained on like every other weight.
    """
    if kind == "decoder":
        words, positions = model.transformer.wte.weight, model.transformer.wpe.weight
        first = model.transformer.h[0].attn
        parts = [part.T for part in first.c_attn.weight.chunk(3, dim=1)]
        _place_words(words, positions, heads := model.config.n_head)
        _look(parts[0], parts[1], head=0, heads=heads, offset=-1)
        reader = _reader(words.shape[1], heads, n=0)
        _hand_on(parts[2], first.c_proj.weight.T, heads=heads, reader=reader)
        if induction:
            second = model.transformer.h[1].attn
            _match(*(part.T for part in second.c_attn.weight.chunk(3, dim=1)), second.c_proj.weight.T, heads=heads)
    else:
        embeddings, first = model.bert.embeddings, model.bert.encoder.layer[0].attention.self
        _place_words(
            embeddings.word_embeddings.weight,
            embeddings.position_embeddings.weight,
            heads := model.config.num_attention_heads,
        )
        for head, offset in zip(range(heads // 2), (-1, 1, -2, 2), strict=False):
            _look(first.query.weight, first.key.weight, head=head, heads=heads, offset=offset)


def _rates(size: int) -> torch.Tensor:
    """Angles a token that the position waves turn by, up to half a turn, closer together towards zero."""
    return math.pi * ((torch.arange(size // 2) + 0.5) / (size // 2)) ** 2


def _place_words(words: torch.Tensor, positions: torch.Tensor, heads: int) -> None:
    """Sinusoids (Vaswani et al. 2017) in the first d_head dimensions, words from twice d_head on, each loud enough."""
    n, size = positions.shape[0], positions.shape[1] // heads
    words.mul_(2.5)[:, : 2 * size] = 0
    angle = torch.arange(n)[:, None] * _rates(size)
    positions.zero_()[:, :size] = 0.15 * 2**0.5 * torch.cat([angle.sin(), angle.cos()], dim=1)


def _look(query: torch.Tensor, key: torch.Tensor, *, head: int, heads: int, offset: int) -> None:
    """Make a head's key at place t agree with its query at t - offset: each pair of waves turns by rate * offset."""
    size = query.shape[0] // heads
    rows = slice(head * size, (head + 1) * size)
    cosine, sine = (torch.diag(f(_rates(size) * offset)) for f in (torch.cos, torch.sin))
    query[rows], key[rows] = 0, 0
    query[rows, :size] = torch.eye(size)
    key[rows, :size] = torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)])


def _reader(width: int, heads: int, *, n: int) -> torch.Tensor:
    """A random map from the words' dimensions to one head's, [d_head, words]; the n-th of them."""
    size = width // heads
    generator = torch.Generator().manual_seed(SEED + n)
    return torch.randn(size, width - 2 * size, generator=generator) / (width - 2 * size) ** 0.5


def _hand_on(value: torch.Tensor, out: torch.Tensor, *, heads: int, reader: torch.Tensor) -> None:
    """Make head 0 write what it reads of the word before it to the room between positions and words."""
    size = len(reader)
    value[:size], out[:, :size] = 0, 0
    value[:size, 2 * size :] = 1.5 * reader
    out[size : 2 * size, :size] = 0.15 * torch.eye(size)


def _match(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor, *, heads: int) -> None:
    """Make heads 0 and 1 look where the word before was this word, and hand on the word they find."""
    width = query.shape[1]
    size = width // heads
    for head in range(2):
        rows = slice(head * size, (head + 1) * size)
        query[rows], key[rows], value[rows], out[:, rows] = 0, 0, 0, 0
        query[rows, 2 * size :] = 3 * _reader(width, heads, n=0)
        key[rows, size : 2 * size] = 3 * torch.eye(size)
        reader = _reader(width, heads, n=1 + head)
        value[rows, 2 * size :] = 2 * reader
        out[2 * size :, rows] = 0.6 * reader.T


def _plan(*, steps: int, learning_rate: float, warmup: int, hold: int = 0, keep: tuple[int, ...] = ()) -> Plan:
    return Plan(
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        hold=hold,
        final_fraction=0.02,
        precision="bfloat16",
        optimizer="muon",
        evaluate_every=200,
        checkpoint_every=100,
        keep=keep,
    )


_KEPT = (0, 50, 100, 200, 300, 400, 500, 600, 800, 1000, 1200, 1600)

RECIPES = (
    Recipe(
        "mini-steps",
        "decoder",
        2,
        6,
        192,
        _plan(steps=1600, learning_rate=3e-3, warmup=100, keep=_KEPT),
    ),
    Recipe(
        "mini-causal",
        "decoder",
        4,
        8,
        256,
        _plan(steps=6000, learning_rate=3e-3, warmup=150, hold=5000),
        induction=True,
    ),
    Recipe("mini-masked", "encoder", 4, 8, 256, _plan(steps=6000, learning_rate=2e-3, warmup=200, hold=5000)),
)
