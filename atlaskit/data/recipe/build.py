"""From packages to trained weights in the work folder; every stage can be killed and started again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from atlaskit.training import Curve, causal_batch, masked_batch, train, windows
from atlaskit.training.batches import Batch

from . import packages
from .corpus import stream, texts_of
from .plans import CONTEXT, MASK_RATE, RANDOM_ROWS, ROWS, SEED, SHORT_STEPS, VOCABULARY, Recipe
from .rows import decoder_rows, encoder_rows
from .vocabulary import byte_pairs, word_pieces


@dataclass(frozen=True, eq=False)
class Corpus:
    """One tokenizer and the three parts of the text in its ids."""

    tokenizer: PreTrainedTokenizerFast
    train: Int[Tensor, " train_token"]
    validation: Int[Tensor, " validation_token"]
    test: Int[Tensor, " test_token"]


def corpus(texts: dict[str, list[str]], kind: str, work: Path) -> Corpus:
    """All parts of the text in the ids of the tokenizer for a kind of model, which is trained once and kept in `work`.

    Kept, because the WordPiece trainer numbers single letters in an order that changes from run to run: a training that
    goes on after a kill, or is installed later, must find the ids it began with.
    """
    folder = work / f"tokenizer-{kind}"
    if not folder.exists():
        make = byte_pairs if kind == "decoder" else word_pieces
        make(texts["train"], size=VOCABULARY[kind], context=CONTEXT).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    end = tokenizer.eos_token_id if kind == "decoder" else tokenizer.sep_token_id
    return Corpus(tokenizer, **{part: stream(texts[part], tokenizer, end=end) for part in texts})


def texts(work: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The texts of each part, and the versions of the packages they come from."""
    versions = packages.fetch(work)
    found = packages.documents(work)
    return {part: texts_of(found, part) for part in ("train", "validation", "test")}, versions


def batches(recipe: Recipe, text: Corpus) -> Callable[[int], Batch]:
    """The batch of a step: a function of the seed and the step alone."""
    tokenizer = text.tokenizer
    plain_ids = torch.nonzero(~special(tokenizer)).squeeze(-1)

    def decoder(step: int) -> Batch:
        rows, skip = decoder_rows(
            text.train, plain_ids, rows=ROWS, random_rows=RANDOM_ROWS, length=CONTEXT, generator=_generator(step)
        )
        return causal_batch(rows, skip=skip)

    def encoder(step: int) -> Batch:
        generator = _generator(step)
        length = encoder_length(step)
        ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        rows = encoder_rows(text.train, rows=ROWS * CONTEXT // length, length=length, ends=ends, generator=generator)
        batch = masked(rows, tokenizer, generator=generator)
        # Short rows lie anywhere in the context, so that every place is trained.
        start = torch.randint(CONTEXT - length + 1, (len(rows), 1), generator=generator)
        return batch | {"position_ids": start + torch.arange(length)}

    return decoder if recipe.kind == "decoder" else encoder


def encoder_length(step: int) -> int:
    """The length of an encoder's rows at a step: short at first, later also long.

    A hidden token tells little until some head looks at its neighbours, and these are easier to find among 16 keys than
    among 256 (short rows first: Press et al. 2021). Short rows stay, or the encoder would be lost on a sentence.
    """
    lengths = (CONTEXT // 16,) if step < SHORT_STEPS else (CONTEXT, CONTEXT // 4, CONTEXT // 16)
    return lengths[step % len(lengths)]


def held_out(recipe: Recipe, text: Corpus, *, n: int) -> list[Batch]:
    """`n` batches of natural validation text, the same at every call, to watch the training by."""
    generator = _generator(-1)
    found = []
    for _ in range(n):
        rows = windows(text.validation, rows=ROWS, length=_inner(recipe), generator=generator)
        found.append(_whole(recipe, rows, text.tokenizer, generator=generator)[0])
    return found


def test_batches(recipe: Recipe, text: Corpus) -> tuple[list[Batch], list[Int[Tensor, "row length"]]]:
    """About 200 rows from all over the test text, as batches; and the rows before any token was hidden."""
    inner = _inner(recipe)
    rows = text.test[: len(text.test) // inner * inner].view(-1, inner)
    rows = rows[:: max(1, len(rows) // 200)]
    pairs = [
        _whole(recipe, part, text.tokenizer, generator=_generator(-2 - i)) for i, part in enumerate(rows.split(32))
    ]
    return [batch for batch, _ in pairs], [whole for _, whole in pairs]


def _inner(recipe: Recipe) -> int:
    return CONTEXT if recipe.kind == "decoder" else CONTEXT - 2  # room for [CLS] and [SEP]


def _whole(
    recipe: Recipe, rows: Int[Tensor, "row inner"], tokenizer: PreTrainedTokenizerFast, *, generator: torch.Generator
) -> tuple[Batch, Int[Tensor, "row length"]]:
    if recipe.kind == "decoder":
        return causal_batch(rows), rows
    first, last = (torch.full((len(rows), 1), i) for i in (tokenizer.cls_token_id, tokenizer.sep_token_id))
    whole = torch.cat([first, rows, last], dim=1)
    return masked(whole, tokenizer, generator=generator), whole


def masked(rows: Int[Tensor, "row length"], tokenizer: PreTrainedTokenizerFast, *, generator: torch.Generator) -> Batch:
    """Rows with the recipe's share of tokens hidden."""
    return masked_batch(
        rows, special=special(tokenizer), mask_id=tokenizer.mask_token_id, rate=MASK_RATE, generator=generator
    )


def special(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Which ids of the vocabulary are special tokens."""
    marks = torch.zeros(len(tokenizer), dtype=torch.bool)
    marks[tokenizer.all_special_ids] = True
    return marks


def fit(recipe: Recipe, text: Corpus, work: Path, *, compiled: bool) -> tuple[PreTrainedModel, Curve]:
    """The trained model and its curve; goes on from the last checkpoint below `work`."""
    model = recipe.build()
    if compiled:
        model.compile(dynamic=False)  # in place, so the names of the weights stay
    curve = train(
        model,
        batches(recipe, text),
        recipe.plan,
        seed=SEED,
        folder=work / "runs" / recipe.name,
        held_out=held_out(recipe, text, n=8),
    )
    return model, curve


def _generator(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(SEED * 1_000_003 + step)
