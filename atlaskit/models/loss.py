"""What a model loses on a text, in nats per token: causal models tell the next token, masked ones hidden tokens."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from atlaskit.models.documents import tokenized
from atlaskit.models.intervene import check_changeable
from atlaskit.models.model import Model
from atlaskit.models.proof import accepted
from atlaskit.models.tokenize import Text
from atlaskit.records import Tokens

MASKED = 0.15
"""Share of the tokens that a masked model has to guess (Devlin et al. 2019)."""
IGNORED = -100
"""The target of a place where nothing is asked."""
Where: TypeAlias = Callable[[Tokens], Bool[Tensor, " token"]]
"""Which tokens of a text a model has to tell, such as ``measure.foretold``."""


def losses(
    model: Model, texts: Iterable[Text], *, where: Where | None = None, seed: int = 0, max_tokens: int | None = None
) -> Float[Tensor, " doc"]:
    """Loss of each text as it is, in nats per token: what the effects of ablation are added to.

    Inside a block that changes the model (`intervene`, `top_k_attention`) it is the loss with that change. Causal
    models tell the next token, masked ones 15 % of the tokens, drawn by `seed` and hidden. `where` keeps to some of the
    tokens; a text that has none of them is nan. Raises TypeError for a model without a language-model head.
    """
    documents = readable(model, texts, max_tokens)
    with torch.no_grad():
        parts = [loss(model.net(**inputs).logits, targets) for inputs, targets in tasks(model, documents, seed, where)]
    return torch.cat(parts).cpu()


def predictive_entropy(model: Model, text: Text) -> Float[Tensor, " token"]:
    """Entropy of what the model says at each token of a text, in bits: how little it knows there."""
    tokens = model.tokens(text)
    _check_head(model)
    with torch.no_grad():
        logits = model.net(**accepted(model.net, model.inputs(tokens, tokens) | {"use_cache": False})).logits[0]
    told = logits.float().log_softmax(-1)
    return (-(told.exp() * told).sum(-1) / math.log(2)).cpu()


def readable(model: Model, texts: Iterable[Text], max_tokens: int | None) -> list[Tokens]:
    """Tokens of the texts of a model that reads one text at a time and whose heads can be changed."""
    check_changeable(model)  # an encoder–decoder would ask for a second text first
    return [tokens for tokens, _ in tokenized(model, texts, max_tokens)]


def tasks(
    model: Model, documents: Sequence[Tokens], seed: int, where: Where | None = None
) -> list[tuple[dict[str, Any], Int[Tensor, " token"]]]:
    """For each document what the net takes and, place by place, what it has to say; -100 where nothing is asked."""
    _check_head(model)
    generator = torch.Generator().manual_seed(seed)
    asked = []
    for tokens in documents:
        named = torch.ones(len(tokens), dtype=torch.bool) if where is None else where(tokens)
        shown, targets = (
            _next_token(tokens, named) if model.geometry.causal else _hidden(model, tokens, named, generator)
        )
        inputs = accepted(model.net, model.inputs(shown, shown) | {"use_cache": False})
        asked.append((inputs, targets.to(model.device)))
    return asked


def loss(logits: Float[Tensor, "batch token vocab"], targets: Int[Tensor, " token"]) -> Float[Tensor, " batch"]:
    """Mean cross-entropy over the places that have a target, in nats; nan where none has."""
    asked = targets != IGNORED
    rows, wanted = logits[:, asked].flatten(0, 1), targets[asked].repeat(len(logits))
    return cross_entropy(rows.float(), wanted, reduction="none").unflatten(0, (len(logits), -1)).mean(-1)


def _check_head(model: Model) -> None:
    if model.net.get_output_embeddings() is None:
        raise TypeError(
            f"{model.name} ({type(model.net).__name__}) has no language-model head, so it has no loss in nats per "
            "token; patching_effects takes any metric of its logits"
        )


def _next_token(tokens: Tokens, named: Bool[Tensor, " token"]) -> tuple[Tokens, Int[Tensor, " token"]]:
    targets = tokens.ids.masked_fill(~named.to(tokens.ids.device), IGNORED).roll(-1)
    targets[-1] = IGNORED
    return tokens, targets


def _hidden(
    model: Model, tokens: Tokens, named: Bool[Tensor, " token"], generator: torch.Generator
) -> tuple[Tokens, Int[Tensor, " token"]]:
    """The text with some of the named tokens shown as [MASK]; at least one, if there is one, never a special one."""
    mask_id = getattr(model.tokenizer, "mask_token_id", None)
    plain = (~tokens.special).nonzero().flatten()
    if mask_id is None or len(plain) == 0:
        why = "its tokenizer has no mask token" if mask_id is None else f"all tokens of {tokens.text!r} are special"
        raise ValueError(f"{model.name} sees both sides, so its loss is that of hidden tokens; but {why}")
    plain = plain[named.to(plain.device)[plain]]
    chosen = plain[torch.randperm(len(plain), generator=generator)[: max(1, round(MASKED * len(plain)))]]
    ids, targets = tokens.ids.clone(), torch.full_like(tokens.ids, IGNORED)
    ids[chosen], targets[chosen] = mask_id, tokens.ids[chosen]
    return replace(tokens, ids=ids), targets
