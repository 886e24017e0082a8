"""Selectors: the cells that a hypothesis names, for all queries of a text or for the rows asked for."""

import unicodedata
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.measure.pattern import mass
from atlaskit.records import Score, Tokens

Selector: TypeAlias = Callable[[Tokens, Int[Tensor, " query"] | None], Bool[Tensor, "query key"]]
"""Anything with the signature of `previous_token`; give one to `mass_on` and survey with it."""


def previous_token(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """The key one position before the query."""
    return _lag(tokens, queries) == 1


def next_token(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """The key one position after the query; out of reach for a causal head."""
    return _lag(tokens, queries) == -1


def own_token(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """The query's own position."""
    return _lag(tokens, queries) == 0


def first_token(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """The first key of the text, where attention sinks live (Xiao et al. 2023)."""
    return _only_keys(torch.arange(len(tokens), device=tokens.ids.device) == 0, tokens, queries)


def same_token(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """Other positions that hold the query's own token (duplicate-token heads, Wang et al. 2022)."""
    rows = _rows(tokens, queries)
    return (tokens.ids[rows][:, None] == tokens.ids) & (_lag(tokens, queries) != 0)


def induction(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """The token after an earlier occurrence of the query's token: [A][B] … [A] → [B] (Olsson et al. 2022)."""
    after = torch.nn.functional.pad(
        tokens.ids[:-1], (1, 0), value=-1
    )  # what stands before each key; nothing before the first
    rows = _rows(tokens, queries)
    return (tokens.ids[rows][:, None] == after) & (_lag(tokens, queries) > 0)


def foretold(tokens: Tokens) -> Bool[Tensor, " key"]:
    """Tokens that a perfect induction head could tell: they came before, after the same token: [A][B] … [A] → [B].

    On `random_repeats` these are the second saying but its first token. Loss on them is what induction is good for.
    """
    told = (induction(tokens) & (tokens.ids.roll(-1)[:, None] == tokens.ids)).any(-1)
    return torch.nn.functional.pad(told[:-1], (1, 0))


def special(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """Keys that the tokenizer added or reserves, such as [CLS], [SEP] and <s>."""
    return _only_keys(tokens.special, tokens, queries)


def punctuation(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """Keys whose text is punctuation alone (Unicode category P)."""
    texts = [tokens.text[start:end].strip() for start, end in tokens.spans.tolist()]
    only = [bool(text) and all(unicodedata.category(c).startswith("P") for c in text) for text in texts]
    return _only_keys(torch.tensor(only, dtype=torch.bool, device=tokens.ids.device) & ~tokens.special, tokens, queries)


def keys(mask: Bool[Tensor, " key"]) -> Selector:
    """A selector of any fixed set of keys, the same for every query."""

    def select(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
        if len(mask) != len(tokens):
            raise ValueError(
                f"the key mask has {len(mask)} entries and the text {len(tokens)} tokens; make one per text"
            )
        return _only_keys(mask.to(tokens.ids.device), tokens, queries)

    return select


def pairs(cells: Iterable[tuple[int, int]]) -> Selector:
    """A selector of any list of (query, key) positions, such as syntactic dependencies."""
    wanted = torch.tensor(list(cells), dtype=torch.long).reshape(-1, 2)

    def select(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
        n = len(tokens)
        if bool(((wanted < 0) | (wanted >= n)).any()):
            raise ValueError(
                f"token pairs reach from {int(wanted.min())} to {int(wanted.max())}; the text has tokens 0 to {n - 1}"
            )
        rows = _rows(tokens, queries)
        # a table of rows instead of all n × n cells: a tile of a long text asks for few of them
        place = torch.full((n,), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        chosen = wanted.to(rows.device)
        chosen = chosen[place[chosen[:, 0]] >= 0]
        picked = torch.zeros(len(rows), n, dtype=torch.bool, device=rows.device)
        picked[place[chosen[:, 0]], chosen[:, 1]] = True
        return picked

    return select


def mass_on(selector: Selector) -> Score:
    """The score that surveys the mass on `selector`: ``survey(model, texts, {"sink": mass_on(first_token)})``."""

    def score(
        pattern: Float[Tensor, "head query key"],
        support: Bool[Tensor, "query key"],
        tokens: Tokens,
        queries: Int[Tensor, " query"],
    ) -> Float[Tensor, "head query"]:
        return mass(pattern, support, selector(tokens, queries))

    return score


def _rows(tokens: Tokens, queries: Int[Tensor, " query"] | None) -> Int[Tensor, " query"]:
    return torch.arange(len(tokens), device=tokens.ids.device) if queries is None else queries


def _lag(tokens: Tokens, queries: Int[Tensor, " query"] | None) -> Int[Tensor, "query key"]:
    return _rows(tokens, queries)[:, None] - torch.arange(len(tokens), device=tokens.ids.device)


def _only_keys(
    mask: Bool[Tensor, " key"], tokens: Tokens, queries: Int[Tensor, " query"] | None
) -> Bool[Tensor, "query key"]:
    return mask.expand(len(_rows(tokens, queries)), -1)
