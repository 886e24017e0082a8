"""Text to Tokens: ids, what each stands for, and where in the text it came from."""

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import torch
from transformers import PreTrainedTokenizerBase

from atlaskit.records import Tokens

Text: TypeAlias = str | Sequence[int]
"""A text, or the token ids of one."""


def tokenize(
    tokenizer: PreTrainedTokenizerBase | None, text: Text, *, context: int | None = None, max_tokens: int | None = None
) -> Tokens:
    """Tokens of `text`, at most `max_tokens`; what a model's `context` cannot hold is cut with a warning.

    Raises ValueError for a text that is empty or one token long: attention has nothing to choose from there.
    """
    if isinstance(text, str) and not text.strip():
        raise ValueError("the text is empty; give at least two tokens' worth of it")
    tokens = _from_text(tokenizer, text) if isinstance(text, str) else _from_ids(tokenizer, text)
    n = len(tokens)
    if n < 2:
        raise ValueError(f"the text is {n} token long ({tokens.text!r}); attention needs at least two to choose from")
    keep = min(n, max_tokens or n, context or n)
    if keep < 2:
        raise ValueError(f"max_tokens is {max_tokens}; keep at least two tokens")
    if keep < min(n, max_tokens or n):  # asked-for cuts are no news, the model's own are
        rest = tokens.text[int(tokens.spans[keep, 0]) :][:40]
        warnings.warn(
            f"the text has {n} tokens and the model reads {context}: the last {n - keep} were cut, from {rest!r} on",
            stacklevel=3,
        )
    return Tokens(tokens.text, tokens.ids[:keep], tokens.strings[:keep], tokens.spans[:keep], tokens.special[:keep])


def _from_text(tokenizer: PreTrainedTokenizerBase | None, text: str) -> Tokens:
    if tokenizer is None:
        raise ValueError("this model came without a tokenizer; give token ids instead of text")
    if not tokenizer.is_fast:
        # no character offsets: read the ids back instead, so that spans lie in the text as the tokenizer sees it
        return _from_ids(tokenizer, tokenizer(text, verbose=False)["input_ids"])
    try:
        coded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    except Exception as error:  # tokenizers raises nothing narrower, for a word where there is no unknown token
        raise ValueError(f"the tokenizer cannot read {text[:40]!r}: {error}") from error
    ids, spans = coded["input_ids"], coded["offset_mapping"]
    added = coded["special_tokens_mask"]
    names = tokenizer.convert_ids_to_tokens(ids)
    reserved = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}  # an unknown word is text all the same
    special = [bool(flag) or token in reserved for flag, token in zip(added, ids, strict=True)]
    strings = tuple(
        name
        if is_special or name == tokenizer.unk_token
        else text[start:end] or str(tokenizer.decode([token])) or name  # a blank alone has no span, and is no "Ġ"
        for name, is_special, token, (start, end) in zip(names, special, ids, spans, strict=True)
    )
    return Tokens(
        text,
        torch.tensor(ids, dtype=torch.long),
        strings,
        torch.tensor(spans, dtype=torch.long).reshape(-1, 2),
        torch.tensor(special, dtype=torch.bool),
    )


def _from_ids(tokenizer: PreTrainedTokenizerBase | None, ids: Sequence[int]) -> Tokens:
    """Tokens of bare ids: the text is what the pieces spell when set one after the other."""
    if len(ids) == 0:
        raise ValueError("there are no token ids; give at least two")
    strings = tuple(str(i) if tokenizer is None else str(tokenizer.decode([i])) for i in ids)
    ends = torch.tensor([len(s) for s in strings]).cumsum(0)
    spans = torch.stack([ends - torch.tensor([len(s) for s in strings]), ends], dim=-1)
    reserved = set() if tokenizer is None else set(tokenizer.all_special_ids)
    special = torch.tensor([i in reserved for i in ids])
    return Tokens("".join(strings), torch.tensor(list(ids)), strings, spans, special)
