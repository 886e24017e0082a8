"""Attention between words, so that models with different tokenizers can be compared on the same text."""

import re

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.records import Tokens


def place_of(tokens: Tokens) -> Int[Tensor, " key"]:
    """Which word each token lies in, counted from zero; words stand between white space.

    So a token hardly ever holds two of them, as it may where punctuation is a word of its own (`measure.word_of`). -1
    for what lies in none: tokens that the tokenizer added, white space, and a word that the model's context cut in two.
    """
    owner = torch.full((len(tokens.text) + 1,), -1)
    for i, match in enumerate(re.finditer(r"\S+", tokens.text)):
        owner[slice(*match.span())] = i
    spans = tokens.spans.tolist()
    starts = [start + len(tokens.text[start:end]) - len(tokens.text[start:end].lstrip()) for start, end in spans]
    read = max((end for _, end in spans), default=0)
    found = owner[torch.tensor(starts)]
    return torch.where(tokens.special | (found == owner[read]) & (read < len(tokens.text)), -1, found)


def by_words(
    pattern: Float[Tensor, "head query key"],
    support: Bool[Tensor, "query key"],
    word: Int[Tensor, " key"],
    *,
    kept: Int[Tensor, " word"],
) -> tuple[Float[Tensor, "head word word"], Bool[Tensor, "word word"], Float[Tensor, " head"]]:
    """A pattern between the words `kept`, its support, and the share of attention that lay between them.

    Each query token's weight on a word is the mean over the tokens of it that it may see, scaled to one over the words;
    a word's row is the mean over its tokens. So attention that depends on words alone comes out the same however they
    are cut, with or without further tokens beside them, and the ignorant head stays ignorant. (Sums over a word's
    tokens, as in Clark et al. 2019, favour words that a tokenizer cuts into many.)
    """
    member = (word[:, None] == kept).to(pattern)
    allowed = support.to(pattern) @ member
    queries = (member.sum(1) > 0) & (allowed.sum(1) > 0)
    total = pattern @ member
    weight = torch.where(allowed > 0, total / allowed, 0)
    rows = (weight / weight.sum(-1, keepdim=True))[:, queries]
    mean = member[queries].T / member[queries].sum(0)[:, None]
    return mean @ rows, (mean @ allowed[queries]) > 0, total.sum(-1)[:, queries].mean(-1)
