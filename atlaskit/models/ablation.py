"""Ablation: what a model loses, in nats per token, when heads say something that does not depend on the text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from atlaskit.models.documents import tokenized
from atlaskit.models.intervene import all_z, check_changeable, mean_z
from atlaskit.models.model import Model
from atlaskit.models.proof import accepted
from atlaskit.models.suffix import Blocks, each_head, find_blocks, run, run_from
from atlaskit.models.tokenize import Text
from atlaskit.records import Head, Survey, Tokens

Ablation: TypeAlias = Literal["mean", "zero", "resample"]
MASKED = 0.15
"""Share of the tokens that a masked model has to guess (Devlin et al. 2019)."""
POOL = 1024
"""Tokens whose z is kept to resample from."""
IGNORED = -100
"""The target of a place where nothing is asked."""

Instead: TypeAlias = Callable[[int], Float[Tensor, "layer head query d_value"]]
"""What stands in the place of every head's z in a text of so many tokens."""


def ablation_effects(
    model: Model,
    texts: Iterable[Text],
    *,
    kind: Ablation = "mean",
    reference: Float[Tensor, "layer head d_value"] | Iterable[Text] | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Survey:
    """Score "effect": loss with one head ablated minus loss as is, in nats per token, per document, layer and head.

    "mean" puts the head's mean z over the tokens of the `reference` texts in its place (by default the same texts; or
    a tensor from `mean_z`), "resample" z of tokens drawn from them, whose expectation is that mean, and "zero" nothing
    (which no layer after it has ever seen). The loss is that of the next token or, for masked models, of 15 % of the
    tokens, drawn by `seed` and hidden. The layers before an ablated one are not run again. An interrupt (Ctrl-C)
    returns the documents that are done, with ``complete`` False.
    """
    documents = _tokens(model, texts, max_tokens)
    tasks = _tasks(model, documents, seed)
    blocks = find_blocks(model, documents[0])
    size = model.geometry
    done: list[Tensor] = []
    bar = tqdm(total=len(tasks) * size.n_layer, unit=" layers", disable=not progress, delay=1, leave=False)
    complete = True
    try:
        instead = _instead(model, documents, kind, reference, seed)
        for inputs, targets in tasks:
            before = run(model, blocks, inputs)
            loss, replacement = _loss(before.logits, targets), instead(targets.shape[-1])
            effects = []
            for layer in range(size.n_layer):
                parts = each_head(model, blocks, before, layer=layer, instead=replacement[layer])
                effects.append(torch.cat([_loss(logits, targets) for logits in parts]) - loss)
                bar.update()
            done.append(torch.stack(effects).cpu())
    except KeyboardInterrupt:
        complete = False
        tqdm.write(f"interrupted: {len(done)} of {len(tasks)} texts are done and kept")
    finally:
        bar.close()
    n_tokens = torch.tensor([len(tokens) for tokens in documents[: len(done)]], dtype=torch.long)
    effect = torch.stack(done) if done else torch.empty(0, size.n_layer, size.n_head)
    return Survey(model.name, {"effect": effect}, n_tokens, complete)


def ablation_effect(
    model: Model,
    texts: Iterable[Text],
    heads: Sequence[Head],
    *,
    kind: Ablation = "mean",
    reference: Float[Tensor, "layer head d_value"] | Iterable[Text] | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Float[Tensor, " doc"]:
    """Loss with all of these heads ablated together minus loss as is, in nats per token; see `ablation_effects`."""
    silenced = _by_layer(model, heads)
    documents = _tokens(model, texts, max_tokens)
    tasks = _tasks(model, documents, seed)
    blocks = find_blocks(model, documents[0])
    instead = _instead(model, documents, kind, reference, seed)
    effects = []
    for inputs, targets in tqdm(tasks, unit=" texts", disable=not progress, delay=1):
        before, replacement = run(model, blocks, inputs), instead(targets.shape[-1])

        def change(layer: int, z: Tensor, replacement: Tensor = replacement) -> Tensor:
            z = z.clone()
            z[:, silenced[layer]] = replacement[layer, silenced[layer]].to(z.dtype)
            return z

        first = min((layer for layer, own in enumerate(silenced) if own), default=0)
        logits = run_from(model, blocks, before, layer=first, copies=1, change=change)
        effects.append(_loss(logits, targets) - _loss(before.logits, targets))
    return torch.cat(effects).cpu()


def losses(
    model: Model, texts: Iterable[Text], *, seed: int = 0, max_tokens: int | None = None
) -> Float[Tensor, " doc"]:
    """Loss of each text as it is, in nats per token: what the effects of ablation are added to."""
    documents = _tokens(model, texts, max_tokens)
    whole = Blocks((), ())
    return torch.cat([_loss(run(model, whole, one).logits, told) for one, told in _tasks(model, documents, seed)]).cpu()


def _tokens(model: Model, texts: Iterable[Text], max_tokens: int | None) -> list[Tokens]:
    check_changeable(model)  # an encoder–decoder would ask for a second text first
    return [tokens for tokens, _ in tokenized(model, texts, max_tokens)]


def _tasks(model: Model, documents: Sequence[Tokens], seed: int) -> list[tuple[dict[str, Any], Int[Tensor, " token"]]]:
    """For each document what the net takes and, place by place, what it has to say; -100 where nothing is asked."""
    if model.net.get_output_embeddings() is None:
        raise TypeError(
            f"{model.name} ({type(model.net).__name__}) has no language-model head, so it has no loss in nats per "
            "token; patching_effects takes any metric of its logits"
        )
    generator = torch.Generator().manual_seed(seed)
    tasks = []
    for tokens in documents:
        shown, targets = _next_token(tokens) if model.geometry.causal else _hidden(model, tokens, generator)
        inputs = accepted(model.net, model.inputs(shown, shown) | {"use_cache": False})
        tasks.append((inputs, targets.to(model.device)))
    return tasks


def _next_token(tokens: Tokens) -> tuple[Tokens, Int[Tensor, " token"]]:
    targets = tokens.ids.roll(-1)
    targets[-1] = IGNORED
    return tokens, targets


def _hidden(model: Model, tokens: Tokens, generator: torch.Generator) -> tuple[Tokens, Int[Tensor, " token"]]:
    """The text with some of its tokens shown as [MASK]; at least one, never a special one."""
    mask_id = getattr(model.tokenizer, "mask_token_id", None)
    plain = (~tokens.special).nonzero().flatten()
    if mask_id is None or len(plain) == 0:
        why = "its tokenizer has no mask token" if mask_id is None else f"all tokens of {tokens.text!r} are special"
        raise ValueError(f"{model.name} sees both sides, so its loss is that of hidden tokens; but {why}")
    chosen = plain[torch.randperm(len(plain), generator=generator)[: max(1, round(MASKED * len(plain)))]]
    ids, targets = tokens.ids.clone(), torch.full_like(tokens.ids, IGNORED)
    ids[chosen], targets[chosen] = mask_id, tokens.ids[chosen]
    return replace(tokens, ids=ids), targets


def _loss(logits: Float[Tensor, "batch token vocab"], targets: Int[Tensor, " token"]) -> Float[Tensor, " batch"]:
    """Mean cross-entropy over the places that have a target, in nats."""
    asked = targets != IGNORED
    wanted = targets[asked].expand(len(logits), -1)
    return cross_entropy(logits[:, asked].float().transpose(1, 2), wanted, reduction="none").mean(-1)


def _instead(
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
    texts = documents if reference is None else _tokens(model, reference, None)
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
    """The heads of each layer. Raises IndexError, with what there is, for one that is not there."""
    size = model.geometry
    for layer, head in heads:
        if not (0 <= layer < size.n_layer and 0 <= head < size.n_head):
            raise IndexError(
                f"{model.name} has no head {layer}.{head}; it has layers 0 to {size.n_layer - 1} and heads 0 to "
                f"{size.n_head - 1}"
            )
    if not heads:
        raise ValueError("there are no heads to ablate")
    return [sorted({head for at, head in heads if at == layer}) for layer in range(size.n_layer)]
