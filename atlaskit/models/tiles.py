"""Query rows of a layer, a few at a time: as many as memory bears, and no more than a processor's cache holds."""

from collections.abc import Iterator

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit.models.hook import Call
from atlaskit.models.report import Report

SHARE = 64
"""One part in this many of the machine's memory may hold a tile's pattern; what is made of it on the way takes several.

Of all its memory, not of what is free at the moment: a tile of another size sums in another order, and a survey that
was killed would go on in other last digits.
"""
CACHED = 4_000_000
"""Bytes that a processor's cache holds, so that ten scores read the pattern from there."""
SHARED = 16
"""Rows that should at least share the reading of all keys and values, which for long texts costs more than the rest."""


def tiles(call: Call | Report, n_pattern: int) -> Iterator[slice]:
    """Slices that cover a layer's query rows, of which `n_pattern` patterns are made at a time."""
    device = call.pattern.device if isinstance(call, Report) else call.q.device
    step = rows_at_a_time(4 * n_pattern * call.n_key, device)
    for start in range(0, call.n_query, step):
        yield slice(start, min(start + step, call.n_query))


def written_by(call: Call, n_head: int) -> Float[Tensor, "batch query head d_value"] | None:
    """What a layer's heads write, its query rows in tiles, since its pattern may be large."""
    output: Tensor | None = None
    for rows in tiles(call, len(call.q) * n_head):
        output = written(output, call.attend(rows).output, rows, call.n_query)
    return output


def written(
    output: Float[Tensor, "batch _ head d_value"] | None,
    part: Float[Tensor, "batch query head d_value"],
    rows: slice,
    n_query: int,
) -> Float[Tensor, "batch _ head d_value"]:
    """The output of all rows with that of some written into it; made at the first.

    Kept apart until the last, the parts would lie between the tiles in memory, where a causal head's next, larger tile
    fits into no hole that an earlier one left: the peak would grow with the square of the length.
    """
    if output is None:
        output = part.new_empty(part.shape[0], n_query, *part.shape[2:])
    output[:, rows] = part
    return output


def rows_at_a_time(row: int, device: torch.device) -> int:
    """How many rows of so many bytes make a tile."""
    if device.type == "cuda":
        return max(1, torch.cuda.mem_get_info(device)[1] // SHARE // row)
    return max(1, min(max(CACHED, SHARED * row), psutil.virtual_memory().total // SHARE) // row)
