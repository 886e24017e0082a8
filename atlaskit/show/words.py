"""Words of a tokenised text: the units in which two tokenizers, and two readers, can agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.records import Tokens

WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Units:
    """What one row or column of a picture stands for: unit i is tokens ``starts[i]`` up to ``starts[i + 1]``."""

    names: tuple[str, ...]
    starts: Int[Tensor, " knot"]
    special: Bool[Tensor, " token"]

    def __len__(self) -> int:
        return len(self.names)

    def slice(self, units: slice) -> slice:
        """The tokens of some units that lie side by side."""
        return slice(int(self.starts[units.start]), int(self.starts[units.stop]))


def by_token(tokens: Tokens) -> Units:
    """Each token by itself."""
    return Units(tokens.strings, torch.arange(len(tokens) + 1), tokens.special.cpu())


def by_word(tokens: Tokens) -> Units:
    """Tokens that lie in the same word, or punctuation mark, of the text together; special tokens by themselves."""
    word_at = {}
    for number, found in enumerate(WORD.finditer(tokens.text)):
        word_at.update(dict.fromkeys(range(*found.span()), number))
    starts, names, before = [0], [], None
    for i, ((start, end), special) in enumerate(zip(tokens.spans.tolist(), tokens.special.tolist(), strict=True)):
        inside = [word_at[c] for c in range(start, end) if c in word_at]
        word = inside[0] if inside and not special else None  # white space, as special tokens, stands alone
        if i and (word is None or word != before):
            starts.append(i)
        before = word
    starts.append(len(tokens))
    for low, high in pairwise(starts):
        names.append("".join(tokens.strings[low:high]))
    return Units(tuple(names), torch.tensor(starts), tokens.special.cpu()[torch.tensor(starts[:-1])])


def gathered(
    pattern: Float[Tensor, "head query key"], rows: Int[Tensor, " knot"], columns: Int[Tensor, " other"]
) -> Float[Tensor, "head row column"]:
    """Attention between units: the sum over a unit's keys, the mean over its queries, so that rows still sum to one."""
    summed = _sums(pattern, columns - columns[0], dim=2)
    return _sums(summed, rows - rows[0], dim=1) / rows.diff()[:, None].to(pattern.dtype)


def _sums(values: Float[Tensor, "*axes"], knots: Int[Tensor, " knot"], *, dim: int) -> Float[Tensor, "*other"]:
    if len(knots) - 1 == values.shape[dim]:
        return values
    unit = torch.repeat_interleave(torch.arange(len(knots) - 1), knots.diff())
    shape = list(values.shape)
    shape[dim] = len(knots) - 1
    return values.new_zeros(shape).index_add_(dim, unit, values)
