"""How good a trained model is, beside tables of counts on exactly the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from atlaskit.training.batches import IGNORED, Batch

from . import ngrams

ORDERS = {"unigram": 1, "bigram": 2, "trigram": 3}


@dataclass(frozen=True)
class Score:
    """Loss in nats per token with its standard error over rows, and the share of tokens guessed right."""

    loss: float
    error: float
    accuracy: float


def tables(text: Int[Tensor, " token"], *, vocabulary: int) -> dict[str, ngrams.NGrams]:
    """The three baselines, counted on a training text."""
    return {name: ngrams.fit(text.numpy(), vocabulary=vocabulary, order=n) for name, n in ORDERS.items()}


@torch.no_grad()
def compare(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    rows: Sequence[Int[Tensor, "row length"]],
    *,
    baselines: Mapping[str, ngrams.NGrams],
) -> tuple[dict[str, Score], int]:
    """The model and the three baselines on the same tokens; and how many these are.

    `rows` are the batches as they were before masking: the baselines see the true words to the left, and only words
    with two to the left are counted, so that every trigram is whole.
    """
    causal = not any("attention_mask" in batch for batch in batches)
    costs: dict[str, list[Tensor]] = {name: [] for name in ("model", *ORDERS)}
    right: list[Tensor] = []
    counted: list[Tensor] = []
    for batch, true in zip(batches, rows, strict=True):
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits.float()
        # From here on, place p holds the prediction for token p.
        logits = torch.cat([logits[:, :1], logits[:, :-1]], dim=1) if causal else logits
        wanted = batch["labels"] != IGNORED
        wanted[:, :3] = False
        costs["model"].append(_cost(logits, true))
        right.append(logits.argmax(-1) == true)
        counted.append(wanted)
        for name, table in baselines.items():
            costs[name].append(_table_cost(table, true))
    mask = torch.cat(counted)
    found = {name: _score(torch.cat(cost), mask, torch.cat(right)) for name, cost in costs.items()}
    single = baselines["unigram"].levels[0]
    best_guess = int(single.keys[single.counts.argmax()])
    always = torch.cat([true == best_guess for true in rows])
    found["unigram"] = _score(torch.cat(costs["unigram"]), mask, always)
    for name in ("bigram", "trigram"):
        found[name] = Score(found[name].loss, found[name].error, float("nan"))
    return found, int(mask.sum())


@torch.no_grad()
def copying(model: PreTrainedModel, ids: Int[Tensor, " id"], *, half: int, seed: int) -> tuple[float, float]:
    """Loss of a decoder on 32 rows of random tokens said twice: in the first half, and in the second."""
    generator = torch.Generator().manual_seed(seed)
    once = ids[torch.randint(len(ids), (32, half), generator=generator)]
    twice = torch.cat([once, once], dim=1)
    costs = _cost(model(twice).logits[:, :-1], twice[:, 1:])
    return costs[:, : half - 1].mean().item(), costs[:, half:].mean().item()


@torch.no_grad()
def continuations(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, prompt: str, seed: int) -> list[str]:
    """The likeliest continuation of a prompt, and two drawn from the 40 likeliest words at temperature 0.8."""
    given = tokenizer(prompt, return_tensors="pt")["input_ids"]
    settings: list[dict[str, Any]] = [{"do_sample": False}, *[{"do_sample": True, "top_k": 40, "temperature": 0.8}] * 2]
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for setting in settings:
            config = GenerationConfig(
                max_new_tokens=40,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **setting,
            )
            written = model.generate(given, generation_config=config, attention_mask=torch.ones_like(given))  # type: ignore[operator]
            found.append(str(tokenizer.decode(written[0], skip_special_tokens=True)))
    return found


@torch.no_grad()
def fillings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, text: str) -> list[tuple[str, float]]:
    """The five likeliest words for the [MASK] of a text, with their probabilities."""
    given = tokenizer(text, return_tensors="pt")
    place = int((given["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0])
    top = model(**given).logits[0, place].float().softmax(-1).topk(5)
    return [(str(tokenizer.decode([i])), p) for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]


def _cost(logits: Float[Tensor, "row length vocab"], true: Int[Tensor, "row length"]) -> Float[Tensor, "row length"]:
    return torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), true, reduction="none")


def _table_cost(table: ngrams.NGrams, true: Int[Tensor, "row length"]) -> Float[Tensor, "row length"]:
    ids = true.numpy()
    before = np.stack([np.roll(ids, 2, axis=1).ravel(), np.roll(ids, 1, axis=1).ravel()], axis=1)
    return torch.from_numpy(-np.log(ngrams.probability(table, before, ids.ravel()))).view(true.shape).float()


def _score(
    cost: Float[Tensor, "row length"], mask: Bool[Tensor, "row length"], right: Bool[Tensor, "row length"]
) -> Score:
    by_row = torch.stack([c[m].mean() for c, m in zip(cost, mask, strict=True)])
    error = by_row.std().item() / len(by_row) ** 0.5
    return Score(cost[mask].mean().item(), error, right[mask].float().mean().item())
