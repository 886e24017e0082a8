"""Ablation: what a model loses, in nats per token, when heads say something that does not depend on the text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from atlaskit.models.intervene import all_z, mean_z
from atlaskit.models.loss import Where, loss, readable, tasks
from atlaskit.models.model import Model
from atlaskit.models.suffix import Blocks, each_head, find_blocks, loss_from, run
from atlaskit.models.tokenize import Text
from atlaskit.records import Head, Survey, Tokens

Ablation: TypeAlias = Literal["mean", "zero", "resample"]
POOL = 1024
"""Tokens whose z is kept to resample from."""
Instead: TypeAlias = Callable[[int], Float[Tensor, "layer head query d_value"]]
"""What stands in the place of every head's z in a text of so many tokens."""


def ablation_effects(
    model: Model,
    texts: Iterable[Text],
    *,
    kind: Ablation = "mean",
    reference: Float[Tensor, "layer head d_value"] | Iterable[Text] | None = None,
    where: Where | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Survey:
    """Score "effect": loss with one head ablated minus loss as is, in nats per token, per document, layer and head.

    "mean" puts the head's mean z over the tokens of the `reference` texts in its place (by default the same texts; or
    a tensor from `mean_z`), "resample" z of tokens drawn from them, whose expectation is that mean, and "zero" nothing
    (which no layer after it has ever seen). The loss is that of the next token or, for masked models, of 15 % of the
    tokens, drawn by `seed` and hidden. `where` keeps to the tokens that a head could help with: a cost on few of them
    drowns among the others. The layers before an ablated one are not run again. An interrupt (Ctrl-C) returns the
    documents that are done, with ``complete`` False.
    """
    documents = readable(model, texts, max_tokens)
    asked = tasks(model, documents, seed, where)
    blocks = find_blocks(model, documents[0])
    size = model.geometry
    done: list[Tensor] = []
    bar = tqdm(total=len(asked) * size.n_layer, unit=" layers", disable=not progress, delay=1, leave=False)
    complete = True
    try:
        instead = replacements(model, documents, kind, reference, seed)
        for inputs, targets in asked:
            effects = []
            for effect in _by_layer_effects(model, blocks, inputs, targets, instead):
                effects.append(effect)
                bar.update()
            done.append(torch.stack(effects).cpu())
    except KeyboardInterrupt:
        complete = False
        tqdm.write(f"interrupted: {len(done)} of {len(asked)} texts are done and kept")
    finally:
        bar.close()
    n_tokens = torch.tensor([len(tokens) for tokens in documents[: len(done)]], dtype=torch.long)
    effect = torch.stack(done) if done else torch.empty(0, size.n_layer, size.n_head)
    return Survey(model.name, {"effect": effect}, n_tokens, complete)


def layer_effects(
    model: Model, text: Text, *, kind: Ablation = "mean", seed: int = 0, max_tokens: int | None = None
) -> Iterator[Float[Tensor, " head"]]:
    """Of one text, what `ablation_effects` tells, a layer at a time: to be shown while it is found, or stopped."""
    documents = readable(model, [text], max_tokens)
    ((inputs, targets),) = tasks(model, documents, seed, None)
    instead = replacements(model, documents, kind, None, seed)
    yield from _by_layer_effects(model, find_blocks(model, documents[0]), inputs, targets, instead)


def ablation_effect(
    model: Model,
    texts: Iterable[Text],
    heads: Sequence[Head],
    *,
    kind: Ablation = "mean",
    reference: Float[Tensor, "layer head d_value"] | Iterable[Text] | None = None,
    where: Where | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Float[Tensor, " doc"]:
    """Loss with all of these heads ablated together minus loss as is, in nats per token; see `ablation_effects`."""
    silenced = _by_layer(model, heads)
    documents = readable(model, texts, max_tokens)
    asked = tasks(model, documents, seed, where)
    blocks = find_blocks(model, documents[0])
    instead = replacements(model, documents, kind, reference, seed)
    effects = []
    for inputs, targets in tqdm(asked, unit=" texts", disable=not progress, delay=1):
        before, replacement = run(model, blocks, inputs), instead(targets.shape[-1])

        def change(layer: int, z: Tensor, replacement: Tensor = replacement) -> Tensor:
            z = z.clone()
            z[:, silenced[layer]] = replacement[layer, silenced[layer]].to(z.dtype)
            return z

        first = min((layer for layer, own in enumerate(silenced) if own), default=0)
        lost = loss_from(model, blocks, before, targets, layer=first, copies=1, change=change)
        effects.append(lost - loss(before.logits, targets))
    return torch.cat(effects).cpu()


def _by_layer_effects(
    model: Model, blocks: Blocks, inputs: dict[str, Any], targets: Int[Tensor, " token"], instead: Instead
) -> Iterator[Float[Tensor, " head"]]:
    """Of one text, the loss without each head of a layer less the loss as is, layer after layer."""
    before = run(model, blocks, inputs)
    as_is, replacement = loss(before.logits, targets), instead(targets.shape[-1])
    for layer in range(model.geometry.n_layer):
        parts = each_head(before, layer=layer, instead=replacement[layer], logits=blocks.handed_on is None)
        lost = [
            loss_from(model, blocks, before, targets, layer=layer, copies=copies, change=change)
            for copies, change in parts
        ]
        yield torch.cat(lost) - as_is


def replacements(
    model: Model, documents: Sequence[Tokens], kind: Ablation, reference: Tensor | Iterable[Text] | None, seed: int
) -> Instead:
    """What is put in the place of z, as a function of the text's length."""
    size = model.geometry
    if kind == "zero":
        zero = torch.zeros(size.n_layer, size.n_head, 1, 1, device=model.device)
        return lambda n: zero.expand(-1, -1, n, size.d_head)
    if isinstance(reference, Tensor):
        if kind != "mean":
            raise TypeError(f"{kind!r} draws from texts: give reference as a list of texts, not as a tensor")
        means = reference.to(model.device)
        return lambda n: means[:, :, None].expand(-1, -1, n, -1)
    texts = documents if reference is None else readable(model, reference, None)
    if kind == "mean":
        means = mean_z(model, [tokens.ids.tolist() for tokens in texts])
        return lambda n: means[:, :, None].expand(-1, -1, n, -1)
    generator = torch.Generator().manual_seed(seed)
    pool = _pool(model, texts, generator)
    return lambda n: pool[:, :, torch.randint(pool.shape[2], (n,), generator=generator)]


def _pool(
    model: Model, texts: Sequence[Tokens], generator: torch.Generator
) -> Float[Tensor, "layer head token d_value"]:
    """z of tokens drawn from the texts, no more of them than POOL, each as likely as any other."""
    owner = torch.repeat_interleave(torch.tensor([len(tokens) for tokens in texts]))
    place = torch.cat([torch.arange(len(tokens)) for tokens in texts])
    drawn = torch.randperm(len(owner), generator=generator)[:POOL]
    parts = []
    for number in owner[drawn].unique().tolist():
        places = place[drawn][owner[drawn] == number].to(model.device)
        parts.append(torch.stack([z[0][:, places].float() for z in all_z(model, texts[number])]))
    return torch.cat(parts, dim=2)


def _by_layer(model: Model, heads: Sequence[Head]) -> list[list[int]]:
    """The heads of each layer."""
    check_heads(model, heads)
    return [sorted({head for at, head in heads if at == layer}) for layer in range(model.geometry.n_layer)]


def check_heads(model: Model, heads: Sequence[Head]) -> None:
    """Raise IndexError, with what there is, for a head that is not there, ValueError where there are none."""
    size = model.geometry
    for layer, head in heads:
        if not (0 <= layer < size.n_layer and 0 <= head < size.n_head):
            raise IndexError(
                f"{model.name} has no head {layer}.{head}; it has layers 0 to {size.n_layer - 1} and heads 0 to "
                f"{size.n_head - 1}"
            )
    if not heads:
        raise ValueError("there are no heads to ablate")
