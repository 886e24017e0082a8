"""Heads broken two at a time: does the model miss both more than it misses each?"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from atlaskit.models.ablation import Ablation, check_heads, replacements
from atlaskit.models.intervene import Change
from atlaskit.models.loss import loss, readable, tasks
from atlaskit.models.model import Model
from atlaskit.models.suffix import copies_at_once, find_blocks, loss_from, run
from atlaskit.models.tokenize import Text
from atlaskit.records import Head

Pair = tuple[Head, Head]


def pair_ablation_effects(
    model: Model,
    texts: Iterable[Text],
    pairs: Sequence[Pair],
    *,
    kind: Ablation = "mean",
    reference: Float[Tensor, "layer head d_value"] | Iterable[Text] | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Float[Tensor, "doc pair"]:
    """Loss with both heads of each pair ablated together minus loss as is, in nats per token.

    What is put in their place is what `ablation_effects` puts there, given the same `kind`, `reference` and `seed`, so
    that what the pair costs beyond its two heads is a difference of the two. ("resample" draws anew for each.)
    """
    check_heads(model, [head for pair in pairs for head in pair])
    documents = readable(model, texts, max_tokens)
    asked = tasks(model, documents, seed)
    blocks = find_blocks(model, documents[0])
    instead = replacements(model, documents, kind, reference, seed)
    groups: dict[int, list[int]] = {}
    for place, (first, second) in enumerate(pairs):
        groups.setdefault(min(first[0], second[0]), []).append(place)
    effects = torch.empty(len(asked), len(pairs))
    for doc, (inputs, targets) in enumerate(tqdm(asked, unit=" texts", disable=not progress, delay=1, leave=False)):
        before, replacement = run(model, blocks, inputs), instead(targets.shape[-1])
        as_is = loss(before.logits, targets)
        for layer, places in groups.items():
            chosen = [pairs[place] for place in places]
            step = copies_at_once(before, layer, logits=blocks.handed_on is None)
            lost = [
                loss_from(model, blocks, before, targets, layer=layer, copies=copies, change=change)
                for copies, change in _each_pair(chosen, replacement, step)
            ]
            effects[doc, places] = (torch.cat(lost) - as_is).cpu()
    return effects


def _each_pair(
    pairs: Sequence[Pair], instead: Float[Tensor, "layer head query d_value"], step: int
) -> Iterator[tuple[int, Change]]:
    """So many pairs at once: how many, and the change that puts each aside in a copy of its own."""
    for start in range(0, len(pairs), step):
        some = pairs[start : start + step]

        def change(at: int, z: Tensor, some: Sequence[Pair] = some) -> Tensor:
            silenced = [(copy, head) for copy, pair in enumerate(some) for where, head in pair if where == at]
            if not silenced:
                return z
            copies, heads = torch.tensor(silenced, device=z.device).T
            z = z.clone()
            z[copies, heads] = instead[at, heads].to(z.dtype)
            return z

        yield len(some), change
