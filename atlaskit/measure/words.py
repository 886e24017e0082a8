"""Words meet tokens: who owns which token, attention between words, and selectors of words of a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import SequenceMatcher

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.measure.selectors import Selector
from atlaskit.records import Tokens, Words


def word_of(tokens: Tokens, words: Words) -> Int[Tensor, " key"]:
    """The word that owns each token: that with most of its characters, the first of equals; -1 for none.

    A word may own many tokens, or none where a token holds two words. Special tokens and blanks are nobody's.
    """
    if tokens.text != words.text:
        place = next((i for i, (a, b) in enumerate(zip(tokens.text, words.text, strict=False)) if a != b), None)
        where = f"from character {place}" if place is not None else "in length"
        raise ValueError(f"tokens and words are of two texts: they differ {where}. Tokenise words.text")
    # the tokenizer may cut a long text; its tokens still lie in the same text
    start = torch.maximum(tokens.spans[:, None, 0], words.spans[:, 0])
    end = torch.minimum(tokens.spans[:, None, 1], words.spans[:, 1])
    shared = (end - start).clamp_min(0).masked_fill(tokens.special[:, None], 0)
    if len(words) == 0:
        return torch.full((len(tokens),), -1)
    # of equal overlaps the first: argmax alone would take any
    return torch.where(shared.amax(-1) > 0, (shared == shared.amax(-1, keepdim=True)).int().argmax(-1), -1)


def by_word(
    pattern: Float[Tensor, "head key key"], owner: Int[Tensor, " key"], *, n_words: int
) -> Float[Tensor, "head word word"]:
    """Attention between words: to a word the sum over its tokens, from a word their mean (Clark et al. 2019).

    What goes to tokens that no word owns is missing from a row. The row of a word without tokens is nan.
    """
    owns = (owner[:, None] == torch.arange(n_words, device=owner.device)).float()
    return (owns / owns.sum(0)).T @ (pattern.float() @ owns)


def words_where(annotated: Iterable[Words], wanted: Callable[[Words], Bool[Tensor, " word"]]) -> Selector:
    """A selector of the tokens of some words, for these texts: ``words_where(gold, lambda w: has_upos(w, ["DET"]))``.

    Raises KeyError for a text that nobody annotated.
    """
    chosen = {one.text: (one, wanted(one)) for one in annotated}

    def select(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
        if tokens.text not in chosen:
            raise KeyError(f"nobody annotated the text {tokens.text[:40]!r}; there are {len(chosen)} annotated texts")
        words, mask = chosen[tokens.text]
        owner = word_of(tokens, words)
        found = (owner >= 0) & mask[owner.clamp_min(0)]
        return found.expand(len(tokens) if queries is None else len(queries), -1)

    return select


def has_upos(words: Words, tags: Iterable[str]) -> Bool[Tensor, " word"]:
    """Which words have one of these part-of-speech tags."""
    wanted = set(tags)
    return torch.tensor([tag in wanted for tag in words.upos], dtype=torch.bool)


def has_entity(words: Words) -> Bool[Tensor, " word"]:
    """Which words are part of a name."""
    return torch.tensor([bool(kind) for kind in words.entity], dtype=torch.bool)


def aligned_words(words: Words, other: Words) -> Int[Tensor, "pair 2"]:
    """Places of the words that two texts share, in order: the longest common runs first (Ratcliff & Obershelp 1988)."""
    blocks = SequenceMatcher(None, words.strings, other.strings, autojunk=False).get_matching_blocks()
    shared = [(a + i, b + i) for a, b, size in blocks for i in range(size)]
    return torch.tensor(shared, dtype=torch.long).reshape(-1, 2)
